//! Contrast recovery and background variability as NEMA NU 2 defines them (image-quality phantom, NU 2-2018, ch. 7).

use super::ratio;
use crate::error::{Error, Result};
use crate::input::{number, positive};

/// Contrast recovery of a hot region, `(hot/background - 1) / (true ratio - 1)`; 1 is full recovery.
///
/// `hot` and `background` are measured means, `true_ratio` the known ratio of their activities.
///
/// # Errors
/// A value that is not finite, a true ratio not above 0 or equal to 1, a background of zero.
pub fn hot_contrast_recovery(hot: f64, background: f64, true_ratio: f64) -> Result<f64> {
    const WHAT: &str = "contrast recovery";
    let truth = positive("true ratio of contrast recovery", true_ratio)?;
    let measured = ratio(WHAT, hot, background, "the background is zero")?;
    ratio(WHAT, measured - 1.0, truth - 1.0, "the true contrast is zero")
}

/// Contrast recovery of a region without activity, `1 - cold/background`; 1 is full recovery.
///
/// # Errors
/// A value that is not finite, a background of zero.
pub fn cold_contrast_recovery(cold: f64, background: f64) -> Result<f64> {
    Ok(1.0 - ratio("contrast recovery", cold, background, "the background is zero")?)
}

/// Background variability: sample standard deviation (n-1) of the means of background regions over their mean.
///
/// # Errors
/// Fewer than two regions, a mean that is not finite, means that average to zero.
pub fn background_variability(means: &[f64]) -> Result<f64> {
    const WHAT: &str = "background variability";
    if means.len() < 2 {
        return Err(Error::TooFew {
            what: WHAT,
            needed: 2,
            of: "background regions",
            got: means.len(),
        });
    }
    for &mean in means {
        number("mean of a background region", mean)?;
    }
    let n = means.len() as f64;
    let centre = means.iter().sum::<f64>() / n;
    let squares: f64 = means.iter().map(|m| (m - centre) * (m - centre)).sum();
    ratio(
        WHAT,
        (squares / (n - 1.0)).sqrt(),
        centre,
        "the regions' means average to zero",
    )
}
