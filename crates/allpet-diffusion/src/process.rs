//! Forward processes: the marginal `x_t = a·x_T + b·x_0 + c·ε` at every time (ALL-PET eq. 16 for `a = 0`).

use crate::{BridgeConfig, BridgeProcess, Error, NoiseSchedule, Prediction, Result, Schedule};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Coefficients of `x_t = a·x_T + b·x_0 + c·ε`, `ε` standard normal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Marginal {
    /// Weight of the terminal state; 0 for a Gaussian process, above 0 for a bridge.
    pub a: f64,
    /// Weight of the clean sample.
    pub b: f64,
    /// Standard deviation of the noise.
    pub c: f64,
}

/// The two kinds of process; a sampler is made for one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProcessKind {
    /// From data to noise, `a = 0`.
    Gaussian,
    /// From data to a given state `x_T`, `a > 0`.
    Bridge,
}

impl std::fmt::Display for ProcessKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gaussian => "a Gaussian process",
            Self::Bridge => "a bridge",
        })
    }
}

/// The unpinned diffusion `dx = f·x dt + g dw` behind a process, at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sde {
    /// Signal left, `α_t`.
    pub alpha: f64,
    /// Noise over signal, squared: `ρ_t² = 1/SNR_t`.
    pub rho2: f64,
    /// Linear drift `f`.
    pub drift: f64,
    /// Squared diffusion coefficient `g²`.
    pub diffusion: f64,
}

/// A process that turns data at `t = 0` into its terminal state at `t = T`. Object-safe.
///
/// Samplers use the marginals, so that any process of their kind fits; DDBM's own sampler alone needs [`Sde`] too.
pub trait ForwardProcess: Send + Sync {
    /// The marginal at `t`, clamped to `[0, T]`; at 0 it is `a = 0, b = 1, c = 0`.
    fn marginal(&self, t: f64) -> Marginal;

    /// `T`, the last time.
    fn terminal(&self) -> f64;

    /// The training time that a uniform draw `unit` in `[0, 1)` stands for.
    fn training_time(&self, unit: f64) -> f64;

    /// Scale of the standard normal that stands for `x_t` at the start of sampling. By default the standard
    /// deviation of `x_t` for data of unit variance, `√(b² + c²)`, which is 1 when variance is preserved.
    fn start_scale(&self, t: f64) -> f64 {
        let m = self.marginal(t);
        m.b.hypot(m.c)
    }

    /// Whether this is a bridge; by default read off the marginal at `T`.
    fn kind(&self) -> ProcessKind {
        if self.marginal(self.terminal()).a > 0.0 {
            ProcessKind::Bridge
        } else {
            ProcessKind::Gaussian
        }
    }

    /// A name for messages.
    fn name(&self) -> &'static str {
        "custom"
    }

    /// The diffusion behind the process at `t`, clamped to `[0, T]`; none where only marginals are known.
    fn sde(&self, t: f64) -> Option<Sde> {
        let _ = t;
        None
    }
}

macro_rules! forward_to_target {
    ($pointer:ty) => {
        impl<P: ForwardProcess + ?Sized> ForwardProcess for $pointer {
            fn marginal(&self, t: f64) -> Marginal {
                (**self).marginal(t)
            }
            fn terminal(&self) -> f64 {
                (**self).terminal()
            }
            fn training_time(&self, unit: f64) -> f64 {
                (**self).training_time(unit)
            }
            fn start_scale(&self, t: f64) -> f64 {
                (**self).start_scale(t)
            }
            fn kind(&self) -> ProcessKind {
                (**self).kind()
            }
            fn name(&self) -> &'static str {
                (**self).name()
            }
            fn sde(&self, t: f64) -> Option<Sde> {
                (**self).sde(t)
            }
        }
    };
}
forward_to_target!(&P);
forward_to_target!(Box<P>);
forward_to_target!(Arc<P>);

/// The variance-preserving process of a [`NoiseSchedule`]: `a = 0, b = √ᾱ_t, c = √(1 - ᾱ_t)`.
///
/// Times are `0..=T`, 0 clean. Whole times are exact; between them `√ᾱ` is interpolated linearly, which stays
/// decreasing and finite also where the last `ᾱ` is zero.
#[derive(Debug, Clone, PartialEq)]
pub struct GaussianProcess {
    schedule: NoiseSchedule,
}

impl GaussianProcess {
    /// The process of this table.
    pub fn new(schedule: NoiseSchedule) -> Self {
        Self { schedule }
    }

    /// The table behind it.
    pub fn schedule(&self) -> &NoiseSchedule {
        &self.schedule
    }

    /// `T` as a count, for [`crate::Spacing::times`].
    pub fn steps(&self) -> usize {
        self.schedule.steps()
    }
}

impl ForwardProcess for GaussianProcess {
    fn marginal(&self, t: f64) -> Marginal {
        let t = t.clamp(0.0, self.terminal());
        let alpha_bar = |t: usize| self.schedule.alpha_bar(t).unwrap_or(0.0);
        let low = alpha_bar(t.floor() as usize);
        let fraction = t - t.floor();
        if fraction == 0.0 {
            return Marginal {
                a: 0.0,
                b: low.sqrt(),
                c: (1.0 - low).sqrt(),
            };
        }
        let high = alpha_bar(t.floor() as usize + 1);
        let b = low.sqrt() + (high.sqrt() - low.sqrt()) * fraction;
        Marginal {
            a: 0.0,
            b,
            c: ((1.0 - b) * (1.0 + b)).sqrt(),
        }
    }

    fn terminal(&self) -> f64 {
        self.schedule.steps() as f64
    }

    /// A whole time, each of `1..=T` equally likely.
    fn training_time(&self, unit: f64) -> f64 {
        (unit * self.terminal()).floor().clamp(0.0, self.terminal() - 1.0) + 1.0
    }

    fn kind(&self) -> ProcessKind {
        ProcessKind::Gaussian
    }

    fn name(&self) -> &'static str {
        "gaussian"
    }
}

/// A process and what the network predicts, as a configuration file says it: Gaussian, or a bridge where `bridge` is
/// given (then the other settings are not used, and the network is preconditioned as the bridge says).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcessConfig {
    /// Family of the schedule.
    pub schedule: Schedule,
    /// `T`, the number of noise levels.
    pub steps: usize,
    /// Rescale so that `ᾱ_T = 0`; then `prediction` is `v` or `x0`.
    pub zero_terminal_snr: bool,
    /// What the network is trained to give.
    pub prediction: Prediction,
    /// A bridge instead of a Gaussian process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeConfig>,
}

impl Default for ProcessConfig {
    /// DDPM's linear schedule, T = 1000, ε-prediction: what ALL-PET prints.
    fn default() -> Self {
        Self {
            schedule: Schedule::linear(),
            steps: 1000,
            zero_terminal_snr: false,
            prediction: Prediction::Epsilon,
            bridge: None,
        }
    }
}

impl ProcessConfig {
    /// Reports every fault at once.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn validate(&self) -> Result<()> {
        let mut faults = self.schedule.faults();
        if self.steps < 2 {
            faults.push(format!("steps is {}, expected at least 2", self.steps));
        }
        if self.zero_terminal_snr && self.prediction == Prediction::Epsilon {
            faults.push(Error::EpsilonAtZeroSnr.to_string());
        }
        if let Some(bridge) = &self.bridge {
            faults.extend(bridge.faults());
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "diffusion",
                faults,
            })
        }
    }

    /// The same with this bridge in place of the Gaussian process.
    pub fn with_bridge(self, bridge: BridgeConfig) -> Self {
        Self {
            bridge: Some(bridge),
            ..self
        }
    }

    /// Builds the Gaussian process.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every fault, ε-prediction at zero terminal SNR and a bridge among them.
    pub fn build(&self) -> Result<GaussianProcess> {
        self.validate()?;
        if let Some(bridge) = &self.bridge {
            return Err(Error::Invalid {
                what: "diffusion",
                faults: vec![format!(
                    "the configuration names the bridge `{}`, expected a Gaussian process",
                    bridge.schedule.name()
                )],
            });
        }
        Ok(GaussianProcess::new(NoiseSchedule::new(
            &self.schedule,
            self.steps,
            self.zero_terminal_snr,
        )?))
    }

    /// Builds the bridge.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every fault, a configuration without a bridge among them.
    pub fn build_bridge(&self) -> Result<BridgeProcess> {
        self.validate()?;
        match &self.bridge {
            Some(bridge) => bridge.build(),
            None => Err(Error::Invalid {
                what: "diffusion",
                faults: vec!["the configuration names a Gaussian process, expected a bridge".to_owned()],
            }),
        }
    }

    /// Builds whichever process the configuration names.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every fault.
    pub fn build_any(&self) -> Result<Box<dyn ForwardProcess>> {
        Ok(if self.bridge.is_some() {
            Box::new(self.build_bridge()?)
        } else {
            Box::new(self.build()?)
        })
    }
}
