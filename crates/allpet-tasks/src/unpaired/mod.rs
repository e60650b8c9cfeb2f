//! Restoration without pairs (ALL-PET's unsupervised mode): the foundation's prior, kept to the measured counts by the projector.
//!
//! The foundation learnt what sinograms look like and never saw a pair. A walk starts from the first estimate with as much noise
//! as its own errors, and every prediction is moved to agree with the counts ([`data`]) before the sampler goes on from it
//! ([`Consistent`]), the form of Singh et al., "Score-based generative models for PET image reconstruction" (MELBA 2024).
//! Only low dose can be done so: of the other tasks nobody knows what the scanner would have measured of a prediction.

mod data;

use crate::error::{Error, Result};
use crate::heads::{Head, LowDose};
use crate::restore::{
    MOST_SAMPLES, Restored, check_counts, hold_counts, number_faults, of_sample, summarise, through,
};
use allpet_autoencoder::sample::split;
use allpet_core::{ParallelGeometry, Prompt, Region, Tracer, check_finite};
use allpet_diffusion::{
    Conditioning, Consistent, ForwardProcess, Predictor, Run, SampleNoise, Spacing, sample, sampler_for,
};
use allpet_foundation::Foundation;
use allpet_nn::without_gradients;
use candle_core::{DType, Tensor};
use data::DataTerm;
use ndarray::{Array1, Array3, Array4, Array5, ArrayView3, Axis, s};
use std::ops::ControlFlow;

/// Bins below this share of a sinogram's maximum say nothing of its noise.
const COVERED: f32 = 0.05;

/// Noise over signal beyond which a prediction is no worse.
const MOST_NOISE: f64 = 3.0;

/// What is asked of the prior.
#[derive(Debug, Clone)]
pub struct UnpairedRequest {
    /// Fraction of the dose that the inputs have.
    pub task: LowDose,
    /// Tracer and region of the inputs, where known; input i takes entry `i mod len`. A trunk is left open, since the foundation
    /// knows chests and abdomens.
    pub shown: Vec<(Option<Tracer>, Option<Region>)>,
    /// Where the walk starts, as a fraction of the process's time; `None` for `0.15·dose^(-1/4)`, at most 0.9.
    pub start: Option<f64>,
    /// Deviation of a predicted pixel from the truth, over the object's mean and the noise over signal of the time.
    pub spread: f64,
    /// Iterations towards the counts after every prediction; 0 leaves the data out.
    pub iterations: usize,
    /// Name of the sampler, one of [`allpet_diffusion::samplers_for`] a Gaussian process.
    pub sampler: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// Samples of each input, whose mean is the result.
    pub samples: usize,
    /// Seed.
    pub seed: u64,
    /// Index of the first input; inputs `first..first + n` of a seed do not depend on how they are split up.
    pub first: u64,
    /// Samples computed at once; it changes memory and speed only.
    pub batch: usize,
    /// First estimates `[n, view, radial]` in the outputs' unit, where the caller has them already.
    pub first_estimates: Option<Array3<f32>>,
}

impl UnpairedRequest {
    /// Five steps of `ddim`, the mean of eight samples.
    ///
    /// Start, spread, iterations and steps were chosen on eight simulated training subjects at 1/4 and at 1/100 of the dose; more
    /// steps give sharper samples and a worse mean.
    pub fn new(task: LowDose) -> Self {
        Self {
            task,
            shown: vec![(None, None)],
            start: None,
            spread: 3.0,
            iterations: 3,
            sampler: "ddim".into(),
            steps: 5,
            samples: 8,
            seed: 0,
            first: 0,
            batch: 16,
            first_estimates: None,
        }
    }

    fn start(&self) -> f64 {
        self.start
            .unwrap_or_else(|| (0.15 * self.task.dose.powf(-0.25)).min(0.9))
    }

    fn check(&self, inputs: usize) -> Result<()> {
        let mut faults = self.task.faults();
        faults.extend(number_faults([
            ("sinograms", inputs),
            ("batch", self.batch),
            ("steps", self.steps),
            ("prompts", self.shown.len()),
            ("samples", self.samples),
        ]));
        if let Some(start) = self.start.filter(|start| !(*start > 0.0 && *start <= 1.0)) {
            faults.push(format!("start at {start}; expected more than 0 and at most 1"));
        }
        if !(self.spread.is_finite() && self.spread >= 0.0) {
            faults.push(format!("spread of {}; expected 0 or more", self.spread));
        }
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::Invalid {
            what: "request".into(),
            faults,
        })
    }
}

/// Inputs made ready: one entry for each.
struct Prepared {
    /// In the unit of the outputs.
    measured: Array3<f32>,
    /// Normalised latents of the first estimates, `[n, C, H, W]`.
    latent: Tensor,
    scales: Vec<f32>,
    /// Variance of a measured bin over its mean.
    units: Vec<f32>,
}

/// Restores low-dose sinograms `[n, view, radial]` by a model that never saw a pair; those of another geometry than the model's
/// are resampled to it, and the results back. `progress(done, total)` is called with steps done and may stop the work.
///
/// # Errors
/// Settings outside their range, every fault at once; an unknown sampler; sinograms of another shape than `geometry`, with
/// negative values or without counts, the sample named; [`Error::Stopped`] when `progress` says so.
pub fn restore_unpaired(
    model: &Foundation,
    sinograms: ArrayView3<'_, f32>,
    geometry: &ParallelGeometry,
    request: &UnpairedRequest,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Restored> {
    request.check(sinograms.len_of(Axis(0)))?;
    if sinograms.shape()[1..] != geometry.shape() {
        return Err(Error::Mismatch {
            what: "sinograms".into(),
            expected: format!("{} views x {} bins", geometry.views, geometry.bins),
            got: format!("{:?}", sinograms.shape()),
        });
    }
    let (own, given) = (model.config().geometry, request.first_estimates.as_ref());
    through(&own, geometry, sinograms, given, |sinograms, given| {
        restore(model, sinograms, given, request, progress)
    })
}

/// The same in the model's geometry.
fn restore(
    model: &Foundation,
    sinograms: ArrayView3<'_, f32>,
    given: Option<Array3<f32>>,
    request: &UnpairedRequest,
    progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Restored> {
    let config = model.config();
    let geometry = config.geometry;
    let ([views, bins], n) = (geometry.shape(), sinograms.len_of(Axis(0)));
    check_counts(sinograms)?;
    let estimates = match given {
        Some(given) if given.dim() != sinograms.dim() => {
            return Err(Error::Mismatch {
                what: "first estimates".into(),
                expected: format!("{:?}, the shape of the sinograms", sinograms.shape()),
                got: format!("{:?}", given.shape()),
            });
        }
        Some(given) => {
            check_finite("first estimates", given.view())?;
            given
        }
        None => request.task.first_estimate(sinograms, &geometry)?,
    };
    sampler_for(model.process(), &request.sampler, 0.0)?;
    let first = (request.start() * config.process.steps as f64).round().max(1.0) as usize;
    let times = Spacing::Trailing.times(first, request.steps)?;
    let walker = Walker {
        model,
        request,
        times,
        data: DataTerm::new(&geometry)?,
    };
    let shape = (n, 1, views, bins);
    let mut restored = Restored {
        mean: Array4::zeros(shape),
        sd: Array4::zeros(shape),
        samples: None,
        inconsistency: Vec::new(),
    };
    let samples = request.samples;
    let chunk = request.batch.div_ceil(samples).max(1);
    let batches = |inputs: usize| (inputs * samples).div_ceil(request.batch);
    let total = (n / chunk) * batches(chunk) + batches(n % chunk);
    let mut done = 0;
    for from in (0..n).step_by(chunk) {
        let part = |all: ArrayView3<'_, f32>| all.slice(s![from..(from + chunk).min(n), .., ..]).to_owned();
        let prepared = walker.prepare(part(sinograms), part(estimates.view()), from)?;
        let count = prepared.scales.len();
        let mut all = Array5::<f32>::zeros((count, 1, samples, views, bins));
        let items: Vec<(usize, usize)> = (0..count * samples).map(|i| (i / samples, i % samples)).collect();
        for items in items.chunks(request.batch) {
            let mut stopped = false;
            let mut watch = |step: usize, steps: usize| {
                let flow = progress(done * steps + step, total * steps);
                stopped |= flow.is_break();
                flow
            };
            let walked = walker.walk(&prepared, items, from, &mut watch);
            if stopped {
                return Err(Error::Stopped { done: from, total: n });
            }
            for ((input, k), sinogram) in items.iter().zip(walked?.outer_iter()) {
                all.slice_mut(s![*input, 0, *k, .., ..]).assign(&sinogram);
            }
            done += 1;
        }
        let totals: Vec<f64> = prepared
            .measured
            .outer_iter()
            .map(|y| total_of(y) / request.task.gain())
            .collect();
        hold_counts(&mut all, request.task.counts(), &totals);
        summarise(&all, from, &mut restored);
    }
    Ok(restored)
}

fn total_of(sinogram: ndarray::ArrayView2<'_, f32>) -> f64 {
    sinogram.iter().map(|v| f64::from(*v)).sum()
}

/// What all walks share.
struct Walker<'a> {
    model: &'a Foundation,
    request: &'a UnpairedRequest,
    times: Vec<f64>,
    data: DataTerm,
}

impl Walker<'_> {
    fn prepare(&self, mut measured: Array3<f32>, estimates: Array3<f32>, first: usize) -> Result<Prepared> {
        let intensity = self.model.config().intensity;
        let gain = self.request.task.gain() as f32;
        measured.mapv_inplace(|v| v * gain);
        let (mut scales, mut units) = (Vec::new(), Vec::new());
        for (i, (estimate, measured)) in estimates.outer_iter().zip(measured.outer_iter()).enumerate() {
            let values: Vec<f32> = estimate.iter().copied().collect();
            let scale = intensity
                .scale(&values)
                .map_err(|e| of_sample(first + i, &e.to_string()))?;
            let most = values.iter().fold(0f32, |a, b| a.max(*b));
            let (mut squares, mut sum) = (0f64, 0f64);
            for (expected, got) in values.iter().zip(&measured).filter(|(v, _)| **v > COVERED * most) {
                squares += f64::from(expected - got).powi(2);
                sum += f64::from(*expected);
            }
            scales.push(scale);
            units.push((squares / sum) as f32);
        }
        let latent = self
            .model
            .statistics()
            .normalise(&self.encode(&estimates, &scales)?)?;
        Ok(Prepared {
            measured,
            latent,
            scales,
            units,
        })
    }

    /// Latents `[n, C, H, W]` of sinograms under an empty mask.
    fn encode(&self, sinograms: &Array3<f32>, scales: &[f32]) -> Result<Tensor> {
        let (n, views, bins) = sinograms.dim();
        let size = views * bins;
        let (mut coded, no_mask) = (vec![0f32; n * 3 * size], vec![0f32; size]);
        for (i, sinogram) in sinograms.outer_iter().enumerate() {
            let values: Vec<f32> = sinogram.iter().copied().collect();
            let channels = &mut coded[i * 3 * size..][..3 * size];
            split(
                &values,
                &no_mask,
                scales[i],
                self.model.config().intensity,
                channels,
            );
        }
        let coded = Tensor::from_vec(coded, (n, 3, views, bins), self.model.device())?;
        Ok(without_gradients(|| self.model.autoencoder().encode(&coded))?.mean)
    }

    /// Sinograms of latents as the autoencoder gives them.
    fn decode(&self, latent: &Tensor, scales: &[f32]) -> Result<Array3<f32>> {
        let [views, bins] = self.model.config().geometry.shape();
        let intensity = self.model.config().intensity;
        let decoded = without_gradients(|| self.model.autoencoder().decode(latent))?;
        let values = decoded.narrow(1, 1, 1)?.flatten_all()?.to_vec1::<f32>()?;
        let size = views * bins;
        Ok(Array3::from_shape_fn((scales.len(), views, bins), |(i, v, r)| {
            intensity.decode(values[i * size + v * bins + r], scales[i])
        }))
    }

    /// Sinograms of the items (input of the chunk, sample), whose first input is number `first` of the stack.
    fn walk(
        &self,
        prepared: &Prepared,
        items: &[(usize, usize)],
        first: usize,
        watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Array3<f32>> {
        let (model, request) = (self.model, self.request);
        let [views, bins] = model.config().geometry.shape();
        let number = |input: usize| request.first + (first + input) as u64;
        let prompts: Vec<Prompt> = items
            .iter()
            .map(|(input, _)| {
                let shown = number(*input) % request.shown.len() as u64;
                let (tracer, region) = request.shown[shown as usize];
                Prompt {
                    tracer,
                    region: region.filter(|region| *region != Region::Trunk),
                    ..Prompt::default()
                }
            })
            .collect();
        let inputs: Vec<usize> = items.iter().map(|(input, _)| *input).collect();
        let place: Vec<u32> = inputs.iter().map(|input| *input as u32).collect();
        let place = Tensor::from_vec(place, items.len(), model.device())?;
        let scales: Vec<f32> = inputs.iter().map(|i| prepared.scales[*i]).collect();
        let units: Array1<f32> = inputs.iter().map(|i| prepared.units[*i]).collect();
        let measured = prepared.measured.select(Axis(0), &inputs);
        let mask = Tensor::zeros((items.len(), 1, views, bins), DType::F32, model.device())?;
        let told = model
            .denoiser()
            .condition(&prompts, &mask, model.config().autoencoder.factor())?;
        let network = |x: &Tensor, t: &Tensor, c: &Conditioning| {
            without_gradients(|| {
                model
                    .denoiser()
                    .predict(x, t, c, model.autoencoder(), model.statistics())
            })
            .map_err(allpet_diffusion::Error::network)
        };
        let movement = |x0: &Tensor, t: &Tensor| {
            self.agree(x0, t, measured.view(), &units, &scales)
                .map_err(allpet_diffusion::Error::network)
        };
        let denoiser = Consistent {
            inner: Predictor::new(model.process(), model.config().process.prediction, network)?,
            movement,
        };
        let numbers = items
            .iter()
            .map(|(input, sample)| number(*input) * MOST_SAMPLES as u64 + *sample as u64)
            .collect();
        let noise = SampleNoise::new(request.seed, numbers);
        let latent = prepared.latent.index_select(&place, 0)?;
        let drawn = noise.normal_like("noise of the first estimate", 0, &latent)?;
        let start = model.process().marginal(self.times[0]);
        let x = (latent.affine(start.b, 0.0)? + drawn.affine(start.c, 0.0)?)?;
        let mut run = Run::new(model.process(), &denoiser, told, noise);
        let sampler = sampler_for(model.process(), &request.sampler, 0.0)?;
        let latent = sample(sampler.as_ref(), &mut run, &self.times, x, watch)?;
        self.decode(&model.statistics().restore(&latent)?, &scales)
    }

    /// Predicted latents moved by what the counts change of their sinograms.
    fn agree(
        &self,
        x0: &Tensor,
        t: &Tensor,
        measured: ArrayView3<'_, f32>,
        units: &Array1<f32>,
        scales: &[f32],
    ) -> Result<Tensor> {
        if self.request.iterations == 0 {
            return Ok(x0.clone());
        }
        let spreads: Array1<f32> = t
            .to_dtype(DType::F64)?
            .to_vec1::<f64>()?
            .into_iter()
            .map(|time| {
                let at = self.model.process().marginal(time);
                let noise = if at.b > 0.0 { at.c / at.b } else { MOST_NOISE };
                (self.request.spread * noise.min(MOST_NOISE)) as f32
            })
            .collect();
        let latent = self.model.statistics().restore(x0)?;
        let before = self.decode(&latent, scales)?;
        let change = self
            .data
            .change(before.view(), measured, units, &spreads, self.request.iterations)?;
        let after = (&before + &change).mapv(|v| v.max(0.0));
        // What the autoencoder loses of both cancels.
        let moved = (self.encode(&after, scales)? - self.encode(&before, scales)?)?;
        Ok(self.model.statistics().normalise(&(latent + moved)?)?)
    }
}
