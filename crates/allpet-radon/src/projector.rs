//! The parallel-beam projector: Joseph's forward projection and its exact transpose.

use crate::error::{Error, Result};
use crate::joseph::View;
use crate::kernel::BEYOND;
use crate::operator::{LinearOperator, batch_of};
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{ArrayViewD, ArrayViewMutD};
use rayon::prelude::*;

/// Slices whose padded copies are held at once.
const GROUP: usize = 16;
/// Image lines that share a pass over the views in the adjoint.
const LINES: usize = 8;
/// Zeros before an image line; [`BEYOND`] follow it.
const PAD: usize = 2;

/// Line integrals of an image along parallel rays, `[.., row, col]` to `[.., view, radial]`, in (image unit)·mm.
///
/// Joseph's method (linear interpolation along the principal axis); at the image's border the last pixel reaches to
/// its edge, so that an image of ones gives the chord of the image's rectangle. The adjoint is the Euclidean
/// transpose, without pixel-area or angle factors. Geometry is `f64`, sums are `f32`.
#[derive(Debug, Clone)]
pub struct Projector {
    grid: ImageGrid,
    geometry: ParallelGeometry,
    domain: [usize; 2],
    range: [usize; 2],
    views: Vec<View>,
    /// Zeros before a sinogram row; as many and [`BEYOND`] follow it.
    view_padding: usize,
}

impl Projector {
    /// A projector from `grid` to `geometry`.
    ///
    /// # Errors
    /// An invalid grid or geometry; a bin that is not between 0.001 and 1,000 pixels.
    pub fn new(grid: ImageGrid, geometry: ParallelGeometry) -> Result<Self> {
        grid.validate()?;
        geometry.validate()?;
        let ratio = geometry.bin_mm / grid.pixel_mm;
        if !(1e-3..=1e3).contains(&ratio) {
            return Err(Error::Setting {
                what: "bin size in pixels",
                expected: "0.001 to 1000",
                got: ratio,
            });
        }
        let views: Vec<_> = (0..geometry.views)
            .map(|k| View::new(&grid, &geometry, k))
            .collect();
        let view_padding = views.iter().map(View::padding).max().unwrap_or(0);
        Ok(Self {
            grid,
            geometry,
            domain: grid.shape(),
            range: geometry.shape(),
            views,
            view_padding,
        })
    }

    /// The image grid.
    pub fn grid(&self) -> &ImageGrid {
        &self.grid
    }

    /// The sinogram geometry.
    pub fn geometry(&self) -> &ParallelGeometry {
        &self.geometry
    }

    fn forward_group(&self, images: &[f32], sinograms: &mut [f32], scratch: &mut Scratch) {
        let [rows, cols] = self.domain;
        let (row_stride, col_stride) = (PAD + cols + BEYOND, PAD + rows + BEYOND);
        let by_row = cleared(&mut scratch.rows, images.len() / cols * row_stride);
        by_row
            .par_chunks_mut(row_stride)
            .zip(images.par_chunks(cols))
            .for_each(|(padded, row)| {
                padded[PAD..PAD + cols].copy_from_slice(row);
            });
        let by_col: &mut [f32] = if self.views.iter().any(|v| v.transposed) {
            let by_col = cleared(&mut scratch.cols, images.len() / rows * col_stride);
            by_col
                .par_chunks_mut(cols * col_stride)
                .zip(images.par_chunks(rows * cols))
                .for_each(|(padded, image)| {
                    transpose(image, cols, &mut padded[PAD..], col_stride);
                });
            by_col
        } else {
            &mut []
        };
        let (by_row, by_col) = (&*by_row, &*by_col);
        sinograms
            .par_chunks_mut(self.geometry.bins)
            .enumerate()
            .for_each(|(index, bins)| {
                let (slice, view) = (index / self.views.len(), &self.views[index % self.views.len()]);
                let (image, stride) = if view.transposed {
                    (by_col, col_stride)
                } else {
                    (by_row, row_stride)
                };
                let image = &image[slice * view.lines * stride..][..view.lines * stride];
                bins.fill(0.0);
                for (line, pixels) in image.chunks(stride).enumerate() {
                    view.project_line(line, pixels, PAD, bins);
                }
                if view.reversed {
                    bins.reverse();
                }
                for bin in bins {
                    *bin *= view.length_mm;
                }
            });
    }

    fn adjoint_group(&self, sinograms: &[f32], images: &mut [f32], scratch: &mut Scratch) {
        let [rows, cols] = self.domain;
        let [count, bins] = self.range;
        let pad = self.view_padding;
        let stride = bins + 2 * pad + BEYOND;
        let padded = cleared(&mut scratch.rows, sinograms.len() / bins * stride);
        padded
            .par_chunks_mut(stride)
            .zip(sinograms.par_chunks(bins))
            .enumerate()
            .for_each(|(index, (to, from))| {
                let view = &self.views[index % count];
                to[pad..pad + bins].copy_from_slice(from);
                if view.reversed {
                    to[pad..pad + bins].reverse();
                }
                for value in &mut to[pad..pad + bins] {
                    *value *= view.length_mm;
                }
            });
        let padded = &*padded;
        let accumulate = |image: &mut [f32], lines: usize, pixels: usize, transposed: bool| {
            // Blocks of lines never cross from one slice into the next.
            image
                .par_chunks_mut(lines * pixels)
                .enumerate()
                .for_each(|(slice, image)| {
                    image
                        .par_chunks_mut(LINES * pixels)
                        .enumerate()
                        .for_each(|(block, image)| {
                            image.fill(0.0);
                            for (k, view) in self
                                .views
                                .iter()
                                .enumerate()
                                .filter(|(_, v)| v.transposed == transposed)
                            {
                                let values = &padded[(slice * count + k) * stride..][..stride];
                                for (i, line) in image.chunks_mut(pixels).enumerate() {
                                    view.back_project_line(block * LINES + i, values, pad, line);
                                }
                            }
                        });
                });
        };
        accumulate(images, rows, cols, false);
        if self.views.iter().any(|v| v.transposed) {
            let by_col = cleared(&mut scratch.cols, images.len());
            accumulate(by_col, cols, rows, true);
            let by_col = &*by_col;
            images
                .par_chunks_mut(rows * cols)
                .zip(by_col.par_chunks(rows * cols))
                .for_each(|(image, columns)| {
                    for (row, line) in image.chunks_mut(cols).enumerate() {
                        for (value, column) in line.iter_mut().zip(columns.chunks(rows)) {
                            *value += column[row];
                        }
                    }
                });
        }
    }
}

#[derive(Default)]
struct Scratch {
    rows: Vec<f32>,
    cols: Vec<f32>,
}

fn cleared(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    buffer.clear();
    buffer.resize(length, 0.0);
    buffer
}

/// `to[col·stride + row] = from[row·cols + col]`, in tiles that stay in cache.
fn transpose(from: &[f32], cols: usize, to: &mut [f32], stride: usize) {
    const TILE: usize = 16;
    let rows = from.len() / cols;
    for row in (0..rows).step_by(TILE) {
        for col in (0..cols).step_by(TILE) {
            for c in col..(col + TILE).min(cols) {
                for r in row..(row + TILE).min(rows) {
                    to[c * stride + r] = from[r * cols + c];
                }
            }
        }
    }
}

/// Runs `work` over groups of batch elements in standard layout, through a copy where an array is not.
fn in_groups(
    input: ArrayViewD<'_, f32>,
    mut out: ArrayViewMutD<'_, f32>,
    (batch, from, to): (usize, usize, usize),
    mut work: impl FnMut(&[f32], &mut [f32]),
) {
    let input = input.as_standard_layout();
    let Some(input) = input.as_slice() else { return };
    let mut run = |out: &mut [f32]| {
        if batch * to > 0 {
            input
                .chunks(GROUP * from)
                .zip(out.chunks_mut(GROUP * to))
                .for_each(|(x, y)| work(x, y));
        }
    };
    if let Some(out) = out.as_slice_mut() {
        run(out);
    } else {
        let mut copy = vec![0.0; batch * to];
        run(&mut copy);
        out.iter_mut().zip(copy).for_each(|(to, from)| *to = from);
    }
}

impl LinearOperator for Projector {
    fn domain_shape(&self) -> &[usize] {
        &self.domain
    }

    fn range_shape(&self) -> &[usize] {
        &self.range
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        let batch = batch_of(x.shape(), &self.domain, out.shape(), &self.range)?;
        let sizes = (batch, self.domain.iter().product(), self.range.iter().product());
        let mut scratch = Scratch::default();
        in_groups(x, out, sizes, |x, y| self.forward_group(x, y, &mut scratch));
        Ok(())
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        let batch = batch_of(y.shape(), &self.range, out.shape(), &self.domain)?;
        let sizes = (batch, self.range.iter().product(), self.domain.iter().product());
        let mut scratch = Scratch::default();
        in_groups(y, out, sizes, |y, x| self.adjoint_group(y, x, &mut scratch));
        Ok(())
    }
}
