//! Random sinogram masks on demand: RMAS and DMM from a seed and a number (eqs. 1 to 5).

use crate::block::Block;
use crate::config::MaskConfig;
use crate::error::{Error, Result, shape_error};
use crate::layout;
use crate::projection::project_checked;
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{Array2, Array3};
use rayon::prelude::*;

/// Draws masks: mask `index` of `seed` is the same bytes whatever is drawn beside it and on however many threads.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskGenerator {
    config: MaskConfig,
    grid: ImageGrid,
    geometry: ParallelGeometry,
}

impl MaskGenerator {
    /// A generator of masks for sinograms of this geometry.
    ///
    /// # Errors
    /// Settings or geometry outside their range (every fault at once), or a sinogram beyond any memory.
    pub fn new(config: MaskConfig, geometry: ParallelGeometry) -> Result<Self> {
        config.validate()?;
        geometry.validate()?;
        length(1, &geometry)?;
        Ok(Self {
            grid: config.grid(),
            config,
            geometry,
        })
    }

    /// The settings.
    pub fn config(&self) -> &MaskConfig {
        &self.config
    }

    /// The geometry of the masks.
    pub fn geometry(&self) -> &ParallelGeometry {
        &self.geometry
    }

    /// The K non-overlapping blocks of a mask, in the mask image.
    pub fn blocks(&self, seed: u64, index: u64) -> Vec<Block> {
        layout::draw(&self.config, seed, index)
    }

    /// A normalised mask `M̂^s`, `[view, radial]`, values 0 to 1.
    pub fn mask(&self, seed: u64, index: u64) -> Array2<f32> {
        let mut mask = Array2::zeros(self.geometry.shape());
        if let Some(out) = mask.as_slice_mut() {
            self.fill(&self.blocks(seed, index), out);
        }
        mask
    }

    /// [`MaskGenerator::mask`] into the caller's `views · bins` values.
    ///
    /// # Errors
    /// Another length.
    pub fn mask_into(&self, seed: u64, index: u64, out: &mut [f32]) -> Result<()> {
        if out.len() != self.geometry.views * self.geometry.bins {
            return Err(shape_error("mask", &self.geometry.shape(), &[out.len()]));
        }
        self.fill(&self.blocks(seed, index), out);
        Ok(())
    }

    /// Masks `first .. first + count`, `[count, view, radial]`.
    ///
    /// # Errors
    /// [`Error::TooMany`] when they do not fit in memory.
    pub fn masks(&self, seed: u64, first: u64, count: usize) -> Result<Array3<f32>> {
        let [views, bins] = self.geometry.shape();
        let too_many = || Error::TooMany { count, views, bins };
        let length = length(count, &self.geometry)?;
        let mut values = Vec::new();
        values.try_reserve_exact(length).map_err(|_| too_many())?;
        values.resize(length, 0.0_f32);
        values
            .par_chunks_exact_mut(views * bins)
            .enumerate()
            .for_each(|(i, out)| {
                self.fill(&self.blocks(seed, first.wrapping_add(i as u64)), out);
            });
        Array3::from_shape_vec((count, views, bins), values).map_err(|_| too_many())
    }

    /// The normalised mask of given blocks, for example one of a [`BlockBank`](crate::BlockBank).
    ///
    /// # Errors
    /// [`Error::BlockOutside`] for a block that is empty or leaves the mask image.
    pub fn mask_of(&self, blocks: &[Block]) -> Result<Array2<f32>> {
        for block in blocks {
            block.check(&self.grid)?;
        }
        let mut mask = Array2::zeros(self.geometry.shape());
        if let Some(out) = mask.as_slice_mut() {
            self.fill(blocks, out);
        }
        Ok(mask)
    }

    fn fill(&self, blocks: &[Block], out: &mut [f32]) {
        project_checked(blocks, &self.grid, &self.geometry, self.config.projection, out);
        self.config.normalise.apply(out);
    }
}

/// Values in `count` masks, refused beyond what an array can index.
fn length(count: usize, geometry: &ParallelGeometry) -> Result<usize> {
    let [views, bins] = geometry.shape();
    views
        .checked_mul(bins)
        .and_then(|one| one.checked_mul(count))
        .filter(|&all| all <= isize::MAX as usize / size_of::<f32>())
        .ok_or(Error::TooMany { count, views, bins })
}
