//! Diffusion bridges: processes pinned to data at `t = 0` and to a given state `x_T` at `t = T`.
//!
//! A linear diffusion `dx = f·x dt + g dw` with signal `α_t` and noise `α_t·ρ_t` (`ρ² = 1/SNR`), conditioned by Doob's
//! h-transform on its end, has the marginal (Zhou et al., "Denoising diffusion bridge models", arXiv:2309.16948;
//! ALL-PET eqs. 22-25)
//!
//! `a = (α/α_T)·ρ²/ρ_T²`, `b = α·(1 - ρ²/ρ_T²)`, `c = α·ρ·√(1 - ρ²/ρ_T²)`.
//!
//! I2SB (Liu et al., "I²SB: image-to-image Schrödinger bridge", arXiv:2302.05872, eq. 11) is the same with `α = 1` and
//! `ρ_t² = ∫β`: its product of Gaussians `σ²σ̄²/(σ² + σ̄²)` is `ρ²·(1 - ρ²/ρ_T²)`, since `σ̄² = ρ_T² - ρ²`.
//!
//! At `t = 0` and `t = T` the marginal is a point, `c = 0`: both are exact here, and the difference `ρ_T² - ρ²` is
//! formed without cancellation near `T`.

use crate::{Error, ForwardProcess, Marginal, Preconditioning, ProcessKind, Result, Sde};
use serde::{Deserialize, Serialize};

/// The diffusion behind a bridge; in a file `{ kind = "ddbm-vp", beta_d = 2.0, beta_min = 0.1 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum BridgeSchedule {
    /// Variance preserving: `g² = β_min + β_d·t`, `f = -g²/2`, `T = 1`; `t_min` is 1e-4.
    DdbmVp {
        /// Slope of `g²`, by default 2.
        #[serde(default = "vp_beta_d")]
        beta_d: f64,
        /// `g²` at the clean end, by default 0.1.
        #[serde(default = "vp_beta_min")]
        beta_min: f64,
    },
    /// Variance exploding: `α = 1`, `ρ = t`, `g² = 2t`; `t_min` is 0.002.
    DdbmVe {
        /// `T`, which is also the largest `ρ`, by default 80.
        #[serde(default = "ve_terminal")]
        terminal: f64,
    },
    /// I2SB: `α = 1`, `g² = β_t` symmetric about `T/2`, `T = 1`; `t_min` is 1e-4. `√β` rises linearly from `√beta_min`
    /// at 0 towards `√beta_max` at 1, and is mirrored at one half, as in the authors' schedule.
    I2sb {
        /// `β` at both ends, by default 0.1.
        #[serde(default = "i2sb_beta_min")]
        beta_min: f64,
        /// The `β` that the rise would reach at `T` were it not mirrored, by default 0.3.
        #[serde(default = "i2sb_beta_max")]
        beta_max: f64,
    },
}

fn vp_beta_d() -> f64 {
    2.0
}

fn vp_beta_min() -> f64 {
    0.1
}

fn ve_terminal() -> f64 {
    80.0
}

fn i2sb_beta_min() -> f64 {
    0.1
}

fn i2sb_beta_max() -> f64 {
    0.3
}

impl BridgeSchedule {
    /// Variance preserving with the defaults of DDBM, `β_d = 2`, `β_min = 0.1`.
    pub fn vp() -> Self {
        Self::DdbmVp {
            beta_d: vp_beta_d(),
            beta_min: vp_beta_min(),
        }
    }

    /// Variance exploding with `T = 80`.
    pub fn ve() -> Self {
        Self::DdbmVe {
            terminal: ve_terminal(),
        }
    }

    /// I2SB with `β` from 0.1 towards 0.3.
    pub fn i2sb() -> Self {
        Self::I2sb {
            beta_min: i2sb_beta_min(),
            beta_max: i2sb_beta_max(),
        }
    }

    /// The name in a configuration file: `ddbm-vp`, `ddbm-ve` or `i2sb`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DdbmVp { .. } => "ddbm-vp",
            Self::DdbmVe { .. } => "ddbm-ve",
            Self::I2sb { .. } => "i2sb",
        }
    }

    fn faults(&self) -> Vec<String> {
        let settings: &[(&str, f64)] = match *self {
            Self::DdbmVp { beta_d, beta_min } => &[("beta_d", beta_d), ("beta_min", beta_min)],
            Self::DdbmVe { terminal } => &[("terminal", terminal)],
            Self::I2sb { beta_min, beta_max } => &[("beta_min", beta_min), ("beta_max", beta_max)],
        };
        let mut faults: Vec<String> = settings
            .iter()
            .filter(|(_, value)| !(value.is_finite() && *value > 0.0))
            .map(|(name, value)| format!("{name} is {value}, expected a number above 0"))
            .collect();
        match *self {
            // exp(β_d/2 + β_min) is 1/SNR at T; a larger one leaves nothing of x_0 to pin in f64.
            Self::DdbmVp { beta_d, beta_min } if 0.5 * beta_d + beta_min > 50.0 => {
                faults.push(format!(
                    "beta_d/2 + beta_min is {}, expected at most 50",
                    0.5 * beta_d + beta_min
                ));
            }
            Self::DdbmVe { terminal } if terminal.is_finite() && terminal <= VE_TIME_MIN => {
                faults.push(format!("terminal is {terminal}, expected above {VE_TIME_MIN}"));
            }
            Self::I2sb { beta_min, beta_max } if beta_max < beta_min => {
                faults.push(format!(
                    "beta_max is {beta_max}, expected at least beta_min, {beta_min}"
                ));
            }
            _ => {}
        }
        faults
    }
}

/// `t_min` of the processes on `[0, 1]`, and of the variance-exploding one.
const UNIT_TIME_MIN: f64 = 1e-4;
const VE_TIME_MIN: f64 = 0.002;

/// A bridge and how its network is preconditioned, as a configuration file says it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// The diffusion behind it.
    pub schedule: BridgeSchedule,
    /// Spread of the data at both ends, from which the network's scalings follow.
    pub preconditioning: Preconditioning,
}

impl Default for BridgeConfig {
    /// Variance preserving, `β_d = 2`, `β_min = 0.1`; standard deviations 0.5, no covariance.
    fn default() -> Self {
        Self {
            schedule: BridgeSchedule::vp(),
            preconditioning: Preconditioning::default(),
        }
    }
}

impl BridgeConfig {
    /// The defaults with this diffusion.
    pub fn new(schedule: BridgeSchedule) -> Self {
        Self {
            schedule,
            ..Self::default()
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.schedule.faults();
        faults.extend(self.preconditioning.faults());
        faults
    }

    /// Reports every fault at once.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn validate(&self) -> Result<()> {
        let faults = self.faults();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "bridge",
                faults,
            })
        }
    }

    /// Builds the process.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every fault.
    pub fn build(&self) -> Result<BridgeProcess> {
        self.validate()?;
        BridgeProcess::new(self.schedule)
    }
}

/// The bridge of a [`BridgeSchedule`]. Times run over `[0, T]`; networks are trained and asked on `[t_min, T]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BridgeProcess {
    schedule: BridgeSchedule,
}

impl BridgeProcess {
    /// The bridge of this schedule.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings out of range.
    pub fn new(schedule: BridgeSchedule) -> Result<Self> {
        let faults = schedule.faults();
        if faults.is_empty() {
            Ok(Self { schedule })
        } else {
            Err(Error::Invalid {
                what: "bridge",
                faults,
            })
        }
    }

    /// The schedule behind it.
    pub fn schedule(&self) -> &BridgeSchedule {
        &self.schedule
    }

    /// The smallest time that training draws and that a network is asked at.
    pub fn time_min(&self) -> f64 {
        match self.schedule {
            BridgeSchedule::DdbmVe { .. } => VE_TIME_MIN,
            _ => UNIT_TIME_MIN,
        }
    }

    /// `α_t`, `ρ_t²`, `ρ_T²` and `1 - ρ_t²/ρ_T²` at `t` in `[0, T]`.
    fn levels(&self, t: f64) -> Levels {
        match self.schedule {
            BridgeSchedule::DdbmVp { beta_d, beta_min } => {
                let integral = |t: f64| 0.5 * beta_d * t * t + beta_min * t;
                let left = (1.0 - t) * (0.5 * beta_d * (1.0 + t) + beta_min);
                let rho2_terminal = integral(1.0).exp_m1();
                Levels {
                    alpha: (-0.5 * integral(t)).exp(),
                    rho2: integral(t).exp_m1(),
                    rho2_terminal,
                    rest: integral(t).exp() * left.exp_m1() / rho2_terminal,
                }
            }
            BridgeSchedule::DdbmVe { terminal } => Levels {
                alpha: 1.0,
                rho2: t * t,
                rho2_terminal: terminal * terminal,
                rest: (1.0 - t / terminal) * (1.0 + t / terminal),
            },
            BridgeSchedule::I2sb { beta_min, beta_max } => {
                let (first, slope) = i2sb_root(beta_min, beta_max);
                let rise = |t: f64| t * (first * first + t * (first * slope + t * slope * slope / 3.0));
                let total = 2.0 * rise(0.5);
                let rho2 = |t: f64| {
                    if t <= 0.5 { rise(t) } else { total - rise(1.0 - t) }
                };
                Levels {
                    alpha: 1.0,
                    rho2: rho2(t),
                    rho2_terminal: total,
                    rest: rho2(1.0 - t) / total,
                }
            }
        }
    }
}

/// `√β = first + slope·t` of I2SB's rising half.
fn i2sb_root(beta_min: f64, beta_max: f64) -> (f64, f64) {
    (beta_min.sqrt(), beta_max.sqrt() - beta_min.sqrt())
}

struct Levels {
    alpha: f64,
    rho2: f64,
    rho2_terminal: f64,
    rest: f64,
}

impl ForwardProcess for BridgeProcess {
    fn marginal(&self, t: f64) -> Marginal {
        let t = t.clamp(0.0, self.terminal());
        let levels = self.levels(t);
        let alpha_terminal = self.levels(self.terminal()).alpha;
        Marginal {
            a: levels.alpha / alpha_terminal * (levels.rho2 / levels.rho2_terminal),
            b: levels.alpha * levels.rest,
            c: levels.alpha * (levels.rho2 * levels.rest).sqrt(),
        }
    }

    fn terminal(&self) -> f64 {
        match self.schedule {
            BridgeSchedule::DdbmVe { terminal } => terminal,
            _ => 1.0,
        }
    }

    /// Uniform on `[t_min, T]`.
    fn training_time(&self, unit: f64) -> f64 {
        let first = self.time_min();
        first + unit.clamp(0.0, 1.0) * (self.terminal() - first)
    }

    fn kind(&self) -> ProcessKind {
        ProcessKind::Bridge
    }

    fn name(&self) -> &'static str {
        self.schedule.name()
    }

    fn sde(&self, t: f64) -> Option<Sde> {
        let t = t.clamp(0.0, self.terminal());
        let levels = self.levels(t);
        let (drift, diffusion) = match self.schedule {
            BridgeSchedule::DdbmVp { beta_d, beta_min } => {
                let g2 = beta_min + beta_d * t;
                (-0.5 * g2, g2)
            }
            BridgeSchedule::DdbmVe { .. } => (0.0, 2.0 * t),
            BridgeSchedule::I2sb { beta_min, beta_max } => {
                let (first, slope) = i2sb_root(beta_min, beta_max);
                (0.0, (first + slope * t.min(1.0 - t)).powi(2))
            }
        };
        Some(Sde {
            alpha: levels.alpha,
            rho2: levels.rho2,
            drift,
            diffusion,
        })
    }
}
