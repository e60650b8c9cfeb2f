//! What the network of pairs minimises: eq. 19 over both latents at once.

use super::network::JointNetwork;
use crate::error::Result;
use crate::objective::latents;
use crate::pairs::PairBatch;
use allpet_autoencoder::Autoencoder;
use allpet_diffusion::{GaussianProcess, Prediction, training};
use allpet_foundation::Statistics;
use allpet_nn::{concat_channels, mean_squared_error};
use allpet_train::{BoxError, Loss, Objective};

/// Mean squared error of the prediction (ε, x0 or v) at a random time, the same for both members of a pair, under prompt,
/// kind and mask.
#[derive(Debug)]
pub struct JointObjective {
    /// What is trained.
    pub network: JointNetwork,
    /// The autoencoder, frozen.
    pub autoencoder: Autoencoder,
    /// Spread of the latents, of either member.
    pub statistics: Statistics,
    /// The forward process.
    pub process: GaussianProcess,
    /// What the network predicts.
    pub prediction: Prediction,
    /// Seed of times and noise.
    pub seed: u64,
}

impl JointObjective {
    fn evaluate(&self, batch: &PairBatch, step: u64) -> Result<Loss> {
        let (input, target) = latents(batch, &self.autoencoder, &self.statistics)?;
        let both = concat_channels(&input, &target)?.detach();
        let count = batch.prompts.len() as u64;
        let indices: Vec<u64> = (step * count..(step + 1) * count).collect();
        let noisy = training::draw_noisy(&self.process, &both, None, self.seed, 0, &indices)?;
        let told = self
            .network
            .condition(&batch.prompts, &batch.kinds, &batch.mask)?;
        let at = training::time_tensor(&noisy.times, both.device())?;
        let output = self.network.predict(&noisy.x, &at, &told)?;
        let wanted = self
            .prediction
            .target(&self.process, &both, &noisy.noise, &noisy.times)?;
        Ok(mean_squared_error(&output, &wanted)?.into())
    }
}

impl Objective for JointObjective {
    type Batch = PairBatch;

    fn loss(&self, batch: &PairBatch, step: u64) -> std::result::Result<Loss, BoxError> {
        Ok(self.evaluate(batch, step)?)
    }
}
