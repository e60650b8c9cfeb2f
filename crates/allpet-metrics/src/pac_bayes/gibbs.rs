//! The empirical Gibbs risk, exact or by Monte Carlo (ALL-PET eqs. 5, 25).

use super::binary_kl::{binary_kl_upper, check_probability};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The empirical risk of the randomised predictor, and how it is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GibbsRisk {
    mean: f64,
    standard_error: f64,
    draws: Option<usize>,
    units: usize,
}

impl GibbsRisk {
    /// A Gibbs risk known in closed form over `units` independent units. The risk of a point estimate is not one.
    ///
    /// # Errors
    /// A risk outside `[0, 1]`, no units.
    pub fn exact(risk: f64, units: usize) -> Result<Self> {
        check_probability("Gibbs risk", risk)?;
        at_least_one("an exact Gibbs risk", "independent units", units)?;
        Ok(Self {
            mean: risk,
            standard_error: 0.0,
            draws: None,
            units,
        })
    }

    /// The risk, or its Monte Carlo estimate.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Monte Carlo standard error: 0 when exact, infinite from a single draw.
    pub fn standard_error(&self) -> f64 {
        self.standard_error
    }

    /// Draws from the posterior; `None` when exact.
    pub fn draws(&self) -> Option<usize> {
        self.draws
    }

    /// Independent units (patients).
    pub fn units(&self) -> usize {
        self.units
    }

    /// A value the empirical Gibbs risk does not exceed with probability `1 - δ'` over the draws: the largest `R̂` with
    /// `kl(R̂_MC‖R̂) ≤ ln(2/δ')/m`. The risk itself when exact.
    ///
    /// # Errors
    /// A `delta` outside `(0, 1)`.
    pub fn upper(&self, delta: f64) -> Result<f64> {
        let Some(draws) = self.draws else {
            return Ok(self.mean);
        };
        check_delta("delta of the Monte Carlo estimate", delta)?;
        binary_kl_upper(self.mean, (2.0 / delta).ln() / draws as f64)
    }
}

/// Monte Carlo Gibbs risk: `losses(j)` draws parameters `θ_j` from the posterior (independently for each `j`, for
/// example from a stream of index `j`) and gives their bounded loss on every unit, always in the same order.
///
/// # Errors
/// No draws, no units, a number of units that changes between draws, a loss outside `[0, 1]`, whatever the closure
/// returns.
pub fn gibbs_risk<E: From<Error>>(
    draws: usize,
    mut losses: impl FnMut(usize) -> Result<Vec<f64>, E>,
) -> Result<GibbsRisk, E> {
    at_least_one("a Monte Carlo Gibbs risk", "draws", draws)?;
    let mut units = None;
    let mut risks = Vec::with_capacity(draws);
    for draw in 0..draws {
        let of_draw = losses(draw)?;
        at_least_one("a Monte Carlo Gibbs risk", "independent units", of_draw.len())?;
        let expected = *units.get_or_insert(of_draw.len());
        if of_draw.len() != expected {
            return Err(E::from(Error::Core(allpet_core::Error::Shape {
                what: format!("losses of posterior draw {draw}"),
                expected: format!("[{expected}], one per independent unit as in draw 0"),
                got: vec![of_draw.len()],
            })));
        }
        for &loss in &of_draw {
            check_probability("bounded loss", loss)?;
        }
        risks.push(of_draw.iter().sum::<f64>() / expected as f64);
    }
    let m = draws as f64;
    let mean = risks.iter().sum::<f64>() / m;
    let standard_error = if draws > 1 {
        (risks.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (m - 1.0) / m).sqrt()
    } else {
        f64::INFINITY
    };
    Ok(GibbsRisk {
        mean: mean.clamp(0.0, 1.0),
        standard_error,
        draws: Some(draws),
        units: units.unwrap_or(0),
    })
}

/// The mean bounded loss of each unit, in the order of the units' identifiers: `unit[i]` is the patient of sample `i`.
///
/// # Errors
/// Lengths that differ, no samples, a loss outside `[0, 1]`.
pub fn unit_means<K: Ord>(losses: &[f64], unit: &[K]) -> Result<Vec<f64>> {
    if losses.len() != unit.len() {
        return Err(Error::Core(allpet_core::Error::Shape {
            what: "units of the losses".to_owned(),
            expected: format!("[{}], one per loss", losses.len()),
            got: vec![unit.len()],
        }));
    }
    at_least_one("means over units", "samples", losses.len())?;
    let mut sums: BTreeMap<&K, (f64, usize)> = BTreeMap::new();
    for (&loss, key) in losses.iter().zip(unit) {
        check_probability("bounded loss", loss)?;
        let (sum, count) = sums.entry(key).or_default();
        *sum += loss;
        *count += 1;
    }
    // Sums of n values in [0, 1] round to at most n, so the means stay in [0, 1].
    Ok(sums.values().map(|(sum, count)| sum / *count as f64).collect())
}

pub(crate) fn check_delta(what: &'static str, delta: f64) -> Result<()> {
    if delta > 0.0 && delta < 1.0 {
        return Ok(());
    }
    Err(Error::Setting {
        what,
        expected: "in (0, 1)",
        got: delta,
    })
}

fn at_least_one(what: &'static str, of: &'static str, got: usize) -> Result<()> {
    if got > 0 {
        return Ok(());
    }
    Err(Error::TooFew {
        what,
        needed: 1,
        of,
        got,
    })
}
