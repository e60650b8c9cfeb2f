//! Image, PET and distribution metrics in named conventions, and the PAC-Bayes bound.
//!
//! ```
//! use allpet_metrics::image::{SsimConvention, psnr, ssim};
//! use allpet_metrics::{Accumulator, Bootstrap};
//!
//! // Ten pairs of 64 x 64, values between 0 and 1: the data range is said, never guessed.
//! let reference = ndarray::Array3::from_shape_fn((10, 64, 64), |(_, i, j)| ((37 * i + 17 * j) % 101) as f32 / 100.0);
//! let candidate = ndarray::Array3::from_shape_fn((10, 64, 64), |(n, i, j)| {
//!     let wave = 0.01 * (1 + n) as f32 * (0.7 * i as f32 + 0.3 * j as f32).sin();
//!     (reference[[n, i, j]] + wave).clamp(0.0, 1.0)
//! });
//! let db = psnr(candidate.view(), reference.view(), 1.0)?;
//! let similarity = ssim(candidate.view(), reference.view(), 1.0, SsimConvention::Wang)?;
//! assert_eq!(db.shape(), [10]);
//! assert!(similarity.iter().all(|s| (0.9..1.0).contains(s)));
//!
//! let mut set = Accumulator::new();
//! set.update(db)?;
//! let summary = set.compute(Some(Bootstrap::new(7)))?;
//! assert_eq!((summary.n, summary.infinite), (10, 0));
//! # Ok::<(), allpet_metrics::Error>(())
//! ```
//!
//! Conventions:
//! - images `[.., row, col]` in `f32` or `f64`, one value per image in the shape of the leading axes; the candidate
//!   comes first, the reference second; all arithmetic is in `f64`, and the same for any number of threads;
//! - the data range R is required where a metric needs one, and where programs differ the metric takes a convention
//!   by name ([`image::SsimConvention`], [`image::MsSsimConvention`]);
//! - no metric returns NaN: shapes that differ, NaN inside and undefined ratios are errors that name the place. The
//!   only infinity is the PSNR of identical images, +∞, which [`Accumulator`] counts apart from the mean;
//! - distances between sets stand on features: seeded random ones, or with the feature `candle` those of Inception v3
//!   in its FID form, whose weights the user brings ([`distribution`]);
//! - a set is summarised by mean, sample standard deviation (n-1) and bootstrap interval of the images' values.

pub mod distribution;
mod error;
pub mod image;
mod input;
mod linalg;
pub mod pac_bayes;
pub mod pet;
mod simd;
pub mod sinogram;
mod summary;

pub use error::{Error, Result};
pub use input::Real;
pub use summary::{Accumulator, Bootstrap, Interval, Summary, quantile};
