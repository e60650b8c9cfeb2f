//! What the network of pairs minimises: eq. 19 for the target, and for the input given its target.

use super::network::{End, JointNetwork};
use crate::error::Result;
use crate::objective::latents;
use crate::pairs::PairBatch;
use allpet_autoencoder::Autoencoder;
use allpet_diffusion::{GaussianProcess, Prediction, training};
use allpet_foundation::Statistics;
use allpet_nn::{concat_channels, mean_squared_error};
use allpet_train::{BoxError, Loss, Objective};
use candle_core::Tensor;

/// Mean squared error of the prediction (ε, x0 or v) at a random time, under prompt, kind and mask. Samples draw targets and
/// inputs in turn.
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
        let count = batch.prompts.len() as u64;
        let indices: Vec<u64> = (step * count..(step + 1) * count).collect();
        let ends: Vec<End> = indices
            .iter()
            .map(|index| match index % 2 {
                0 => End::Target,
                _ => End::Input,
            })
            .collect();
        let of = |wanted: End| -> Result<Tensor> {
            let chosen: Vec<f32> = ends.iter().map(|end| f32::from(*end == wanted)).collect();
            Ok(Tensor::from_vec(chosen, (ends.len(), 1, 1, 1), target.device())?)
        };
        let (targets, inputs) = (of(End::Target)?, of(End::Input)?);
        let drawn = (target.broadcast_mul(&targets)? + input.broadcast_mul(&inputs)?)?.detach();
        let noisy = training::draw_noisy(&self.process, &drawn, None, self.seed, 0, &indices)?;
        let first = noisy.x.broadcast_mul(&inputs)?;
        let second = (noisy.x.broadcast_mul(&targets)? + target.broadcast_mul(&inputs)?)?;
        let told = self
            .network
            .condition(&batch.prompts, &batch.kinds, &ends, &batch.mask)?;
        let at = training::time_tensor(&noisy.times, drawn.device())?;
        let output = self
            .network
            .forward(&concat_channels(&first, &second)?.detach(), &at, &told)?;
        let channels = drawn.dim(1)?;
        let half = |from: usize, chosen: &Tensor| -> Result<Tensor> {
            Ok(output.narrow(1, from, channels)?.broadcast_mul(chosen)?)
        };
        let output = (half(0, &inputs)? + half(channels, &targets)?)?;
        let wanted = self
            .prediction
            .target(&self.process, &drawn, &noisy.noise, &noisy.times)?;
        Ok(mean_squared_error(&output, &wanted)?.into())
    }
}

impl Objective for JointObjective {
    type Batch = PairBatch;

    fn loss(&self, batch: &PairBatch, step: u64) -> std::result::Result<Loss, BoxError> {
        Ok(self.evaluate(batch, step)?)
    }
}
