//! The geometry of Joseph's method, view by view.
//!
//! P. M. Joseph, "An improved algorithm for reprojecting rays through pixel images", IEEE Trans. Med. Imaging 1
//! (1982) 192-196: walk the axis to which the ray is closer to parallel, interpolate linearly across it, and give
//! each crossing the length of ray between two lines, `pixel / max(|cosθ|, |sinθ|)`.
//!
//! At the ends of a line the interpolation has one neighbour only. There the pixel keeps its value out to its outer
//! edge, and a crossing counts by the part of the ray, within the strip of that line, that lies inside the image.
//! So an image of ones gives the chord of the image's rectangle, exactly.

use crate::forward::{TILE, WINDOW_STEP, multiples};
use crate::simd::LANES;
use crate::tent::Ray;
use allpet_core::{ImageGrid, ParallelGeometry};

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
    /// Pixels along a line.
    pub(crate) pixels: usize,
    first: f64,
    pub(crate) per_line: f64,
    pub(crate) per_bin: f64,
    /// 1 / pixels that the ray moves along the line from one line to the next.
    pub(crate) inverse_slope: f64,
    /// Whether sixteen bins fit the window of the forward kernel.
    pub(crate) windowed: bool,
    /// Multiples of `per_bin`, fixed point, and their whole parts where they are left out.
    pub(crate) bin_steps: [i32; LANES],
    pub(crate) bin_wholes: [i32; LANES],
    /// Multiples of `per_line`, fixed point.
    pub(crate) line_steps: [i32; TILE],
}

impl View {
    pub(crate) fn new(grid: &ImageGrid, geometry: &ParallelGeometry, view: usize) -> Self {
        let (sin, cos) = geometry.angle(view).sin_cos();
        let transposed = sin.abs() > cos.abs();
        let (half_rows, half_cols) = ((grid.rows as f64 - 1.0) / 2.0, (grid.cols as f64 - 1.0) / 2.0);
        let ratio = geometry.bin_mm / grid.pixel_mm;
        // Rows: col = half_cols + (s - y sin)/cos with y = half_rows - row. Columns: row = half_rows - (s - x cos)/sin.
        let (major, zero, per_line, mut per_bin, pixels) = if transposed {
            (
                sin.abs(),
                half_rows - half_cols * cos / sin,
                cos / sin,
                -ratio / sin,
                grid.rows,
            )
        } else {
            (
                cos.abs(),
                half_cols - half_rows * sin / cos,
                sin / cos,
                ratio / cos,
                grid.cols,
            )
        };
        let reversed = per_bin < 0.0;
        let mut first = zero - geometry.centre_bin() * per_bin;
        if reversed {
            first += (geometry.bins as f64 - 1.0) * per_bin;
            per_bin = -per_bin;
        }
        let windowed = per_bin <= WINDOW_STEP;
        let (bin_steps, bin_wholes) = multiples(per_bin, 0.0, windowed);
        Self {
            transposed,
            reversed,
            length_mm: (grid.pixel_mm / major) as f32,
            pixels,
            first,
            per_line,
            per_bin,
            inverse_slope: 1.0 / per_line.abs().max(SMALLEST_SLOPE),
            windowed,
            bin_steps,
            bin_wholes,
            line_steps: multiples(per_line, 0.0, true).0,
        }
    }

    /// Where bin 0 crosses a line.
    #[inline(always)]
    pub(crate) fn base(&self, line: usize) -> f64 {
        self.first + line as f64 * self.per_line
    }

    /// The transpose, as seen from the pixels: the bin of pixel `i` on line `l` is `(i - base(l))/per_bin`, and the
    /// bins within a pixel of it count by `1 - per_bin·|j - bin|`.
    pub(crate) fn ray(&self, source: usize) -> Ray {
        Ray {
            source,
            first: -self.first / self.per_bin,
            per_line: -self.per_line / self.per_bin,
            step: 1.0 / self.per_bin,
            slope: self.per_bin,
            inverse_slope: self.inverse_slope,
        }
    }
}
