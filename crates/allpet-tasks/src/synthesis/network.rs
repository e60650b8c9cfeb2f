//! The network of pairs: the foundation's U-Net over two latents at once, told of which kind the pair is and which end of it
//! is being drawn.

use crate::error::{Error, Result};
use allpet_core::{Prompt, Task};
use allpet_diffusion::Conditioning;
use allpet_foundation::{Foundation, ModelConfig, PromptEncoder, PromptTable, UNet};
use allpet_nn::{Init, Params, concat_channels};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// The end of a pair that is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The target, by its prompt alone: `p(target)`.
    Target,
    /// The input that belongs to a target: `p(input | target)`.
    Input,
}

/// Prompt table, a vector for every kind of pair and end, and a U-Net from and to `[z_input | z_target]`.
///
/// The joint distribution is learnt as `p(target) · p(input | target)`, both factors by the same weights: where a target is
/// drawn the input's half holds zeros, where an input is drawn the target's half holds its target without noise.
///
/// A prompt names the task but not its settings: low dose at 1/4 and at 1/100 stand under the same words. The vector of the
/// kind and end, added to the prompt's, tells them apart.
#[derive(Debug, Clone)]
pub struct JointNetwork {
    prompts: PromptTable,
    kinds: Tensor,
    unet: UNet,
    factor: usize,
}

impl JointNetwork {
    /// Builds all three from `params`, for so many kinds of pairs; their vectors start at zero.
    ///
    /// # Errors
    /// A configuration that cannot work.
    pub fn new(params: &Params, config: &ModelConfig, kinds: usize) -> Result<Self> {
        let (width, latent) = (config.denoiser.embedding, config.autoencoder.latent);
        Ok(Self {
            prompts: PromptTable::new(&params.sub("prompts"), width)?,
            kinds: params
                .sub("kinds")
                .get((2 * kinds.max(1), width), "table", Init::Zeros)?,
            unet: UNet::new(&params.sub("unet"), &config.denoiser, 2 * latent)?,
            factor: config.autoencoder.factor(),
        })
    }

    /// The same with its parameters, `denoiser.*` in an otherwise empty `params`, started from a foundation's.
    ///
    /// The target's half takes over everything, and the input's half enters with zero weights: before the first step a
    /// target is what the foundation would draw under the prompt for synthesis, whose vector every task starts from. The
    /// input's half leaves with the same weights as the target's: a copy of it, to be told apart from there.
    ///
    /// # Errors
    /// A foundation of another architecture, the parameter named.
    pub fn from_foundation(params: &Params, foundation: &Foundation, kinds: usize) -> Result<Self> {
        let network = Self::new(&params.sub("denoiser"), foundation.config(), kinds)?;
        start(params, &foundation.tensors("denoiser."))?;
        Ok(network)
    }

    /// The same network, whose U-Net computes its stages again on the way back ([`UNet::recomputing`]).
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.unet = self.unet.recomputing(recompute);
        self
    }

    /// What the network is told: prompts, kinds and ends (one for each prompt) and the mask `[B, 1, V, R]` brought to latent
    /// resolution.
    ///
    /// # Errors
    /// A kind beyond those there are; shapes that do not fit.
    pub fn condition(
        &self,
        prompts: &[Prompt],
        kinds: &[usize],
        ends: &[End],
        mask: &Tensor,
    ) -> Result<Conditioning> {
        let known = self.kinds.dim(0)? / 2;
        if let Some(kind) = kinds.iter().find(|kind| **kind >= known) {
            return Err(Error::Mismatch {
                what: "kind of pair".into(),
                expected: format!("less than {known}"),
                got: kind.to_string(),
            });
        }
        let rows: Vec<u32> = kinds
            .iter()
            .zip(ends)
            .map(|(kind, end)| (*kind + known * usize::from(*end == End::Input)) as u32)
            .collect();
        let rows = Tensor::from_vec(rows, kinds.len().min(ends.len()), self.kinds.device())?;
        let of_kinds = self.kinds.index_select(&rows, 0)?;
        let told = self.prompts.encode(prompts)?;
        let embedding = match told.embedding {
            Some(of_prompts) => (of_prompts + of_kinds)?,
            None => of_kinds,
        };
        Ok(Conditioning {
            embedding: Some(embedding),
            spatial: Some(mask.avg_pool2d(self.factor)?),
            ..told
        })
    }

    /// The prediction for normalised latents of targets `x [B, C, H, W]` at times `t [B]`; same shape. `conditioning` is of
    /// [`End::Target`].
    ///
    /// # Errors
    /// A conditioning without embedding or mask; shapes that do not fit.
    pub fn predict_target(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let both = concat_channels(&x.zeros_like()?, x)?;
        let channels = x.dim(1)?;
        Ok(self
            .forward(&both, t, conditioning)?
            .narrow(1, channels, channels)?)
    }

    /// The prediction for normalised latents of inputs `x [B, C, H, W]` at times `t [B]` that belong to the latents `target`;
    /// same shape. `conditioning` is of [`End::Input`].
    ///
    /// # Errors
    /// As [`JointNetwork::predict_target`].
    pub fn predict_input(
        &self,
        x: &Tensor,
        target: &Tensor,
        t: &Tensor,
        conditioning: &Conditioning,
    ) -> Result<Tensor> {
        let both = concat_channels(x, target)?;
        Ok(self.forward(&both, t, conditioning)?.narrow(1, 0, x.dim(1)?)?)
    }

    /// Both halves `[B, 2C, H, W]`, input before target, of which only the half of the end that is drawn means anything.
    pub(super) fn forward(&self, both: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        Ok(self.unet.forward(both, t, conditioning)?)
    }
}

/// Gives every parameter the value that it starts with from a foundation's `tensors`.
fn start(params: &Params, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let mut start = BTreeMap::new();
    for (name, own) in params.named() {
        if name.ends_with(".kinds.table") {
            start.insert(name, own.zeros_like()?);
            continue;
        }
        let found = tensors.get(&name).ok_or_else(|| Error::Mismatch {
            what: "foundation to start from".into(),
            expected: format!("a parameter `{name}`"),
            got: "none".into(),
        })?;
        let found = found.to_dtype(DType::F32)?;
        let value = if name.ends_with(".prompts.table") {
            // The tasks' rows are the table's last, in the vocabulary's order.
            let others = found.dim(0)?.saturating_sub(Task::ALL.len());
            let synthesis = found.narrow(0, others + Task::Synthesis.index(), 1)?;
            let tasks = vec![synthesis; Task::ALL.len()];
            Tensor::cat(&[found.narrow(0, 0, others)?, Tensor::cat(&tasks, 0)?], 0)?
        } else if name.ends_with(".unet.enter.weight") {
            // [z_input | z_target, mask, position]: what the foundation has stands behind the input's half.
            let mut shape = own.dims().to_vec();
            shape[1] = shape[1].saturating_sub(found.dim(1)?);
            Tensor::cat(&[&Tensor::zeros(shape, DType::F32, found.device())?, &found], 1)?
        } else if name.contains(".unet.leave.") {
            Tensor::cat(&[&found, &found], 0)?
        } else {
            found
        };
        start.insert(name, value);
    }
    Ok(params.load(&start)?)
}
