//! Multi-scale structural similarity over five scales.
//!
//! Wang, Simoncelli and Bovik, Asilomar 2003, eq. 7: Π cs_j^w_j over scales 1 to 4 times SSIM_5^w_5, each scale half
//! the one before by a mean over 2 × 2 pixels; cs is the contrast-structure factor of SSIM and every factor the mean
//! over the image. A negative mean has no real power and counts as 0, as in TensorFlow and torchmetrics.

use super::ssim::gaussian;
use super::window::Border;
use crate::error::Result;
use crate::input::{Pairs, Real, positive};
use ndarray::{ArrayD, ArrayView, Dimension};
use std::fmt;

/// Weights of the scales, finest first.
pub const MS_SSIM_WEIGHTS: [f64; 5] = [0.0448, 0.2856, 0.3001, 0.2363, 0.1333];

/// Least number of rows and of columns: 11 pixels at the coarsest of five scales.
pub const MS_SSIM_SIDE: usize = 176;

/// Which MS-SSIM. A figure names its convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum MsSsimConvention {
    /// `wang`: windows inside the image; an odd last row or column is repeated before halving.
    ///
    /// The authors' program and TensorFlow's `ssim_multiscale`; pytorch-msssim too where every halved side is even.
    #[default]
    Wang,
    /// `torchmetrics`: only the SSIM of the coarsest scale mirrors the image at its border, the contrast-structure
    /// factors stay inside; an odd last row or column is dropped in halving. torchmetrics 1.4.2 to 1.9.0.
    Torchmetrics,
}

impl MsSsimConvention {
    /// The name that stands beside a figure: `wang` or `torchmetrics`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wang => "wang",
            Self::Torchmetrics => "torchmetrics",
        }
    }
}

impl fmt::Display for MsSsimConvention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Mean over 2 × 2 pixels, with the shape of the result; `repeat` keeps an odd last row or column.
fn halve<T: Real>(image: &[T], rows: usize, cols: usize, repeat: bool) -> (Vec<f64>, usize, usize) {
    let half = |side: usize| if repeat { side.div_ceil(2) } else { side / 2 };
    let (out_rows, out_cols) = (half(rows), half(cols));
    let mut out = Vec::with_capacity(out_rows * out_cols);
    for row in 0..out_rows {
        let upper = &image[2 * row * cols..][..cols];
        let lower = &image[(2 * row + 1).min(rows - 1) * cols..][..cols];
        out.extend((0..out_cols).map(|col| {
            let (left, right) = (2 * col, (2 * col + 1).min(cols - 1));
            let upper = upper[left].into() + upper[right].into();
            let lower = lower[left].into() + lower[right].into();
            0.25 * (upper + lower)
        }));
    }
    (out, out_rows, out_cols)
}

/// MS-SSIM of every image, for the data range R and a convention. Between 0 and 1, and 1 for identical images.
///
/// # Errors
/// A range that is not a finite number above 0; shapes that differ or have fewer than two axes; a side below
/// [`MS_SSIM_SIDE`]; NaN or infinities (named); values whose squares `f64` cannot hold.
pub fn ms_ssim<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
    data_range: f64,
    convention: MsSsimConvention,
) -> Result<ArrayD<f64>> {
    let range = positive("data range of MS-SSIM", data_range)?;
    let pairs = Pairs::new("MS-SSIM", candidate, reference)?;
    pairs.at_least(MS_SSIM_SIDE)?;
    let repeat = convention == MsSsimConvention::Wang;
    let window = gaussian(Border::Interior, range);
    let last = match convention {
        MsSsimConvention::Wang => window,
        MsSsimConvention::Torchmetrics => gaussian(Border::Reflect, range),
    };
    pairs.map(|x, y| {
        let (mut rows, mut cols) = (pairs.rows(), pairs.cols());
        let [finest, middle @ .., coarsest] = MS_SSIM_WEIGHTS;
        // NaN from overflow must stay NaN, which `max` would turn into 0.
        let factor = |mean: f64, weight: f64| if mean < 0.0 { 0.0 } else { mean.powf(weight) };
        let mut value = factor(window.means(x, y, rows, cols).contrast_structure, finest);
        let (mut x, mut y) = (halve(x, rows, cols, repeat), halve(y, rows, cols, repeat));
        for weight in middle {
            (rows, cols) = (x.1, x.2);
            value *= factor(window.means(&x.0, &y.0, rows, cols).contrast_structure, weight);
            (x, y) = (halve(&x.0, rows, cols, repeat), halve(&y.0, rows, cols, repeat));
        }
        value * factor(last.means(&x.0, &y.0, x.1, x.2).ssim, coarsest)
    })
}
