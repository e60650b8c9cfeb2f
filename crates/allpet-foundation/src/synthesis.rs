//! Synthesis: noise to latents to `C_all` to sinograms, sample by sample from the caller's seed.

use crate::error::{Error, Result};
use crate::model::Foundation;
use allpet_core::Prompt;
use allpet_diffusion::{Guided, Predictor, Run, SampleNoise, Spacing, sample, sampler_for};
use allpet_mask::MaskGenerator;
use allpet_nn::without_gradients;
use candle_core::{DType, Tensor};
use ndarray::{Array3, Axis};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// What is asked of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthesisRequest {
    /// Prompts; sample i takes prompt `i mod len`.
    pub prompts: Vec<Prompt>,
    /// Number of samples.
    pub count: usize,
    /// Index of the first sample; samples `first..first + count` of a seed do not depend on how they are split up.
    pub first: u64,
    /// Seed.
    pub seed: u64,
    /// Name of the sampler, one of [`allpet_diffusion::samplers_for`] a Gaussian process.
    pub sampler: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// Noise added by DDIM, 0 (none) to 1.
    pub eta: f64,
    /// Classifier-free guidance; 1 is none.
    pub guidance: f64,
    /// Samples computed at once; it changes memory and speed only.
    pub batch: usize,
    /// Draw a Radon mask per sample (then `C_pos` and `C_neg` can be compared with it); otherwise masks are empty.
    pub masks: bool,
}

impl Default for SynthesisRequest {
    fn default() -> Self {
        Self {
            prompts: vec![Prompt::default()],
            count: 1,
            first: 0,
            seed: 0,
            sampler: "ddpm".into(),
            steps: 100,
            eta: 0.0,
            guidance: 1.0,
            batch: 8,
            masks: false,
        }
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Synthesis {
    /// Sinograms `[count, view, radial]` in the units of the training data (kBq/mL·mm for PET), never negative.
    pub sinograms: Array3<f32>,
    /// The prompt of each.
    pub prompts: Vec<Prompt>,
    /// Root mean square of `C_pos + C_neg - S` over that of S, per sample: how well the generated channels agree.
    pub inconsistency: Vec<f64>,
}

impl Foundation {
    /// Generates sinograms in the model's geometry. `progress(done, total)` is called with evaluations done and may
    /// stop the work.
    ///
    /// # Errors
    /// A prompt outside the training data, an unknown sampler, steps or guidance outside their range;
    /// [`Error::Stopped`] when `progress` says so.
    pub fn synthesise(
        &self,
        request: &SynthesisRequest,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Synthesis> {
        let config = self.config();
        self.check(request)?;
        let sampler = sampler_for(self.process(), &request.sampler, request.eta)?;
        let times = Spacing::Trailing.times(config.process.steps, request.steps)?;
        let generator = MaskGenerator::new(config.augmentation.masks.clone(), config.geometry)?;
        let null = self.denoiser().condition(
            &[Prompt::default()],
            &self.no_mask(1)?,
            config.autoencoder.factor(),
        )?;
        let null = null.embedding.ok_or_else(|| Error::Invalid {
            what: "prompt encoder".into(),
            faults: vec!["it gave no embedding".into()],
        })?;
        let [views, bins] = config.geometry.shape();
        let mut result = Synthesis {
            sinograms: Array3::zeros((request.count, views, bins)),
            prompts: Vec::with_capacity(request.count),
            inconsistency: Vec::with_capacity(request.count),
        };
        let batches = request.count.div_ceil(request.batch);
        for batch in 0..batches {
            let done = batch * request.batch;
            let count = request.batch.min(request.count - done);
            let first = request.first + done as u64;
            let prompts: Vec<Prompt> = (first..first + count as u64)
                .map(|i| request.prompts[(i % request.prompts.len() as u64) as usize])
                .collect();
            let mask = match request.masks {
                true => {
                    let masks = generator
                        .masks(request.seed, first, count)?
                        .into_raw_vec_and_offset()
                        .0;
                    Tensor::from_vec(masks, (count, 1, views, bins), self.device())?
                }
                false => self.no_mask(count)?,
            };
            let conditioning = self
                .denoiser()
                .condition(&prompts, &mask, config.autoencoder.factor())?;
            let network = |x: &Tensor, t: &Tensor, c: &allpet_diffusion::Conditioning| {
                without_gradients(|| {
                    self.denoiser()
                        .predict(x, t, c, self.autoencoder(), self.statistics())
                })
                .map_err(allpet_diffusion::Error::network)
            };
            let inner = Predictor::new(self.process(), config.process.prediction, network)?;
            let guided = Guided {
                inner,
                weight: request.guidance,
                null: null.clone(),
            };
            let noise = SampleNoise::consecutive(request.seed, first, count);
            let mut run = Run::new(self.process(), &guided, conditioning, noise);
            let start = run.start(times[0], &config.latent_shape(), DType::F32, self.device())?;
            let mut stopped = false;
            let steps = times.len() - 1;
            let mut watch = |step: usize, _: usize| {
                let flow = progress(batch * steps + step, batches * steps);
                stopped |= flow.is_break();
                flow
            };
            let latent = sample(sampler.as_ref(), &mut run, &times, start, &mut watch);
            if stopped {
                return Err(Error::Stopped {
                    done,
                    total: request.count,
                });
            }
            let latent = self.statistics().restore(&latent?)?;
            let decoded = without_gradients(|| self.autoencoder().decode(&latent))?;
            self.collect(&decoded, &prompts, first, done, request.seed, &mut result)?;
        }
        Ok(result)
    }

    fn no_mask(&self, count: usize) -> Result<Tensor> {
        let [views, bins] = self.config().geometry.shape();
        Ok(Tensor::zeros((count, 1, views, bins), DType::F32, self.device())?)
    }

    fn check(&self, request: &SynthesisRequest) -> Result<()> {
        let mut faults = Vec::new();
        for (name, value) in [
            ("count", request.count),
            ("batch", request.batch),
            ("prompts", request.prompts.len()),
        ] {
            if value == 0 {
                faults.push(format!("{name} is 0; expected at least 1"));
            }
        }
        if !request.guidance.is_finite() {
            faults.push(format!("guidance is {}; expected a number", request.guidance));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid {
                what: "request".into(),
                faults,
            });
        }
        for prompt in &request.prompts {
            self.statistics().draw_scale(prompt, 0, 0)?;
        }
        Ok(())
    }

    /// Decoded channels `[B, 3, V, R]` into linear sinograms.
    fn collect(
        &self,
        decoded: &Tensor,
        prompts: &[Prompt],
        first: u64,
        done: usize,
        seed: u64,
        result: &mut Synthesis,
    ) -> Result<()> {
        let intensity = self.config().intensity;
        let [views, bins] = self.config().geometry.shape();
        let size = views * bins;
        let values = decoded.flatten_all()?.to_vec1::<f32>()?;
        for (i, (channels, prompt)) in values.chunks_exact(3 * size).zip(prompts).enumerate() {
            let scale = self.statistics().draw_scale(prompt, seed, first + i as u64)? as f32;
            let (mut error, mut power) = (0f64, 0f64);
            let mut target = result.sinograms.index_axis_mut(Axis(0), done + i);
            for (at, out) in target.iter_mut().enumerate() {
                let [positive, full, negative] =
                    [0, 1, 2].map(|c| intensity.decode(channels[c * size + at], scale));
                *out = full;
                error += f64::from(positive + negative - full).powi(2);
                power += f64::from(full).powi(2);
            }
            result
                .inconsistency
                .push(if power > 0.0 { (error / power).sqrt() } else { 0.0 });
            result.prompts.push(*prompt);
        }
        Ok(())
    }
}
