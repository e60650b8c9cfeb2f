//! PET's own figures: uptake values, the NEMA image-quality figures, noise and quantification.
//!
//! Regions are masks of the trailing axes of an image; [`region`] gives their statistics per image, and the formulas
//! take those. Ratios are fractions, not percent. A ratio over zero is an error, never an infinity.

mod contrast;
mod ensemble;
mod noise;
mod quantification;
mod region;
mod suv;

pub use contrast::{background_variability, cold_contrast_recovery, hot_contrast_recovery};
pub use ensemble::ensemble_normalised_sd;
pub use noise::{coefficient_of_variation, contrast_to_noise};
pub use quantification::{bias, recovery_coefficient};
pub use region::{RegionStatistics, region};
pub use suv::{PEAK_DIAMETER_MM, SuvScale, suv_peak};

use crate::error::{Error, Result};
use crate::input::number;

/// `over / under`, with the name of both what is computed and why it may not exist.
fn ratio(what: &'static str, over: f64, under: f64, zero: &'static str) -> Result<f64> {
    let (over, under) = (number(what, over)?, number(what, under)?);
    let value = over / under;
    if under != 0.0 && value.is_finite() {
        return Ok(value);
    }
    Err(Error::Undefined { what, why: zero })
}
