//! What a random mask looks like: the settings of the dynamic multi-mask (DMM).

use crate::error::{Result, all_faults};
use crate::normalise::Normalisation;
use crate::projection::Projection;
use allpet_core::ImageGrid;
use serde::{Deserialize, Serialize};

/// Most blocks in one mask.
pub const MAX_BLOCKS: usize = 1024;

/// Settings of [`MaskGenerator`](crate::MaskGenerator): how many blocks, how large, how they are projected.
///
/// The default is the published set-up: blocks of 64 × 64 pixels on 512 × 512, 1 to 4 of them, eq. 4.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskConfig {
    /// Rows and columns of the square mask image.
    pub size: usize,
    /// Side of its pixels in mm.
    pub pixel_mm: f64,
    /// Smallest and largest side of a block in pixels, both included.
    pub block: (usize, usize),
    /// Smallest and largest number of blocks K, both included; 0 gives empty masks.
    pub blocks: (usize, usize),
    /// Height equals width.
    pub square: bool,
    /// Eq. 4 or eq. 5.
    pub normalise: Normalisation,
    /// Eq. 1 in closed form, or eq. 2 with a kernel.
    pub projection: Projection,
}

impl Default for MaskConfig {
    fn default() -> Self {
        Self {
            size: 512,
            pixel_mm: 1.0,
            block: (64, 64),
            blocks: (1, 4),
            square: true,
            normalise: Normalisation::Linear,
            projection: Projection::Analytic,
        }
    }
}

impl MaskConfig {
    /// Reports every fault at once.
    ///
    /// K blocks of the smallest side must fit: with `g = ⌈√K⌉` they do if and only if `g · side ≤ size`. (Each block
    /// covers a lattice point of spacing `side`; for larger sides there are at most (g-1)² < K of them.)
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if let Err(allpet_core::Error::Invalid { faults: inner, .. }) = self.grid().validate() {
            faults.extend(inner);
        }
        let (smallest, largest) = self.block;
        if smallest == 0 || smallest > largest {
            faults.push(format!(
                "blocks of {smallest} to {largest} pixels; expected a range that starts at 1 or more"
            ));
        }
        if largest > self.size {
            faults.push(format!(
                "blocks of up to {largest} pixels; expected at most the {} of the image",
                self.size
            ));
        }
        let (fewest, most) = self.blocks;
        if fewest > most {
            faults.push(format!(
                "{fewest} to {most} blocks; expected the smaller number first"
            ));
        }
        if most > MAX_BLOCKS {
            faults.push(format!("up to {most} blocks; expected at most {MAX_BLOCKS}"));
        } else if smallest > 0
            && smallest <= self.size
            && cells_per_side(most).saturating_mul(smallest) > self.size
        {
            let fit = (self.size / smallest).saturating_mul(self.size / smallest);
            faults.push(format!(
                "up to {most} blocks of at least {smallest} pixels on {}; expected at most {fit}",
                self.size
            ));
        }
        faults.extend(self.projection.faults());
        all_faults("mask settings", faults)
    }

    /// The grid of the mask image.
    pub fn grid(&self) -> ImageGrid {
        ImageGrid {
            rows: self.size,
            cols: self.size,
            pixel_mm: self.pixel_mm,
        }
    }
}

/// ⌈√count⌉, at least 1: cells along one side of a square of cells that holds `count`.
pub(crate) fn cells_per_side(count: usize) -> usize {
    let floor = count.isqrt();
    (floor + usize::from(floor * floor < count)).max(1)
}
