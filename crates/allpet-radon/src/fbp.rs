//! Filtered back-projection of parallel-beam sinograms.
//!
//! `f(x, y) = Σ_k w_k · q_k(x cosθ_k + y sinθ_k)` with `q_k` the filtered view (Kak & Slaney 1988, eqs. 3.30-3.34)
//! and `w_k` the angle that view `k` stands for, divided by how often its rays are measured.

use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::kernel::{BEYOND, Tent, indices_within};
use crate::operator::exchange_tail;
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::f64::consts::PI;
use std::fmt;
use std::sync::Arc;

/// Slices filtered before they are back-projected.
const GROUP: usize = 16;
/// Image rows that share a pass over the views.
const ROWS: usize = 8;
/// Zeros before a filtered view, for the interpolation; [`BEYOND`] follow it.
const PAD: usize = 2;

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
        let length = (2 * (geometry.bins + beyond)).next_power_of_two().max(4);
        let response = filter.response(length, geometry.bin_mm, cutoff)?;
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
        let sinogram = sinogram.as_standard_layout();
        if let (Some(from), Some(to)) = (sinogram.as_slice(), image.as_slice_mut()) {
            let (sinogram_size, image_size) = (
                self.geometry.views * self.geometry.bins,
                self.grid.rows * self.grid.cols,
            );
            for (from, to) in from
                .chunks(GROUP * sinogram_size)
                .zip(to.chunks_mut(GROUP * image_size))
            {
                let filtered = self.filtered(from)?;
                self.back_project(&filtered, to);
            }
        }
        Ok(image)
    }

    fn width(&self) -> usize {
        PAD + self.geometry.bins + 2 * self.beyond + BEYOND
    }

    /// Every view filtered, weighted and widened by `beyond` bins and by zeros on each side.
    fn filtered(&self, sinograms: &[f32]) -> Result<Vec<f32>> {
        let (bins, beyond, width) = (self.geometry.bins, self.beyond, self.width());
        let mut out = vec![0.0f32; sinograms.len() / bins * width];
        let scratch = || {
            let zero = Complex::new(0.0f32, 0.0);
            (vec![0.0f32; self.length], vec![zero; self.length / 2 + 1])
        };
        out.par_chunks_mut(width)
            .zip(sinograms.par_chunks(bins))
            .enumerate()
            .try_for_each_init(scratch, |(signal, spectrum), (index, (out, view))| {
                signal.fill(0.0);
                signal[..bins].copy_from_slice(view);
                self.to_frequency.process(signal, spectrum)?;
                for (value, &h) in spectrum.iter_mut().zip(&self.response) {
                    *value *= h;
                }
                // A real signal has no imaginary part there; rounding may have left one.
                spectrum[0].im = 0.0;
                spectrum[self.length / 2].im = 0.0;
                self.to_space.process(spectrum, signal)?;
                let weight = self.weights[index % self.geometry.views] as f32;
                let out = &mut out[PAD..width - BEYOND];
                let (before, after) = out.split_at_mut(beyond);
                before.copy_from_slice(&signal[self.length - beyond..]);
                after.copy_from_slice(&signal[..bins + beyond]);
                for value in out {
                    *value *= weight;
                }
                Ok::<(), Error>(())
            })?;
        Ok(out)
    }

    fn back_project(&self, filtered: &[f32], images: &mut [f32]) {
        let (rows, cols, views, width) = (self.grid.rows, self.grid.cols, self.geometry.views, self.width());
        let last = (width - PAD - BEYOND) as f64 - 1.0;
        let centre = self.geometry.centre_bin() + self.beyond as f64;
        // Per view: bin of the first column's x, bins per column, bins per mm of y.
        let rays: Vec<(f64, f64, f64, Tent)> = (0..views)
            .map(|k| {
                let (sin, cos) = self.geometry.angle(k).sin_cos();
                let per_mm = 1.0 / self.geometry.bin_mm;
                let step = cos * per_mm * self.grid.pixel_mm;
                (
                    centre + self.grid.x_mm(0.0) * cos * per_mm,
                    step,
                    sin * per_mm,
                    Tent::interpolation(step),
                )
            })
            .collect();
        images
            .par_chunks_mut(rows * cols)
            .enumerate()
            .for_each(|(slice, image)| {
                image
                    .par_chunks_mut(ROWS * cols)
                    .enumerate()
                    .for_each(|(block, image)| {
                        for (k, (start, step, per_y, tent)) in rays.iter().enumerate() {
                            let view = &filtered[(slice * views + k) * width..][..width];
                            for (i, row) in image.chunks_mut(cols).enumerate() {
                                let base = start + self.grid.y_mm((block * ROWS + i) as f64) * per_y;
                                let inside = indices_within(base, *step, cols, 0.0, last);
                                if !inside.is_empty() {
                                    let first = base + inside.start as f64 * step;
                                    tent.add(&mut row[inside], view, PAD, first);
                                }
                            }
                        }
                    });
            });
    }
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
