//! The geometry of Joseph's method, view by view.
//!
//! P. M. Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1
//! (1982) 192-196: walk the axis to which the ray is closer to parallel, interpolate linearly across it, and give
//! each crossing the length of ray between two lines, `pixel / max(|cosθ|, |sinθ|)`.
//!
//! At the ends of a line the interpolation has one neighbour only. There the pixel keeps its value out to its outer
//! edge, and a crossing counts by the part of the ray, within the strip of that line, that lies inside the image.
//! So an image of ones gives the chord of the image's rectangle, exactly.

use crate::kernel::{Tent, indices_within};
use allpet_core::{ImageGrid, ParallelGeometry};
use std::ops::Range;

/// Slopes below this are taken as this: a ray along the image's very edge then counts half, and rounding of the
/// position (1e-13 pixel) does not decide between all and nothing.
const SMALLEST_SLOPE: f64 = 1e-6;

/// One view: where bin `j` crosses line `l`, in pixels along the line: `first + l·per_line + j·per_bin`.
///
/// Lines are image rows, or columns when `transposed`. With `reversed`, `j` counts from the last bin, so that
/// `per_bin > 0` always.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) transposed: bool,
    pub(crate) reversed: bool,
    /// Length of ray between two lines in mm.
    pub(crate) length_mm: f32,
    /// Lines, and pixels along one.
    pub(crate) lines: usize,
    pub(crate) pixels: usize,
    bins: usize,
    first: f64,
    per_line: f64,
    per_bin: f64,
    /// 1 / pixels that the ray moves along the line from one line to the next.
    inverse_slope: f64,
    forward: Tent,
    adjoint: Tent,
}

impl View {
    pub(crate) fn new(grid: &ImageGrid, geometry: &ParallelGeometry, view: usize) -> Self {
        let (sin, cos) = geometry.angle(view).sin_cos();
        let transposed = sin.abs() > cos.abs();
        let (half_rows, half_cols) = ((grid.rows as f64 - 1.0) / 2.0, (grid.cols as f64 - 1.0) / 2.0);
        let ratio = geometry.bin_mm / grid.pixel_mm;
        let bins = geometry.bins;
        // Rows: col = half_cols + (s - y sin)/cos with y = half_rows - row. Columns: row = half_rows - (s - x cos)/sin.
        let (major, zero, per_line, mut per_bin, lines, pixels) = if transposed {
            (
                sin.abs(),
                half_rows - half_cols * cos / sin,
                cos / sin,
                -ratio / sin,
                grid.cols,
                grid.rows,
            )
        } else {
            (
                cos.abs(),
                half_cols - half_rows * sin / cos,
                sin / cos,
                ratio / cos,
                grid.rows,
                grid.cols,
            )
        };
        let reversed = per_bin < 0.0;
        let mut first = zero - geometry.centre_bin() * per_bin;
        if reversed {
            first += (bins as f64 - 1.0) * per_bin;
            per_bin = -per_bin;
        }
        Self {
            transposed,
            reversed,
            length_mm: (grid.pixel_mm / major) as f32,
            lines,
            pixels,
            bins,
            first,
            per_line,
            per_bin,
            inverse_slope: 1.0 / per_line.abs().max(SMALLEST_SLOPE),
            forward: Tent::interpolation(per_bin),
            adjoint: Tent::new(1.0 / per_bin, per_bin),
        }
    }

    /// Zeros needed on each side of a sinogram row for [`View::back_project_line`].
    pub(crate) fn padding(&self) -> usize {
        2 * self.adjoint.taps() + 2
    }

    fn base(&self, line: usize) -> f64 {
        self.first + line as f64 * self.per_line
    }

    /// Bins that fall between the centres of the first and the last pixel.
    fn inner_bins(&self, base: f64) -> Range<usize> {
        indices_within(base, self.per_bin, self.bins, 0.0, self.pixels as f64 - 1.0)
    }

    /// Part of a crossing that lies inside the image, `outside` pixels beyond the centre of an end pixel.
    fn coverage(&self, outside: f64) -> f64 {
        ((0.5 - outside) * self.inverse_slope + 0.5).clamp(0.0, 1.0)
    }

    /// Weight of an end pixel (`end` is 0 or `pixels - 1`) for a crossing at `u`.
    fn end_weight(&self, end: usize, u: f64) -> f64 {
        let last = self.pixels as f64 - 1.0;
        if u < 0.0 {
            if end == 0 { self.coverage(-u) } else { 0.0 }
        } else if u > last {
            if end + 1 == self.pixels {
                self.coverage(u - last)
            } else {
                0.0
            }
        } else {
            (1.0 - (u - end as f64).abs()).max(0.0)
        }
    }

    /// Adds the crossings of one line (at `image[origin..origin + pixels]`, padded by 2) to the view's bins.
    pub(crate) fn project_line(&self, line: usize, image: &[f32], origin: usize, bins: &mut [f32]) {
        let base = self.base(line);
        let inner = self.inner_bins(base);
        let at = |j: usize| base + j as f64 * self.per_bin;
        for j in (0..inner.start).rev() {
            let weight = self.coverage(-at(j));
            if weight <= 0.0 {
                break;
            }
            bins[j] += weight as f32 * image[origin];
        }
        let last = self.pixels - 1;
        for (j, bin) in bins.iter_mut().enumerate().skip(inner.end) {
            let weight = self.coverage(at(j) - last as f64);
            if weight <= 0.0 {
                break;
            }
            *bin += weight as f32 * image[origin + last];
        }
        if !inner.is_empty() {
            let first = at(inner.start);
            self.forward.add(&mut bins[inner], image, origin, first);
        }
    }

    /// Adds the transpose of [`View::project_line`]: `view[origin..origin + bins]` is padded by [`View::padding`].
    pub(crate) fn back_project_line(&self, line: usize, view: &[f32], origin: usize, image: &mut [f32]) {
        let base = self.base(line);
        let last = self.pixels - 1;
        self.back_project_end(0, base, view, origin, image);
        if last > 0 {
            self.back_project_end(last, base, view, origin, image);
        }
        let reach = base + (self.bins as f64 - 1.0) * self.per_bin;
        let lo = (base - 1.0).ceil().clamp(1.0, last.max(1) as f64) as usize;
        let hi = ((reach + 1.0).floor() + 1.0).clamp(lo as f64, last.max(lo) as f64) as usize;
        if lo < hi {
            self.adjoint.add(
                &mut image[lo..hi],
                view,
                origin,
                (lo as f64 - base) / self.per_bin,
            );
        }
    }

    fn back_project_end(&self, end: usize, base: f64, view: &[f32], origin: usize, image: &mut [f32]) {
        let reach = 0.5 + 0.5 / self.inverse_slope;
        let (lo, hi) = match (end == 0, end + 1 == self.pixels) {
            (true, true) => (-reach, reach),
            (true, false) => (-reach, 1.0),
            _ => (end as f64 - 1.0, end as f64 + reach),
        };
        let near = indices_within(base, self.per_bin, self.bins, lo, hi);
        let sum: f64 = near
            .map(|j| self.end_weight(end, base + j as f64 * self.per_bin) * f64::from(view[origin + j]))
            .sum();
        image[end] += sum as f32;
    }
}
