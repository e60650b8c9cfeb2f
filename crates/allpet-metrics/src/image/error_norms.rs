//! Pointwise errors: MSE, RMSE, MAE, and the errors normalised by the reference's norm, NMSE and NRMSE.
//!
//! With candidate x, reference y and N pixels: MSE = Σ(x-y)²/N, RMSE = √MSE, MAE = Σ|x-y|/N,
//! NMSE = Σ(x-y)²/Σy² and NRMSE = √NMSE (scikit-image's `normalization="euclidean"`).

use crate::error::{Error, Result};
use crate::input::{Pairs, Real};
use crate::simd::{Kernel, widest};
use ndarray::{ArrayD, ArrayView, Dimension};

const LANES: usize = 16;

/// Sums of `term` over pairs of elements, in [`LANES`] interleaved partial sums.
#[inline(always)]
fn lane_sums<T: Real, const K: usize>(
    candidate: &[T],
    reference: &[T],
    term: impl Fn(f64, f64) -> [f64; K],
) -> [f64; K] {
    let mut lanes = [[0.0f64; LANES]; K];
    let candidates = candidate.chunks_exact(LANES);
    let references = reference.chunks_exact(LANES);
    let rest = candidates.remainder().iter().zip(references.remainder());
    let mut tail = [0.0; K];
    for (&x, &y) in rest {
        for (tail, term) in tail.iter_mut().zip(term(x.into(), y.into())) {
            *tail += term;
        }
    }
    for (x, y) in candidates.zip(references) {
        for lane in 0..LANES {
            let terms = term(x[lane].into(), y[lane].into());
            for (lanes, term) in lanes.iter_mut().zip(terms) {
                lanes[lane] += term;
            }
        }
    }
    for (tail, lanes) in tail.iter_mut().zip(lanes) {
        *tail += lanes.iter().sum::<f64>();
    }
    tail
}

struct Squares<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel for Squares<'_, T> {
    type Output = [f64; 1];
    #[inline(always)]
    fn run(self) -> [f64; 1] {
        lane_sums(self.0, self.1, |x, y| [(x - y) * (x - y)])
    }
}

struct Magnitudes<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel for Magnitudes<'_, T> {
    type Output = [f64; 1];
    #[inline(always)]
    fn run(self) -> [f64; 1] {
        lane_sums(self.0, self.1, |x, y| [(x - y).abs()])
    }
}

struct Normalised<'a, T>(&'a [T], &'a [T]);

impl<T: Real> Kernel for Normalised<'_, T> {
    type Output = [f64; 2];
    #[inline(always)]
    fn run(self) -> [f64; 2] {
        lane_sums(self.0, self.1, |x, y| [(x - y) * (x - y), y * y])
    }
}

/// A value of the mean squared error of every image.
pub(super) fn of_mse<T: Real, D: Dimension>(
    what: &'static str,
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
    value: impl Fn(f64) -> f64,
) -> Result<ArrayD<f64>> {
    let pairs = Pairs::new(what, candidate, reference)?;
    let area = (pairs.rows() * pairs.cols()) as f64;
    pairs.sums(
        |x, y| widest(Squares(x, y)),
        |_, [squares]| Ok(value(squares / area)),
    )
}

fn of_nmse<T: Real, D: Dimension>(
    what: &'static str,
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
    value: impl Fn(f64) -> f64,
) -> Result<ArrayD<f64>> {
    let pairs = Pairs::new(what, candidate, reference)?;
    pairs.sums(
        |x, y| widest(Normalised(x, y)),
        |image, [squares, norm]| {
            let nmse = squares / norm;
            if norm > 0.0 && nmse.is_finite() {
                Ok(value(nmse))
            } else {
                Err(Error::UndefinedImage {
                    what,
                    image,
                    why: "the reference is zero everywhere",
                })
            }
        },
    )
}

/// Mean squared error of every image, in squared units of the image.
///
/// # Errors
/// Shapes that differ or have fewer than two axes, no pixels, NaN or infinities (named), squares beyond `f64`.
pub fn mse<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
) -> Result<ArrayD<f64>> {
    of_mse("MSE", candidate, reference, |mse| mse)
}

/// Root mean squared error of every image, in units of the image; errors as [`mse`].
pub fn rmse<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
) -> Result<ArrayD<f64>> {
    of_mse("RMSE", candidate, reference, f64::sqrt)
}

/// Mean absolute error of every image, in units of the image; errors as [`mse`].
pub fn mae<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
) -> Result<ArrayD<f64>> {
    let pairs = Pairs::new("MAE", candidate, reference)?;
    let area = (pairs.rows() * pairs.cols()) as f64;
    pairs.sums(|x, y| widest(Magnitudes(x, y)), |_, [sum]| Ok(sum / area))
}

/// Normalised mean squared error ‖x-y‖²/‖y‖² of every image, y the reference: not symmetric.
///
/// # Errors
/// As [`mse`], and a reference that is zero everywhere, for which the ratio is undefined.
pub fn nmse<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
) -> Result<ArrayD<f64>> {
    of_nmse("NMSE", candidate, reference, |nmse| nmse)
}

/// Normalised root mean squared error ‖x-y‖/‖y‖ of every image, the root of [`nmse`]; errors as there.
pub fn nrmse<T: Real, D: Dimension>(
    candidate: ArrayView<'_, T, D>,
    reference: ArrayView<'_, T, D>,
) -> Result<ArrayD<f64>> {
    of_nmse("NRMSE", candidate, reference, f64::sqrt)
}
