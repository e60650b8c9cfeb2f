//! Restoration of a stack: sinograms to latents, a walk over the bridge, and back, sample by sample from the caller's seed.

mod range;
mod resampled;
mod samples;

use crate::attention::project;
use crate::error::{Error, Result};
use crate::heads::Downstream;
use crate::model::{Restorer, Walk};
use crate::statistics::{known_prompt, ratio_of, undecided};
use allpet_autoencoder::sample::split;
use allpet_core::{Prompt, Region, Tracer, check_finite};
use allpet_diffusion::{
    BRIDGE_SAMPLER, BatchMoments, BridgeSpacing, Conditioning, JointlyPreconditioned, Run, SampleNoise,
    sample, sampler_for,
};
use allpet_mask::attention::Roi;
use allpet_nn::without_gradients;
use candle_core::{DType, Tensor};
use ndarray::{Array3, Array4, Array5, ArrayView2, ArrayView3, Axis, s};
pub(crate) use resampled::through;
pub(crate) use samples::{hold_counts, summarise};
use std::ops::ControlFlow;

/// Samples of one output that a seed has room for.
pub(crate) const MOST_SAMPLES: usize = 1 << 16;

/// Where attention (TMA) comes from.
#[derive(Debug, Clone, Default)]
pub enum Regions {
    /// What is found on each input's own coarse image, if the model was trained with attention.
    #[default]
    Found,
    /// A region given by the user, for the whole stack.
    Given(Roi),
    /// No attention.
    Off,
}

/// What is asked of the model.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The task with its settings.
    pub task: Downstream,
    /// Tracer and region of the inputs, where known; input i takes entry `i mod len`.
    pub shown: Vec<(Option<Tracer>, Option<Region>)>,
    /// Name of the sampler, one of [`allpet_diffusion::samplers_for`] a bridge.
    pub sampler: String,
    /// Noise added by `dbim1`, 0 (none) to 1.
    pub eta: f64,
    /// Steps of the sampler; with `dbim2` as many evaluations of the network.
    pub steps: usize,
    /// Samples of each output, whose mean is the result.
    pub samples: usize,
    /// Seed.
    pub seed: u64,
    /// Index of the first input; inputs `first..first + n` of a seed do not depend on how they are split up.
    pub first: u64,
    /// Samples computed at once; it changes memory and speed only.
    pub batch: usize,
    /// Where attention comes from.
    pub regions: Regions,
    /// Hand out the samples themselves too.
    pub keep_samples: bool,
    /// First estimates `[n, view, radial]` in the outputs' unit, where the caller has them already (or has better ones, from
    /// a measured attenuation say); otherwise [`crate::Head::first_estimate`] makes them.
    pub first_estimates: Option<Array3<f32>>,
}

impl RestoreRequest {
    /// Ten evaluations of `dbim2`, one sample.
    pub fn new(task: Downstream) -> Self {
        Self {
            task,
            shown: vec![(None, None)],
            sampler: BRIDGE_SAMPLER.into(),
            eta: 0.0,
            steps: 10,
            samples: 1,
            seed: 0,
            first: 0,
            batch: 16,
            regions: Regions::Found,
            keep_samples: false,
            first_estimates: None,
        }
    }
}

/// What came out; values in the unit of the inputs (over the dose, for low dose), never negative.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Mean of the samples, `[n, outputs, view, radial]`.
    pub mean: Array4<f32>,
    /// Standard deviation of the samples (with n - 1), of the same shape; all 0 for a single sample.
    pub sd: Array4<f32>,
    /// The samples `[n, outputs, samples, view, radial]`, where asked for.
    pub samples: Option<Array5<f32>>,
    /// Root mean square of `C_pos + C_neg - S` over that of S, mean over samples, per input and output in turn; empty for a
    /// regression.
    pub inconsistency: Vec<f64>,
}

/// One thing to compute: a sample of an output of an input.
#[derive(Clone, Copy)]
struct Item {
    input: usize,
    output: usize,
    sample: usize,
}

/// A batch of items, and where it is from.
struct Part<'a> {
    items: &'a [Item],
    /// Number of the first input in the stack.
    first: usize,
    prepared: &'a Prepared,
    request: &'a RestoreRequest,
}

/// Inputs made ready.
struct Prepared {
    /// Coded `C_all` of the first estimates under an empty mask, `[n, 3, V, R]`.
    first: Vec<f32>,
    /// Coded inputs, `[n, V, R]`.
    input: Vec<f32>,
    scales: Vec<f32>,
    attention: Vec<f32>,
    totals: Vec<f64>,
}

impl Restorer {
    /// Restores sinograms `[n, view, radial]` of the model's geometry. `progress(done, total)` is called with evaluations done
    /// and may stop the work.
    ///
    /// # Errors
    /// A task, sampler or setting that the model does not know; sinograms of another shape, with negative values or without
    /// counts, the sample named; [`Error::Stopped`] when `progress` says so.
    pub fn restore(
        &self,
        sinograms: ArrayView3<'_, f32>,
        request: &RestoreRequest,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Restored> {
        self.check(sinograms, request)?;
        let [views, bins] = self.geometry().shape();
        let (n, outputs) = (sinograms.len_of(Axis(0)), request.task.outputs());
        let samples = match self.walk {
            Walk::Bridge(_) => request.samples,
            Walk::Regression => 1,
        };
        let shape = (n, outputs, views, bins);
        let mut restored = Restored {
            mean: Array4::zeros(shape),
            sd: Array4::zeros(shape),
            samples: request
                .keep_samples
                .then(|| Array5::zeros((n, outputs, samples, views, bins))),
            inconsistency: Vec::new(),
        };
        let each = outputs * samples;
        let chunk = request.batch.div_ceil(each).max(1);
        let batches = |inputs: usize| (inputs * each).div_ceil(request.batch);
        let total = (n / chunk) * batches(chunk) + batches(n % chunk);
        let mut done = 0;
        let estimates = match &request.first_estimates {
            Some(given) => given.clone(),
            None => request.task.head().first_estimate(sinograms, self.geometry())?,
        };
        for first in (0..n).step_by(chunk) {
            let part = sinograms.slice(s![first..(first + chunk).min(n), .., ..]);
            let inputs = part.len_of(Axis(0));
            let estimate = estimates.slice(s![first..first + inputs, .., ..]);
            let prepared = self.prepare(part, estimate, first, request)?;
            let mut all = Array5::<f32>::zeros((inputs, outputs, samples, views, bins));
            let mut disagreement = vec![0f64; inputs * outputs];
            let items: Vec<Item> = (0..inputs * each)
                .map(|i| Item {
                    input: i / each,
                    output: i / samples % outputs,
                    sample: i % samples,
                })
                .collect();
            for items in items.chunks(request.batch) {
                let mut stopped = false;
                let mut watch = |step: usize, steps: usize| {
                    let flow = progress(done * steps + step, total * steps);
                    stopped |= flow.is_break();
                    flow
                };
                let part = Part {
                    items,
                    first,
                    prepared: &prepared,
                    request,
                };
                let decoded = self.walk(&part, &mut watch);
                if stopped {
                    return Err(Error::Stopped {
                        done: first,
                        total: n,
                    });
                }
                self.collect(&part, &decoded?, &mut all, &mut disagreement)?;
                done += 1;
            }
            hold_counts(&mut all, request.task.head().counts(), &prepared.totals);
            summarise(&all, first, &mut restored);
            if let Some(kept) = &mut restored.samples {
                kept.slice_mut(s![first..first + inputs, .., .., .., ..])
                    .assign(&all);
            }
            if matches!(self.walk, Walk::Bridge(_)) {
                restored
                    .inconsistency
                    .extend(disagreement.iter().map(|sum| sum / samples as f64));
            }
        }
        Ok(restored)
    }

    fn check_shape(&self, got: &[usize]) -> Result<()> {
        let g = self.geometry();
        if got.ends_with(&g.shape()) {
            return Ok(());
        }
        Err(Error::Mismatch {
            what: "sinograms".into(),
            expected: format!(
                "{} views x {} bins, the model's own (others can be resampled to it, where that is asked for)",
                g.views, g.bins
            ),
            got: format!("{got:?}"),
        })
    }

    fn check(&self, sinograms: ArrayView3<'_, f32>, request: &RestoreRequest) -> Result<()> {
        request.task.validate()?;
        self.check_shape(sinograms.shape())?;
        let mut faults = number_faults([
            ("sinograms", sinograms.len_of(Axis(0))),
            ("batch", request.batch),
            ("steps", request.steps),
            ("prompts", request.shown.len()),
            ("samples", request.samples),
        ]);
        if !self.accepts(&request.task) {
            let known: Vec<String> = self.tasks.tasks.iter().map(Downstream::to_string).collect();
            faults.push(format!(
                "the model was not trained for {}; it knows {}",
                request.task,
                known.join(", ")
            ));
        }
        for (tracer, region) in &request.shown {
            for prompt in request.task.prompts(*tracer, *region) {
                let prompt = known_prompt(&self.tasks.ratios, prompt);
                let open = undecided(&self.tasks.ratios, &prompt);
                let regions = open.iter().map(|r| r.id()).collect::<Vec<_>>().join(" or ");
                if !open.is_empty() {
                    faults.push(format!(
                        "no region for {}, which changes scales by the region; expected {regions}",
                        request.task.task().label()
                    ));
                } else if ratio_of(&self.tasks.ratios, &prompt).is_none() && self.accepts(&request.task) {
                    faults.push(format!("the model was not trained on `{prompt}`"));
                }
            }
        }
        faults.dedup();
        if !faults.is_empty() {
            return Err(Error::Invalid {
                what: "request".into(),
                faults,
            });
        }
        // Before anything is computed: the walk would find out much later.
        if let Walk::Bridge(process) = &self.walk {
            sampler_for(process, &request.sampler, request.eta)?;
        }
        if let Some(given) = &request.first_estimates {
            if given.dim() != sinograms.dim() {
                return Err(Error::Mismatch {
                    what: "first estimates".into(),
                    expected: format!("{:?}, the shape of the sinograms", sinograms.shape()),
                    got: format!("{:?}", given.shape()),
                });
            }
            check_finite("first estimates", given.view())?;
        }
        check_counts(sinograms)
    }

    /// Whether the model was trained for this task with these settings. Any dose will do: a network that has seen several sees
    /// from the noise how low it is.
    fn accepts(&self, task: &Downstream) -> bool {
        self.tasks.tasks.iter().any(|known| match (known, task) {
            (Downstream::LowDose(_), Downstream::LowDose(_)) => true,
            (Downstream::Separation(known), Downstream::Separation(asked)) => known.same_tracers(asked),
            _ => known == task,
        })
    }

    /// Codes inputs and first estimates, and finds their attention.
    fn prepare(
        &self,
        sinograms: ArrayView3<'_, f32>,
        estimates: ArrayView3<'_, f32>,
        first: usize,
        request: &RestoreRequest,
    ) -> Result<Prepared> {
        let geometry = self.geometry();
        let (intensity, size) = (self.config().intensity, geometry.views * geometry.bins);
        let gain = request.task.head().gain() as f32;
        let n = sinograms.len_of(Axis(0));
        let mut prepared = Prepared {
            first: vec![0f32; n * 3 * size],
            input: vec![0f32; n * size],
            scales: Vec::with_capacity(n),
            attention: vec![0f32; n * size],
            totals: Vec::with_capacity(n),
        };
        let given = match &request.regions {
            Regions::Given(roi) => Some(project(&roi.clone().non_empty()?, geometry)?),
            _ => None,
        };
        let no_mask = vec![0f32; size];
        for (i, (sinogram, estimate)) in sinograms.outer_iter().zip(estimates.outer_iter()).enumerate() {
            let values: Vec<f32> = estimate.iter().copied().collect();
            let scale = intensity
                .scale(&values)
                .map_err(|e| of_sample(first + i, &e.to_string()))?;
            let coded = &mut prepared.first[i * 3 * size..][..3 * size];
            split(&values, &no_mask, scale, intensity, coded);
            for (to, from) in prepared.input[i * size..].iter_mut().zip(sinogram.iter()) {
                *to = intensity.encode(from * gain, scale);
            }
            prepared.scales.push(scale);
            prepared.totals.push(sinogram.iter().map(|v| f64::from(*v)).sum());
            let found = match (&request.regions, &self.tasks.attention, &given) {
                (Regions::Given(_), _, Some(given)) => Some(given.clone()),
                (Regions::Found, Some(attention), _) => {
                    let view = ArrayView2::from_shape(geometry.shape(), &values)
                        .map_err(|e| of_sample(first + i, &e.to_string()))?;
                    Some(attention.find(view, geometry)?)
                }
                _ => None,
            };
            if let Some(found) = found {
                for (to, from) in prepared.attention[i * size..].iter_mut().zip(found.iter()) {
                    *to = *from;
                }
            }
        }
        Ok(prepared)
    }

    fn prompts(&self, part: &Part<'_>) -> Vec<Prompt> {
        let request = part.request;
        part.items
            .iter()
            .filter_map(|item| {
                let number = request.first as usize + part.first + item.input;
                let (tracer, region) = request.shown[number % request.shown.len()];
                let prompt = request.task.prompts(tracer, region).get(item.output).copied()?;
                Some(known_prompt(&self.tasks.ratios, prompt))
            })
            .collect()
    }

    /// Decoded channels of the items: `[B, 3, V, R]` from a bridge, `[B, 1, V, R]` from a regression.
    fn walk(
        &self,
        part: &Part<'_>,
        watch: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Tensor> {
        let Part {
            items,
            first,
            prepared,
            request,
        } = *part;
        let [views, bins] = self.geometry().shape();
        let size = views * bins;
        let prompts = self.prompts(part);
        // Every input of the batch is encoded once, however many of its samples are in it.
        let mut inputs: Vec<usize> = items.iter().map(|item| item.input).collect();
        inputs.dedup();
        let gather = |values: &[f32], channels: usize, wanted: &[usize]| -> Result<Tensor> {
            let each = channels * size;
            let picked: Vec<f32> = wanted
                .iter()
                .flat_map(|i| &values[i * each..][..each])
                .copied()
                .collect();
            Ok(Tensor::from_vec(
                picked,
                (wanted.len(), channels, views, bins),
                &self.device,
            )?)
        };
        let coded = gather(&prepared.first, 3, &inputs)?;
        let of_items: Vec<usize> = items.iter().map(|item| item.input).collect();
        let measured = gather(&prepared.input, 1, &of_items)?;
        let place: Vec<u32> = items
            .iter()
            .map(|item| inputs.iter().position(|i| *i == item.input).unwrap_or(0) as u32)
            .collect();
        let place = Tensor::from_vec(place, items.len(), &self.device)?;
        let process = match &self.walk {
            Walk::Regression => {
                let full = coded.narrow(1, 1, 1)?.contiguous()?.index_select(&place, 0)?;
                let restored = without_gradients(|| self.network.regress(&full, &measured, &prompts))?;
                let _ = watch(1, 1);
                return Ok(restored);
            }
            Walk::Bridge(process) => process,
        };
        let latent = without_gradients(|| -> Result<Tensor> {
            let latent = self.autoencoder.encode(&coded)?.mean;
            Ok(self.statistics.normalise(&latent)?)
        })?;
        let terminal = latent.index_select(&place, 0)?;
        let attention = gather(&prepared.attention, 1, &of_items)?;
        let told = self
            .network
            .condition(&prompts, &attention.zeros_like()?, &attention, &measured)?;
        let conditioning = Conditioning {
            terminal: Some(terminal.clone()),
            ..told
        };
        let network = |x: &Tensor, level: &Tensor, c: &Conditioning| {
            without_gradients(|| self.network.bridge(x, level, c)).map_err(allpet_diffusion::Error::network)
        };
        let moments = items
            .iter()
            .filter_map(|item| self.moments(&request.task, item.output).cloned())
            .collect();
        let denoiser = JointlyPreconditioned::new(process, BatchMoments::new(moments)?, network);
        let sampler = sampler_for(process, &request.sampler, request.eta)?;
        let times = BridgeSpacing::suited_to(&request.sampler, process).times(process, request.steps)?;
        let numbers = items
            .iter()
            .map(|item| {
                let output = (request.first + (first + item.input) as u64) * request.task.outputs() as u64;
                (output + item.output as u64) * MOST_SAMPLES as u64 + item.sample as u64
            })
            .collect();
        let mut run = Run::new(
            process,
            &denoiser,
            conditioning,
            SampleNoise::new(request.seed, numbers),
        );
        let dims = &terminal.dims()[1..];
        let start = run.start(times[0], dims, DType::F32, &self.device)?;
        let latent = sample(sampler.as_ref(), &mut run, &times, start, watch)?;
        without_gradients(|| Ok(self.autoencoder.decode(&self.statistics.restore(&latent)?)?))
    }

    /// Decoded channels to linear sinograms at their places in `all`.
    fn collect(
        &self,
        part: &Part<'_>,
        decoded: &Tensor,
        all: &mut Array5<f32>,
        disagreement: &mut [f64],
    ) -> Result<()> {
        let (prepared, outputs) = (part.prepared, part.request.task.outputs());
        let intensity = self.config().intensity;
        let size = self.geometry().views * self.geometry().bins;
        let channels = decoded.dim(1)?;
        let values = decoded.flatten_all()?.to_vec1::<f32>()?;
        let prompts = self.prompts(part);
        for ((item, values), prompt) in part
            .items
            .iter()
            .zip(values.chunks_exact(channels * size))
            .zip(&prompts)
        {
            let scale = prepared.scales[item.input] * self.ratio(prompt) as f32;
            let linear = |channel: usize, at: usize| intensity.decode(values[channel * size + at], scale);
            let mut out = all.slice_mut(s![item.input, item.output, item.sample, .., ..]);
            let (mut error, mut power) = (0f64, 0f64);
            for (at, out) in out.iter_mut().enumerate() {
                if channels == 1 {
                    *out = linear(0, at);
                    continue;
                }
                *out = linear(1, at);
                error += f64::from(linear(0, at) + linear(2, at) - *out).powi(2);
                power += f64::from(*out).powi(2);
            }
            if power > 0.0 {
                disagreement[item.input * outputs + item.output] += (error / power).sqrt();
            }
        }
        Ok(())
    }
}

/// What is wrong with the numbers of a request: of everything at least one is wanted, and samples have no more room than a seed.
pub(crate) fn number_faults(numbers: [(&str, usize); 5]) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, value) in numbers {
        if name == "samples" && !(1..=MOST_SAMPLES).contains(&value) {
            faults.push(format!("{value} samples; expected 1 to {MOST_SAMPLES}"));
        } else if value == 0 {
            faults.push(format!("0 {name}; expected at least 1"));
        }
    }
    faults
}

/// Every value is a number and none is negative; otherwise an error that names the first that is.
pub(crate) fn check_counts(sinograms: ArrayView3<'_, f32>) -> Result<()> {
    check_finite("sinograms", sinograms)?;
    match sinograms.indexed_iter().find(|(_, v)| **v < 0.0) {
        None => Ok(()),
        Some((at, value)) => Err(Error::Mismatch {
            what: format!("sinogram {} at view {}, bin {}", at.0, at.1, at.2),
            expected: "counts, 0 or more".into(),
            got: format!("{value}"),
        }),
    }
}

pub(crate) fn of_sample(sample: usize, got: &str) -> Error {
    Error::Mismatch {
        what: format!("sinogram {sample}"),
        expected: "a sinogram with counts".into(),
        got: got.into(),
    }
}
