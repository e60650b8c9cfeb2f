//! Rate schedules: the learning rate as a function of the step.
//!
//! Linear warm-up (Goyal et al. 2017, arXiv:1706.02677), `rate·(k + 1)/w` for `k < w`, then with
//! `u = (k - w)/(steps - w)`: constant; cosine (Loshchilov & Hutter 2017, arXiv:1608.03983 eq. 5 without restarts),
//! `rate·(f + (1 - f)(1 + cos πu)/2)`; or a factor at every so many steps.

use serde::{Deserialize, Serialize};

/// How the learning rate goes after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum RateSchedule {
    /// The base rate throughout.
    Constant,
    /// Half a cosine from the base rate to `floor` times it at the last step.
    Cosine {
        /// Fraction of the base rate that is left at the end, in `[0, 1]`.
        #[serde(default)]
        floor: f64,
    },
    /// The rate is multiplied by `factor` at every `every` steps after the warm-up.
    Step {
        /// Steps between two changes, at least 1.
        every: usize,
        /// Factor per change, in `(0, 1]`.
        factor: f64,
    },
}

impl Default for RateSchedule {
    fn default() -> Self {
        Self::Cosine { floor: 0.0 }
    }
}

impl RateSchedule {
    /// The rate of step `step` (from 0) of a run of `total` steps whose first `warmup` steps rise linearly to `base`.
    pub fn rate(&self, step: u64, base: f64, total: u64, warmup: u64) -> f64 {
        if step < warmup {
            return base * (step + 1) as f64 / warmup as f64;
        }
        let after = step - warmup;
        match *self {
            Self::Constant => base,
            Self::Cosine { floor } => {
                let u = (after as f64 / total.saturating_sub(warmup).max(1) as f64).min(1.0);
                base * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * u).cos()))
            }
            Self::Step { every, factor } => base * factor.powf((after / every.max(1) as u64) as f64),
        }
    }

    pub(crate) fn faults(&self, faults: &mut Vec<String>) {
        match *self {
            Self::Constant => {}
            Self::Cosine { floor } => {
                if !(0.0..=1.0).contains(&floor) {
                    faults.push(format!("schedule.floor is {floor}; expected a fraction in 0..1"));
                }
            }
            Self::Step { every, factor } => {
                if every == 0 {
                    faults.push("schedule.every is 0; expected at least 1 step".into());
                }
                if !(factor > 0.0 && factor <= 1.0) {
                    faults.push(format!(
                        "schedule.factor is {factor}; expected a factor above 0, at most 1"
                    ));
                }
            }
        }
    }
}
