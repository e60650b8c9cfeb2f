//! What the tasks share: a slice of a person in a scanner, and the pair that comes of it.

use super::TaskConfig;
use crate::acquisition::{Acquisition, Measurement};
use crate::anatomy::{Part, Section, Subject};
use crate::dataset::{draw_height, draw_pose, rendering_grid};
use crate::error::Result;
use crate::nuclide::Nuclide;
use crate::raster::{Pose, Rendering, render};
use crate::tracer::Uptake;
use allpet_core::{ImageGrid, ParallelGeometry, Stream, Task, Tracer, stream};
use ndarray::Array2;
use rand::Rng;

/// Share of the slices that are laid through a lesion, if the person has one in the part shown.
const THROUGH_LESION: f64 = 0.6;

/// One of the tasks.
pub(crate) trait Pairing {
    /// Which.
    fn task(&self) -> Task;
    /// Settings outside their range.
    fn faults(&self) -> Vec<String>;
    /// Tracers of the input that the task can take in turn.
    fn tracers(&self) -> Vec<Tracer> {
        Tracer::ALL.to_vec()
    }
    /// Number of targets.
    fn targets(&self) -> usize {
        1
    }
    /// The prompt's tracer for an input of `tracer`.
    fn asked_for(&self, tracer: Tracer) -> Option<Tracer> {
        Some(tracer)
    }
    /// Measures a pair.
    fn pair(&self, scene: &mut Scene<'_>) -> Result<Pair>;
    /// What to remember in the dataset.
    fn metadata(&self) -> Vec<(&'static str, String)>;
}

/// The fault of a pair of tracers that is none.
pub(crate) fn same_tracer(task: &str, first: Tracer, second: Tracer) -> Vec<String> {
    if first == second {
        vec![format!("{task} of {first} and {second}; expected two tracers")]
    } else {
        Vec::new()
    }
}

/// A slice about to be measured.
pub(crate) struct Scene<'a> {
    pub(crate) section: Section<'a>,
    pub(crate) pose: Pose,
    pub(crate) grid: ImageGrid,
    pub(crate) geometry: ParallelGeometry,
    pub(crate) tracer: Tracer,
    pub(crate) rng: Stream,
    pub(crate) input_noise: Option<Stream>,
    pub(crate) target_noise: Option<Stream>,
    supersamples: usize,
    counts: f64,
}

impl<'a> Scene<'a> {
    /// Slice `i`: the same slice of the same person for every task and dose of a seed.
    pub(crate) fn draw(
        config: &TaskConfig,
        i: usize,
        subject: &'a Subject,
        part: Part,
        tracer: Tracer,
    ) -> Result<Self> {
        let index = i as u64;
        let mut rng = stream(config.seed, "pair", index);
        let height = draw_pair_height(subject, part, &mut rng);
        let pose = draw_pose(&mut rng);
        let (grid, supersamples) = rendering_grid(part)?;
        let noise = |name| config.noise.then(|| stream(config.seed, name, index));
        Ok(Self {
            section: subject.section(part, height),
            pose,
            grid,
            geometry: config.geometry,
            tracer,
            rng,
            input_noise: noise("pair input counts"),
            target_noise: noise("pair target counts"),
            supersamples,
            counts: config.counts,
        })
    }

    pub(crate) fn uptake(&self, tracer: Tracer) -> Uptake {
        Uptake::draw(self.section.subject(), tracer)
    }

    /// The section with this uptake, activity times `weight`.
    pub(crate) fn render(&self, uptake: &Uptake, weight: f32) -> Rendering {
        let mut rendering = render(
            &self.section,
            Some(uptake),
            self.pose,
            self.grid,
            self.supersamples,
        );
        if weight != 1.0 {
            rendering.activity *= weight;
        }
        rendering
    }

    pub(crate) fn draw_acquisition(&mut self, tracer: Tracer) -> Acquisition {
        let acquisition = Acquisition::draw(&mut self.rng, self.counts);
        self.of_nuclide(acquisition, tracer)
    }

    /// The same acquisition with the positron range of a tracer's nuclide.
    pub(crate) fn of_nuclide(&self, acquisition: Acquisition, tracer: Tracer) -> Acquisition {
        Acquisition {
            positron_range_mm: Nuclide::of(tracer).positron_range_mm,
            ..acquisition
        }
    }
}

/// Relative height: often through a lesion, so that there is contrast to judge, otherwise as for synthesis.
fn draw_pair_height(subject: &Subject, part: Part, rng: &mut Stream) -> f64 {
    let [low, high] = part.heights_mm().map(f64::from);
    let (through, which, place) = (rng.random::<f64>(), rng.random::<f64>(), rng.random::<f64>());
    let otherwise = draw_height(part, rng);
    let lesions: Vec<_> = subject.lesions().iter().filter(|l| l.part == part).collect();
    let chosen = lesions.get((which * lesions.len() as f64) as usize);
    match chosen.filter(|_| through < THROUGH_LESION) {
        Some(lesion) => {
            let height = f64::from(lesion.centre_mm[2]) + (1.4 * place - 0.7) * f64::from(lesion.radii_mm[2]);
            (height - low) / (high - low)
        }
        None => otherwise,
    }
}

/// What a task makes of a scene; sinograms are `[views, bins]`.
pub(crate) struct Pair {
    pub(crate) input: Array2<f32>,
    /// Expected trues of the input's scan per unit of `input`, before efficiency and attenuation.
    pub(crate) calibration: f64,
    pub(crate) targets: Vec<Target>,
    /// In mm⁻¹ on the scene's grid.
    pub(crate) attenuation: Array2<f32>,
    /// The input as it was counted.
    pub(crate) measured: Measurement,
}

/// One target and the truth behind it.
pub(crate) struct Target {
    pub(crate) sinogram: Array2<f32>,
    pub(crate) clean: Array2<f32>,
    /// On the scene's grid.
    pub(crate) image: Array2<f32>,
    pub(crate) counts: f64,
    pub(crate) calibration: f64,
    pub(crate) uptake: Uptake,
    /// What the uptake's activity was multiplied by.
    pub(crate) weight: f32,
}

impl Target {
    pub(crate) fn corrected(
        measured: &Measurement,
        expected: &Measurement,
        image: Array2<f32>,
        uptake: Uptake,
        weight: f32,
    ) -> Self {
        Self {
            sinogram: measured.corrected(true),
            clean: expected.corrected(true),
            image,
            counts: measured.total(),
            calibration: measured.calibration,
            uptake,
            weight,
        }
    }
}
