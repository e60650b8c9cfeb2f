//! Ensemble normalised standard deviation: noise across independent realisations of one acquisition.
//!
//! Over realisations r of pixel j with mean m_j and sample variance s_j² = Σ_r (x_rj - m_j)²/(R-1), the figure is
//! Σ_j s_j / Σ_j m_j over a region: the mean pixel noise in units of the mean uptake. Unlike the spread of pixels
//! within one image it does not count structure as noise.

use super::ratio;
use super::region::Regional;
use crate::error::{Error, Result};
use crate::input::Real;
use ndarray::{ArrayView, Dimension};

/// Ensemble normalised standard deviation over a region: realisations `[realisation, spatial axes]`, region of the
/// spatial axes' shape.
///
/// # Errors
/// Fewer than two realisations; a shape that is not the region's with one axis before it; a region without pixels or
/// of mean zero; NaN or infinities (named).
pub fn ensemble_normalised_sd<T: Real, D: Dimension, E: Dimension>(
    realisations: ArrayView<'_, T, D>,
    region: ArrayView<'_, bool, E>,
) -> Result<f64> {
    const WHAT: &str = "ensemble normalised sd";
    if realisations.ndim() != region.ndim() + 1 {
        return Err(Error::Core(allpet_core::Error::Shape {
            what: WHAT.to_owned(),
            expected: format!(
                "[realisation, ..] with the region's {:?} after it",
                region.shape()
            ),
            got: realisations.shape().to_vec(),
        }));
    }
    let count = realisations.shape()[0];
    if count < 2 {
        return Err(Error::TooFew {
            what: WHAT,
            needed: 2,
            of: "realisations",
            got: count,
        });
    }
    let regional = Regional::new(WHAT, realisations, region)?;
    let images = regional.map(|_, image| {
        let inside: Vec<f64> = regional.inside.iter().map(|&j| image[j].into()).collect();
        Ok(inside)
    })?;
    let n = count as f64;
    let (mut noise, mut uptake) = (0.0, 0.0);
    for j in 0..regional.inside.len() {
        let values = || images.iter().map(|image| image[j]);
        let mean = values().sum::<f64>() / n;
        let squares: f64 = values().map(|v| (v - mean) * (v - mean)).sum();
        noise += (squares / (n - 1.0)).sqrt();
        uptake += mean;
    }
    ratio(WHAT, noise, uptake, "the region's mean is zero")
}
