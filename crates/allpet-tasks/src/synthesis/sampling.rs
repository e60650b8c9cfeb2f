//! Pairs from noise: the target's latent walked first, then the input's beside it, sample by sample from the caller's seed.
//!
//! A drawn input is smoother than a measured one, because the autoencoder is. Measured with the shipped `small` weights on 32
//! simulated inputs each, within the body (more than a quarter of the scale): of the noise's variance the round trip keeps
//! 73 % at a quarter of the dose and 68 % at a hundredth, of the difference of neighbours 63 % and 58 %; what it keeps is
//! correlated with what was there by 0.85 and 0.84. It also loses counts where noise is high (1 % and 13 % of the total), so
//! a task whose counts are known ([`crate::CountRule::Total`], one output) has its inputs scaled to the target's.

use super::model::{KindOfPairs, PairSynthesizer};
use super::network::End;
use crate::error::{Error, Result};
use crate::heads::{CountRule, Downstream};
use crate::pairs::Goal;
use crate::statistics::{known_prompt, ratio_of};
use allpet_core::{ParallelGeometry, Prompt, Region, Tracer, stream};
use allpet_diffusion::{Conditioning, Predictor, Run, SampleNoise, Spacing, sample, sampler_for};
use allpet_foundation::{ScaleOf, Statistics};
use allpet_nn::without_gradients;
use candle_core::{DType, Tensor};
use ndarray::{Array3, ArrayView2, ArrayViewMut2, Axis};
use rand::Rng;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// What is asked of the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SynthesisOfPairs {
    /// The task with its settings, one that the model was trained on.
    pub task: Downstream,
    /// Tracer of the target and region; sample i takes entry `i mod len`. What an entry leaves open is drawn for every sample
    /// as often as the training data had it; a tracer left open in a separation draws one of its outputs.
    pub shown: Vec<(Option<Tracer>, Option<Region>)>,
    /// Number of pairs.
    pub count: usize,
    /// Index of the first pair; pairs `first..first + count` of a seed do not depend on how they are split up.
    pub first: u64,
    /// Seed.
    pub seed: u64,
    /// Name of the sampler, one of [`allpet_diffusion::samplers_for`] a Gaussian process.
    pub sampler: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// Noise added by DDIM, 0 (none) to 1.
    pub eta: f64,
    /// Pairs computed at once; it changes memory and speed only.
    pub batch: usize,
}

impl SynthesisOfPairs {
    /// One pair of whatever the task shows, by 100 steps of `ddpm`, as the foundation's own synthesis.
    pub fn new(task: Downstream) -> Self {
        Self {
            task,
            shown: vec![(None, None)],
            count: 1,
            first: 0,
            seed: 0,
            sampler: "ddpm".into(),
            steps: 100,
            eta: 0.0,
            batch: 8,
        }
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub struct SynthesisedPairs {
    /// What was asked for.
    pub request: SynthesisOfPairs,
    /// What the targets are.
    pub goal: Goal,
    /// Geometry of the sinograms.
    pub geometry: ParallelGeometry,
    /// Inputs `[count, view, radial]` in the unit of the task's inputs (at low dose that of their own dose, with as many
    /// counts as it says), never negative.
    pub inputs: Array3<f32>,
    /// Targets, of the same shape, in the unit of the task's targets (kBq/mL·mm), never negative.
    pub targets: Array3<f32>,
    /// The prompt of each pair, nothing left open; its tracer is the target's.
    pub prompts: Vec<Prompt>,
    /// Root mean square of `C_pos + C_neg - S` over that of S, for input and target of each pair.
    pub inconsistency: Vec<[f64; 2]>,
}

/// What one pair shows, and its scales: of input (in the target's unit) and target.
struct Item {
    kind: usize,
    prompt: Prompt,
    scales: [f32; 2],
}

impl PairSynthesizer {
    /// Draws pairs in the model's geometry. `progress(done, total)` is called with evaluations done and may stop the work.
    ///
    /// # Errors
    /// A task, tracer or region that the model was not trained on, listing what it knows; an unknown sampler, steps outside
    /// their range; [`Error::Stopped`] when `progress` says so.
    pub fn synthesise_pairs(
        &self,
        request: &SynthesisOfPairs,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<SynthesisedPairs> {
        let config = self.config();
        let choices = self.choices(request)?;
        let sampler = sampler_for(&self.process, &request.sampler, request.eta)?;
        let times = Spacing::Trailing.times(config.process.steps, request.steps)?;
        let [views, bins] = config.geometry.shape();
        let [latent, height, width] = config.latent_shape();
        let mut result = SynthesisedPairs {
            request: request.clone(),
            goal: self.pairs.goal,
            geometry: config.geometry,
            inputs: Array3::zeros((request.count, views, bins)),
            targets: Array3::zeros((request.count, views, bins)),
            prompts: Vec::with_capacity(request.count),
            inconsistency: Vec::with_capacity(request.count),
        };
        let (batches, steps) = (request.count.div_ceil(request.batch), 2 * (times.len() - 1));
        for batch in 0..batches {
            let done = batch * request.batch;
            let count = request.batch.min(request.count - done);
            let first = request.first + done as u64;
            let items = (first..first + count as u64)
                .map(|i| self.draw_item(&choices[(i % choices.len() as u64) as usize], request.seed, i))
                .collect::<Result<Vec<Item>>>()?;
            let prompts: Vec<Prompt> = items.iter().map(|item| item.prompt).collect();
            let kinds: Vec<usize> = items.iter().map(|item| item.kind).collect();
            let mask = Tensor::zeros((count, 1, views, bins), DType::F32, &self.device)?;
            let mut stopped = false;
            let mut walk = |end: End, given: Option<&Tensor>| -> Result<Tensor> {
                let network = |x: &Tensor, t: &Tensor, c: &Conditioning| {
                    without_gradients(|| match given {
                        Some(target) => self.network.predict_input(x, target, t, c),
                        None => self.network.predict_target(x, t, c),
                    })
                    .map_err(allpet_diffusion::Error::network)
                };
                let told = self
                    .network
                    .condition(&prompts, &kinds, &vec![end; count], &mask)?;
                let denoiser = Predictor::new(&self.process, config.process.prediction, network)?;
                let (seed, before) = match end {
                    End::Target => (request.seed, 0),
                    End::Input => (stream(request.seed, "inputs of pairs", 0).random(), steps / 2),
                };
                let noise = SampleNoise::consecutive(seed, first, count);
                let mut run = Run::new(&self.process, &denoiser, told, noise);
                let start = run.start(times[0], &[latent, height, width], DType::F32, &self.device)?;
                let mut watch = |step: usize, _: usize| {
                    let flow = progress(batch * steps + before + step, batches * steps);
                    stopped |= flow.is_break();
                    flow
                };
                Ok(sample(sampler.as_ref(), &mut run, &times, start, &mut watch)?)
            };
            let both =
                walk(End::Target, None).and_then(|target| Ok([walk(End::Input, Some(&target))?, target]));
            if stopped {
                return Err(Error::Stopped {
                    done,
                    total: request.count,
                });
            }
            let [input, target] = both?;
            let members = [self.decode(&input)?, self.decode(&target)?];
            for (i, item) in items.iter().enumerate() {
                self.collect(&members, i, item, done + i, &mut result);
            }
        }
        Ok(result)
    }

    /// Decoded channels of one member, `[B, 3, V, R]` in one piece.
    fn decode(&self, latent: &Tensor) -> Result<Vec<f32>> {
        let latent = self.statistics.restore(latent)?;
        let decoded = without_gradients(|| self.autoencoder.decode(&latent))?;
        Ok(decoded.flatten_all()?.to_vec1::<f32>()?)
    }

    /// Decoded channels of one pair as linear sinograms at their place.
    fn collect(
        &self,
        members: &[Vec<f32>; 2],
        i: usize,
        item: &Item,
        place: usize,
        result: &mut SynthesisedPairs,
    ) {
        let intensity = self.config().intensity;
        let size = self.geometry().views * self.geometry().bins;
        let gain = self.pairs.kinds[item.kind].task.head().gain() as f32;
        let places = [(&mut result.inputs, gain), (&mut result.targets, 1.0)];
        let mut disagreement = [0f64; 2];
        for (member, (all, gain)) in places.into_iter().enumerate() {
            let channels = &members[member][i * 3 * size..][..3 * size];
            let linear = |c: usize, at: usize| intensity.decode(channels[c * size + at], item.scales[member]);
            let (mut error, mut power) = (0f64, 0f64);
            for (at, out) in all.index_axis_mut(Axis(0), place).iter_mut().enumerate() {
                let [positive, full, negative] = [0, 1, 2].map(|c| linear(c, at));
                *out = full / gain;
                error += f64::from(positive + negative - full).powi(2);
                power += f64::from(full).powi(2);
            }
            if power > 0.0 {
                disagreement[member] = (error / power).sqrt();
            }
        }
        hold_counts(
            &self.pairs.kinds[item.kind].task,
            result.inputs.index_axis_mut(Axis(0), place),
            result.targets.index_axis(Axis(0), place),
        );
        result.inconsistency.push(disagreement);
        result.prompts.push(item.prompt);
    }

    /// For every entry of the request, the kinds and prompts that answer it; all faults at once.
    fn choices<'a>(&'a self, request: &SynthesisOfPairs) -> Result<Vec<Vec<(usize, &'a ScaleOf)>>> {
        let mut faults = request.task.head().faults();
        for (name, value) in [
            ("count", request.count),
            ("batch", request.batch),
            ("prompts", request.shown.len()),
        ] {
            if value == 0 {
                faults.push(format!("{name} is 0; expected at least 1"));
            }
        }
        let kinds: Vec<(usize, &KindOfPairs)> = self
            .pairs
            .kinds
            .iter()
            .enumerate()
            .filter(|(_, kind)| same_task(&kind.task, &request.task))
            .collect();
        let mut choices = Vec::with_capacity(request.shown.len());
        if kinds.is_empty() {
            let known: Vec<String> = self.tasks().iter().map(Downstream::to_string).collect();
            faults.push(format!(
                "the model draws no pairs of {}; it knows {}",
                request.task,
                known.join(", ")
            ));
        } else {
            for (tracer, region) in &request.shown {
                let found = answers(&kinds, *tracer, *region);
                if found.is_empty() {
                    let asked = Prompt {
                        tracer: *tracer,
                        region: *region,
                        task: request.task.task(),
                        ..Prompt::default()
                    };
                    let known: Vec<String> = answers(&kinds, None, None)
                        .iter()
                        .map(|(_, of)| of.prompt.to_string())
                        .collect();
                    faults.push(format!(
                        "the model was not trained on `{asked}`; it knows: {}",
                        known.join("; ")
                    ));
                }
                choices.push(found);
            }
        }
        faults.dedup();
        if faults.is_empty() {
            Ok(choices)
        } else {
            Err(Error::Invalid {
                what: "request".into(),
                faults,
            })
        }
    }

    fn draw_item(&self, choices: &[(usize, &ScaleOf)], seed: u64, sample: u64) -> Result<Item> {
        let total: usize = choices.iter().map(|(_, of)| of.count).sum();
        let mut at = stream(seed, "pair prompt", sample).random_range(0..total.max(1));
        let chosen = choices.iter().find(|(_, of)| {
            let here = at < of.count;
            at = at.saturating_sub(of.count);
            here
        });
        let Some((kind, of)) = chosen else {
            return Err(Error::Invalid {
                what: "model".into(),
                faults: vec!["it counts no training pairs of what was asked for".into()],
            });
        };
        let known = Statistics {
            scales: vec![**of],
            ..self.statistics.clone()
        };
        let target = known.draw_scale(&of.prompt, seed, sample)?;
        let ratio = ratio_of(&self.pairs.kinds[*kind].ratios, &of.prompt).unwrap_or(1.0);
        Ok(Item {
            kind: *kind,
            prompt: of.prompt,
            scales: [(target / ratio) as f32, target as f32],
        })
    }
}

/// Scales an input so that its target holds the counts that the task says; nothing where it says nothing, or where another
/// output holds the rest.
fn hold_counts(task: &Downstream, mut input: ArrayViewMut2<'_, f32>, target: ArrayView2<'_, f32>) {
    let (CountRule::Total(factor), 1) = (task.head().counts(), task.outputs()) else {
        return;
    };
    let total = |values: ArrayView2<'_, f32>| values.iter().map(|v| f64::from(*v)).sum::<f64>();
    let (given, wanted) = (total(input.view()), total(target) / factor);
    if given > 0.0 && wanted > 0.0 {
        let scale = (wanted / given) as f32;
        input.mapv_inplace(|v| v * scale);
    }
}

/// The prompts of these kinds that show what was asked for.
fn answers<'a>(
    kinds: &[(usize, &'a KindOfPairs)],
    tracer: Option<Tracer>,
    region: Option<Region>,
) -> Vec<(usize, &'a ScaleOf)> {
    let mut found = Vec::new();
    for (at, kind) in kinds {
        let asked = Prompt {
            region,
            task: kind.task.task(),
            ..Prompt::default()
        };
        let region = known_prompt(&kind.ratios, asked).region;
        let fits = |of: &&ScaleOf| {
            tracer.is_none_or(|tracer| of.prompt.tracer == Some(tracer))
                && region.is_none_or(|region| {
                    of.prompt.region == Some(region)
                        || region == Region::Trunk
                            && matches!(of.prompt.region, Some(Region::Chest | Region::Abdomen))
                })
        };
        found.extend(kind.scales.iter().filter(fits).map(|of| (*at, of)));
    }
    found
}

/// Whether both are the same task with the same settings; the outputs of a separation may stand in another order.
fn same_task(known: &Downstream, asked: &Downstream) -> bool {
    match (known, asked) {
        (Downstream::Separation(known), Downstream::Separation(asked)) => known.same_tracers(asked),
        _ => known == asked,
    }
}
