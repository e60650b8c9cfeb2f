//! The binary relative entropy (ALL-PET eqs. 7, 18) and its inversion (eq. 20).

use crate::error::{Error, Result};

/// `kl(p‖q) = p ln(p/q) + (1-p) ln((1-p)/(1-q))` with `0 ln 0 = 0`; infinite where `q` excludes what `p` allows.
///
/// # Errors
/// A probability outside `[0, 1]`.
pub fn binary_kl(p: f64, q: f64) -> Result<f64> {
    check_probability("p of kl(p‖q)", p)?;
    check_probability("q of kl(p‖q)", q)?;
    Ok(divergence(p, q))
}

/// The largest `q` with `kl(p‖q) ≤ epsilon`: 1 at `p = 1` (where eq. 20 has no solution), `1 - e^-ε` at `p = 0`.
/// Bisection to the last bit, rounded up.
///
/// # Errors
/// A `p` outside `[0, 1]`, an `epsilon` that is negative or NaN (infinite is allowed and gives 1).
pub fn binary_kl_upper(p: f64, epsilon: f64) -> Result<f64> {
    check_probability("p of the binary kl's inverse", p)?;
    if epsilon.is_nan() || epsilon < 0.0 {
        return Err(Error::Setting {
            what: "epsilon of the binary kl's inverse",
            expected: "at least 0",
            got: epsilon,
        });
    }
    if epsilon == 0.0 {
        return Ok(p);
    }
    let (mut within, mut beyond) = (p, 1.0);
    loop {
        let middle = within + 0.5 * (beyond - within);
        if middle <= within || middle >= beyond {
            return Ok(beyond);
        }
        if divergence(p, middle) <= epsilon {
            within = middle;
        } else {
            beyond = middle;
        }
    }
}

pub(crate) fn check_probability(what: &'static str, value: f64) -> Result<()> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Error::Setting {
        what,
        expected: "in [0, 1]",
        got: value,
    })
}

/// Both terms through `ln(1 + x)`, which keeps the digits where `q` is near `p`.
fn divergence(p: f64, q: f64) -> f64 {
    let term = |p: f64, q: f64| {
        if p == 0.0 { 0.0 } else { -p * ((q - p) / p).ln_1p() }
    };
    let miss = if p == 0.0 {
        -(-q).ln_1p()
    } else {
        term(1.0 - p, 1.0 - q)
    };
    (term(p, q) + miss).max(0.0)
}
