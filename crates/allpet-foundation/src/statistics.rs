//! What the model remembers of its training data besides weights: the spread of latents and the scale of sinograms.

use crate::error::{Error, Result};
use allpet_autoencoder::{Autoencoder, SinogramSource};
use allpet_core::{Modality, Prompt, Region, stream};
use allpet_nn::without_gradients;
use candle_core::{Device, Tensor};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Natural logarithm of the intensity scale of the training sinograms of one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleOf {
    /// The prompt.
    pub prompt: Prompt,
    /// Number of sinograms.
    pub count: usize,
    /// Mean of ln(scale); scales are in the units of the data, kBq/mL·mm for PET.
    pub mean_ln: f64,
    /// Standard deviation of ln(scale).
    pub sd_ln: f64,
}

/// Spread of latents per channel, scales per prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Mean of each latent channel.
    pub latent_mean: Vec<f64>,
    /// Divisor of each latent channel: the geometric mean of its own standard deviation and the common one.
    pub latent_sd: Vec<f64>,
    /// Scales, sorted by prompt.
    pub scales: Vec<ScaleOf>,
}

impl Statistics {
    /// Measured on the first batches of a source, masks and all.
    pub fn measure(autoencoder: &Autoencoder, source: &SinogramSource, batches: u64) -> Result<Self> {
        let channels = autoencoder.config().latent;
        let (mut sum, mut squares, mut count) = (vec![0f64; channels], vec![0f64; channels], 0usize);
        for step in 0..batches.max(1) {
            let c_all = source.draw(step)?.c_all;
            let latent = without_gradients(|| autoencoder.encode(&c_all))?.mean;
            let pixels = latent.dim(2)? * latent.dim(3)?;
            let values = latent.flatten_all()?.to_vec1::<f32>()?;
            for (plane, values) in values.chunks_exact(pixels).enumerate() {
                let values = values.iter().map(|v| f64::from(*v));
                sum[plane % channels] += values.clone().sum::<f64>();
                squares[plane % channels] += values.map(|v| v * v).sum::<f64>();
            }
            count += values.len() / channels;
        }
        let n = count.max(1) as f64;
        let latent_mean: Vec<f64> = sum.iter().map(|s| s / n).collect();
        let variance: Vec<f64> = squares
            .iter()
            .zip(&latent_mean)
            .map(|(s, m)| (s / n - m * m).max(1e-12))
            .collect();
        // Half-way between a channel's own spread and the common one: fine detail and noise have little spread, and
        // would weigh as much as the object itself if every channel were brought to unit variance.
        let common = variance.iter().sum::<f64>() / channels as f64;
        let latent_sd = variance.iter().map(|v| (v * common).powf(0.25)).collect();
        let mut pairs: Vec<(Prompt, f64)> = source
            .prompts()
            .iter()
            .copied()
            .zip(source.scales().iter().map(|s| f64::from(*s).ln()))
            .collect();
        pairs.sort_by_key(|p| p.0);
        let scales = pairs
            .chunk_by(|a, b| a.0 == b.0)
            .map(|group| {
                let n = group.len() as f64;
                let mean = group.iter().map(|p| p.1).sum::<f64>() / n;
                let variance = group.iter().map(|p| (p.1 - mean).powi(2)).sum::<f64>() / n;
                ScaleOf {
                    prompt: group[0].0,
                    count: group.len(),
                    mean_ln: mean,
                    sd_ln: variance.sqrt(),
                }
            })
            .collect();
        Ok(Self {
            latent_mean,
            latent_sd,
            scales,
        })
    }

    /// Latents to the spread the denoiser works on.
    pub fn normalise(&self, latent: &Tensor) -> Result<Tensor> {
        let (mean, sd) = self.tensors(latent.device())?;
        Ok(latent.broadcast_sub(&mean)?.broadcast_div(&sd)?)
    }

    /// The inverse of [`Statistics::normalise`].
    pub fn restore(&self, latent: &Tensor) -> Result<Tensor> {
        let (mean, sd) = self.tensors(latent.device())?;
        Ok(latent.broadcast_mul(&sd)?.broadcast_add(&mean)?)
    }

    fn tensors(&self, device: &Device) -> Result<(Tensor, Tensor)> {
        let make = |values: &[f64]| -> Result<Tensor> {
            let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
            let n = values.len();
            Ok(Tensor::from_vec(values, (1, n, 1, 1), device)?)
        };
        Ok((make(&self.latent_mean)?, make(&self.latent_sd)?))
    }

    /// A scale for a prompt, drawn as the training data's are spread (within two standard deviations).
    ///
    /// # Errors
    /// A prompt of which the training data had nothing; the message lists what they had.
    pub fn draw_scale(&self, prompt: &Prompt, seed: u64, sample: u64) -> Result<f64> {
        let fits = |known: &&ScaleOf| {
            let region = match (prompt.region, known.prompt.region) {
                (None, _) => true,
                (Some(Region::Trunk), Some(Region::Trunk | Region::Chest | Region::Abdomen)) => true,
                (asked, found) => asked == found,
            };
            let tracer = prompt.modality == Modality::Ct
                || prompt.tracer.is_none_or(|t| known.prompt.tracer == Some(t));
            region && tracer && known.prompt.modality == prompt.modality && known.prompt.task == prompt.task
        };
        let known: Vec<&ScaleOf> = self.scales.iter().filter(fits).collect();
        let total: usize = known.iter().map(|k| k.count).sum();
        if total == 0 {
            let mut words: Vec<String> = self.scales.iter().map(|k| k.prompt.to_string()).collect();
            words.dedup();
            return Err(Error::Invalid {
                what: format!("prompt `{prompt}`"),
                faults: vec![format!(
                    "the model was not trained on it; it knows: {}",
                    words.join(", ")
                )],
            });
        }
        let mean = known.iter().map(|k| k.mean_ln * k.count as f64).sum::<f64>() / total as f64;
        let variance = known
            .iter()
            .map(|k| (k.sd_ln.powi(2) + (k.mean_ln - mean).powi(2)) * k.count as f64)
            .sum::<f64>()
            / total as f64;
        let normal: f64 = StandardNormal.sample(&mut stream(seed, "scale", sample));
        Ok((mean + variance.sqrt() * normal.clamp(-2.0, 2.0)).exp())
    }
}
