//! What the autoencoder minimises: reconstruction, bottleneck, and eq. 9 on what it decoded.

use crate::config::Bottleneck;
use crate::consistency::consistency;
use crate::error::Result;
use crate::intensity::Intensity;
use crate::model::{Autoencoder, nearest_codes};
use crate::source::CAllBatch;
use allpet_core::{fill_normal, stream};
use allpet_nn::mean_squared_error;
use allpet_train::{BoxError, Loss, Objective};
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// Mean squared error of the coded channels, the bottleneck's term, and the positive/negative loss.
#[derive(Debug, Clone)]
pub struct AutoencoderObjective {
    /// The model whose parameters are trained.
    pub model: Autoencoder,
    /// The coding of the channels: eq. 9 is evaluated on linear ones.
    pub intensity: Intensity,
    /// Seed of the latent noise.
    pub seed: u64,
}

impl AutoencoderObjective {
    fn evaluate(&self, batch: &CAllBatch, step: u64) -> Result<Loss> {
        let latent = self.model.encode(&batch.c_all)?;
        let config = self.model.config();
        let (code, bottleneck) = match (config.bottleneck, &latent.log_variance, self.model.codes()) {
            (Bottleneck::Kl { weight }, Some(log_variance), _) => {
                let noise = latent_noise(self.seed, step, &latent.mean)?;
                let code = (&latent.mean + (log_variance * 0.5)?.exp()? * noise)?;
                // KL(N(μ, σ²) ‖ N(0, 1)) = ½ Σ (μ² + σ² - 1 - ln σ²), here per latent value.
                let kl = ((latent.mean.sqr()? + log_variance.exp()?)? - (log_variance + 1.0)?)?.mean_all()?;
                (code, (kl * (0.5 * weight))?)
            }
            (Bottleneck::Vq { commitment, .. }, _, Some(codes)) => {
                let nearest = nearest_codes(&latent.mean, codes)?;
                let table = (&nearest - latent.mean.detach())?.sqr()?.mean_all()?;
                let commit = (&latent.mean - nearest.detach())?.sqr()?.mean_all()?;
                (latent.mean.clone(), (table + commit * commitment)?)
            }
            _ => (
                latent.mean.clone(),
                Tensor::zeros((), DType::F32, batch.c_all.device())?,
            ),
        };
        let decoded = self.model.decode(&code)?;
        let reconstruction = mean_squared_error(&decoded, &batch.c_all)?;
        let consistency = consistency(&decoded, &batch.mask, self.intensity)?;
        let total = ((&reconstruction + &bottleneck)? + (&consistency * config.consistency_weight))?;
        let value = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
        let parts = vec![
            ("reconstruction", value(&reconstruction)?),
            ("bottleneck", value(&bottleneck)?),
            ("consistency", value(&consistency)?),
        ];
        Ok(Loss { total, parts })
    }
}

/// Standard normal values of a latent's shape. Each sample's depend on its own number in the run alone, so that a batch in
/// parts has the noise of the whole.
fn latent_noise(seed: u64, step: u64, latent: &Tensor) -> Result<Tensor> {
    let count = latent.dim(0)?;
    let mut noise = vec![0f32; latent.elem_count()];
    noise
        .par_chunks_mut((latent.elem_count() / count.max(1)).max(1))
        .enumerate()
        .for_each(|(i, noise)| {
            let number = step * count as u64 + i as u64;
            fill_normal(&mut stream(seed, "latent noise", number), noise);
        });
    Ok(Tensor::from_vec(noise, latent.dims(), latent.device())?)
}

impl Objective for AutoencoderObjective {
    type Batch = CAllBatch;

    fn loss(&self, batch: &CAllBatch, step: u64) -> std::result::Result<Loss, BoxError> {
        Ok(self.evaluate(batch, step)?)
    }
}
