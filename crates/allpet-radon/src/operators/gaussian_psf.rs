//! Image-space resolution model: a stationary Gaussian (Reader et al., IEEE Trans. Nucl. Sci. 50:1392 (2003)).

use super::in_standard_layout;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, batch_of};
use crate::pool::Pool;
use allpet_core::ImageGrid;
use ndarray::{ArrayViewD, ArrayViewMutD};
use rayon::prelude::*;

/// Where the Gaussian ends, in standard deviations.
const REACH: f64 = 4.0;
/// Image rows that one task takes at least.
const ROWS: usize = 8;

/// Convolution with a separable Gaussian, cut off at four standard deviations and of unit sum; the image is zero
/// outside its borders. The matrix is symmetric, so the operator is its own transpose.
#[derive(Debug, Clone)]
pub struct GaussianPsf {
    shape: [usize; 2],
    fwhm_mm: f64,
    /// From the centre outwards.
    taps: Vec<f32>,
    pool: Pool,
}

impl GaussianPsf {
    /// A blur of `fwhm_mm` (full width at half maximum) on images of `grid`; 0 is the identity.
    ///
    /// # Errors
    /// An invalid grid; a width below 0, above 10,000 pixels or not a number.
    pub fn new(grid: ImageGrid, fwhm_mm: f64) -> Result<Self> {
        grid.validate()?;
        let fwhm = fwhm_mm / grid.pixel_mm;
        if !(0.0..=1e4).contains(&fwhm) {
            return Err(Error::Setting {
                what: "width of the PSF in pixels",
                expected: "0 to 10000",
                got: fwhm,
            });
        }
        // FWHM = 2 sqrt(2 ln 2) σ
        let sigma = fwhm / (8.0 * std::f64::consts::LN_2).sqrt();
        let radius = (REACH * sigma).ceil() as usize;
        let gauss: Vec<f64> = (0..=radius)
            .map(|k| {
                if k == 0 {
                    1.0
                } else {
                    (-0.5 * (k as f64 / sigma).powi(2)).exp()
                }
            })
            .collect();
        let sum = 2.0 * gauss.iter().sum::<f64>() - 1.0;
        let longest = grid.rows.max(grid.cols);
        Ok(Self {
            shape: grid.shape(),
            fwhm_mm,
            taps: gauss.iter().take(longest).map(|g| (g / sum) as f32).collect(),
            pool: Pool::default(),
        })
    }

    /// Full width at half maximum in mm.
    pub fn fwhm_mm(&self) -> f64 {
        self.fwhm_mm
    }

    fn blur(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(x.shape(), &self.shape, out.shape(), &self.shape)?;
        in_standard_layout(&x, out, |from, to| {
            let mut middle = self.pool.take(from.len());
            self.along_rows(from, &mut middle);
            self.across_rows(&middle, to);
        });
        Ok(())
    }

    fn along_rows(&self, from: &[f32], to: &mut [f32]) {
        let cols = self.shape[1];
        to.par_chunks_mut(cols)
            .zip(from.par_chunks(cols))
            .with_min_len(ROWS)
            .for_each(|(to, from)| {
                start(self.taps[0], from, to);
                for (k, &tap) in self.taps.iter().enumerate().take(cols).skip(1) {
                    add(tap, &from[k..], &mut to[..cols - k]);
                    add(tap, &from[..cols - k], &mut to[k..]);
                }
            });
    }

    fn across_rows(&self, from: &[f32], to: &mut [f32]) {
        let [rows, cols] = self.shape;
        to.par_chunks_mut(cols)
            .enumerate()
            .with_min_len(ROWS)
            .for_each(|(index, to)| {
                let (row, image) = (index % rows, index - index % rows);
                let line = |row: usize| &from[(image + row) * cols..][..cols];
                start(self.taps[0], line(row), to);
                for (k, &tap) in self.taps.iter().enumerate().skip(1) {
                    if row + k < rows {
                        add(tap, line(row + k), to);
                    }
                    if k <= row {
                        add(tap, line(row - k), to);
                    }
                }
            });
    }
}

fn start(tap: f32, from: &[f32], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = tap * from;
    }
}

fn add(tap: f32, from: &[f32], to: &mut [f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += tap * from;
    }
}

impl LinearOperator for GaussianPsf {
    fn domain_shape(&self) -> &[usize] {
        &self.shape
    }

    fn range_shape(&self) -> &[usize] {
        &self.shape
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.blur(x, out)
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.blur(y, out)
    }
}
