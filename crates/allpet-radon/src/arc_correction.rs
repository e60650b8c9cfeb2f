//! Arc correction: from the unequal radial bins of a ring scanner to equally spaced ones.
//!
//! Bin `k` of the ring collects what falls between its edges `s(k - 1/2)` and `s(k + 1/2)`,
//! `s(k) = R_eff·sin((k - bins/2)·π/crystals)`: its counts are the integral of a density over `ds = (ds/dk)·1`, and
//! `ds/dk ∝ cos` shrinks toward the edge. The density is taken as constant within a bin and integrated over each
//! target bin. So counts are preserved (what lies beyond the target's range is dropped), and a uniform density stays
//! uniform; interpolating the counts themselves would do neither.

use crate::error::{Error, Result};
use crate::operator::exchange_tail;
use allpet_core::{CylindricalScanner, ParallelGeometry};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rayon::prelude::*;
use std::f64::consts::PI;

/// Resamples counts `[.., view, scanner.bins]` to `[.., view, target.bins]`, preserving counts.
///
/// The result holds counts per target bin; the views are those of the input, one for one.
///
/// # Errors
/// An invalid scanner or target; [`Error::Shape`] when the sinogram has other bins than the scanner or other views
/// than the target.
pub fn arc_correct(
    sinogram: ArrayViewD<'_, f32>,
    scanner: &CylindricalScanner,
    target: &ParallelGeometry,
) -> Result<ArrayD<f32>> {
    resample("sinogram", sinogram, scanner, target, |overlap, width| {
        overlap / width
    })
}

/// Resamples efficiencies `[.., view, scanner.bins]` to `[.., view, target.bins]`, as [`arc_correct`] does with counts.
///
/// Counts of a density `p` are `n_k·p·Δs_k` in ring bin `k` of width `Δs_k`; arc-corrected they are `n'·p·bin_mm` with
/// `n'` the mean of `n` over the target bin. What a target bin has outside the ring's bins counts as 0.
///
/// # Errors
/// Those of [`arc_correct`].
pub fn arc_correct_efficiencies(
    efficiencies: ArrayViewD<'_, f32>,
    scanner: &CylindricalScanner,
    target: &ParallelGeometry,
) -> Result<ArrayD<f32>> {
    let mean = |overlap, _| overlap / target.bin_mm;
    resample("efficiencies", efficiencies, scanner, target, mean)
}

/// Counts `[.., view, scanner.bins]` of the ring's bins, from a sinogram `[.., view, bins]` on equal ones: the way back from
/// [`arc_correct`].
///
/// The density `counts / bin_mm` is interpolated linearly between the middles of the equal bins, 0 beyond the outermost two, and
/// taken times the width `Δs_k` of the ring's bin. An interpolation: for smooth sinograms, such as expectations.
///
/// # Errors
/// An invalid scanner or geometry; [`Error::Shape`] when the sinogram is not of the geometry.
pub fn ring_counts(
    sinogram: ArrayViewD<'_, f32>,
    geometry: &ParallelGeometry,
    scanner: &CylindricalScanner,
) -> Result<ArrayD<f32>> {
    scanner.validate()?;
    geometry.validate()?;
    let target = [geometry.views, scanner.bins];
    let shape = exchange_tail("sinogram", sinogram.shape(), &geometry.shape(), &target)?;
    let edges = ring_edges(scanner)?;
    let places: Vec<(f64, f64)> = (0..scanner.bins)
        .map(|k| {
            let at = scanner.s_mm(k) / geometry.bin_mm + geometry.centre_bin();
            (at, (edges[k + 1] - edges[k]) / geometry.bin_mm)
        })
        .collect();
    let mut out = ArrayD::zeros(IxDyn(&shape));
    let sinogram = sinogram.as_standard_layout();
    if let (Some(from), Some(to)) = (sinogram.as_slice(), out.as_slice_mut()) {
        to.par_chunks_mut(scanner.bins)
            .zip(from.par_chunks(geometry.bins))
            .for_each(|(to, from)| {
                let value = |j: f64| match j >= 0.0 && j < from.len() as f64 {
                    true => f64::from(from[j as usize]),
                    false => 0.0,
                };
                for (to, &(at, width)) in to.iter_mut().zip(&places) {
                    let (low, part) = (at.floor(), at - at.floor());
                    *to = ((value(low) * (1.0 - part) + value(low + 1.0) * part) * width) as f32;
                }
            });
    }
    Ok(out)
}

/// Sums of ring bins, weighted by a function of the overlap with the target bin and the ring bin's width, both in mm.
fn resample(
    what: &'static str,
    sinogram: ArrayViewD<'_, f32>,
    scanner: &CylindricalScanner,
    target: &ParallelGeometry,
    weight: impl Fn(f64, f64) -> f64,
) -> Result<ArrayD<f32>> {
    scanner.validate()?;
    target.validate()?;
    let shape = exchange_tail(
        what,
        sinogram.shape(),
        &[target.views, scanner.bins],
        &target.shape(),
    )?;
    let shares = shares(scanner, target, weight)?;
    let mut out = ArrayD::zeros(IxDyn(&shape));
    let sinogram = sinogram.as_standard_layout();
    if let (Some(from), Some(to)) = (sinogram.as_slice(), out.as_slice_mut()) {
        to.par_chunks_mut(target.bins)
            .zip(from.par_chunks(scanner.bins))
            .for_each(|(to, from)| {
                for (to, shares) in to.iter_mut().zip(&shares) {
                    *to = shares
                        .iter()
                        .map(|&(k, share)| share * f64::from(from[k]))
                        .sum::<f64>() as f32;
                }
            });
    }
    Ok(out)
}

/// For each target bin the ring bins it overlaps, and the weight of each.
fn shares(
    scanner: &CylindricalScanner,
    target: &ParallelGeometry,
    weight: impl Fn(f64, f64) -> f64,
) -> Result<Vec<Vec<(usize, f64)>>> {
    let edges = ring_edges(scanner)?;
    Ok((0..target.bins)
        .map(|j| {
            let (lo, hi) = (target.s_mm(j as f64 - 0.5), target.s_mm(j as f64 + 0.5));
            let start = edges.partition_point(|&e| e <= lo).saturating_sub(1);
            (start..scanner.bins)
                .take_while(|&k| edges[k] < hi)
                .filter_map(|k| {
                    let overlap = edges[k + 1].min(hi) - edges[k].max(lo);
                    (overlap > 0.0).then(|| (k, weight(overlap, edges[k + 1] - edges[k])))
                })
                .collect()
        })
        .collect())
}

/// Edges of the ring's bins in mm, one more than there are bins.
fn ring_edges(scanner: &CylindricalScanner) -> Result<Vec<f64>> {
    let radius = scanner.ring_radius_mm + scanner.depth_mm;
    let step = PI / scanner.crystals as f64;
    let first = -((scanner.bins / 2) as f64) - 0.5;
    // The outermost edge can lie half a bin past a quarter turn, where the sine would turn back.
    let edge = |k: usize| radius * ((first + k as f64) * step).clamp(-PI / 2.0, PI / 2.0).sin();
    let edges: Vec<f64> = (0..=scanner.bins).map(edge).collect();
    if edges.windows(2).any(|pair| pair[1] <= pair[0]) {
        return Err(Error::Setting {
            what: "radial bins of the scanner",
            expected: "no more than the crystals of half the ring on each side",
            got: scanner.bins as f64,
        });
    }
    Ok(edges)
}
