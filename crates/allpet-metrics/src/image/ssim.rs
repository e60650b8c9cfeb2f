//! Structural similarity in three named conventions.
//!
//! Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13(4):600-612, 2004, eq. 13, with C1 = (0.01·R)² and C2 = (0.03·R)².
//! What differs between programs is the window, the covariance and the border; see [`SsimConvention`].

use super::window::{Border, Window, gaussian_taps};
use crate::error::{Error, Result};
use crate::input::{Pairs, Real, positive};
use ndarray::{ArrayD, ArrayView, Dimension};
use std::fmt;
use std::str::FromStr;

/// Which SSIM: three programs, three numbers for one pair of images. A figure names its convention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SsimConvention {
    /// `wang`: Gaussian window σ = 1.5 of 11 × 11 taps, population covariance, mean over windows inside the image.
    ///
    /// Wang et al. 2004 without downsampling; scikit-image's `gaussian_weights=True, sigma=1.5,
    /// use_sample_covariance=False`; torchmetrics up to 1.4.1. Sides of at least 11 pixels.
    #[default]
    Wang,
    /// `skimage`: uniform 7 × 7 window, sample covariance (n-1), mean over windows inside the image.
    ///
    /// scikit-image's `structural_similarity` with its defaults. Sides of at least 7 pixels.
    SkimageDefault,
    /// `torchmetrics`: the window and covariance of `wang`, the image mirrored at its border, mean over all pixels.
    ///
    /// torchmetrics from 1.4.2 on with its defaults. Sides of at least 6 pixels, as the mirroring needs.
    Torchmetrics,
}

impl SsimConvention {
    /// Every convention.
    pub const ALL: [Self; 3] = [Self::Wang, Self::SkimageDefault, Self::Torchmetrics];

    /// The name that stands beside a figure: `wang`, `skimage` or `torchmetrics`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wang => "wang",
            Self::SkimageDefault => "skimage",
            Self::Torchmetrics => "torchmetrics",
        }
    }

    /// Least number of rows and of columns.
    pub fn least_side(self) -> usize {
        match self {
            Self::Wang => 11,
            Self::SkimageDefault => 7,
            Self::Torchmetrics => 6,
        }
    }
}

impl fmt::Display for SsimConvention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SsimConvention {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let known = |c: &Self| c.name() == word;
        Self::ALL.into_iter().find(known).ok_or_else(|| {
            Error::Core(allpet_core::Error::UnknownWord {
                what: "SSIM convention",
                word: word.to_owned(),
                known: Self::ALL.map(Self::name).join(", "),
            })
        })
    }
}

/// C1 and C2 for the data range R.
pub(super) fn constants(data_range: f64) -> (f64, f64) {
    let square = |k: f64| (k * data_range) * (k * data_range);
    (square(0.01), square(0.03))
}

/// Gaussian window with population covariance.
pub(super) fn gaussian(border: Border, data_range: f64) -> Window<11> {
    let (c1, c2) = constants(data_range);
    Window {
        taps: gaussian_taps(),
        border,
        covariance: 1.0,
        c1,
        c2,
    }
}

/// Mean SSIM of every image, for the data range R and a convention. At most 1, and 1 for identical images.
///
/// # Errors
/// A range that is not a finite number above 0; shapes that differ or have fewer than two axes; a side below
/// [`SsimConvention::least_side`]; NaN or infinities (named); values whose squares `f64` cannot hold.
pub fn ssim<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
    data_range: f64,
    convention: SsimConvention,
) -> Result<ArrayD<f64>> {
    let range = positive("data range of SSIM", data_range)?;
    let pairs = Pairs::new("SSIM", candidate, reference)?;
    pairs.at_least(convention.least_side())?;
    let (rows, cols) = (pairs.rows(), pairs.cols());
    match convention {
        SsimConvention::Wang => {
            let window = gaussian(Border::Interior, range);
            pairs.map(|x, y| window.means(x, y, rows, cols).ssim)
        }
        SsimConvention::Torchmetrics => {
            let window = gaussian(Border::Reflect, range);
            pairs.map(|x, y| window.means(x, y, rows, cols).ssim)
        }
        SsimConvention::SkimageDefault => {
            let (c1, c2) = constants(range);
            let window = Window {
                taps: [1.0 / 7.0; 7],
                border: Border::Interior,
                covariance: 49.0 / 48.0,
                c1,
                c2,
            };
            pairs.map(|x, y| window.means(x, y, rows, cols).ssim)
        }
    }
}
