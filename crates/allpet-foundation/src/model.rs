//! The whole model: autoencoder, prompt table, denoiser, process, and its file.

use crate::config::ModelConfig;
use crate::dual::DualDomain;
use crate::error::{Error, Result};
use crate::prompt::{PromptEncoder, PromptTable};
use crate::statistics::Statistics;
use crate::unet::UNet;
use allpet_autoencoder::Autoencoder;
use allpet_core::Prompt;
use allpet_diffusion::{Conditioning, GaussianProcess};
use allpet_nn::Params;
use allpet_train::{load_model, load_model_bytes, save_model};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of the model's description in its file's metadata.
const KEY: &str = "allpet";
const FORMAT: u32 = 1;

/// What a model file says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    /// Version of the file format.
    pub format: u32,
    /// `autoencoder` or `foundation`.
    pub kind: String,
    /// The configuration.
    pub model: ModelConfig,
    /// Spread of latents, scales of sinograms; absent for an autoencoder alone.
    pub statistics: Option<Statistics>,
    /// How it was trained: free words, for people.
    pub training: BTreeMap<String, String>,
}

/// The prompted latent diffusion model of sinograms.
#[derive(Debug, Clone)]
pub struct Foundation {
    description: Description,
    statistics: Statistics,
    autoencoder: Autoencoder,
    denoiser: Denoiser,
    process: GaussianProcess,
    params: Params,
    device: Device,
}

/// Prompt table and U-Net, with their parameters under `denoiser.`.
#[derive(Debug, Clone)]
pub struct Denoiser {
    /// Embeds prompts.
    pub prompts: PromptTable,
    /// Predicts.
    pub network: Network,
}

/// The network of a denoiser.
#[derive(Debug, Clone)]
pub enum Network {
    /// On the sinogram's latent alone.
    Sinogram(Box<UNet>),
    /// On image and sinogram.
    Dual(Box<DualDomain>),
}

impl Denoiser {
    /// Builds both from `params`.
    pub fn new(params: &Params, config: &ModelConfig) -> Result<Self> {
        Ok(Self {
            prompts: PromptTable::new(&params.sub("prompts"), config.denoiser.embedding)?,
            network: match config.denoiser.images {
                0 => Network::Sinogram(Box::new(UNet::new(
                    &params.sub("unet"),
                    &config.denoiser,
                    config.autoencoder.latent,
                )?)),
                _ => Network::Dual(Box::new(DualDomain::new(&params.sub("dual"), config)?)),
            },
        })
    }

    /// The same denoiser, whose network computes its blocks again on the way back ([`UNet::recomputing`]).
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.network = match self.network {
            Network::Sinogram(network) => Network::Sinogram(Box::new(network.recomputing(recompute))),
            Network::Dual(network) => Network::Dual(Box::new(network.recomputing(recompute))),
        };
        self
    }

    /// The network's output for normalised latents `x [B, C, H, W]` at times `t [B]`.
    ///
    /// # Errors
    /// A conditioning without embedding or mask; shapes that do not fit.
    pub fn predict(
        &self,
        x: &Tensor,
        t: &Tensor,
        conditioning: &Conditioning,
        autoencoder: &Autoencoder,
        statistics: &Statistics,
    ) -> Result<Tensor> {
        match &self.network {
            Network::Sinogram(network) => network.forward(x, t, conditioning),
            Network::Dual(network) => network.forward(x, t, conditioning, autoencoder, statistics),
        }
    }

    /// Prompt embeddings and the mask `[B, 1, V, R]` brought to latent resolution.
    pub fn condition(&self, prompts: &[Prompt], mask: &Tensor, factor: usize) -> Result<Conditioning> {
        Ok(Conditioning {
            spatial: Some(mask.avg_pool2d(factor)?),
            ..self.prompts.encode(prompts)?
        })
    }
}

impl Foundation {
    /// Reads a model file.
    ///
    /// # Errors
    /// A file that is missing, damaged, of another kind, or whose tensors do not fit its configuration.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let (tensors, metadata) = load_model(path, device)?;
        Self::from_parts(&path.display().to_string(), &tensors, &metadata, device)
    }

    /// The same from bytes in memory, for embedded weights; `name` stands for the file in errors.
    pub fn from_bytes(name: &str, bytes: &[u8], device: &Device) -> Result<Self> {
        let (tensors, metadata) = load_model_bytes(name, bytes, device)?;
        Self::from_parts(name, &tensors, &metadata, device)
    }

    fn from_parts(
        name: &str,
        tensors: &BTreeMap<String, Tensor>,
        metadata: &BTreeMap<String, String>,
        device: &Device,
    ) -> Result<Self> {
        let description = describe(name, metadata)?;
        let Some(statistics) = description
            .statistics
            .clone()
            .filter(|_| description.kind == "foundation")
        else {
            return Err(Error::File {
                what: name.to_owned(),
                expected: "a foundation model".into(),
                got: format!("kind `{}`", description.kind),
            });
        };
        let config = &description.model;
        config.validate()?;
        let params = Params::new(0, device);
        let autoencoder = Autoencoder::new(&params.sub("autoencoder"), &config.autoencoder)?;
        let denoiser = Denoiser::new(&params.sub("denoiser"), config)?;
        params.load(tensors)?;
        let process = config.process.build()?;
        Ok(Self {
            statistics,
            autoencoder,
            denoiser,
            process,
            params,
            device: device.clone(),
            description,
        })
    }

    /// What the model's file says of it.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.description.model
    }

    /// Spread of latents and scales of sinograms.
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The autoencoder.
    pub fn autoencoder(&self) -> &Autoencoder {
        &self.autoencoder
    }

    /// Prompt table and U-Net.
    pub fn denoiser(&self) -> &Denoiser {
        &self.denoiser
    }

    /// The forward process.
    pub fn process(&self) -> &GaussianProcess {
        &self.process
    }

    /// The weights whose names begin with `part`: `autoencoder.` or `denoiser.`.
    pub fn tensors(&self, part: &str) -> BTreeMap<String, Tensor> {
        let named = self.params.named().into_iter();
        named
            .filter(|(name, _)| name.starts_with(part))
            .map(|(name, var)| (name, var.as_detached_tensor()))
            .collect()
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// Writes a model file, weights in half precision.
///
/// # Errors
/// A file that cannot be written.
pub fn save(path: &Path, tensors: &BTreeMap<String, Tensor>, description: &Description) -> Result<()> {
    save_with(path, tensors, description, BTreeMap::new())
}

/// [`save`] with further metadata of the caller's.
///
/// # Errors
/// A file that cannot be written.
pub fn save_with(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    description: &Description,
    mut metadata: BTreeMap<String, String>,
) -> Result<()> {
    let json = serde_json::to_string(description).map_err(|e| Error::File {
        what: path.display().to_string(),
        expected: "a description".into(),
        got: e.to_string(),
    })?;
    metadata.insert(KEY.to_owned(), json);
    Ok(save_model(path, tensors, &metadata, true)?)
}

/// Reads the description in a file's metadata.
///
/// # Errors
/// Metadata without one, or of another format; `name` is the file, for the message.
pub fn describe(name: &str, metadata: &BTreeMap<String, String>) -> Result<Description> {
    let fail = |got: String| Error::File {
        what: name.to_owned(),
        expected: "a model of this program".into(),
        got,
    };
    let json = metadata
        .get(KEY)
        .ok_or_else(|| fail("no description of a model in its metadata".into()))?;
    let description: Description = serde_json::from_str(json).map_err(|e| fail(e.to_string()))?;
    if description.format != FORMAT {
        return Err(fail(format!(
            "format {}, this program reads format {FORMAT}",
            description.format
        )));
    }
    Ok(description)
}

impl Description {
    /// A description of the current format.
    pub fn new(kind: &str, model: ModelConfig, statistics: Option<Statistics>) -> Self {
        Self {
            format: FORMAT,
            kind: kind.to_owned(),
            model,
            statistics,
            training: BTreeMap::new(),
        }
    }
}
