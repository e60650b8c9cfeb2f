//! Other views: counts of a half turn shared out over another number of views.
//!
//! View `k` stands for the angles `[θ_k - Δ/2, θ_k + Δ/2]`, `Δ = π/views`. Its counts are taken as evenly spread over them and
//! handed to the new views by their overlap, so every count stays; beyond the first and last view the half turn goes on with
//! `p(θ + π, s) = p(θ, -s)`. Interpolating between views instead would leave counts of those in between unused.

use crate::error::{Error, Result};
use crate::operator::exchange_tail;
use allpet_core::ParallelGeometry;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use std::f64::consts::PI;

/// A view of the input, whether it is read from the other side, and its share.
type Share = (usize, bool, f64);

/// Counts `[.., view, radial]` over half a turn as `[.., views, radial]` from the same first angle; their sum stays.
///
/// # Errors
/// A sinogram that is not of the geometry; no views; another arc than 180°, or a centre of rotation off the middle of the bins,
/// where a view has no mirror image among the bins.
pub fn rebin_views(
    counts: ArrayViewD<'_, f32>,
    geometry: &ParallelGeometry,
    views: usize,
) -> Result<ArrayD<f32>> {
    let target = ParallelGeometry { views, ..*geometry };
    geometry.validate()?;
    target.validate()?;
    let fault = |what, expected, got| Err(Error::Setting { what, expected, got });
    if (geometry.arc_rad - PI).abs() > 1e-9 {
        let degrees = geometry.arc_rad.to_degrees();
        return fault("arc of views to share out, in degrees,", "180", degrees);
    }
    if geometry.offset_bins != 0.0 {
        return fault(
            "offset of the centre in bins",
            "0 to share out views",
            geometry.offset_bins,
        );
    }
    let shape = exchange_tail("sinogram", counts.shape(), &geometry.shape(), &target.shape())?;
    let shares = shares(geometry.views, views);
    let bins = geometry.bins;
    let mut out = ArrayD::zeros(IxDyn(&shape));
    let counts = counts.as_standard_layout();
    if let (Some(from), Some(to)) = (counts.as_slice(), out.as_slice_mut()) {
        let size = geometry.views * bins;
        for (from, to) in from.chunks_exact(size).zip(to.chunks_exact_mut(views * bins)) {
            for (row, shares) in to.chunks_exact_mut(bins).zip(&shares) {
                for (bin, to) in row.iter_mut().enumerate() {
                    let sum: f64 = shares
                        .iter()
                        .map(|&(view, mirrored, share)| {
                            let bin = if mirrored { bins - 1 - bin } else { bin };
                            share * f64::from(from[view * bins + bin])
                        })
                        .sum();
                    *to = sum as f32;
                }
            }
        }
    }
    Ok(out)
}

/// For each of `to` views the views of `from` that it overlaps.
fn shares(from: usize, to: usize) -> Vec<Vec<Share>> {
    // In widths of the input's views: view k spans [k - 1/2, k + 1/2].
    let width = from as f64 / to as f64;
    (0..to)
        .map(|j| {
            let (lo, hi) = ((j as f64 - 0.5) * width, (j as f64 + 0.5) * width);
            let (first, last) = ((lo + 0.5).floor() as i64, (hi + 0.5).floor() as i64);
            (first..=last)
                .filter_map(|k| {
                    let share = hi.min(k as f64 + 0.5) - lo.max(k as f64 - 0.5);
                    let turns = k.div_euclid(from as i64);
                    let view = k.rem_euclid(from as i64) as usize;
                    (share > 1e-12).then_some((view, turns.rem_euclid(2) == 1, share))
                })
                .collect()
        })
        .collect()
}
