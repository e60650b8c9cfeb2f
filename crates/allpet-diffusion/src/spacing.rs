//! Which of the `T` noise levels a run of fewer steps visits: Lin et al., "Common diffusion noise schedules and sample
//! steps are flawed" (2024), table 2, and the grid of the latent-diffusion code.

use crate::karras::{KARRAS_RHO, power_levels};
use crate::{BridgeProcess, BridgeSchedule, Error, ForwardProcess, Result};
use serde::{Deserialize, Serialize};

/// How a grid of fewer steps is laid over `1..=T`. Libraries that count noise levels from 0 call time `t` index
/// `t - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Spacing {
    /// `1 + i·⌊T/S⌋`: ends on `t = 1`, does not start at `T`.
    Leading,
    /// From `T` to 1, evenly and rounded; one step starts at `T`.
    Linspace,
    /// `T - i·T/S`, rounded: starts at `T`. The one for zero terminal SNR.
    Trailing,
    /// Parity with the latent-diffusion code: `2 + i·c` below `T + 1` with `c = ⌊T/S⌋`, and the last step ends at
    /// `t = 1` with its noise kept, not at the clean `t = 0`. It may take more steps than asked: 67 to 71 give 72.
    LatentDiffusion,
}

impl Spacing {
    /// The descending grid of process times for `steps` steps of `terminal = T` levels, its end included: 0, or 1 for
    /// [`Spacing::LatentDiffusion`]. `steps + 1` values, or more for that one.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless `1 ≤ steps ≤ T`; the latent-diffusion grid must also fit, `2 + i·c ≤ T`.
    pub fn times(self, terminal: usize, steps: usize) -> Result<Vec<f64>> {
        let fault = |fault: String| {
            Err(Error::Invalid {
                what: "spacing",
                faults: vec![fault],
            })
        };
        if steps == 0 || steps > terminal {
            return fault(format!("{steps} steps asked, expected 1 to {terminal}"));
        }
        let stride = terminal / steps;
        let (total, count) = (terminal as f64, steps as f64);
        let mut times: Vec<f64> = match self {
            Self::Leading => (0..steps).rev().map(|i| (1 + i * stride) as f64).collect(),
            Self::Linspace => {
                let gap = (total - 1.0) / (count - 1.0).max(1.0);
                let last = steps - 1;
                // Rounded half to even from the clean end, as numpy's `linspace(0, T-1, S).round()` is.
                let index = |i: usize| {
                    if last == 0 {
                        total - 1.0
                    } else {
                        (i as f64 * gap).round_ties_even()
                    }
                };
                (0..steps).rev().map(|i| 1.0 + index(i)).collect()
            }
            Self::Trailing => (0..steps)
                .map(|i| (total - i as f64 * total / count).round_ties_even())
                .collect(),
            Self::LatentDiffusion => (0..terminal)
                .step_by(stride)
                .rev()
                .map(|i| (i + 2) as f64)
                .collect(),
        };
        if times[0] > total {
            return fault(format!(
                "latent-diffusion grid of {steps} steps needs t = {}, expected at most {terminal}",
                times[0]
            ));
        }
        times.push(if self == Self::LatentDiffusion { 1.0 } else { 0.0 });
        Ok(times)
    }
}

/// How a grid is laid over `[0, T]` of a bridge.
///
/// All but [`BridgeSpacing::Ddbm`] start at `T` itself, where [`crate::Dbim`] draws its booting noise, go on at
/// `T·(1 - 1e-3)` and end at `t_min`; they differ in the power of `t` that is even between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BridgeSpacing {
    /// Even in `t`: the grid of DBIM (Zheng et al., arXiv:2405.15885).
    Uniform,
    /// Even in `√t` (ours). What a restoration leaves open is often narrow, and is then decided at small times.
    Quadratic,
    /// Even in `t^(1/7)`, for the variance-exploding bridge, whose times span four decades.
    Karras,
    /// As many times as steps, from `T - 1e-4` to `t_min`, even in `t^(1/7)`, then 0: the grid of DDBM's own sampler.
    Ddbm,
}

impl BridgeSpacing {
    /// The grid on which a built-in sampler does best with few evaluations: [`BridgeSpacing::Ddbm`] for `ddbm`;
    /// for the others [`BridgeSpacing::Karras`] where variance explodes, else [`BridgeSpacing::Quadratic`].
    pub fn suited_to(sampler: &str, process: &BridgeProcess) -> Self {
        match process.schedule() {
            _ if sampler == "ddbm" => Self::Ddbm,
            BridgeSchedule::DdbmVe { .. } => Self::Karras,
            _ => Self::Quadratic,
        }
    }

    /// The descending grid of `steps + 1` times. One step leads from `T` to `t_min`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no steps.
    pub fn times(self, process: &BridgeProcess, steps: usize) -> Result<Vec<f64>> {
        if steps == 0 {
            return Err(Error::Invalid {
                what: "spacing",
                faults: vec!["0 steps asked, expected at least 1".to_owned()],
            });
        }
        let (terminal, last) = (process.terminal(), process.time_min());
        let root = match self {
            Self::Uniform => 1.0,
            Self::Quadratic => 2.0,
            Self::Karras => KARRAS_RHO,
            Self::Ddbm => {
                let first = terminal - f64::max(1e-4, 1e-6 * terminal);
                let mut times = power_levels(steps, first, last, KARRAS_RHO);
                times.push(0.0);
                return Ok(times);
            }
        };
        let first = terminal * (1.0 - 1e-3);
        let mut times = vec![terminal];
        if steps == 1 {
            times.push(last);
        } else {
            times.extend(power_levels(steps, first, last, root));
        }
        Ok(times)
    }
}
