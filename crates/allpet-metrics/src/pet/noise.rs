//! Noise within one image: coefficient of variation and contrast-to-noise ratio.

use super::{RegionStatistics, ratio};
use crate::error::{Error, Result};

/// Sample standard deviation of a region, or why it has none.
fn sd(what: &'static str, region: &RegionStatistics) -> Result<f64> {
    region.sd.ok_or(Error::TooFew {
        what,
        needed: 2,
        of: "pixels in the region",
        got: region.pixels,
    })
}

/// Coefficient of variation of a region, sample standard deviation (n-1) over mean.
///
/// # Errors
/// A region of one pixel, or of mean zero.
pub fn coefficient_of_variation(region: &RegionStatistics) -> Result<f64> {
    const WHAT: &str = "coefficient of variation";
    ratio(WHAT, sd(WHAT, region)?, region.mean, "the region's mean is zero")
}

/// Contrast-to-noise ratio, `(mean of region - mean of background) / sd of background`, negative for a cold region.
///
/// # Errors
/// A background of one pixel, or without noise.
pub fn contrast_to_noise(region: &RegionStatistics, background: &RegionStatistics) -> Result<f64> {
    const WHAT: &str = "contrast-to-noise ratio";
    let noise = sd(WHAT, background)?;
    ratio(
        WHAT,
        region.mean - background.mean,
        noise,
        "the background has no noise",
    )
}
