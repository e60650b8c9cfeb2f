//! Low dose: the same slice with fewer counts.
//!
//! A **shorter scan** scales trues, scatter and randoms by `p` (it is binomial thinning of the events); a lower
//! **injected activity** scales trues and scatter by `p`, but randoms by `p²` (a random is a meeting of two singles).

use super::pair::{Pair, Pairing, Scene, Target};
use crate::acquisition::Measurement;
use crate::error::Result;
use allpet_core::Task;
use serde::{Deserialize, Serialize};

/// What makes the dose low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DoseMode {
    /// A shorter scan.
    #[default]
    Time,
    /// Less injected activity.
    Activity,
}

impl DoseMode {
    /// The word used on the command line and in files.
    pub fn id(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Activity => "activity",
        }
    }
}

/// Input at a fraction of the dose, target at the whole; two realisations independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LowDose {
    /// Fraction of the dose, more than 0 and at most 1.
    pub dose: f64,
    /// What makes it low.
    pub mode: DoseMode,
}

impl Default for LowDose {
    /// A quarter of the time.
    fn default() -> Self {
        Self {
            dose: 0.25,
            mode: DoseMode::Time,
        }
    }
}

impl LowDose {
    /// The expectation at this dose of what `full` is at the whole one.
    pub fn reduced(&self, full: &Measurement) -> Measurement {
        match self.mode {
            DoseMode::Time => full.scaled(self.dose, self.dose),
            DoseMode::Activity => full.scaled(self.dose, self.dose * self.dose),
        }
    }
}

impl Pairing for LowDose {
    fn task(&self) -> Task {
        Task::LowDose
    }

    fn faults(&self) -> Vec<String> {
        if self.dose > 0.0 && self.dose <= 1.0 {
            return Vec::new();
        }
        vec![format!(
            "dose of {}; expected a fraction of more than 0 and at most 1",
            self.dose
        )]
    }

    fn pair(&self, scene: &mut Scene<'_>) -> Result<Pair> {
        let uptake = scene.uptake(scene.tracer);
        let rendering = scene.render(&uptake, 1.0);
        let acquisition = scene.draw_acquisition(scene.tracer);
        let full = acquisition.measure(&rendering, scene.geometry, None)?;
        let measured = full.drawn(scene.target_noise.as_mut());
        let low = self.reduced(&full).drawn(scene.input_noise.as_mut());
        Ok(Pair {
            // In units of the whole dose: the totals stand in the ratio of the doses.
            input: low.corrected(true) * self.dose as f32,
            calibration: full.calibration,
            targets: vec![Target::corrected(
                &measured,
                &full,
                rendering.activity,
                uptake,
                1.0,
            )],
            attenuation: rendering.attenuation,
            measured: low,
        })
    }

    fn metadata(&self) -> Vec<(&'static str, String)> {
        vec![
            ("dose", self.dose.to_string()),
            ("dose_mode", self.mode.id().to_owned()),
            ("decay", "corrected to injection".to_owned()),
        ]
    }
}
