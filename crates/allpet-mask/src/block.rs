//! One rectangular block of a mask image: the `M_k(x, y)` of ALL-PET's dynamic multi-mask.

use crate::error::{Error, Result};
use allpet_core::ImageGrid;
use allpet_radon::analytic::Rectangle;
use ndarray::{Array2, s};

/// A block of `height × width` pixels whose top left pixel is `(row, col)` of the mask image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Block {
    /// First row; row 0 is the top.
    pub row: usize,
    /// First column; column 0 is the left.
    pub col: usize,
    /// Number of rows.
    pub height: usize,
    /// Number of columns.
    pub width: usize,
}

impl Block {
    /// True when the two blocks share a pixel; blocks that only touch do not overlap.
    pub fn overlaps(&self, other: &Self) -> bool {
        let meet = |a: usize, la: usize, b: usize, lb: usize| {
            a < b.saturating_add(lb) && b < a.saturating_add(la) && la > 0 && lb > 0
        };
        meet(self.row, self.height, other.row, other.height)
            && meet(self.col, self.width, other.col, other.width)
    }

    /// The same block as a rectangle of value 1 in mm, for closed-form projection.
    pub fn rectangle(&self, grid: &ImageGrid) -> Rectangle {
        Rectangle {
            value: 1.0,
            x_mm: self.x_mm(grid),
            y_mm: self.y_mm(grid),
            width_mm: self.width as f64 * grid.pixel_mm,
            height_mm: self.height as f64 * grid.pixel_mm,
        }
    }

    /// x of the block's centre in mm.
    pub(crate) fn x_mm(&self, grid: &ImageGrid) -> f64 {
        grid.x_mm(self.col as f64 + (self.width as f64 - 1.0) / 2.0)
    }

    /// y of the block's centre in mm.
    pub(crate) fn y_mm(&self, grid: &ImageGrid) -> f64 {
        grid.y_mm(self.row as f64 + (self.height as f64 - 1.0) / 2.0)
    }

    /// Refuses an empty block and one that leaves the image.
    pub(crate) fn check(&self, grid: &ImageGrid) -> Result<()> {
        let inside = |first: usize, length: usize, size: usize| {
            length > 0 && first.checked_add(length).is_some_and(|end| end <= size)
        };
        if inside(self.row, self.height, grid.rows) && inside(self.col, self.width, grid.cols) {
            return Ok(());
        }
        let Self {
            row,
            col,
            height,
            width,
        } = *self;
        Err(Error::BlockOutside {
            height,
            width,
            row,
            col,
            rows: grid.rows,
            cols: grid.cols,
        })
    }
}

/// The mask image itself, `[row, col]`: 1 inside a block, 0 elsewhere.
///
/// # Errors
/// [`Error::BlockOutside`] for a block that is empty or leaves the image.
pub fn mask_image(blocks: &[Block], grid: &ImageGrid) -> Result<Array2<f32>> {
    grid.validate()?;
    for block in blocks {
        block.check(grid)?;
    }
    let mut image = Array2::zeros(grid.shape());
    for b in blocks {
        image
            .slice_mut(s![b.row..b.row + b.height, b.col..b.col + b.width])
            .fill(1.0);
    }
    Ok(image)
}
