//! The networks of the tasks: one U-Net, as a bridge's denoiser on latents or as a regression on sinograms.

use crate::error::{Error, Result};
use allpet_core::Prompt;
use allpet_diffusion::Conditioning;
use allpet_foundation::{ModelConfig, POSITION, PromptEncoder, PromptTable, UNet, position};
use allpet_nn::{Params, concat_channels, depth_to_space, space_to_depth};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How an input is restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A diffusion bridge from the input's latent to the target's.
    #[default]
    Bridge,
    /// A residual U-Net from sinogram to sinogram (L1), the baseline.
    Regression,
}

impl Method {
    /// The word used in files.
    pub fn id(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Regression => "regression",
        }
    }
}

/// Prompt table and U-Net. Both methods have the same layers but for the channels that enter and leave.
#[derive(Debug, Clone)]
pub struct TaskNetwork {
    prompts: PromptTable,
    unet: UNet,
    method: Method,
    factor: usize,
}

impl TaskNetwork {
    /// Builds both from `params`.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(params: &Params, config: &ModelConfig, method: Method) -> Result<Self> {
        let (latent, factor) = (config.autoencoder.latent, config.autoencoder.factor());
        let block = factor * factor;
        // Latent, mask, position, the order of the foundation's own inputs; then the terminal state and the input's blocks.
        let (inputs, outputs) = match method {
            Method::Bridge => (2 * latent + 1 + POSITION + block, latent),
            Method::Regression => (2 * block + POSITION, block),
        };
        Ok(Self {
            prompts: PromptTable::new(&params.sub("prompts"), config.denoiser.embedding)?,
            unet: UNet::between(&params.sub("unet"), &config.denoiser, inputs, outputs)?,
            method,
            factor,
        })
    }

    /// The same network, whose U-Net computes its stages again on the way back ([`UNet::recomputing`]).
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.unet = self.unet.recomputing(recompute);
        self
    }

    /// What a bridge's network is told: prompts; mask and attention brought to latent resolution, and the coded input as
    /// blocks (2 + f² channels); all three are `[B, 1, V, R]`.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn condition(
        &self,
        prompts: &[Prompt],
        mask: &Tensor,
        attention: &Tensor,
        input: &Tensor,
    ) -> Result<Conditioning> {
        let both = concat_channels(
            &mask.avg_pool2d(self.factor)?,
            &attention.avg_pool2d(self.factor)?,
        )?;
        Ok(Conditioning {
            spatial: Some(concat_channels(&both, &space_to_depth(input, self.factor)?)?),
            ..self.prompts.encode(prompts)?
        })
    }

    /// The bridge's network: input `[B, C, H, W]` and noise level `[B]`, with terminal state, mask and attention in the
    /// conditioning.
    ///
    /// # Errors
    /// A conditioning without these; shapes that do not fit.
    pub fn bridge(&self, x: &Tensor, level: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let absent = |what: &str| Error::Invalid {
            what: "conditioning".into(),
            faults: vec![format!("it holds no {what}")],
        };
        let terminal = conditioning
            .terminal
            .as_ref()
            .ok_or_else(|| absent("terminal state"))?;
        let spatial = conditioning
            .spatial
            .as_ref()
            .ok_or_else(|| absent("mask and attention"))?;
        let mask = spatial.narrow(1, 0, 1)?.contiguous()?;
        let attention = spatial.narrow(1, 1, 1)?.contiguous()?;
        let inputs = concat_channels(&concat_channels(x, &mask)?, &position(x)?)?;
        let blocks = spatial.narrow(1, 2, self.factor * self.factor)?.contiguous()?;
        let inputs = concat_channels(&concat_channels(&inputs, terminal)?, &blocks)?;
        let embedding = self.unet.embedding(level, conditioning)?;
        Ok(self.unet.body(&inputs, &embedding, Some(&attention))?)
    }

    /// The regression: coded first estimates and inputs `[B, 1, V, R]` → restored coded sinograms, the first estimate plus
    /// what the network says.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn regress(&self, first: &Tensor, input: &Tensor, prompts: &[Prompt]) -> Result<Tensor> {
        let blocks = space_to_depth(first, self.factor)?;
        let inputs = concat_channels(&blocks, &position(&blocks)?)?;
        let inputs = concat_channels(&inputs, &space_to_depth(input, self.factor)?)?;
        let level = Tensor::zeros(first.dim(0)?, candle_core::DType::F32, first.device())?;
        let embedding = self.unet.embedding(&level, &self.prompts.encode(prompts)?)?;
        let residual = depth_to_space(&self.unet.body(&inputs, &embedding, None)?, self.factor)?;
        Ok(allpet_nn::add(first, &residual)?)
    }

    /// Which of the two it is.
    pub fn method(&self) -> Method {
        self.method
    }
}

/// The parameters of a bridge, started from a foundation's denoiser (`tensors`, names `denoiser.*`): all that fit are taken over;
/// the channels of the terminal state and of the input enter with zero weights; and the last layer changes sign, since the foundation
/// predicts `v`, and where nothing is known of the terminal state the bridge's target is `-v`.
///
/// # Errors
/// Tensors of another architecture, named.
pub(crate) fn start_from_foundation(params: &Params, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut start = BTreeMap::new();
    for (name, own) in params.named() {
        let found = tensors.get(&name).ok_or_else(|| Error::Mismatch {
            what: "foundation to start from".into(),
            expected: format!("a parameter `{name}`"),
            got: "none".into(),
        })?;
        let found = found.to_dtype(candle_core::DType::F32)?;
        let value = if name.ends_with("unet.enter.weight") && found.dims() != own.dims() {
            let mut shape = own.dims().to_vec();
            let missing = shape[1].saturating_sub(found.dim(1)?);
            shape[1] = missing;
            Tensor::cat(
                &[&found, &Tensor::zeros(shape, found.dtype(), found.device())?],
                1,
            )?
        } else if name.contains(".unet.leave.") {
            found.neg()?
        } else {
            found
        };
        start.insert(name, value);
    }
    Ok(params.load(&start)?)
}
