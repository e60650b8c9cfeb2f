//! Filtered back-projection of parallel-beam sinograms.
//!
//! `f(x, y) = Σ_k w_k · q_k(x cosθ_k + y sinθ_k)` with `q_k` the filtered view (Kak & Slaney 1988, eqs. 3.30-3.34)
//! and `w_k` the angle that view `k` stands for, divided by how often its rays are measured.

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::gather::{add_lines, add_slices};
use crate::operator::exchange_tail;
use crate::pool::{Buffer, Pool};
use crate::simd::{Instructions, LANES, Level};
use crate::slices::{Interleave, Part, Separate, alike, in_parts};
use crate::tent::{LINES, Ray, Tents};
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

/// Views that are filtered and then back-projected before the next are: with sixteen slices they fill some of the second cache,
/// and there are enough of them for many threads.
const BLOCK: usize = 64;

/// Filtered back-projection; the image has the values of the object at any pixel and bin size.
///
/// Bins outside the sinogram are taken as zero, that is the object must lie inside the field of view; pixels outside
/// it are reconstructed as well (up to four times the sinogram's width to each side).
#[derive(Clone)]
pub struct Fbp {
    grid: ImageGrid,
    geometry: ParallelGeometry,
    filter: Filter,
    cutoff: f64,
    length: usize,
    /// Bins added on each side of a filtered view, to cover the image.
    beyond: usize,
    response: Vec<f32>,
    to_frequency: Arc<dyn RealToComplex<f32>>,
    to_space: Arc<dyn ComplexToReal<f32>>,
    weights: Vec<f64>,
    /// Every block of views, its rows counted from its first view.
    blocks: Vec<Tents>,
    level: Level,
    pool: Pool,
    #[cfg(feature = "cuda")]
    pub(crate) on_device: crate::cuda::OnDevice<crate::cuda::FbpTables>,
}

impl fmt::Debug for Fbp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fbp")
            .field("grid", &self.grid)
            .field("geometry", &self.geometry)
            .field("filter", &self.filter)
            .field("cutoff", &self.cutoff)
            .finish_non_exhaustive()
    }
}

impl Fbp {
    /// A reconstruction of sinograms of `geometry` on `grid`; `cutoff` is a fraction of the Nyquist frequency.
    ///
    /// # Errors
    /// An invalid grid or geometry; an arc below 180°; a cut-off outside (0, 1].
    pub fn new(grid: ImageGrid, geometry: ParallelGeometry, filter: Filter, cutoff: f64) -> Result<Self> {
        grid.validate()?;
        geometry.validate()?;
        if !(cutoff > 0.0 && cutoff <= 1.0) {
            return Err(Error::Setting {
                what: "cut-off",
                expected: "more than 0 and at most 1",
                got: cutoff,
            });
        }
        let weights = view_weights(geometry.arc_rad, geometry.views)?;
        let reach = grid.x_mm(0.0).hypot(grid.y_mm(0.0)) / geometry.bin_mm;
        let centre = geometry.centre_bin();
        let missing = (reach - centre)
            .max(centre + reach - (geometry.bins as f64 - 1.0))
            .ceil()
            + 1.0;
        let beyond = missing.clamp(0.0, 4.0 * geometry.bins as f64) as usize;
        // Long enough for a linear convolution over the widened view: nothing wraps around.
        let length = fast_length(2 * (geometry.bins + beyond));
        let response = filter.response(length, geometry.bin_mm, cutoff)?;
        let rays = rays(&grid, &geometry, beyond);
        let width = geometry.bins + 2 * beyond;
        let blocks = rays
            .chunks(BLOCK)
            .map(|rays| {
                let counted = |(source, ray): (usize, &Ray)| Ray {
                    source,
                    ..ray.clone()
                };
                let rays: Vec<Ray> = rays.iter().enumerate().map(counted).collect();
                Tents::new(&rays, width, 1.0, false)
            })
            .collect();
        let mut planner = RealFftPlanner::<f32>::new();
        Ok(Self {
            grid,
            geometry,
            filter,
            cutoff,
            length,
            beyond,
            response: response.iter().map(|h| (h / length as f64) as f32).collect(),
            to_frequency: planner.plan_fft_forward(length),
            to_space: planner.plan_fft_inverse(length),
            weights,
            blocks,
            level: Level::best(),
            pool: Pool::default(),
            #[cfg(feature = "cuda")]
            on_device: Default::default(),
        })
    }

    /// The same with other instructions than the fastest: `Portable` gives the same bytes on every processor that runs
    /// the same program, as far
    /// as the Fourier transform does.
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

    /// Reconstructs `[.., view, radial]` to `[.., row, col]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the sinogram does not fit the geometry.
    pub fn reconstruct(&self, sinogram: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let shape = exchange_tail(
            "sinogram",
            sinogram.shape(),
            &self.geometry.shape(),
            &self.grid.shape(),
        )?;
        let mut image = ArrayD::zeros(IxDyn(&shape));
        let [views, bins] = self.geometry.shape();
        let image_size = self.grid.rows * self.grid.cols;
        let batch = sinogram.len() / (views * bins);
        let sizes = (batch, views * bins, image_size);
        in_parts(sinogram, image.view_mut(), sizes, |part| match part {
            Part::One(from, to) => self.one(from, to),
            Part::Many(from, to) => self.many(from, to),
        })?;
        Ok(image)
    }

    fn one(&self, sinogram: &[f32], image: &mut [f32]) -> Result<()> {
        let cols = self.grid.cols;
        let wide = cols.div_ceil(LANES) * LANES;
        let mut sums = self.pool.zeros(self.grid.rows * wide);
        for (block, tents) in self.blocks.iter().enumerate() {
            let filtered = self.filtered::<1>(block, tents, sinogram)?;
            add_lines(self.level, tents, &filtered, cols, &mut sums);
        }
        for (row, sums) in image.chunks_exact_mut(cols).zip(sums.chunks_exact(wide)) {
            row.copy_from_slice(&sums[..cols]);
        }
        Ok(())
    }

    fn many(&self, sinograms: &[f32], images: &mut [f32]) -> Result<()> {
        let (size, tile) = (self.grid.rows * self.grid.cols, LINES * self.grid.cols);
        let mut sums = self.pool.zeros(size * LANES);
        let sums: &mut [[f32; LANES]] = sums.as_chunks_mut().0;
        for (block, tents) in self.blocks.iter().enumerate() {
            let filtered = self.filtered::<LANES>(block, tents, sinograms)?;
            add_slices(self.level, tents, filtered.as_chunks().0, self.grid.cols, sums);
        }
        alike(images, size, tile)
            .into_par_iter()
            .zip(sums.par_chunks(tile))
            .for_each(|(mut slices, from)| {
                self.level.run(Separate {
                    from,
                    slices: &mut slices,
                });
            });
        Ok(())
    }

    /// What the CUDA kernels need to know of it; their filter works in space.
    #[cfg(any(test, feature = "cuda"))]
    pub(crate) fn tables(&self) -> Result<crate::cuda::FbpTables> {
        let reach = self.geometry.bins + self.beyond - 1;
        let taps = self
            .filter
            .taps(self.length, self.geometry.bin_mm, self.cutoff, reach)?;
        crate::cuda::FbpTables::new(
            (self.grid, self.geometry),
            self.beyond,
            &taps,
            &self.weights,
            &rays(&self.grid, &self.geometry, self.beyond),
        )
    }

    /// The views of a block filtered, weighted and widened by `beyond` bins and by zeros on each side; `N` lanes of slices
    /// innermost.
    fn filtered<const N: usize>(&self, block: usize, tents: &Tents, sinograms: &[f32]) -> Result<Buffer> {
        let [views, bins] = self.geometry.shape();
        let first = block * BLOCK;
        let (pad, step, width) = (tents.pad(), tents.stride(), bins + 2 * self.beyond);
        let mut out = self.pool.take(tents.source_len(BLOCK.min(views - first)) * N);
        out[..pad * N].fill(0.0);
        let scratch = || {
            let zero = Complex::new(0.0f32, 0.0);
            (
                vec![0.0f32; self.length],
                vec![zero; self.length / 2 + 1],
                vec![0.0f32; N * width],
            )
        };
        out[pad * N..]
            .par_chunks_mut(step * N)
            .enumerate()
            .try_for_each_init(scratch, |(signal, spectrum, lanes), (k, row)| {
                let view = first + k;
                let slices = sinograms.chunks_exact(views * bins);
                let lanes = &mut lanes[..slices.len() * width];
                for (sinogram, values) in slices.zip(lanes.chunks_exact_mut(width)) {
                    self.filter_view(&sinogram[view * bins..][..bins], signal, spectrum)?;
                    let before = &signal[self.length - self.beyond..];
                    let filtered = before.iter().chain(&signal[..bins + self.beyond]);
                    let weight = self.weights[view] as f32;
                    for (to, from) in values.iter_mut().zip(filtered) {
                        *to = from * weight;
                    }
                }
                row[width * N..].fill(0.0);
                if N == 1 {
                    row[..width].copy_from_slice(lanes);
                } else {
                    let slices: Vec<&[f32]> = lanes.chunks_exact(width).collect();
                    self.level.run(Interleave {
                        slices: &slices,
                        out: row[..width * N].as_chunks_mut().0,
                    });
                }
                Ok::<(), Error>(())
            })?;
        Ok(out)
    }

    /// One view, filtered into `signal`: bins from 0 on, those before bin 0 at the end.
    fn filter_view(&self, view: &[f32], signal: &mut [f32], spectrum: &mut [Complex<f32>]) -> Result<()> {
        signal[..view.len()].copy_from_slice(view);
        signal[view.len()..].fill(0.0);
        self.to_frequency.process(signal, spectrum)?;
        for (value, &h) in spectrum.iter_mut().zip(&self.response) {
            *value *= h;
        }
        // A real signal has no imaginary part there; rounding may have left one.
        spectrum[0].im = 0.0;
        spectrum[self.length / 2].im = 0.0;
        Ok(self.to_space.process(spectrum, signal)?)
    }
}

/// The least `2^a·3^b` from `least` on that is even: the transform has fast steps for both factors.
fn fast_length(least: usize) -> usize {
    let from = |odd: usize| {
        let mut length = 2 * odd;
        while length < least {
            length *= 2;
        }
        length
    };
    [1, 3, 9].map(from).into_iter().min().unwrap_or(2)
}

/// How the views, widened by `beyond` bins on each side, meet the rows of the image: the bin of column i on row l is
/// linear in both.
fn rays(grid: &ImageGrid, geometry: &ParallelGeometry, beyond: usize) -> Vec<Ray> {
    let centre = geometry.centre_bin() + beyond as f64;
    let pixels_per_bin = grid.pixel_mm / geometry.bin_mm;
    (0..geometry.views)
        .map(|source| {
            let (sin, cos) = geometry.angle(source).sin_cos();
            Ray {
                source,
                first: centre + (grid.x_mm(0.0) * cos + grid.y_mm(0.0) * sin) / geometry.bin_mm,
                per_line: -sin * pixels_per_bin,
                step: cos * pixels_per_bin,
                slope: 1.0,
                inverse_slope: 1.0,
            }
        })
        .collect()
}

/// The angle each view stands for, divided by how often its rays are measured: for 180° and 360° `π/views`, between
/// them the first and the last `arc - 180°` count half. The weights sum to π.
fn view_weights(arc: f64, views: usize) -> Result<Vec<f64>> {
    if arc < PI * (1.0 - 1e-9) {
        return Err(Error::Setting {
            what: "arc in degrees",
            expected: "180 to 360 for filtered back-projection",
            got: arc.to_degrees(),
        });
    }
    let twice = (arc - PI).clamp(0.0, PI);
    // Integral of 1/(times measured) from 0 to a.
    let integral = |a: f64| {
        let once = (a.min(PI) - twice).max(0.0);
        once + (a - once) / 2.0
    };
    let cell = arc / views as f64;
    Ok((0..views)
        .map(|k| integral((k + 1) as f64 * cell) - integral(k as f64 * cell))
        .collect())
}
