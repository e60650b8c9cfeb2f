//! The folder of a synthesis: arrays, a picture, and where they come from.

use crate::fault::{Fault, Result};
use crate::output;
use allpet::core::{ParallelGeometry, write_bytes_atomically};
use allpet::foundation::resample;
use allpet::io::{Grid, Palette, Tile, Window, write_npz};
use ndarray::{Array2, Array3, ArrayD, Axis};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Most sinograms in the picture.
const SHOWN: usize = 64;

/// What the folder holds in the end, whatever was drawn.
const FILES: [&str; 4] = [
    "sinograms.npz",
    "reconstructions.npz",
    "grid.png",
    "provenance.json",
];

/// What was drawn: sinograms `[.., view, radial]`, their images `[.., row, col]`, and what the picture says of each.
pub(super) struct Results<'a> {
    pub(super) sinograms: &'a ArrayD<f32>,
    pub(super) images: &'a ArrayD<f32>,
    /// Of the sinogram and of the image.
    pub(super) captions: Vec<[String; 2]>,
    pub(super) provenance: Value,
}

impl Results<'_> {
    /// Writes the folder; provenance.json comes last: with it, everything belongs together. Gives the names of the files.
    pub(super) fn write(
        &self,
        folder: &Path,
        further: impl FnOnce(&Path) -> Result<Vec<PathBuf>>,
    ) -> Result<Vec<String>> {
        output::make(folder)?;
        let [sinograms, images, grid, provenance] = FILES.map(|name| folder.join(name));
        if provenance.exists() {
            std::fs::remove_file(&provenance)
                .map_err(|e| Fault::Other(format!("cannot remove {}: {e}", provenance.display())))?;
        }
        write_npz(&sinograms, &[("sinograms", self.sinograms.view())], true)?;
        write_npz(&images, &[("reconstructions", self.images.view())], true)?;
        let mut files = vec![sinograms, images, grid.clone(), provenance.clone()];
        files.extend(further(folder)?);
        self.draw(&grid)?;
        let mut text =
            serde_json::to_string_pretty(&self.provenance).map_err(|e| Fault::Other(e.to_string()))?;
        text.push('\n');
        write_bytes_atomically(&provenance, text.as_bytes())?;
        Ok(output::names(&files))
    }

    /// Two sinograms in a row, each beside its reconstruction.
    fn draw(&self, path: &Path) -> Result<()> {
        let (sinograms, images) = (slices(self.sinograms)?, slices(self.images)?);
        let tiles: Vec<Tile<'_>> = sinograms
            .iter()
            .zip(&images)
            .zip(&self.captions)
            .flat_map(|((sinogram, image), [one, other])| {
                [
                    Tile::new(sinogram.view(), one.as_str())
                        .palette(Palette::Magma)
                        .window(Window::Robust),
                    Tile::new(image.view(), other.as_str())
                        .palette(Palette::InvertedGrey)
                        .window(Window::Robust),
                ]
            })
            .collect();
        let side = sinograms
            .iter()
            .map(|s| s.nrows().max(s.ncols()))
            .max()
            .unwrap_or(1);
        let grid = Grid {
            gap: 16,
            upscale: 256usize.div_ceil(side),
            ..Grid::new(4)
        };
        Ok(grid.write(path, &tiles)?)
    }
}

/// The first slices of a stack.
fn slices(array: &ArrayD<f32>) -> Result<Vec<Array2<f32>>> {
    let (leading, plane) = array.shape().split_at(array.ndim() - 2);
    let count: usize = leading.iter().product();
    let stack = array
        .view()
        .into_shape_with_order((count, plane[0], plane[1]))
        .map_err(|e| Fault::Other(e.to_string()))?;
    Ok(stack
        .outer_iter()
        .take(SHOWN)
        .map(|slice| slice.to_owned())
        .collect())
}

/// Sinograms brought to another geometry of the same arc.
pub(super) fn in_geometry(
    sinograms: &Array3<f32>,
    own: &ParallelGeometry,
    to: &ParallelGeometry,
) -> Result<Array3<f32>> {
    if own == to {
        return Ok(sinograms.clone());
    }
    let mut out = Array3::zeros((sinograms.len_of(Axis(0)), to.views, to.bins));
    for (from, mut to_slot) in sinograms.outer_iter().zip(out.outer_iter_mut()) {
        to_slot.assign(&resample(from, own, to)?);
    }
    Ok(out)
}
