//! Radon mask augmentation: the positive and negative parts of a sinogram and their consistency (eqs. 7 to 9, 13).
//!
//! The paper drops the hat, but "starting from the normalised mask" M here is `M̂^s` of eq. 4 or 5; with raw chords
//! `1 - M` would be negative. M multiplies the sinogram before any affine scaling of it.

use crate::error::{Error, Result, shape_error};
use ndarray::{Array3, ArrayView2, ArrayView3, ArrayViewMut3, Axis, Zip};

/// `C_all = [C_pos, S, C_neg]`, `[3, view, radial]`: `C_pos = M·S` (eq. 7), `C_neg = (1 - M)·S` (eq. 8), eq. 13.
///
/// `C_pos + C_neg = S` to rounding.
///
/// # Errors
/// A mask of another shape than the sinogram, or not within 0 to 1.
pub fn decompose(sinogram: ArrayView2<'_, f32>, mask: ArrayView2<'_, f32>) -> Result<Array3<f32>> {
    let (views, bins) = sinogram.dim();
    let mut c_all = Array3::zeros((3, views, bins));
    decompose_into(sinogram, mask, c_all.view_mut())?;
    Ok(c_all)
}

/// [`decompose`] into the caller's `[3, view, radial]`; errors also on another shape.
pub fn decompose_into(
    sinogram: ArrayView2<'_, f32>,
    mask: ArrayView2<'_, f32>,
    mut c_all: ArrayViewMut3<'_, f32>,
) -> Result<()> {
    let (views, bins) = sinogram.dim();
    check_mask(mask, [views, bins])?;
    if c_all.dim() != (3, views, bins) {
        return Err(shape_error("C_all", &[3, views, bins], c_all.shape()));
    }
    Zip::from(c_all.index_axis_mut(Axis(0), 0))
        .and(mask)
        .and(sinogram)
        .for_each(|c, &m, &s| *c = m * s);
    c_all.index_axis_mut(Axis(0), 1).assign(&sinogram);
    Zip::from(c_all.index_axis_mut(Axis(0), 2))
        .and(mask)
        .and(sinogram)
        .for_each(|c, &m, &s| *c = (1.0 - m) * s);
    Ok(())
}

/// Eq. 9 in numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Consistency {
    /// `‖C_pos - M·S‖²`, summed.
    pub positive: f64,
    /// `‖C_neg - (1 - M)·S‖²`, summed.
    pub negative: f64,
    /// `L_PN = positive + negative` divided by the number of sinogram values (views · bins).
    pub mean: f64,
    /// `√(L_PN / (‖M·S‖² + ‖(1 - M)·S‖²))`; 0 when all is zero, infinite when only S is.
    pub relative: f64,
}

/// How far decoded or predicted channels `[C_pos, S, C_neg]` are from eqs. 7 and 8, S their own middle channel.
///
/// Eq. 9 as printed is identically zero on channels that eqs. 7 and 8 built; it says something of channels that came
/// out of a network.
///
/// # Errors
/// Channels that are not `[3, view, radial]`, a mask of another shape or not within 0 to 1.
pub fn consistency(c_all: ArrayView3<'_, f32>, mask: ArrayView2<'_, f32>) -> Result<Consistency> {
    check_channels(c_all, mask)?;
    consistency_with(c_all, c_all.index_axis(Axis(0), 1), mask)
}

/// [`consistency`] against a given sinogram instead of the middle channel; errors also on its shape.
pub fn consistency_with(
    c_all: ArrayView3<'_, f32>,
    sinogram: ArrayView2<'_, f32>,
    mask: ArrayView2<'_, f32>,
) -> Result<Consistency> {
    check_channels(c_all, mask)?;
    let (_, views, bins) = c_all.dim();
    check_mask(mask, [views, bins])?;
    if sinogram.dim() != (views, bins) {
        return Err(shape_error("sinogram", &[views, bins], sinogram.shape()));
    }
    let (mut positive, mut negative, mut scale) = (0.0, 0.0, 0.0);
    Zip::from(c_all.index_axis(Axis(0), 0))
        .and(c_all.index_axis(Axis(0), 2))
        .and(sinogram)
        .and(mask)
        .for_each(|&pos, &neg, &s, &m| {
            // The same f32 products as eqs. 7 and 8 above, so that channels built there give exactly 0.
            let (expected_pos, expected_neg) = (f64::from(m * s), f64::from((1.0 - m) * s));
            positive += (f64::from(pos) - expected_pos).powi(2);
            negative += (f64::from(neg) - expected_neg).powi(2);
            scale += expected_pos.powi(2) + expected_neg.powi(2);
        });
    let total = positive + negative;
    let relative = if total == 0.0 { 0.0 } else { (total / scale).sqrt() };
    Ok(Consistency {
        positive,
        negative,
        mean: total / (views * bins).max(1) as f64,
        relative,
    })
}

fn check_channels(c_all: ArrayView3<'_, f32>, mask: ArrayView2<'_, f32>) -> Result<()> {
    let (views, bins) = mask.dim();
    if c_all.dim() != (3, views, bins) {
        return Err(shape_error("C_all", &[3, views, bins], c_all.shape()));
    }
    Ok(())
}

fn check_mask(mask: ArrayView2<'_, f32>, expected: [usize; 2]) -> Result<()> {
    if mask.shape() != expected {
        return Err(shape_error("mask", &expected, mask.shape()));
    }
    match mask.indexed_iter().find(|(_, m)| !(0.0..=1.0).contains(*m)) {
        Some(((view, bin), &value)) => Err(Error::MaskRange {
            value,
            index: [view, bin],
        }),
        None => Ok(()),
    }
}
