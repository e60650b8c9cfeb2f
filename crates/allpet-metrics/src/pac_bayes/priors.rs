//! A prior variance chosen on the data, paid for by a union bound over the grid it was chosen from.
//!
//! Each of the `g` priors holds with `1 - δ/g`, hence all of them with `1 - δ`: ε grows by `ln(g)/n`, and likewise
//! `ln(2g/δ')/m` for the Monte Carlo estimates, as each posterior has its own.

use super::certificate::{Certificate, CertificateSettings, certify_among};
use super::gibbs::GibbsRisk;
use crate::error::{Error, Result};

/// One prior of the grid with the posterior that goes with it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PriorCandidate {
    /// Prior variance σ_P².
    pub variance: f64,
    /// `KL(Q‖P)` in nats of this prior and its posterior.
    pub kl: f64,
    /// Empirical Gibbs risk of the posterior (all of them over one sample).
    pub risk: GibbsRisk,
}

/// The smallest bound over a grid of prior variances, with the variance that gives it. The grid is fixed before the
/// sample is seen and given whole: leaving out those that did badly voids the bound.
///
/// # Errors
/// An empty grid, variances that repeat or are not positive and finite, numbers of units that differ, and what
/// [`certify`](super::certify) refuses.
pub fn certify_over_priors(
    grid: &[PriorCandidate],
    settings: &CertificateSettings,
) -> Result<(f64, Certificate)> {
    let mut best: Option<(f64, Certificate)> = None;
    for (place, candidate) in grid.iter().enumerate() {
        let repeated = grid[..place].iter().any(|c| c.variance == candidate.variance);
        if repeated || !(candidate.variance > 0.0 && candidate.variance.is_finite()) {
            return Err(Error::Setting {
                what: "a prior variance of the grid",
                expected: "positive, finite and there once",
                got: candidate.variance,
            });
        }
        if candidate.risk.units() != grid[0].risk.units() {
            return Err(Error::Shapes {
                what: "independent units of two priors of a grid",
                candidate: vec![candidate.risk.units()],
                reference: vec![grid[0].risk.units()],
            });
        }
        let certificate = certify_among(&candidate.risk, candidate.kl, settings, grid.len())?;
        if best.as_ref().is_none_or(|(_, b)| certificate.bound < b.bound) {
            best = Some((candidate.variance, certificate));
        }
    }
    best.ok_or(Error::TooFew {
        what: "a union bound over priors",
        needed: 1,
        of: "prior variances",
        got: 0,
    })
}
