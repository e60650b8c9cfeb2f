//! The parallel-beam projector: Joseph's forward projection and its exact transpose.

use crate::error::{Error, Result};
use crate::forward::{Lines, PAD, ProjectSlices, ProjectTile, SLACK, TILE, padded_len, stride};
use crate::gather::Gathering;
use crate::joseph::View;
use crate::operator::{LinearOperator, batch_of};
use crate::pool::{Buffer, Pool};
use crate::simd::{Instructions, LANES, Level};
use crate::slices::{Interleave, Part, Separate, alike, in_parts};
use crate::tent::{Ray, Tents};
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{ArrayViewD, ArrayViewMutD};
use rayon::prelude::*;

/// Views that share a pass over the image: their bins and a tile of lines fit the second cache.
const VIEWS: usize = 16;
/// Image lines that are copied together.
const COPIED: usize = 16;
/// Most elements of a padded array; the kernels index with 32 bits.
const MOST: usize = i32::MAX as usize;

/// Line integrals of an image along parallel rays, `[.., row, col]` to `[.., view, radial]`, in (image unit)·mm.
///
/// Joseph's method (linear interpolation along the principal axis); at the image's border the last pixel reaches to
/// its edge, so that an image of ones gives the chord of the image's rectangle. The adjoint is the Euclidean
/// transpose, without pixel-area or angle factors. Geometry is `f64`, sums are `f32`.
///
/// A projector holds everything that depends on the geometry only, and the buffers of earlier calls; clones share
/// the buffers. It uses the instructions that the processor has (AVX-512, AVX2, or plain code).
#[derive(Debug, Clone)]
pub struct Projector {
    grid: ImageGrid,
    geometry: ParallelGeometry,
    domain: [usize; 2],
    range: [usize; 2],
    views: Vec<View>,
    transpose: Gathering,
    level: Level,
    pool: Pool,
    #[cfg(feature = "cuda")]
    pub(crate) on_device: crate::cuda::OnDevice<crate::cuda::Tables>,
}

impl Projector {
    /// A projector from `grid` to `geometry`.
    ///
    /// # Errors
    /// An invalid grid or geometry; a bin that is not between 0.001 and 1,000 pixels; bins that all miss the image;
    /// sizes beyond 32-bit indices.
    pub fn new(grid: ImageGrid, geometry: ParallelGeometry) -> Result<Self> {
        grid.validate()?;
        geometry.validate()?;
        let setting = |what, expected, got| Err(Error::Setting { what, expected, got });
        let ratio = geometry.bin_mm / grid.pixel_mm;
        if !(1e-3..=1e3).contains(&ratio) {
            return setting("bin size in pixels", "0.001 to 1000", ratio);
        }
        let reach = (grid.rows as f64).hypot(grid.cols as f64) / 2.0 * grid.pixel_mm;
        let (first, last) = (geometry.s_mm(0.0), geometry.s_mm(geometry.bins as f64 - 1.0));
        if first > reach || last < -reach {
            return setting(
                "centre offset in bins",
                "one at which some bin meets the image",
                geometry.offset_bins,
            );
        }
        let views: Vec<_> = (0..geometry.views)
            .map(|k| View::new(&grid, &geometry, k))
            .collect();
        let rays = |transposed: bool| -> Vec<Ray> {
            let chosen = views
                .iter()
                .enumerate()
                .filter(|(_, v)| v.transposed == transposed);
            chosen.map(|(k, v)| v.ray(k)).collect()
        };
        let gentlest = views.iter().map(|v| v.per_bin).fold(1.0, f64::min);
        let tents = |transposed| Tents::new(&rays(transposed), geometry.bins, gentlest, true);
        let transpose = Gathering {
            rows: grid.rows,
            cols: grid.cols,
            straight: tents(false),
            turned: tents(true),
        };
        let image = padded_len(grid.rows, grid.cols).max(padded_len(grid.cols, grid.rows));
        let largest = image.max(transpose.straight.source_len(geometry.views));
        if largest.saturating_mul(LANES) > MOST {
            return setting(
                "elements of a padded image or sinogram",
                "at most 134,217,727",
                largest as f64,
            );
        }
        Ok(Self {
            grid,
            geometry,
            domain: grid.shape(),
            range: geometry.shape(),
            views,
            transpose,
            level: Level::best(),
            pool: Pool::default(),
            #[cfg(feature = "cuda")]
            on_device: Default::default(),
        })
    }

    /// The same with other instructions than the fastest: `Portable` gives the same bytes on every processor that runs
    /// the same program.
    ///
    /// # Errors
    /// Instructions that this processor does not have.
    pub fn with_instructions(mut self, instructions: Instructions) -> Result<Self> {
        self.level = Level::of(instructions)?;
        Ok(self)
    }

    /// The image grid.
    pub fn grid(&self) -> &ImageGrid {
        &self.grid
    }

    /// The sinogram geometry.
    pub fn geometry(&self) -> &ParallelGeometry {
        &self.geometry
    }

    /// What the CUDA kernels need to know of it.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn tables(&self) -> Result<crate::cuda::Tables> {
        crate::cuda::Tables::new(self.grid, self.geometry, &self.views)
    }

    fn turned(&self) -> bool {
        self.views.iter().any(|v| v.transposed)
    }

    /// Bins in whole blocks of lanes.
    fn wide(&self) -> usize {
        self.geometry.bins.div_ceil(LANES) * LANES
    }

    fn tiles(&self, view: &View) -> impl Iterator<Item = Lines> + use<> {
        let lines = if view.transposed {
            self.grid.cols
        } else {
            self.grid.rows
        };
        (0..lines).step_by(TILE).map(move |first| Lines {
            first,
            count: TILE.min(lines - first),
        })
    }

    fn forward_one(&self, image: &[f32], sinogram: &mut [f32]) {
        let [rows, cols] = self.domain;
        let mut by_row = self.padded::<1>(rows, cols);
        pad_lines(lines_of(&mut by_row, 1), cols, |row, line| {
            line.copy_from_slice(&image[row * cols..][..cols]);
        });
        let mut by_col = self.padded::<1>(if self.turned() { cols } else { 0 }, rows);
        if self.turned() {
            turn_lines(image, cols, lines_of(&mut by_col, 1), rows);
        }
        let (by_row, by_col) = (&*by_row, &*by_col);
        let bins = self.geometry.bins;
        sinogram
            .par_chunks_mut(VIEWS * bins)
            .zip(self.views.par_chunks(VIEWS))
            .for_each(|(sinogram, views)| {
                let mut sums = self.pool.zeros(views.len() * self.wide());
                self.in_tiles(views, |k, view, lines| {
                    let bins = sums[k * self.wide()..][..self.wide()].as_chunks_mut().0;
                    self.level.run(ProjectTile {
                        view,
                        image: if view.transposed { by_col } else { by_row },
                        lines,
                        bins,
                    });
                });
                for ((view, out), sums) in views
                    .iter()
                    .zip(sinogram.chunks_exact_mut(bins))
                    .zip(sums.chunks_exact(self.wide()))
                {
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = sum * view.length_mm;
                    }
                    if view.reversed {
                        out.reverse();
                    }
                }
            });
    }

    /// Calls `work` for every view and tile of lines, tiles outermost where views share an orientation.
    fn in_tiles(&self, views: &[View], mut work: impl FnMut(usize, &View, Lines)) {
        let mut k = 0;
        for run in views.chunk_by(|a, b| a.transposed == b.transposed) {
            for lines in self.tiles(&run[0]) {
                for (i, view) in run.iter().enumerate() {
                    work(k + i, view, lines);
                }
            }
            k += run.len();
        }
    }

    fn forward_many(&self, images: &[f32], sinograms: &mut [f32]) {
        let [rows, cols] = self.domain;
        let size = rows * cols;
        let mut by_row = self.padded::<LANES>(rows, cols);
        let lines: &mut [[f32; LANES]] = lines_of(&mut by_row, LANES).as_chunks_mut().0;
        pad_lines(lines, cols, |row, line| {
            let slices: Vec<_> = images
                .chunks_exact(size)
                .map(|i| &i[row * cols..][..cols])
                .collect();
            self.level.run(Interleave {
                slices: &slices,
                out: line,
            });
        });
        let mut by_col = self.padded::<LANES>(if self.turned() { cols } else { 0 }, rows);
        if self.turned() {
            let from: &[[f32; LANES]] = lines_of(&mut by_row, LANES).as_chunks().0;
            let lines: &mut [[f32; LANES]] = lines_of(&mut by_col, LANES).as_chunks_mut().0;
            turn_lines(&from[PAD..], stride(cols), lines, rows);
        }
        let (by_row, by_col) = (by_row.as_chunks().0, by_col.as_chunks().0);
        let bins = self.geometry.bins;
        alike(sinograms, self.views.len() * bins, VIEWS * bins)
            .into_par_iter()
            .zip(self.views.par_chunks(VIEWS))
            .for_each(|(mut sinograms, views)| {
                let mut buffer = self.pool.zeros(views.len() * bins * LANES);
                let sums: &mut [[f32; LANES]] = buffer.as_chunks_mut().0;
                let mut rest = &mut *sums;
                for views in views.chunk_by(|a, b| a.transposed == b.transposed) {
                    let (sums, after) = rest.split_at_mut(views.len() * bins);
                    rest = after;
                    for lines in self.tiles(&views[0]) {
                        self.level.run(ProjectSlices {
                            views,
                            image: if views[0].transposed { by_col } else { by_row },
                            lines,
                            bins: sums,
                        });
                    }
                }
                for (view, sums) in views.iter().zip(sums.chunks_exact_mut(bins)) {
                    for sum in sums.iter_mut().flatten() {
                        *sum *= view.length_mm;
                    }
                    if view.reversed {
                        sums.reverse();
                    }
                }
                self.level.run(Separate {
                    from: sums,
                    slices: &mut sinograms,
                });
            });
    }

    /// A buffer for `lines` padded lines of `N` slices; the slack around them is zero, the lines are not set.
    fn padded<const N: usize>(&self, lines: usize, pixels: usize) -> Buffer {
        let mut buffer = self.pool.take(padded_len(lines, pixels) * N);
        let end = buffer.len() - SLACK * N;
        buffer[..SLACK * N].fill(0.0);
        buffer[end..].fill(0.0);
        buffer
    }

    /// Rows of a sinogram as the transpose reads them: bins in the view's own direction, times the ray's length.
    fn adjoint_one(&self, sinogram: &[f32], image: &mut [f32]) {
        let tents = &self.transpose.straight;
        let (bins, pad, step) = (self.geometry.bins, tents.pad(), tents.stride());
        let mut source = self.pool.take(tents.source_len(self.views.len()));
        source[..pad].fill(0.0);
        source[pad..]
            .par_chunks_mut(step)
            .zip(sinogram.par_chunks(bins))
            .zip(&self.views)
            .for_each(|((row, from), view)| {
                let (row, rest) = row.split_at_mut(bins);
                row.iter_mut()
                    .zip(from)
                    .for_each(|(to, from)| *to = from * view.length_mm);
                if view.reversed {
                    row.reverse();
                }
                rest.fill(0.0);
            });
        self.transpose.one(self.level, &self.pool, &source, image);
    }

    fn adjoint_many(&self, sinograms: &[f32], images: &mut [f32]) {
        let tents = &self.transpose.straight;
        let (bins, pad, step) = (self.geometry.bins, tents.pad(), tents.stride());
        let size = self.views.len() * bins;
        let mut source = self.pool.take(tents.source_len(self.views.len()) * LANES);
        source[..pad * LANES].fill(0.0);
        let rows: &mut [[f32; LANES]] = source[pad * LANES..].as_chunks_mut().0;
        rows.par_chunks_mut(step)
            .zip(&self.views)
            .enumerate()
            .for_each(|(k, (row, view))| {
                let (row, rest) = row.split_at_mut(bins);
                let slices: Vec<_> = sinograms
                    .chunks_exact(size)
                    .map(|s| &s[k * bins..][..bins])
                    .collect();
                self.level.run(Interleave {
                    slices: &slices,
                    out: row,
                });
                for value in row.iter_mut().flatten() {
                    *value *= view.length_mm;
                }
                if view.reversed {
                    row.reverse();
                }
                rest.fill([0.0; LANES]);
            });
        self.transpose.many(self.level, &self.pool, &source, images);
    }
}

/// The lines of a padded buffer, without the slack around them.
fn lines_of(buffer: &mut [f32], slices: usize) -> &mut [f32] {
    let end = buffer.len() - SLACK * slices;
    &mut buffer[SLACK * slices..end]
}

/// Writes the `pixels` of every line by `fill` and carries its end pixels outward.
fn pad_lines<T: Copy + Send>(lines: &mut [T], pixels: usize, fill: impl Fn(usize, &mut [T]) + Sync) {
    lines
        .par_chunks_mut(stride(pixels))
        .enumerate()
        .for_each(|(row, line)| {
            fill(row, &mut line[PAD..PAD + pixels]);
            extend_ends(line, pixels);
        });
}

/// Writes columns as lines of `pixels`: pixel `row` of line `col` is `from[row·from_step + col]`.
fn turn_lines<T: Copy + Send + Sync>(from: &[T], from_step: usize, lines: &mut [T], pixels: usize) {
    let step = stride(pixels);
    lines
        .par_chunks_mut(COPIED * step)
        .enumerate()
        .for_each(|(tile, lines)| {
            for row in 0..pixels {
                let from = &from[row * from_step + tile * COPIED..];
                for (line, value) in lines.chunks_exact_mut(step).zip(from) {
                    line[PAD + row] = *value;
                }
            }
            lines
                .chunks_exact_mut(step)
                .for_each(|line| extend_ends(line, pixels));
        });
}

fn extend_ends<T: Copy>(line: &mut [T], pixels: usize) {
    let (first, last) = (line[PAD], line[PAD + pixels - 1]);
    line[..PAD].fill(first);
    line[PAD + pixels..].fill(last);
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
        in_parts(x, out, sizes, |part| {
            match part {
                Part::One(x, y) => self.forward_one(x, y),
                Part::Many(x, y) => self.forward_many(x, y),
            }
            Ok(())
        })
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        let batch = batch_of(y.shape(), &self.range, out.shape(), &self.domain)?;
        let sizes = (batch, self.range.iter().product(), self.domain.iter().product());
        in_parts(y, out, sizes, |part| {
            match part {
                Part::One(y, x) => self.adjoint_one(y, x),
                Part::Many(y, x) => self.adjoint_many(y, x),
            }
            Ok(())
        })
    }
}
