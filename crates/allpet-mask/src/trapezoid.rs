//! Closed-form projection of a block: the trapezoid that is the Radon transform of a rectangle (eq. 1 exactly).
//!
//! A rectangle of width `w`, height `h` centred at `(x, y)` casts at angle θ a trapezoid centred at
//! `x cosθ + y sinθ`. With `a = w|cosθ|`, `b = h|sinθ|`: half support `(a+b)/2`, half plateau `|a-b|/2`, plateau
//! height `w·h / max(a, b)`.

use crate::block::Block;
use allpet_core::{ImageGrid, ParallelGeometry};
use std::ops::Range;

/// Below this share of the support a slope is an edge, whose own value is half the plateau.
const EDGE: f64 = 1e-12;

/// Adds the chords of `block` in pixels to one view; touches only the bins of its support, whose range it gives.
pub(crate) fn add_view(
    block: &Block,
    grid: &ImageGrid,
    geometry: &ParallelGeometry,
    (sin, cos): (f64, f64),
    row: &mut [f32],
) -> Range<usize> {
    let (a, b) = (block.width as f64 * cos.abs(), block.height as f64 * sin.abs());
    // Lengths along s in pixels from here on.
    let (outer, ramp) = ((a + b) / 2.0, a.min(b));
    let plateau = block.width as f64 * block.height as f64 / a.max(b);
    let step = geometry.bin_mm / grid.pixel_mm;
    let centre = (block.x_mm(grid) * cos + block.y_mm(grid) * sin) / grid.pixel_mm;
    let middle = geometry.centre_bin() + centre / step;
    let reach = outer / step;
    // One bin more on either side: rounding here must not cut an edge off; the value beyond it is 0.
    let first = (middle - reach).floor().max(0.0) as usize;
    let end = ((middle + reach).ceil() + 1.0).clamp(0.0, row.len() as f64) as usize;
    let Some(support) = row.get_mut(first..end) else {
        return 0..0;
    };
    // Bin numbers as i32: the conversion to f64 then vectorises on every x86-64.
    let from = first as f64 - middle;
    let inside = |k: usize| outer - (f64::from(k as i32) + from).abs() * step;
    if ramp <= EDGE * outer {
        let tolerance = EDGE * outer * 10.0;
        for (k, value) in support.iter_mut().enumerate() {
            if inside(k) > tolerance {
                *value += plateau as f32;
            } else if inside(k) >= -tolerance {
                *value += (plateau / 2.0) as f32;
            }
        }
    } else {
        let slope = plateau / ramp;
        for (k, value) in support.iter_mut().enumerate() {
            *value += (inside(k) * slope).clamp(0.0, plateau) as f32;
        }
    }
    first..end
}
