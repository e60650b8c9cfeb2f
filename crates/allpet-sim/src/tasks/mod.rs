//! Datasets for the five paired tasks: input, target, and the truth behind them, split by subject.

pub mod attenuation;
pub mod conversion;
pub mod delayed;
mod lesions;
pub mod low_dose;
mod pair;
pub mod separation;

pub use attenuation::Attenuation;
pub use conversion::Conversion;
pub use delayed::Delayed;
pub use lesions::MAX_LESIONS;
pub use low_dose::{DoseMode, LowDose};
pub use separation::Separation;

use crate::anatomy::{Part, Subject};
use crate::dataset::{FIRST_TEST_SUBJECT, Split};
use crate::error::{Error, Result};
use crate::raster::resample;
use allpet_core::{Dataset, ImageGrid, ParallelGeometry, Prompt, Region, Task, Tracer};
use ndarray::{Array2, ArrayD, ArrayViewMutD, Axis, IxDyn};
use pair::{Pair, Pairing, Scene};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A task with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum PairedTask {
    /// Fewer counts to all of them.
    LowDose(LowDose),
    /// Attenuated to corrected.
    Attenuation(Attenuation),
    /// Early frame to late frame.
    Delayed(Delayed),
    /// One tracer to another.
    Conversion(Conversion),
    /// Two tracers at once to each of them.
    Separation(Separation),
}

impl PairedTask {
    /// A task with its default settings.
    ///
    /// # Errors
    /// [`Task::Synthesis`], which has no pairs.
    pub fn new(task: Task) -> Result<Self> {
        Ok(match task {
            Task::LowDose => Self::LowDose(LowDose::default()),
            Task::Attenuation => Self::Attenuation(Attenuation::default()),
            Task::Delayed => Self::Delayed(Delayed::default()),
            Task::Conversion => Self::Conversion(Conversion::default()),
            Task::Separation => Self::Separation(Separation::default()),
            Task::Synthesis => {
                return Err(Error::Invalid {
                    what: "paired task",
                    faults: vec![format!(
                        "{} has no pairs; expected low-dose, attenuation, delayed, conversion or separation",
                        task.id()
                    )],
                });
            }
        })
    }

    /// Which task.
    pub fn task(&self) -> Task {
        self.pairing().task()
    }

    /// Tracers of the input that it can take in turn: all, FDG for delayed frames (the tracer whose kinetics are
    /// known), the one to convert from, the first of two.
    pub fn tracers(&self) -> Vec<Tracer> {
        self.pairing().tracers()
    }

    /// Number of targets: two for separation, otherwise one.
    pub fn targets(&self) -> usize {
        self.pairing().targets()
    }

    /// Where there is something to see: brain and trunk, only the trunk where 68Ga-PSMA is one of two tracers.
    pub fn regions(&self) -> Vec<Region> {
        let shows_nothing_in_brain = match self {
            Self::Conversion(pair) => pair.from == Tracer::Psma || pair.to == Tracer::Psma,
            Self::Separation(pair) => pair.tracers.contains(&Tracer::Psma),
            _ => false,
        };
        if shows_nothing_in_brain {
            vec![Region::Trunk]
        } else {
            vec![Region::Brain, Region::Trunk]
        }
    }

    fn pairing(&self) -> &dyn Pairing {
        match self {
            Self::LowDose(task) => task,
            Self::Attenuation(task) => task,
            Self::Delayed(task) => task,
            Self::Conversion(task) => task,
            Self::Separation(task) => task,
        }
    }
}

/// What to simulate for a paired task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskConfig {
    /// The task.
    pub task: PairedTask,
    /// Tracers of the input, taken in turn; empty for every one the task can take.
    pub tracers: Vec<Tracer>,
    /// Regions, taken in turn (a trunk is a chest and an abdomen in turn); empty for [`PairedTask::regions`].
    pub regions: Vec<Region>,
    /// Which subjects.
    pub split: Split,
    /// Number of samples.
    pub count: usize,
    /// Number of subjects to take them from, in turn.
    pub subjects: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// Geometry of the sinograms.
    pub geometry: ParallelGeometry,
    /// Typical prompts of a slice at the whole dose; a slice has between half and twice as many.
    pub counts: f64,
    /// Poisson noise; without it input and target are corrected expectations.
    pub noise: bool,
    /// Side in pixels of the ground-truth images, which span the radial field of view.
    pub image_size: usize,
    /// Factor on the size of every lesion.
    pub lesion_scale: f64,
    /// Also keep the input as it was counted: prompts, background, efficiency.
    pub raw: bool,
}

impl Default for TaskConfig {
    /// 500 pairs of 100 training subjects at a quarter of the time, 128 views × 128 bins of 4 mm.
    fn default() -> Self {
        let synthesis = crate::SynthesisConfig::default();
        Self {
            task: PairedTask::LowDose(LowDose::default()),
            tracers: Vec::new(),
            regions: Vec::new(),
            split: Split::Train,
            count: 500,
            subjects: 100,
            seed: 0,
            geometry: synthesis.geometry,
            counts: synthesis.counts,
            noise: true,
            image_size: synthesis.image_size,
            lesion_scale: 1.0,
            raw: false,
        }
    }
}

impl TaskConfig {
    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = self.task.pairing().faults();
        let known = self.task.tracers();
        for tracer in self.tracers.iter().filter(|t| !known.contains(t)) {
            let known: Vec<_> = known.iter().map(|t| t.id()).collect();
            faults.push(format!(
                "{} as the input of {}; expected {}",
                tracer.id(),
                self.task.task().id(),
                known.join(", ")
            ));
        }
        if self.count == 0 {
            faults.push("0 samples; expected at least 1".to_owned());
        }
        if self.subjects == 0 || self.subjects > FIRST_TEST_SUBJECT as usize {
            faults.push(format!(
                "{} subjects; expected 1 to {FIRST_TEST_SUBJECT}",
                self.subjects
            ));
        }
        if !(self.counts.is_finite() && self.counts > 0.0) {
            faults.push(format!(
                "{} counts per slice; expected a positive number",
                self.counts
            ));
        }
        if self.image_size == 0 {
            faults.push("images of 0 pixels; expected at least 1".to_owned());
        }
        if !(self.lesion_scale > 0.0 && self.lesion_scale <= 4.0) {
            faults.push(format!(
                "lesions {} times as large; expected a factor of more than 0 and at most 4",
                self.lesion_scale
            ));
        }
        match self.geometry.validate() {
            Err(allpet_core::Error::Invalid { faults: inner, .. }) => faults.extend(inner),
            Err(other) => faults.push(other.to_string()),
            Ok(()) => {}
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "task simulation",
                faults,
            })
        }
    }

    fn cells(&self) -> Vec<(Region, Tracer)> {
        let regions = if self.regions.is_empty() {
            self.task.regions()
        } else {
            self.regions.clone()
        };
        let tracers = if self.tracers.is_empty() {
            self.task.tracers()
        } else {
            self.tracers.clone()
        };
        regions
            .iter()
            .flat_map(|&region| tracers.iter().map(move |&tracer| (region, tracer)))
            .collect()
    }

    /// Whom sample `i` shows, what of them, and with which tracer: subjects go fastest, and start each turn one cell on.
    fn plan(&self, cells: &[(Region, Tracer)], i: usize) -> Plan {
        let (person, turn) = (i % self.subjects, i / self.subjects);
        let step = person + turn;
        let (region, tracer) = cells[step % cells.len()];
        let parts = Part::of(region);
        let first = match self.split {
            Split::Train => 0,
            Split::Test => FIRST_TEST_SUBJECT,
        };
        Plan {
            prompt: Prompt {
                tracer: self.task.pairing().asked_for(tracer),
                region: Some(region),
                task: self.task.task(),
                ..Prompt::default()
            },
            part: parts[step / cells.len() % parts.len()],
            subject: first + person as u32,
            tracer,
        }
    }

    fn image_grid(&self) -> Result<ImageGrid> {
        let field_mm = self.geometry.bins as f64 * self.geometry.bin_mm;
        Ok(ImageGrid::square(
            self.image_size,
            field_mm / self.image_size as f64,
        )?)
    }

    /// Names and shapes of a sample's arrays.
    fn layout(&self) -> Vec<(&'static str, Vec<usize>)> {
        let [views, bins] = self.geometry.shape();
        let size = self.image_size;
        let targets = self.task.targets();
        let each = |shape: [usize; 2]| match targets {
            1 => shape.to_vec(),
            _ => vec![targets, shape[0], shape[1]],
        };
        let sinogram = vec![views, bins];
        let mut layout = vec![
            ("input", sinogram.clone()),
            ("target", each([views, bins])),
            ("clean", each([views, bins])),
            ("image", each([size, size])),
            ("attenuation", vec![size, size]),
            ("lesion_mask", vec![size, size]),
            ("lesions", vec![MAX_LESIONS, lesions::columns(targets)]),
            ("counts", vec![1 + targets]),
            ("calibration", vec![1 + targets]),
        ];
        if matches!(self.task, PairedTask::Attenuation(_)) {
            layout.push(("attenuation_sinogram", sinogram.clone()));
        }
        if self.raw {
            for name in ["prompts", "background", "efficiency"] {
                layout.push((name, sinogram.clone()));
            }
        }
        layout
    }

    fn describe(&self) -> String {
        format!(
            "{} simulated pairs for {}; {} subjects of the {} split; procedural anatomy, no patient data",
            self.count,
            self.task.task().label(),
            self.subjects.min(self.count),
            self.split.id()
        )
    }
}

struct Plan {
    prompt: Prompt,
    part: Part,
    subject: u32,
    tracer: Tracer,
}

/// Simulates a dataset of pairs with the truth behind them; `progress` hears how many samples are done.
///
/// Arrays, `T` targets (for one, the axis is left out): `input` `[n, views, bins]`; `target` and `clean`
/// `[n, T, views, bins]`, the latter corrected from the expectation instead of counts; `image` `[n, T, s, s]`, the
/// activity behind `target`; `attenuation` `[n, s, s]` in cm⁻¹; `lesion_mask` `[n, s, s]`, 0 or 1 + the row in `lesions`
/// `[n, 16, 5 + 2T]` (columns in the metadata: the ellipse in mm, then value and host of each target); `counts`
/// `[n, 1 + T]`, prompts of the input and of each target; `calibration` `[n, 1 + T]`, expected trues per unit of the
/// sinogram before efficiency and attenuation. Attenuation adds `attenuation_sinogram` (`∫μ`); `raw` adds the input's
/// `prompts`, `background` (expected randoms and scatter) and `efficiency`, all `[n, views, bins]`.
///
/// Sinograms are line integrals in kBq/mL·mm, corrected for randoms, scatter, efficiency and (but for the input of
/// attenuation) for attenuation, decay-corrected to injection except for separation, never negative. The input of low
/// dose keeps its own total: `dose` times the target's. Images' pixels measure `bins · bin_mm / s`.
///
/// Sample `i` depends on the settings and on `i` only, not on count or threads; slices, subjects and targets of low dose
/// are the same for every dose of a seed.
///
/// # Errors
/// Settings outside their range; a section without activity in the field of view.
pub fn simulate_task(config: &TaskConfig, progress: &(dyn Fn(usize) + Sync)) -> Result<Dataset> {
    config.validate()?;
    let cells = config.cells();
    let plans: Vec<_> = (0..config.count).map(|i| config.plan(&cells, i)).collect();
    let mut numbers: Vec<u32> = plans.iter().map(|plan| plan.subject).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let subjects: BTreeMap<u32, Subject> = numbers
        .into_par_iter()
        .map(|id| {
            let subject = Subject::draw(config.seed, id);
            (id, subject.with_lesions_scaled(config.lesion_scale as f32))
        })
        .collect();
    let mut arrays: BTreeMap<&'static str, ArrayD<f32>> = config
        .layout()
        .into_iter()
        .map(|(name, shape)| {
            let shape = [&[config.count], shape.as_slice()].concat();
            (name, ArrayD::zeros(IxDyn(&shape)))
        })
        .collect();
    let mut slots: Vec<Slot<'_>> = plans.iter().map(|_| Slot::new()).collect();
    for (name, array) in &mut arrays {
        for (slot, view) in slots.iter_mut().zip(array.outer_iter_mut()) {
            slot.insert(name, view);
        }
    }
    let done = AtomicUsize::new(0);
    slots
        .into_par_iter()
        .enumerate()
        .try_for_each(|(i, slot)| -> Result<()> {
            let plan = &plans[i];
            let subject = &subjects[&plan.subject];
            let mut scene = Scene::draw(config, i, subject, plan.part, plan.tracer)?;
            let pair = config.task.pairing().pair(&mut scene)?;
            fill(config, &scene, &pair, slot)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        })?;
    let mut metadata = config.task.pairing().metadata();
    metadata.extend([
        ("task", config.task.task().id().to_owned()),
        ("modality", "pet".to_owned()),
        ("seed", config.seed.to_string()),
        ("split", config.split.id().to_owned()),
        ("noise", config.noise.to_string()),
        ("full_counts", config.counts.to_string()),
        ("lesion_scale", config.lesion_scale.to_string()),
        ("input_unit", "kBq/mL*mm".to_owned()),
        ("target_unit", "kBq/mL*mm".to_owned()),
        ("image_unit", "kBq/mL".to_owned()),
        ("attenuation_unit", "1/cm".to_owned()),
        ("image_pixel_mm", config.image_grid()?.pixel_mm.to_string()),
        ("lesion_columns", lesions::column_names(config.task.targets())),
        ("description", config.describe()),
    ]);
    let dataset = Dataset {
        arrays: arrays
            .into_iter()
            .map(|(name, array)| (name.to_owned(), array))
            .collect(),
        subjects: plans.iter().map(|plan| plan.subject).collect(),
        prompts: plans.iter().map(|plan| plan.prompt).collect(),
        geometry: Some(config.geometry),
        metadata: metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    };
    dataset.validate()?;
    Ok(dataset)
}

/// One sample's place in every array.
type Slot<'a> = BTreeMap<&'static str, ArrayViewMutD<'a, f32>>;

fn fill(config: &TaskConfig, scene: &Scene<'_>, pair: &Pair, mut slot: Slot<'_>) -> Result<()> {
    let to = config.image_grid()?;
    let on_grid = |fine: &Array2<f32>| resample(fine, scene.grid, to);
    let mut put = |name: &str, t: usize, values: &Array2<f32>| {
        if let Some(place) = slot.get_mut(name) {
            let mut place = place.view_mut();
            if place.ndim() == 3 {
                place.index_axis_inplace(Axis(0), t);
            }
            place.assign(values);
        }
    };
    put("input", 0, &pair.input);
    for (t, target) in pair.targets.iter().enumerate() {
        put("target", t, &target.sinogram);
        put("clean", t, &target.clean);
        put("image", t, &on_grid(&target.image));
    }
    put("attenuation", 0, &(on_grid(&pair.attenuation) * 10.0));
    put("lesion_mask", 0, &lesions::labels(scene, to));
    put("attenuation_sinogram", 0, &pair.measured.path);
    put("prompts", 0, &pair.measured.prompts);
    put(
        "background",
        0,
        &(&pair.measured.randoms + &pair.measured.scatter),
    );
    put("efficiency", 0, &pair.measured.efficiency);
    if let Some(place) = slot.get_mut("lesions") {
        lesions::table(scene, pair, place);
    }
    let counts = std::iter::once(pair.measured.total()).chain(pair.targets.iter().map(|t| t.counts));
    let calibrations = std::iter::once(pair.calibration).chain(pair.targets.iter().map(|t| t.calibration));
    for (name, values) in [
        ("counts", counts.collect::<Vec<_>>()),
        ("calibration", calibrations.collect()),
    ] {
        if let Some(place) = slot.get_mut(name) {
            place
                .iter_mut()
                .zip(values)
                .for_each(|(to, value)| *to = value as f32);
        }
    }
    Ok(())
}
