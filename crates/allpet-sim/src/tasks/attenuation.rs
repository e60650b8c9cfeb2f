//! Attenuation: the counts of one scan, with attenuation left in and with it corrected: `input = target·exp(-∫μ)`.

use super::pair::{Pair, Pairing, Scene, Target};
use crate::error::Result;
use allpet_core::Task;
use serde::{Deserialize, Serialize};

/// Input attenuated, target corrected; the array `attenuation_sinogram` holds the line integrals `∫μ` between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attenuation {}

impl Pairing for Attenuation {
    fn task(&self) -> Task {
        Task::Attenuation
    }

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }

    fn pair(&self, scene: &mut Scene<'_>) -> Result<Pair> {
        let uptake = scene.uptake(scene.tracer);
        let rendering = scene.render(&uptake, 1.0);
        let acquisition = scene.draw_acquisition(scene.tracer);
        let expected = acquisition.measure(&rendering, scene.geometry, None)?;
        let measured = expected.drawn(scene.target_noise.as_mut());
        Ok(Pair {
            input: measured.corrected(false),
            calibration: expected.calibration,
            targets: vec![Target::corrected(
                &measured,
                &expected,
                rendering.activity,
                uptake,
                1.0,
            )],
            attenuation: rendering.attenuation,
            measured,
        })
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![("decay", "corrected to injection".to_owned())]
    }
}
