//! Which of the `T` noise levels a run of fewer steps visits: Lin et al., "Common diffusion noise schedules and sample
//! steps are flawed" (2024), table 2, and the grid of the latent-diffusion code.

use crate::karras::karras_levels;
use crate::{BridgeProcess, Error, ForwardProcess, Result};
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum BridgeSpacing {
    /// `T`, then evenly from `T·(1 - 1e-3)` to `t_min`: the grid of DBIM, whose first step draws the booting noise.
    Uniform,
    /// As many times as steps, from `T - 1e-4` to `t_min`, even in `t^(1/7)`, then 0: the grid of DDBM.
    Karras,
}

impl BridgeSpacing {
    /// The grid that a built-in sampler is made for: [`BridgeSpacing::Karras`] for `ddbm`, else
    /// [`BridgeSpacing::Uniform`].
    pub fn suited_to(sampler: &str) -> Self {
        if sampler == "ddbm" {
            Self::Karras
        } else {
            Self::Uniform
        }
    }

    /// The descending grid of `steps + 1` times. One uniform step leads from `T` to `t_min`.
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
        Ok(match self {
            Self::Uniform if steps == 1 => vec![terminal, last],
            Self::Uniform => {
                let first = terminal * (1.0 - 1e-3);
                let share = |i: usize| i as f64 / (steps - 1) as f64;
                let times = (0..steps).map(|i| first * (1.0 - share(i)) + last * share(i));
                std::iter::once(terminal).chain(times).collect()
            }
            Self::Karras => {
                let first = terminal - f64::max(1e-4, 1e-6 * terminal);
                let mut times = karras_levels(steps, first, last);
                times.push(0.0);
                times
            }
        })
    }
}
