//! Random sinogram masks on demand: RMAS and DMM from a seed and a number (eqs. 1 to 5).

use crate::block::Block;
use crate::config::MaskConfig;
use crate::error::{Error, Result, shape_error};
use crate::layout;
use crate::normalise;
use crate::projection::{Projection, project_analytic, project_checked};
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{Array2, Array3, ArrayView3};
use rayon::prelude::*;
use std::ops::ControlFlow;

/// Draws masks: mask `index` of `seed` is the same bytes whatever is drawn beside it and on however many threads.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskGenerator {
    config: MaskConfig,
    grid: ImageGrid,
    geometry: ParallelGeometry,
    /// Sine and cosine of every view.
    directions: Vec<(f64, f64)>,
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
            directions: (0..geometry.views)
                .map(|view| geometry.angle(view).sin_cos())
                .collect(),
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
        let mut values = self.buffer(count)?;
        self.fill_batch(seed, first, &mut values);
        Array3::from_shape_vec((count, views, bins), values).map_err(|_| Error::TooMany {
            count,
            views,
            bins,
        })
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

    /// Calls `visit` with masks `first .. first + count` in their order, `batch` at a time, in a buffer that is used
    /// again: any number of masks passes without being held. `ControlFlow::Break` ends the walk.
    ///
    /// # Errors
    /// [`Error::TooMany`] when a batch does not fit in memory.
    pub fn for_each_batch(
        &self,
        seed: u64,
        first: u64,
        count: u64,
        batch: usize,
        mut visit: impl FnMut(u64, ArrayView3<'_, f32>) -> ControlFlow<()>,
    ) -> Result<()> {
        let [views, bins] = self.geometry.shape();
        let batch = batch.max(1).min(usize::try_from(count).unwrap_or(usize::MAX));
        let mut buffer = self.buffer(batch)?;
        let mut done = 0;
        while done < count {
            let now = (batch as u64).min(count - done) as usize;
            let start = first.wrapping_add(done);
            let masks = &mut buffer[..now * views * bins];
            self.fill_batch(seed, start, masks);
            let Ok(masks) = ArrayView3::from_shape((now, views, bins), masks) else {
                break;
            };
            if visit(start, masks).is_break() {
                break;
            }
            done += now as u64;
        }
        Ok(())
    }

    fn fill_batch(&self, seed: u64, first: u64, masks: &mut [f32]) {
        let [views, bins] = self.geometry.shape();
        masks
            .par_chunks_exact_mut(views * bins)
            .enumerate()
            .for_each(|(i, out)| {
                self.fill(&self.blocks(seed, first.wrapping_add(i as u64)), out);
            });
    }

    fn buffer(&self, count: usize) -> Result<Vec<f32>> {
        let [views, bins] = self.geometry.shape();
        let length = length(count, &self.geometry)?;
        let mut values = Vec::new();
        values
            .try_reserve_exact(length)
            .map_err(|_| Error::TooMany { count, views, bins })?;
        values.resize(length, 0.0_f32);
        Ok(values)
    }

    fn fill(&self, blocks: &[Block], out: &mut [f32]) {
        if self.config.projection == Projection::Analytic {
            return self.fill_analytic(blocks, out);
        }
        project_checked(blocks, &self.grid, &self.geometry, self.config.projection, out);
        self.config.normalise.apply(out);
    }

    /// The same, normalising only the bins under a block: these are few, and a mask is larger than a cache.
    fn fill_analytic(&self, blocks: &[Block], out: &mut [f32]) {
        let directions = self.directions.iter().copied();
        let supports = project_analytic(blocks, &self.grid, &self.geometry, directions, out);
        let rows = || supports.iter().cloned();
        let peak = out
            .chunks_exact(self.geometry.bins)
            .zip(rows())
            .map(|(row, support)| normalise::peak(&row[support]))
            .fold(0.0, f32::max);
        for (row, support) in out.chunks_exact_mut(self.geometry.bins).zip(rows()) {
            self.config.normalise.scale(&mut row[support], peak);
        }
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
