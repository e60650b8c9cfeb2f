//! Pairs of sinograms in memory, given out in batches: masks, rotations and attention per sample, a function of the step.

use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::heads::Downstream;
use crate::statistics::{ScaleRatio, measure_ratios, ratio_of};
use allpet_autoencoder::Augmentation;
use allpet_autoencoder::sample::{Epochs, draw_turn, split, turn};
use allpet_core::{Dataset, Prompt, Task, stream};
use allpet_foundation::ModelConfig;
use allpet_mask::MaskGenerator;
use allpet_train::{BoxError, Source};
use candle_core::{Device, Tensor};
use ndarray::{ArrayView2, ArrayView3, Axis, Ix3, Ix4};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// What a network learns to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Goal {
    /// The array `clean`, corrected from the expectation, where the data hold it; else `target`.
    #[default]
    Clean,
    /// The array `target`, as it was measured.
    Target,
}

/// What stands at the first end of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FirstEnd {
    /// A first estimate by classical means, what a walk starts from ([`crate::Head::first_estimate`]). Its own scale codes
    /// both ends: it is what is known when a sinogram is restored.
    #[default]
    Estimate,
    /// The input itself, as it was measured, in the target's unit. The target's own scale codes both ends, through the mean
    /// ratio of the two for each kind and prompt: a target is less noisy than its input, and so is its scale.
    Input,
}

/// How pairs are varied on the way into a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairAugmentation {
    /// Fraction of samples whose attention is left out, so that a model also works without.
    pub attention_dropout: f64,
    /// Fraction of samples whose prompt leaves the region open, and of those whose tracer is open (where it may be).
    pub prompt_dropout: f64,
}

impl Default for PairAugmentation {
    fn default() -> Self {
        Self {
            attention_dropout: 0.3,
            prompt_dropout: 0.1,
        }
    }
}

/// One batch of pairs; sinograms are coded.
#[derive(Debug, Clone)]
pub struct PairBatch {
    /// `C_all` of the first ends, `[B, 3, V, R]`.
    pub first: Tensor,
    /// The inputs themselves, `[B, 1, V, R]`.
    pub input: Tensor,
    /// `C_all` of the targets, `[B, 3, V, R]`, under the same masks.
    pub target: Tensor,
    /// Normalised masks `[B, 1, V, R]`.
    pub mask: Tensor,
    /// Attention `[B, 1, V, R]`, 0 to 1.
    pub attention: Tensor,
    /// What is asked for.
    pub prompts: Vec<Prompt>,
    /// Of which kind each is: task and output, as [`PairSource::kinds`] counts them.
    pub kinds: Vec<usize>,
}

struct Pair {
    input: usize,
    target: Vec<f32>,
    scale: f32,
    /// Scales that first end and target are coded by.
    coding: [f32; 2],
    prompt: Prompt,
    kind: usize,
}

struct Input {
    sinogram: Vec<f32>,
    first: Vec<f32>,
    attention: Vec<f32>,
    scale: f32,
}

/// Pairs in memory.
pub struct PairSource {
    inputs: Vec<Input>,
    pairs: Vec<Pair>,
    ratios: Vec<ScaleRatio>,
    ratios_of_kinds: Vec<Vec<ScaleRatio>>,
    tasks: Vec<Downstream>,
    model: ModelConfig,
    generator: MaskGenerator,
    masks: Augmentation,
    augmentation: PairAugmentation,
    batch: usize,
    seed: u64,
    device: Device,
}

impl std::fmt::Debug for PairSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairSource")
            .field("pairs", &self.pairs.len())
            .field("tasks", &self.tasks)
            .field("batch", &self.batch)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// What a source is made with.
#[derive(Debug, Clone)]
pub struct PairSettings<'a> {
    /// Geometry, intensity coding and masks.
    pub model: &'a ModelConfig,
    /// Further variation.
    pub augmentation: &'a PairAugmentation,
    /// What is learnt.
    pub goal: Goal,
    /// How attention is found; `None` for none.
    pub attention: Option<&'a Attention>,
    /// Pairs in a batch.
    pub batch: usize,
    /// Seed of every draw.
    pub seed: u64,
}

impl PairSource {
    /// From datasets of paired tasks, `input` and `target` (or `clean`), that share the model's geometry.
    ///
    /// # Errors
    /// Data of no paired task, of another geometry, or that show nothing; settings outside their range.
    pub fn new(data: &[Dataset], settings: &PairSettings<'_>, device: &Device) -> Result<Self> {
        Self::with_first(data, settings, FirstEnd::Estimate, device)
    }

    /// [`PairSource::new`] with another first end.
    ///
    /// # Errors
    /// As [`PairSource::new`].
    pub fn with_first(
        data: &[Dataset],
        settings: &PairSettings<'_>,
        first: FirstEnd,
        device: &Device,
    ) -> Result<Self> {
        let model = settings.model;
        let mut faults = Vec::new();
        for (name, value) in [
            ("attention_dropout", settings.augmentation.attention_dropout),
            ("prompt_dropout", settings.augmentation.prompt_dropout),
        ] {
            if !(0.0..=1.0).contains(&value) {
                faults.push(format!("{name} is {value}; expected 0 to 1"));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Invalid {
                what: "pairs".into(),
                faults,
            });
        }
        let mut source = Self {
            inputs: Vec::new(),
            pairs: Vec::new(),
            ratios: Vec::new(),
            ratios_of_kinds: Vec::new(),
            tasks: Vec::new(),
            generator: MaskGenerator::new(model.augmentation.masks.clone(), model.geometry)?,
            masks: model.augmentation.clone(),
            model: model.clone(),
            augmentation: settings.augmentation.clone(),
            batch: settings.batch.max(1),
            seed: settings.seed,
            device: device.clone(),
        };
        for set in data {
            source.extend(set, settings, first)?;
        }
        if source.pairs.is_empty() {
            return Err(Error::Invalid {
                what: "training data".into(),
                faults: vec!["no pairs".into()],
            });
        }
        source.ratios = measure_ratios(&source.ratios_where(|_| true));
        source.ratios_of_kinds = (0..source.kinds())
            .map(|kind| measure_ratios(&source.ratios_where(|pair| pair.kind == kind)))
            .collect();
        let coding: Vec<[f32; 2]> = source
            .pairs
            .iter()
            .map(|pair| source.coding(pair, first))
            .collect();
        for (pair, coding) in source.pairs.iter_mut().zip(coding) {
            pair.coding = coding;
        }
        Ok(source)
    }

    /// Scales of targets over those of their first ends, with the prompts they stand under.
    fn ratios_where(&self, wanted: impl Fn(&Pair) -> bool) -> Vec<(Prompt, f64)> {
        let pairs = self.pairs.iter().filter(|pair| wanted(pair));
        pairs
            .map(|pair| {
                let ratio = f64::from(pair.scale / self.inputs[pair.input].scale);
                (pair.prompt, ratio)
            })
            .collect()
    }

    fn coding(&self, pair: &Pair, first: FirstEnd) -> [f32; 2] {
        let known = match first {
            FirstEnd::Estimate => &self.ratios,
            FirstEnd::Input => &self.ratios_of_kinds[pair.kind],
        };
        let ratio = ratio_of(known, &pair.prompt).unwrap_or(1.0) as f32;
        match first {
            FirstEnd::Estimate => {
                let scale = self.inputs[pair.input].scale;
                [scale, scale * ratio]
            }
            FirstEnd::Input => [pair.scale / ratio, pair.scale],
        }
    }

    fn extend(&mut self, set: &Dataset, settings: &PairSettings<'_>, first_end: FirstEnd) -> Result<()> {
        set.validate()?;
        let task = Downstream::of(set)?;
        let geometry = self.model.geometry;
        if set.geometry.is_some_and(|found| found != geometry) {
            return Err(Error::Mismatch {
                what: "geometry of the data".into(),
                expected: format!("{geometry:?}"),
                got: format!("{:?}", set.geometry),
            });
        }
        let shape = |name: &str, got: &[usize]| Error::Mismatch {
            what: format!("array `{name}`"),
            expected: format!(
                "{} target(s) of {} views x {} bins a sample",
                task.outputs(),
                geometry.views,
                geometry.bins
            ),
            got: format!("shape {got:?}"),
        };
        let found = set.array("input")?;
        let inputs: ArrayView3<'_, f32> = found
            .view()
            .into_dimensionality::<Ix3>()
            .map_err(|_| shape("input", found.shape()))?;
        if inputs.shape()[1..] != geometry.shape() {
            return Err(shape("input", found.shape()));
        }
        let name = match settings.goal {
            Goal::Clean if set.arrays.contains_key("clean") => "clean",
            _ => "target",
        };
        let found = set.array(name)?;
        let targets = match found.ndim() {
            3 => found.view().insert_axis(Axis(1)),
            _ => found.view(),
        };
        let targets = targets
            .into_dimensionality::<Ix4>()
            .map_err(|_| shape(name, found.shape()))?;
        if targets.shape()[1..] != [task.outputs(), geometry.views, geometry.bins] {
            return Err(shape(name, found.shape()));
        }
        let gain = task.head().gain() as f32;
        let estimates = match first_end {
            FirstEnd::Estimate => {
                let counts = inputs.mapv(|v| v.max(0.0));
                Some(task.head().first_estimate(counts.view(), &geometry)?)
            }
            FirstEnd::Input => None,
        };
        let before = match self.tasks.iter().position(|known| *known == task) {
            Some(at) => at,
            None => {
                self.tasks.push(task);
                self.tasks.len() - 1
            }
        };
        let first_kind = kind_of(&self.tasks, before, 0);
        for (i, (input, targets)) in inputs.outer_iter().zip(targets.outer_iter()).enumerate() {
            let said = set.prompts.get(i).copied().unwrap_or_default();
            let sinogram: Vec<f32> = input.iter().map(|v| v.max(0.0) * gain).collect();
            let first: Vec<f32> = match &estimates {
                Some(estimates) => estimates.index_axis(Axis(0), i).iter().copied().collect(),
                None => sinogram.clone(),
            };
            let scale = self.model.intensity.scale(&first).map_err(|e| Error::Mismatch {
                what: format!("sample {i} of {}", inputs.len_of(Axis(0))),
                expected: "a sinogram with counts".into(),
                got: e.to_string(),
            })?;
            let attention = match settings.attention {
                Some(attention) => {
                    let view = ArrayView2::from_shape(geometry.shape(), &first)
                        .map_err(|_| shape("input", found.shape()))?;
                    attention.find(view, &geometry)?.into_raw_vec_and_offset().0
                }
                None => vec![0.0; sinogram.len()],
            };
            self.inputs.push(Input {
                sinogram,
                first,
                attention,
                scale,
            });
            let prompts = task.prompts(said.tracer, said.region);
            for (output, (target, prompt)) in targets.outer_iter().zip(prompts).enumerate() {
                let target: Vec<f32> = target.iter().map(|v| v.max(0.0)).collect();
                let scale = self.model.intensity.scale(&target).map_err(|e| Error::Mismatch {
                    what: format!("target {output} of sample {i}"),
                    expected: "a sinogram with counts".into(),
                    got: e.to_string(),
                })?;
                self.pairs.push(Pair {
                    input: self.inputs.len() - 1,
                    target,
                    scale,
                    coding: [1.0; 2],
                    prompt,
                    kind: first_kind + output,
                });
            }
        }
        Ok(())
    }

    /// Number of pairs; an input of two outputs makes two.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Never true: an empty source is an error.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Scales of the targets over those of their inputs.
    pub fn ratios(&self) -> &[ScaleRatio] {
        &self.ratios
    }

    /// [`PairSource::ratios`] of every kind by itself, in the order of [`PairBatch::kinds`].
    pub(crate) fn ratios_of_kinds(&self) -> &[Vec<ScaleRatio>] {
        &self.ratios_of_kinds
    }

    /// Prompts and scales of the targets of a kind.
    pub(crate) fn target_scales(&self, kind: usize) -> Vec<(Prompt, f64)> {
        let pairs = self.pairs.iter().filter(|pair| pair.kind == kind);
        pairs.map(|pair| (pair.prompt, f64::from(pair.scale))).collect()
    }

    /// The tasks in the data.
    pub fn tasks(&self) -> &[Downstream] {
        &self.tasks
    }

    /// Number of kinds of pairs: the outputs of all tasks.
    pub fn kinds(&self) -> usize {
        kind_of(&self.tasks, self.tasks.len(), 0)
    }

    /// Batch `step`: pairs in shuffled epochs, each with its own mask, rotation and attention.
    pub fn draw(&self, step: u64) -> Result<PairBatch> {
        let geometry = self.model.geometry;
        let [views, bins] = geometry.shape();
        let (size, batch) = (views * bins, self.batch);
        let mut firsts = vec![0f32; batch * 3 * size];
        let mut inputs = vec![0f32; batch * size];
        let mut targets = vec![0f32; batch * 3 * size];
        let mut masks = vec![0f32; batch * size];
        let mut attention = vec![0f32; batch * size];
        let (mut prompts, mut kinds) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        let mut epochs = Epochs::new(self.len(), self.seed);
        let mut turned = vec![0f32; size];
        for slot in 0..batch {
            let drawn = step * batch as u64 + slot as u64;
            let pair = &self.pairs[epochs.index(drawn)];
            let input = &self.inputs[pair.input];
            let mut random = stream(self.seed, "pair augmentation", drawn);
            let mask = &mut masks[slot * size..][..size];
            if random.random::<f64>() >= self.masks.empty {
                self.generator.mask_into(self.seed, drawn, mask)?;
            }
            let shift = draw_turn(&geometry, self.masks.rotate_deg, &mut random);
            let intensity = self.model.intensity;
            turn(&input.first, &geometry, shift, &mut turned);
            let first = &mut firsts[slot * 3 * size..][..3 * size];
            let [of_first, of_target] = pair.coding;
            split(&turned, mask, of_first, intensity, first);
            turn(&input.sinogram, &geometry, shift, &mut turned);
            for (to, from) in inputs[slot * size..][..size].iter_mut().zip(&turned) {
                *to = intensity.encode(*from, of_first);
            }
            turn(&pair.target, &geometry, shift, &mut turned);
            split(
                &turned,
                mask,
                of_target,
                intensity,
                &mut targets[slot * 3 * size..][..3 * size],
            );
            if random.random::<f64>() >= self.augmentation.attention_dropout {
                turn(
                    &input.attention,
                    &geometry,
                    shift,
                    &mut attention[slot * size..][..size],
                );
            }
            kinds.push(pair.kind);
            prompts.push(loosen(pair.prompt, self.augmentation.prompt_dropout, &mut random));
        }
        let tensor = |values: Vec<f32>, channels: usize| {
            Tensor::from_vec(values, (batch, channels, views, bins), &self.device)
        };
        Ok(PairBatch {
            first: tensor(firsts, 3)?,
            input: tensor(inputs, 1)?,
            target: tensor(targets, 3)?,
            mask: tensor(masks, 1)?,
            attention: tensor(attention, 1)?,
            prompts,
            kinds,
        })
    }
}

impl Source for PairSource {
    type Batch = PairBatch;

    fn batch(&self, step: u64) -> std::result::Result<PairBatch, BoxError> {
        Ok(self.draw(step)?)
    }
}

/// The place of an output of task `task` among the outputs of all.
pub(crate) fn kind_of(tasks: &[Downstream], task: usize, output: usize) -> usize {
    tasks.iter().take(task).map(Downstream::outputs).sum::<usize>() + output
}

/// A prompt with choices left open now and then; never the tracer that says which output is meant.
fn loosen(mut prompt: Prompt, dropout: f64, random: &mut impl Rng) -> Prompt {
    let [tracer, region]: [f64; 2] = std::array::from_fn(|_| random.random());
    if region < dropout {
        prompt.region = None;
    }
    if tracer < dropout && !matches!(prompt.task, Task::Conversion | Task::Separation) {
        prompt.tracer = None;
    }
    prompt
}
