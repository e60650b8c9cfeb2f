//! What the denoiser minimises: eq. 19 on the latents of `C_all`, masks redrawn for every sample.

use crate::config::ModelConfig;
use crate::error::Result;
use crate::model::Denoiser;
use crate::prompt::loosen;
use crate::statistics::Statistics;
use allpet_autoencoder::{Autoencoder, CAllBatch};
use allpet_diffusion::{GaussianProcess, training};
use allpet_nn::{mean_squared_error, without_gradients};
use allpet_train::{BoxError, Loss, Objective};

/// Mean squared error of the prediction (ε, x0 or v) at a random time, under the prompt and the mask.
#[derive(Debug)]
pub struct FoundationObjective {
    /// The configuration.
    pub config: ModelConfig,
    /// The autoencoder, frozen.
    pub autoencoder: Autoencoder,
    /// What is trained.
    pub denoiser: Denoiser,
    /// The forward process.
    pub process: GaussianProcess,
    /// Spread of the latents.
    pub statistics: Statistics,
    /// Seed of times, noise and prompt dropout.
    pub seed: u64,
}

impl FoundationObjective {
    fn evaluate(&self, batch: &CAllBatch, step: u64) -> Result<Loss> {
        let latent = without_gradients(|| -> Result<_> {
            let latent = self.autoencoder.encode(&batch.c_all)?.mean.detach();
            Ok(self.statistics.normalise(&latent)?.detach())
        })?;
        let count = batch.prompts.len() as u64;
        let indices: Vec<u64> = (step * count..(step + 1) * count).collect();
        let prompts: Vec<_> = batch
            .prompts
            .iter()
            .zip(&indices)
            .map(|(p, i)| {
                loosen(
                    p,
                    self.config.prompt_dropout,
                    self.config.trunk_fraction,
                    self.seed,
                    *i,
                )
            })
            .collect();
        let conditioning =
            self.denoiser
                .condition(&prompts, &batch.mask, self.config.autoencoder.factor())?;
        // Keyed by the sample's number in the run alone, so that a batch in parts has the draws of the whole.
        let times = training::draw_times(&self.process, self.seed, 0, &indices);
        let noise = training::draw_noise(self.seed, 0, &indices, &latent.dims()[1..], latent.device())?;
        let noisy = training::add_noise(&self.process, &latent, None, &times, &noise)?;
        let at = training::time_tensor(&times, latent.device())?;
        let output =
            self.denoiser
                .predict(&noisy, &at, &conditioning, &self.autoencoder, &self.statistics)?;
        let target = self
            .config
            .process
            .prediction
            .target(&self.process, &latent, &noise, &times)?;
        Ok(mean_squared_error(&output, &target)?.into())
    }
}

impl Objective for FoundationObjective {
    type Batch = CAllBatch;

    fn loss(&self, batch: &CAllBatch, step: u64) -> std::result::Result<Loss, BoxError> {
        Ok(self.evaluate(batch, step)?)
    }
}
