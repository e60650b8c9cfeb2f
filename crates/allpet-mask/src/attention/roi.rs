//! A region of interest: pixels that a threshold found or a user painted, and shapes in mm that a user drew.

use super::chord::{AttentionConfig, Part, project};
use super::runs::rectangles;
use super::shape::{RoiShape, RoiShapes};
use crate::error::{Error, Result, shape_error};
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{Array2, ArrayView2, Zip};

/// `M_ROI^I`: the union of pixels and shapes, without the shapes that are excluded.
#[derive(Debug, Clone, PartialEq)]
pub struct Roi {
    grid: ImageGrid,
    pixels: Array2<bool>,
    shapes: RoiShapes,
}

impl Roi {
    /// A region without anything in it.
    ///
    /// # Errors
    /// A grid outside its range.
    pub fn empty(grid: ImageGrid) -> Result<Self> {
        grid.validate()?;
        Ok(Self {
            grid,
            pixels: Array2::from_elem(grid.shape(), false),
            shapes: RoiShapes::default(),
        })
    }

    /// A region of pixels, `[row, col]`.
    ///
    /// # Errors
    /// A mask of another shape than the grid; a grid outside its range.
    pub fn from_pixels(pixels: Array2<bool>, grid: ImageGrid) -> Result<Self> {
        grid.validate()?;
        if pixels.shape() != grid.shape() {
            return Err(shape_error("region of interest", &grid.shape(), pixels.shape()));
        }
        Ok(Self {
            grid,
            pixels,
            shapes: RoiShapes::default(),
        })
    }

    /// A region of pixels as files hold it: 1 inside, 0 outside.
    ///
    /// # Errors
    /// As [`Roi::from_pixels`], and a value that is neither 0 nor 1.
    pub fn from_mask(mask: ArrayView2<'_, f32>, grid: ImageGrid) -> Result<Self> {
        if let Some(((row, col), &value)) = mask.indexed_iter().find(|(_, v)| **v != 0.0 && **v != 1.0) {
            return Err(Error::RoiValue {
                value,
                index: [row, col],
            });
        }
        Self::from_pixels(mask.mapv(|v| v == 1.0), grid)
    }

    /// A region of shapes; the grid is that of [`Roi::mask`], and its pixel the unit of eq. 5.
    ///
    /// # Errors
    /// A shape outside its range, every fault at once; a grid outside its range.
    pub fn from_shapes(shapes: Vec<RoiShape>, grid: ImageGrid) -> Result<Self> {
        Self::empty(grid)?.with_shapes(&RoiShapes {
            include: shapes,
            exclude: Vec::new(),
        })
    }

    /// The same with more shapes, on top of what is there; errors on shapes outside their range.
    pub fn with_shapes(mut self, shapes: &RoiShapes) -> Result<Self> {
        shapes.validate()?;
        self.shapes.include.extend_from_slice(&shapes.include);
        self.shapes.exclude.extend_from_slice(&shapes.exclude);
        Ok(self)
    }

    /// The same with more pixels; errors on a mask of another shape.
    pub fn with_pixels(mut self, pixels: ArrayView2<'_, bool>) -> Result<Self> {
        if pixels.shape() != self.grid.shape() {
            return Err(shape_error(
                "region of interest",
                &self.grid.shape(),
                pixels.shape(),
            ));
        }
        Zip::from(&mut self.pixels).and(pixels).for_each(|a, &b| *a |= b);
        Ok(self)
    }

    /// The grid of the pixels.
    pub fn grid(&self) -> &ImageGrid {
        &self.grid
    }

    /// The shapes, added and excluded ones.
    pub fn shapes(&self) -> &RoiShapes {
        &self.shapes
    }

    /// Whether there is neither a pixel nor a shape.
    pub fn is_empty(&self) -> bool {
        self.shapes.include.is_empty() && !self.pixels.iter().any(|v| *v)
    }

    /// The region itself, or [`Error::EmptyRoi`].
    pub fn non_empty(self) -> Result<Self> {
        if self.is_empty() {
            return Err(Error::EmptyRoi);
        }
        Ok(self)
    }

    /// The region on its grid, `[row, col]`: pixels whose centre lies in it.
    pub fn mask(&self) -> Array2<bool> {
        let inside = |shapes: &[RoiShape], x, y| shapes.iter().any(|shape| shape.contains(x, y));
        Array2::from_shape_fn(self.grid.shape(), |(row, col)| {
            let (x, y) = (self.grid.x_mm(col as f64), self.grid.y_mm(row as f64));
            (self.pixels[[row, col]] || inside(&self.shapes.include, x, y))
                && !inside(&self.shapes.exclude, x, y)
        })
    }

    /// `M_ROI^S` of eq. 11: exact chords in mm, `[view, radial]`, each the mean over a cell's rays and angles.
    ///
    /// # Errors
    /// A geometry or settings outside their range.
    pub fn chords_mm(&self, geometry: &ParallelGeometry, config: &AttentionConfig) -> Result<Array2<f32>> {
        geometry.validate()?;
        config.validate()?;
        let mut parts: Vec<Part<'_>> = rectangles(self.pixels.view(), &self.grid)
            .into_iter()
            .map(Part::Pixels)
            .collect();
        parts.extend(self.shapes.include.iter().map(Part::Shape));
        let excluded: Vec<Part<'_>> = self.shapes.exclude.iter().map(Part::Shape).collect();
        Ok(project(&parts, &excluded, geometry, config))
    }

    /// `M̂_ROI^S`: [`Roi::chords_mm`] normalised to 0..1 by eq. 4 or 5. A region without any chord gives zeros.
    ///
    /// # Errors
    /// As [`Roi::chords_mm`].
    pub fn attention(&self, geometry: &ParallelGeometry, config: &AttentionConfig) -> Result<Array2<f32>> {
        let mut chords = self.chords_mm(geometry, config)?;
        let pixel = self.grid.pixel_mm;
        chords.mapv_inplace(|v| (f64::from(v) / pixel) as f32);
        if let Some(values) = chords.as_slice_mut() {
            config.normalise.apply(values);
        }
        Ok(chords)
    }
}
