//! Tracer conversion: one slice of one person, imaged with two tracers on two days.
//!
//! Anatomy and position are shared; uptake, lesions (some show with one tracer only), counts and noise are not.

use super::pair::{Pair, Pairing, Scene, Target, same_tracer};
use crate::error::Result;
use allpet_core::{Task, Tracer};
use serde::{Deserialize, Serialize};

/// Input one tracer, target another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conversion {
    /// The input's tracer.
    pub from: Tracer,
    /// The target's tracer.
    pub to: Tracer,
}

impl Default for Conversion {
    /// 18F-FDG to 68Ga-PSMA.
    fn default() -> Self {
        Self {
            from: Tracer::Fdg,
            to: Tracer::Psma,
        }
    }
}

impl Pairing for Conversion {
    fn task(&self) -> Task {
        Task::Conversion
    }

    fn faults(&self) -> Vec<String> {
        same_tracer("conversion", self.from, self.to)
    }

    fn tracers(&self) -> Vec<Tracer> {
        vec![self.from]
    }

    fn asked_for(&self, _: Tracer) -> Option<Tracer> {
        Some(self.to)
    }

    fn pair(&self, scene: &mut Scene<'_>) -> Result<Pair> {
        let source = scene.uptake(self.from);
        let source = scene.render(&source, 1.0);
        let acquisition = scene.draw_acquisition(self.from);
        let first = acquisition
            .measure(&source, scene.geometry, None)?
            .drawn(scene.input_noise.as_mut());
        let uptake = scene.uptake(self.to);
        let rendering = scene.render(&uptake, 1.0);
        let acquisition = scene.draw_acquisition(self.to);
        let second = acquisition.measure(&rendering, scene.geometry, None)?;
        let measured = second.drawn(scene.target_noise.as_mut());
        Ok(Pair {
            input: first.corrected(true),
            calibration: first.calibration,
            targets: vec![Target::corrected(
                &measured,
                &second,
                rendering.activity,
                uptake,
                1.0,
            )],
            attenuation: rendering.attenuation,
            measured: first,
        })
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![
            ("from", self.from.id().to_owned()),
            ("to", self.to.id().to_owned()),
            ("decay", "corrected to injection".to_owned()),
        ]
    }
}
