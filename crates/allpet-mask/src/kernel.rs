//! Discrete projection of a block: ALL-PET eq. 2, the Dirac delta of eq. 1 replaced by a kernel.
//!
//! Eq. 2 prints `Σ_ij M(x_i, y_j) K(s - x_i cosθ - y_j sinθ)`. Without the area of a pixel that sum grows as the grid
//! refines and has the unit 1/mm; with it, and with a kernel of unit integral, it tends to the line integral averaged
//! over the kernel. Divided by `pixel_mm` it is the chord in pixels, so each pixel deposits `pixel_mm · K`.

use crate::block::Block;
use allpet_core::{ImageGrid, ParallelGeometry};

/// A Gaussian is cut here, in units of σ: 6e-7 of its integral lies beyond.
const CUT: f64 = 5.0;

/// A kernel of unit integral over `s`, its width measured in bins.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kernel {
    /// A box one bin wide: all of a pixel goes to the nearest bin.
    Nearest,
    /// A triangle two bins wide: linear interpolation between the two neighbouring bins.
    Linear,
    /// A Gaussian of this standard deviation in bins.
    Gaussian(f64),
}

/// Adds the block's pixels to one view, in pixels of chord length; `row` is f64 because many pixels meet in a bin.
pub(crate) fn add_view(
    kernel: Kernel,
    block: &Block,
    grid: &ImageGrid,
    geometry: &ParallelGeometry,
    (sin, cos): (f64, f64),
    row: &mut [f64],
) {
    let weight = grid.pixel_mm / geometry.bin_mm;
    for i in block.row..block.row + block.height {
        let from_y = geometry.centre_bin() + grid.y_mm(i as f64) * sin / geometry.bin_mm;
        for j in block.col..block.col + block.width {
            let at = from_y + grid.x_mm(j as f64) * cos / geometry.bin_mm;
            match kernel {
                Kernel::Nearest => deposit(row, (at + 0.5).floor(), weight),
                Kernel::Linear => {
                    let left = at.floor();
                    deposit(row, left, weight * (1.0 - (at - left)));
                    deposit(row, left + 1.0, weight * (at - left));
                }
                Kernel::Gaussian(sigma) => gaussian(row, at, sigma, weight),
            }
        }
    }
}

fn deposit(row: &mut [f64], bin: f64, value: f64) {
    if bin >= 0.0
        && let Some(slot) = row.get_mut(bin as usize)
    {
        *slot += value;
    }
}

/// `exp(-d²/2σ²)` at consecutive bins by recurrence: the ratio of neighbours is itself geometric.
fn gaussian(row: &mut [f64], at: f64, sigma: f64, weight: f64) {
    let first = (at - CUT * sigma).ceil().max(0.0);
    let end = ((at + CUT * sigma).floor() + 1.0).clamp(0.0, row.len() as f64) as usize;
    let Some(support) = row.get_mut(first as usize..end) else {
        return;
    };
    let (d, inverse) = (first - at, 1.0 / (sigma * sigma));
    let mut value = weight / (sigma * std::f64::consts::TAU.sqrt()) * (-0.5 * d * d * inverse).exp();
    let mut ratio = (-(d + 0.5) * inverse).exp();
    let factor = (-inverse).exp();
    for slot in support {
        *slot += value;
        value *= ratio;
        ratio *= factor;
    }
}
