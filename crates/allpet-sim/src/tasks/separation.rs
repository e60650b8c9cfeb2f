//! Dual-tracer separation: both tracers in the body at once, `Poisson(ȳ_a + ȳ_b)`; the targets are the counts of each.
//!
//! A scanner counts positrons at the time of the scan, so that here, and here only, values are not decay-corrected: each
//! tracer enters with its own injected activity, decay over [`SCAN_MINUTES`], positron fraction and positron range, and
//! the expectations of the targets add up to that of the input. Two tracers of one nuclide differ by their distribution
//! alone: telling them apart then rests on what is known of it.

use super::pair::{Pair, Pairing, Scene, Target, same_tracer};
use crate::error::Result;
use crate::nuclide::Nuclide;
use allpet_core::{Task, Tracer};
use rand::Rng;
use serde::{Deserialize, Serialize};

/// Minutes from injection to scan.
pub const SCAN_MINUTES: f64 = 60.0;

/// Injected activity behind [`KBQ_PER_ML_PER_SUV`](crate::tracer::KBQ_PER_ML_PER_SUV) in MBq.
const REFERENCE_MBQ: f64 = 350.0;

/// Input the sum of two tracers, targets each of them: `target` is `[n, 2, views, bins]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Separation {
    /// The tracers, in the order of the targets.
    pub tracers: [Tracer; 2],
}

impl Default for Separation {
    /// 18F-FDG and 68Ga-PSMA.
    fn default() -> Self {
        Self {
            tracers: [Tracer::Fdg, Tracer::Psma],
        }
    }
}

/// Positrons per second and mL at the scan over the activity in kBq/mL, decay-corrected, that [`Uptake`] tells, for the
/// tracer's usual injected activity.
///
/// [`Uptake`]: crate::Uptake
pub fn emission_factor(tracer: Tracer) -> f64 {
    let injected_mbq = match tracer {
        Tracer::Fdg => 350.0,
        Tracer::Dopa => 250.0,
        Tracer::Psma => 150.0,
    };
    let nuclide = Nuclide::of(tracer);
    injected_mbq / REFERENCE_MBQ * nuclide.positron_fraction * nuclide.remaining(SCAN_MINUTES * 60.0)
}

impl Pairing for Separation {
    fn task(&self) -> Task {
        Task::Separation
    }

    fn faults(&self) -> Vec<String> {
        same_tracer("separation", self.tracers[0], self.tracers[1])
    }

    fn tracers(&self) -> Vec<Tracer> {
        vec![self.tracers[0]]
    }

    fn targets(&self) -> usize {
        2
    }

    fn asked_for(&self, _: Tracer) -> Option<Tracer> {
        None
    }

    fn pair(&self, scene: &mut Scene<'_>) -> Result<Pair> {
        let acquisition = scene.draw_acquisition(self.tracers[0]);
        let mut parts = Vec::with_capacity(2);
        for tracer in self.tracers {
            let injected = 4f64.powf(scene.rng.random_range(-0.5..0.5));
            let weight = (emission_factor(tracer) * injected) as f32;
            let uptake = scene.uptake(tracer);
            let rendering = scene.render(&uptake, weight);
            let alone = scene
                .of_nuclide(acquisition, tracer)
                .measure(&rendering, scene.geometry, None)?;
            parts.push((rendering, uptake, weight, alone));
        }
        // One scan, one calibration: each alone would take all the counts with its own.
        let calibration = 1.0 / parts.iter().map(|part| 1.0 / part.3.calibration).sum::<f64>();
        let attenuation = parts[0].0.attenuation.clone();
        let mut targets = Vec::with_capacity(2);
        let mut sum = None;
        for (rendering, uptake, weight, alone) in parts {
            let share = calibration / alone.calibration;
            let expected = alone.scaled(share, share);
            let measured = expected.drawn(scene.target_noise.as_mut());
            targets.push(Target::corrected(
                &measured,
                &expected,
                rendering.activity,
                uptake,
                weight,
            ));
            sum = Some(match sum {
                None => measured,
                Some(before) => measured.with(&before),
            });
        }
        let measured = sum.ok_or_else(|| crate::Error::Invalid {
            what: "separation",
            faults: vec!["no tracer; expected two".to_owned()],
        })?;
        Ok(Pair {
            input: measured.corrected(true),
            calibration,
            targets,
            attenuation,
            measured,
        })
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![
            ("tracers", self.tracers.map(|t| t.id()).join(",")),
            (
                "decay",
                format!("as emitted {SCAN_MINUTES} min after injection, positron fraction included"),
            ),
        ]
    }
}
