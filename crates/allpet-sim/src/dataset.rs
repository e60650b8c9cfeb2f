//! Datasets for unpaired synthesis: sinograms of simulated slices, split by subject.

use crate::acquisition::{Acquisition, measure_transmission};
use crate::anatomy::{Part, Subject};
use crate::error::{Error, Result};
use crate::raster::{Pose, render, resample};
use crate::tracer::Uptake;
use allpet_core::{
    Dataset, ImageGrid, Modality, ParallelGeometry, Prompt, Region, Stream, Task, Tracer, stream,
};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::f64::consts::PI;
use std::sync::atomic::{AtomicUsize, Ordering};

/// First subject number of the test split; training subjects count from 0.
pub const FIRST_TEST_SUBJECT: u32 = 1_000_000;

/// Photons per bin of the blank transmission scan behind CT line integrals.
const BLANK_COUNTS: f64 = 2e5;

/// Which subjects samples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Subjects 0, 1, ….
    Train,
    /// Subjects [`FIRST_TEST_SUBJECT`] and on.
    Test,
}

impl Split {
    /// The word used on the command line and in files.
    pub fn id(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

/// What to simulate for unpaired synthesis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SynthesisConfig {
    /// Tracers, taken in turn; ignored for CT.
    pub tracers: Vec<Tracer>,
    /// Regions, taken in turn; a trunk is a chest and an abdomen in turn.
    pub regions: Vec<Region>,
    /// Emission sinograms or attenuation line integrals.
    pub modality: Modality,
    /// Which subjects.
    pub split: Split,
    /// Number of samples.
    pub count: usize,
    /// Number of subjects to take them from.
    pub subjects: usize,
    /// Seed of every draw.
    pub seed: u64,
    /// Geometry of the sinograms.
    pub geometry: ParallelGeometry,
    /// Typical prompts per slice; a slice has between half and twice as many.
    pub counts: f64,
    /// Poisson noise; without it the expectation is corrected.
    pub noise: bool,
    /// Side in pixels of the ground-truth images, which span the radial field of view.
    pub image_size: usize,
}

impl Default for SynthesisConfig {
    /// 500 training slices with noise, 20 subjects, every tracer, brain and trunk, 128 views × 128 bins of 4 mm.
    fn default() -> Self {
        Self {
            tracers: Tracer::ALL.to_vec(),
            regions: vec![Region::Brain, Region::Trunk],
            modality: Modality::Pet,
            split: Split::Train,
            count: 500,
            subjects: 20,
            seed: 0,
            geometry: ParallelGeometry {
                views: 128,
                bins: 128,
                bin_mm: 4.0,
                arc_rad: PI,
                start_rad: 0.0,
                offset_bins: 0.0,
            },
            counts: 1e6,
            noise: true,
            image_size: 128,
        }
    }
}

impl SynthesisConfig {
    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.modality == Modality::Pet && self.tracers.is_empty() {
            faults.push("no tracer; expected at least one for PET".to_owned());
        }
        if self.regions.is_empty() {
            faults.push("no region; expected at least one".to_owned());
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
        match self.geometry.validate() {
            Err(allpet_core::Error::Invalid { faults: inner, .. }) => faults.extend(inner),
            Err(other) => faults.push(other.to_string()),
            Ok(()) => {}
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "synthesis simulation",
                faults,
            })
        }
    }

    /// What sample `i` shows and whom: prompt, part and subject number.
    fn plan(&self, i: usize) -> (Prompt, Part, u32) {
        let per_region = if self.modality == Modality::Pet {
            self.tracers.len()
        } else {
            1
        };
        let cells = self.regions.len() * per_region;
        let (cell, round) = (i % cells, i / cells);
        let region = self.regions[cell / per_region];
        let prompt = match self.modality {
            Modality::Pet => Prompt::pet(self.tracers[cell % per_region], region),
            Modality::Ct => Prompt::ct(region),
        };
        let parts = Part::of(region);
        let first = if self.split == Split::Train {
            0
        } else {
            FIRST_TEST_SUBJECT
        };
        let subject = first + (round / parts.len() % self.subjects) as u32;
        (prompt, parts[round % parts.len()], subject)
    }
}

struct Sample {
    target: Array2<f32>,
    image: Array2<f32>,
    attenuation: Array2<f32>,
}

/// Simulates a dataset of sinograms with their ground truth; `progress` hears how many samples are done.
///
/// Arrays: `target` `[n, views, bins]`, precorrected line integrals in kBq/mL·mm (CT: `∫μ`, no unit); `image`
/// `[n, s, s]` in kBq/mL (CT: cm⁻¹); `attenuation` `[n, s, s]` in cm⁻¹. The images' pixels measure
/// `bins · bin_mm / s`. Sample `i` depends on the settings and on `i` only, not on count or threads.
///
/// # Errors
/// Settings outside their range; a section without activity in the field of view.
pub fn simulate_synthesis(config: &SynthesisConfig, progress: &(dyn Fn(usize) + Sync)) -> Result<Dataset> {
    config.validate()?;
    let plans: Vec<_> = (0..config.count).map(|i| config.plan(i)).collect();
    let mut numbers: Vec<u32> = plans.iter().map(|&(_, _, id)| id).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let subjects: BTreeMap<u32, Subject> = numbers
        .into_par_iter()
        .map(|id| (id, Subject::draw(config.seed, id)))
        .collect();
    let done = AtomicUsize::new(0);
    let [views, bins] = config.geometry.shape();
    let size = config.image_size;
    let mut target = ArrayD::<f32>::zeros(IxDyn(&[config.count, views, bins]));
    let mut image = ArrayD::<f32>::zeros(IxDyn(&[config.count, size, size]));
    let mut attenuation = image.clone();
    let slots: Vec<_> = target
        .outer_iter_mut()
        .zip(image.outer_iter_mut())
        .zip(attenuation.outer_iter_mut())
        .enumerate()
        .collect();
    slots
        .into_par_iter()
        .try_for_each(|(i, ((mut target, mut image), mut attenuation))| -> Result<()> {
            let (prompt, part, id) = plans[i];
            let sample = simulate_slice(config, i, &subjects[&id], part, prompt.tracer)?;
            target.assign(&sample.target);
            image.assign(&sample.image);
            attenuation.assign(&sample.attenuation);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(())
        })?;
    let (target_unit, image_unit) = match config.modality {
        Modality::Pet => ("kBq/mL*mm", "kBq/mL"),
        Modality::Ct => ("1", "1/cm"),
    };
    let metadata = [
        ("task", Task::Synthesis.id().to_owned()),
        ("modality", config.modality.id().to_owned()),
        ("seed", config.seed.to_string()),
        ("split", config.split.id().to_owned()),
        ("noise", config.noise.to_string()),
        ("counts", config.counts.to_string()),
        ("target_unit", target_unit.to_owned()),
        ("image_unit", image_unit.to_owned()),
        ("attenuation_unit", "1/cm".to_owned()),
        ("image_pixel_mm", image_grid(config)?.pixel_mm.to_string()),
        ("description", describe(config)),
    ];
    let dataset = Dataset {
        arrays: [("target", target), ("image", image), ("attenuation", attenuation)]
            .into_iter()
            .map(|(name, array)| (name.to_owned(), array))
            .collect(),
        subjects: plans.iter().map(|&(_, _, id)| id).collect(),
        prompts: plans.iter().map(|&(prompt, _, _)| prompt).collect(),
        geometry: Some(config.geometry),
        metadata: metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    };
    dataset.validate()?;
    Ok(dataset)
}

fn describe(config: &SynthesisConfig) -> String {
    let regions: Vec<_> = config.regions.iter().map(|r| r.id()).collect();
    let tracers: Vec<_> = config.tracers.iter().map(|t| t.id()).collect();
    let what = match config.modality {
        Modality::Pet => format!("precorrected sinograms of {}", tracers.join(", ")),
        Modality::Ct => "attenuation line integrals".to_owned(),
    };
    format!(
        "{} simulated {what}; {}; {} subjects of the {} split; procedural anatomy, no patient data",
        config.count,
        regions.join(", "),
        config.subjects,
        config.split.id()
    )
}

fn image_grid(config: &SynthesisConfig) -> Result<ImageGrid> {
    let field_mm = config.geometry.bins as f64 * config.geometry.bin_mm;
    Ok(ImageGrid::square(
        config.image_size,
        field_mm / config.image_size as f64,
    )?)
}

/// Relative height: the whole part, the middle more often than the ends, where there is less to see.
pub(crate) fn draw_height(part: Part, rng: &mut Stream) -> f64 {
    let (middle, share): ([f64; 2], f64) = match part {
        Part::Brain => ([0.28, 0.85], 0.6),
        Part::Chest => ([0.1, 0.6], 0.4),
        Part::Abdomen => ([0.5, 0.9], 0.4),
    };
    let pick = rng.random::<f64>();
    let place = rng.random::<f64>();
    if pick < share {
        middle[0] + (middle[1] - middle[0]) * place
    } else {
        place
    }
}

/// The patient lies within ±8° and ±10 mm.
pub(crate) fn draw_pose(rng: &mut Stream) -> Pose {
    Pose {
        rotation_rad: rng.random_range(-8.0f64..8.0).to_radians(),
        shift_mm: [rng.random_range(-10.0..10.0), rng.random_range(-10.0..10.0)],
    }
}

/// Grid and subsamples a section is rendered with: fine enough to carry the folds of the cortex; subsamples are a
/// millimetre and less apart.
pub(crate) fn rendering_grid(part: Part) -> Result<(ImageGrid, usize)> {
    Ok(match part {
        Part::Brain => (ImageGrid::square(192, 1.4)?, 2),
        Part::Chest | Part::Abdomen => (ImageGrid::square(256, 2.0)?, 2),
    })
}

fn simulate_slice(
    config: &SynthesisConfig,
    i: usize,
    subject: &Subject,
    part: Part,
    tracer: Option<Tracer>,
) -> Result<Sample> {
    let rng = &mut stream(config.seed, "slice", i as u64);
    let section = subject.section(part, draw_height(part, rng));
    let pose = draw_pose(rng);
    let (grid, supersamples) = rendering_grid(part)?;
    let uptake = tracer.map(|tracer| Uptake::draw(subject, tracer));
    let rendering = render(&section, uptake.as_ref(), pose, grid, supersamples);
    let to = image_grid(config)?;
    let attenuation = resample(&rendering.attenuation, grid, to) * 10.0;
    let acquisition = Acquisition::draw(rng, config.counts);
    let mut noise = stream(config.seed, "counts", i as u64);
    let noise = config.noise.then_some(&mut noise);
    let (target, image) = match tracer {
        Some(_) => {
            let measured = acquisition.measure(&rendering, config.geometry, noise)?;
            (measured.precorrected(), resample(&rendering.activity, grid, to))
        }
        None => (
            measure_transmission(&rendering, config.geometry, BLANK_COUNTS, noise)?,
            attenuation.clone(),
        ),
    };
    Ok(Sample {
        target,
        image,
        attenuation,
    })
}
