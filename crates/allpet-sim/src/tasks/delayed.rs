//! Delayed frame: the same slice early and late after injection, as the kinetics of each tissue have it.
//!
//! Both frames are short, last equally long and are decay-corrected to injection; physical decay shows in the counts of
//! the late one, `2^(-(t₂ - t₁)/T½)` times as many per kBq/mL.

use super::pair::{Pair, Pairing, Scene, Target};
use crate::error::Result;
use crate::nuclide::Nuclide;
use allpet_core::{Task, Tracer};
use serde::{Deserialize, Serialize};

/// Latest time that the input function is good for, in minutes.
const LATEST_MINUTES: f64 = 240.0;

/// Input early, target late.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delayed {
    /// Minutes after injection of the input and of the target.
    pub minutes: [f64; 2],
}

impl Default for Delayed {
    /// One hour and two hours.
    fn default() -> Self {
        Self {
            minutes: [60.0, 120.0],
        }
    }
}

impl Pairing for Delayed {
    fn task(&self) -> Task {
        Task::Delayed
    }

    fn faults(&self) -> Vec<String> {
        let [early, late] = self.minutes;
        if early > 0.0 && early < late && late <= LATEST_MINUTES {
            return Vec::new();
        }
        vec![format!(
            "frames at {early} and {late} min; expected two times after injection, the earlier first, at most \
             {LATEST_MINUTES}"
        )]
    }

    fn tracers(&self) -> Vec<Tracer> {
        vec![Tracer::Fdg]
    }

    fn pair(&self, scene: &mut Scene<'_>) -> Result<Pair> {
        let [early, late] = self.minutes;
        let typical = scene.uptake(scene.tracer);
        let acquisition = scene.draw_acquisition(scene.tracer);
        let first_uptake = typical.at_minutes(scene.section.subject(), early)?;
        let first_rendering = scene.render(&first_uptake, 1.0);
        let first = acquisition.measure(&first_rendering, scene.geometry, None)?;
        let uptake = typical.at_minutes(scene.section.subject(), late)?;
        let rendering = scene.render(&uptake, 1.0);
        let second = acquisition.measure(&rendering, scene.geometry, None)?;
        let decay = Nuclide::of(scene.tracer).remaining((late - early) * 60.0);
        // Randoms follow the square of the activity in the field of view.
        let activity = first.calibration * decay / second.calibration;
        let second = second.scaled(activity, activity * activity);
        let measured = second.drawn(scene.target_noise.as_mut());
        let first = first.drawn(scene.input_noise.as_mut());
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
        let [early, late] = self.minutes;
        vec![
            ("minutes", format!("{early},{late}")),
            ("decay", "corrected to injection".to_owned()),
        ]
    }
}
