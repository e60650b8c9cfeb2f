//! The bound itself (ALL-PET eqs. 17-21, with eq. 19's brackets and eq. 21's `/(2n)`), and what it rests on.

use super::binary_kl::binary_kl_upper;
use super::gibbs::{GibbsRisk, check_delta};
use crate::error::{Error, Result};
use std::fmt;

/// A bound above this says nothing and is printed as vacuous.
pub const VACUOUS: f64 = 0.99;

/// The price of the moment bound (eq. 8) in ε.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Complexity {
    /// `ln((n+1)/δ)`, for every n: the paper's.
    #[default]
    Langford,
    /// `ln(2√n/δ)`, for n ≥ 8 (Maurer 2004): smaller.
    Maurer,
}

impl fmt::Display for Complexity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Langford => "ln((n+1)/δ)",
            Self::Maurer => "ln(2√n/δ)",
        })
    }
}

/// What is fixed before the sample is seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CertificateSettings {
    /// Probability that the sample misleads.
    pub delta: f64,
    /// Probability that the posterior draws mislead; costs nothing when the Gibbs risk is exact.
    pub delta_monte_carlo: f64,
    /// Which moment bound.
    pub complexity: Complexity,
}

impl Default for CertificateSettings {
    /// 0.025 each, together 95% confidence, and the paper's moment bound.
    fn default() -> Self {
        Self {
            delta: 0.025,
            delta_monte_carlo: 0.025,
            complexity: Complexity::Langford,
        }
    }
}

/// An upper bound on the true risk `R(Q)`, and everything it stands on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Certificate {
    /// `R(Q)` is at most this, with probability [`confidence`](Self::confidence).
    pub bound: f64,
    /// The looser closed form of eq. 21, at most 1.
    pub closed_form: f64,
    /// Empirical Gibbs risk, exact or by Monte Carlo.
    pub risk: GibbsRisk,
    /// What the empirical Gibbs risk does not exceed, from the Monte Carlo inversion.
    pub risk_upper: f64,
    /// `KL(Q‖P)` in nats.
    pub kl: f64,
    /// `[KL + ln((n+1)·priors/δ)]/n`, or its tighter form.
    pub epsilon: f64,
    /// Prior variances that could have been chosen on the data (1: none).
    pub priors: usize,
    /// Settings of the bound.
    pub settings: CertificateSettings,
}

impl Certificate {
    /// Confidence `1 - δ - δ'`, or `1 - δ` when the Gibbs risk is exact.
    pub fn confidence(&self) -> f64 {
        let monte_carlo = match self.risk.draws() {
            Some(_) => self.settings.delta_monte_carlo,
            None => 0.0,
        };
        1.0 - self.settings.delta - monte_carlo
    }

    /// Whether the bound says nothing: above [`VACUOUS`].
    pub fn is_vacuous(&self) -> bool {
        self.bound > VACUOUS
    }
}

impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_vacuous() {
            write!(f, "vacuous: ")?;
        }
        write!(
            f,
            "true risk at most {:.4} with confidence {} (n = {} independent units, Gibbs risk {:.4}",
            self.bound,
            // Decimal deltas leave binary dust in the difference.
            (self.confidence() * 1e9).round() / 1e9,
            self.risk.units(),
            self.risk.mean()
        )?;
        if let Some(draws) = self.risk.draws() {
            write!(
                f,
                " ± {:.4} over {draws} draws, at most {:.4}",
                self.risk.standard_error(),
                self.risk_upper
            )?;
        }
        write!(
            f,
            ", KL {:.4} nats, epsilon {:.4} by {}",
            self.kl, self.epsilon, self.settings.complexity
        )?;
        if self.priors > 1 {
            write!(f, " over {} prior variances", self.priors)?;
        }
        write!(f, "; closed form {:.4})", self.closed_form)
    }
}

/// The certificate of an empirical Gibbs risk and a divergence `kl` from a prior fixed before the sample was seen.
///
/// # Errors
/// A delta outside `(0, 1)`, deltas that add up to 1 or more, a divergence that is negative or not finite, fewer than
/// eight units with [`Complexity::Maurer`].
pub fn certify(risk: &GibbsRisk, kl: f64, settings: &CertificateSettings) -> Result<Certificate> {
    certify_among(risk, kl, settings, 1)
}

/// [`certify`] as one of `priors` that share δ and δ'.
pub(crate) fn certify_among(
    risk: &GibbsRisk,
    kl: f64,
    settings: &CertificateSettings,
    priors: usize,
) -> Result<Certificate> {
    check_delta("delta", settings.delta)?;
    if risk.draws().is_some() {
        check_delta("delta of the Monte Carlo estimate", settings.delta_monte_carlo)?;
        check_delta("sum of the deltas", settings.delta + settings.delta_monte_carlo)?;
    }
    if !(kl >= 0.0 && kl.is_finite()) {
        return Err(Error::Setting {
            what: "KL(Q‖P)",
            expected: "at least 0 and finite",
            got: kl,
        });
    }
    let n = risk.units() as f64;
    let share = priors as f64;
    let moment = match settings.complexity {
        Complexity::Langford => n + 1.0,
        Complexity::Maurer if risk.units() < 8 => {
            return Err(Error::TooFew {
                what: "the moment bound ln(2√n/δ)",
                needed: 8,
                of: "independent units",
                got: risk.units(),
            });
        }
        Complexity::Maurer => 2.0 * n.sqrt(),
    };
    let epsilon = (kl + (moment * share / settings.delta).ln()) / n;
    let risk_upper = risk.upper(settings.delta_monte_carlo / share)?;
    Ok(Certificate {
        bound: binary_kl_upper(risk_upper, epsilon)?,
        closed_form: (risk_upper + (0.5 * epsilon).sqrt()).min(1.0),
        risk: *risk,
        risk_upper,
        kl,
        epsilon,
        priors,
        settings: *settings,
    })
}
