//! Noise schedules: `ᾱ_t = Π_{i≤t} (1 - β_i)` (ALL-PET eq. 15).
//!
//! Linear `β`: Ho et al., "Denoising diffusion probabilistic models" (2020). Linear in `√β`: Rombach et al.,
//! "High-resolution image synthesis with latent diffusion models" (2022). Cosine: Nichol and Dhariwal, "Improved
//! denoising diffusion probabilistic models" (2021), eq. 17. Zero terminal SNR: Lin et al., "Common diffusion noise
//! schedules and sample steps are flawed" (2024), algorithm 1.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The family of a noise schedule; in a file `{ kind = "linear", first = 1e-4, last = 0.02 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// `β_t` linear in `t`.
    Linear {
        /// `β_1`, by default 1e-4.
        #[serde(default = "linear_first")]
        first: f64,
        /// `β_T`, by default 0.02.
        #[serde(default = "linear_last")]
        last: f64,
    },
    /// `√β_t` linear in `t`, the schedule of latent diffusion.
    ScaledLinear {
        /// `β_1`, by default 0.0015.
        #[serde(default = "scaled_first")]
        first: f64,
        /// `β_T`, by default 0.0195.
        #[serde(default = "scaled_last")]
        last: f64,
    },
    /// `ᾱ_t ∝ cos²(π/2 · (t/T + offset)/(1 + offset))`, each `β_t` at most 0.999.
    Cosine {
        /// Keeps the first `β` from vanishing, by default 0.008.
        #[serde(default = "cosine_offset")]
        offset: f64,
    },
}

fn linear_first() -> f64 {
    1e-4
}

fn linear_last() -> f64 {
    0.02
}

fn scaled_first() -> f64 {
    0.0015
}

fn scaled_last() -> f64 {
    0.0195
}

fn cosine_offset() -> f64 {
    0.008
}

/// The largest `β` of the cosine schedule, as in its paper.
const COSINE_BETA_MAX: f64 = 0.999;

impl Schedule {
    /// Linear with the defaults of DDPM, `β` from 1e-4 to 0.02.
    pub fn linear() -> Self {
        Self::Linear {
            first: linear_first(),
            last: linear_last(),
        }
    }

    /// Scaled linear with the defaults of latent diffusion, `β` from 0.0015 to 0.0195.
    pub fn scaled_linear() -> Self {
        Self::ScaledLinear {
            first: scaled_first(),
            last: scaled_last(),
        }
    }

    /// Cosine with the default offset, 0.008.
    pub fn cosine() -> Self {
        Self::Cosine {
            offset: cosine_offset(),
        }
    }

    /// `β_1 … β_T` of `steps = T` (the end points of the linear kinds are met exactly).
    pub fn betas(&self, steps: usize) -> Vec<f64> {
        let spread = |first: f64, last: f64| {
            let intervals = steps.saturating_sub(1).max(1) as f64;
            (0..steps).map(move |i| first + (last - first) * (i as f64 / intervals))
        };
        match *self {
            Self::Linear { first, last } => spread(first, last).collect(),
            Self::ScaledLinear { first, last } => spread(first.sqrt(), last.sqrt())
                .map(|root| root * root)
                .collect(),
            Self::Cosine { offset } => {
                let cosine = |t: usize| {
                    let angle = (t as f64 / steps as f64 + offset) / (1.0 + offset);
                    (std::f64::consts::FRAC_PI_2 * angle).cos().powi(2)
                };
                (0..steps)
                    .map(|i| (1.0 - cosine(i + 1) / cosine(i)).min(COSINE_BETA_MAX))
                    .collect()
            }
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match *self {
            Self::Linear { first, last } | Self::ScaledLinear { first, last } => {
                for (name, beta) in [("first", first), ("last", last)] {
                    if !(beta > 0.0 && beta < 1.0) {
                        faults.push(format!("{name} is {beta}, expected a beta in (0, 1)"));
                    }
                }
            }
            Self::Cosine { offset } => {
                if !(offset > 0.0 && offset < 1.0) {
                    faults.push(format!("offset is {offset}, expected a number in (0, 1)"));
                }
            }
        }
        faults
    }
}

/// The table `ᾱ_1 … ᾱ_T`, checked: strictly decreasing inside `(0, 1)`; only a zero-terminal-SNR table ends at 0.
#[derive(Debug, Clone, PartialEq)]
pub struct NoiseSchedule {
    alpha_bar: Vec<f64>,
}

impl NoiseSchedule {
    /// The table of `schedule` with `steps = T`, rescaled to zero terminal SNR if asked.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every fault: `steps` below 2, settings out of range, a table that does not decrease.
    pub fn new(schedule: &Schedule, steps: usize, zero_terminal_snr: bool) -> Result<Self> {
        let mut faults = schedule.faults();
        if steps < 2 {
            faults.push(format!("steps is {steps}, expected at least 2"));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid {
                what: "schedule",
                faults,
            });
        }
        let mut product = 1.0;
        let table = schedule.betas(steps).into_iter().map(|beta| {
            product *= 1.0 - beta;
            product
        });
        let table: Vec<f64> = table.collect();
        Self::from_alpha_bar(if zero_terminal_snr {
            rescale_to_zero_snr(&table)
        } else {
            table
        })
    }

    /// A table of one's own, `ᾱ_1 … ᾱ_T`; a last value of exactly 0 means zero terminal SNR.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless it strictly decreases inside `(0, 1)` and holds at least two values.
    pub fn from_alpha_bar(alpha_bar: Vec<f64>) -> Result<Self> {
        let mut faults = Vec::new();
        if alpha_bar.len() < 2 {
            faults.push(format!(
                "alpha_bar holds {} values, expected at least 2",
                alpha_bar.len()
            ));
        }
        let mut previous = 1.0;
        for (i, &value) in alpha_bar.iter().enumerate() {
            let last = i + 1 == alpha_bar.len();
            let inside = value > 0.0 || (last && value == 0.0);
            if !(inside && value < previous) {
                let t = i + 1;
                faults.push(format!(
                    "alpha_bar of t = {t} is {value}, expected a value in (0, {previous})"
                ));
                break;
            }
            previous = value;
        }
        if faults.is_empty() {
            Ok(Self { alpha_bar })
        } else {
            Err(Error::Invalid {
                what: "schedule",
                faults,
            })
        }
    }

    /// `T`, the number of noise levels.
    pub fn steps(&self) -> usize {
        self.alpha_bar.len()
    }

    /// `ᾱ_1 … ᾱ_T`: entry `i` belongs to `t = i + 1`.
    pub fn table(&self) -> &[f64] {
        &self.alpha_bar
    }

    /// `ᾱ_t` for `t` in `0..=T`, where `ᾱ_0 = 1`; none beyond.
    pub fn alpha_bar(&self, t: usize) -> Option<f64> {
        if t == 0 {
            Some(1.0)
        } else {
            self.alpha_bar.get(t - 1).copied()
        }
    }

    /// Whether `ᾱ_T = 0`.
    pub fn zero_terminal_snr(&self) -> bool {
        self.alpha_bar.last() == Some(&0.0)
    }
}

/// Shifts and scales `√ᾱ` so that the first stays and the last is exactly zero (Lin et al., algorithm 1).
fn rescale_to_zero_snr(table: &[f64]) -> Vec<f64> {
    let (Some(first), Some(last)) = (table.first(), table.last()) else {
        return Vec::new();
    };
    let (first, last) = (first.sqrt(), last.sqrt());
    table
        .iter()
        .map(|a| ((a.sqrt() - last) * (first / (first - last))).powi(2))
        .collect()
}
