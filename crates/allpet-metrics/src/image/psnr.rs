//! Peak signal-to-noise ratio: 10·log₁₀(R²/MSE) in dB, per image.

use super::error_norms::of_mse;
use crate::error::Result;
use crate::input::{Real, positive};
use ndarray::{ArrayD, ArrayView, Dimension};

/// PSNR in dB of every image, for the data range R.
///
/// Identical images have no error: their PSNR is +∞ by definition, and is returned so. A set is summarised by the
/// mean of the images' values, not from the pooled error.
///
/// # Errors
/// A range that is not a finite number above 0; shapes that differ or have fewer than two axes, no pixels, NaN or
/// infinities (named), squares beyond `f64`.
pub fn psnr<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
    data_range: f64,
) -> Result<ArrayD<f64>> {
    let peak = 20.0 * positive("data range of PSNR", data_range)?.log10();
    of_mse("PSNR", candidate, reference, |mse| peak - 10.0 * mse.log10())
}
