//! What enters: real numbers in `f32` or `f64`, arrays with leading axes, and the checks made once for every metric.

use crate::error::{Error, Result};
use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};
use rayon::prelude::*;
use std::borrow::Cow;

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// The element types that metrics accept: `f32` and `f64`. All arithmetic is in `f64`.
pub trait Real: sealed::Sealed + Copy + Send + Sync + Into<f64> + 'static {}

impl Real for f32 {}
impl Real for f64 {}

/// Elements that one task of a pointwise sum takes; fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 1 << 15;

/// The elements in C order, borrowed where they already lie so.
pub(crate) fn contiguous<'a, A: Clone, D: Dimension>(view: ArrayView<'a, A, D>) -> Cow<'a, [A]> {
    match view.to_slice() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(view.iter().cloned().collect()),
    }
}

/// Refuses NaN and infinities; the error names the first in C order.
pub(crate) fn check_finite<T: Real>(what: &str, values: &[T], shape: &[usize]) -> Result<()> {
    let Some(flat) = values.iter().position(|&v| !v.into().is_finite()) else {
        return Ok(());
    };
    let mut rest = flat;
    let mut index = vec![0; shape.len()];
    for (axis, &length) in shape.iter().enumerate().rev() {
        index[axis] = rest % length.max(1);
        rest /= length.max(1);
    }
    Err(Error::Core(allpet_core::Error::NotFinite {
        what: what.to_owned(),
        index,
        value: values[flat].into(),
    }))
}

/// Whether all are numbers; written so that it costs one pass of vector instructions.
pub(crate) fn all_finite<T: Real>(values: &[T]) -> bool {
    // v·0 is 0 for a number and NaN otherwise; sums of zeros stay 0.
    let mut lanes = [0.0f64; 8];
    let chunks = values.chunks_exact(8);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &v) in lanes.iter_mut().zip(chunk) {
            let v: f64 = v.into();
            *lane += v * 0.0;
        }
    }
    rest.iter().all(|&v| v.into().is_finite()) && lanes.iter().all(|&lane| lane == 0.0)
}

/// Refuses a setting that is not a finite number above 0.
pub(crate) fn positive(what: &'static str, got: f64) -> Result<f64> {
    if got.is_finite() && got > 0.0 {
        Ok(got)
    } else {
        Err(Error::Setting {
            what,
            expected: "a finite number above 0",
            got,
        })
    }
}

/// Refuses a setting that is not a finite number.
pub(crate) fn number(what: &'static str, got: f64) -> Result<f64> {
    if got.is_finite() {
        Ok(got)
    } else {
        Err(Error::Setting {
            what,
            expected: "a finite number",
            got,
        })
    }
}

/// The values, one per index of the leading axes.
pub(crate) fn shaped(leading: &[usize], values: impl IntoIterator<Item = f64>) -> ArrayD<f64> {
    let mut out = ArrayD::zeros(IxDyn(leading));
    for (out, value) in out.iter_mut().zip(values) {
        *out = value;
    }
    out
}

/// Candidate and reference images of one shape `[.., row, col]`, at least one of them, none empty.
pub(crate) struct Pairs<'a, T: Real> {
    what: &'static str,
    candidate: Cow<'a, [T]>,
    reference: Cow<'a, [T]>,
    shape: Vec<usize>,
    rows: usize,
    cols: usize,
}

impl<'a, T: Real> Pairs<'a, T> {
    /// Checks the shapes; the values are checked by what reads them.
    pub(crate) fn new<D: Dimension>(
        what: &'static str,
        candidate: ArrayView<'a, T, D>,
        reference: ArrayView<'a, T, D>,
    ) -> Result<Self> {
        if candidate.shape() != reference.shape() {
            return Err(Error::Shapes {
                what,
                candidate: candidate.shape().to_vec(),
                reference: reference.shape().to_vec(),
            });
        }
        let shape = candidate.shape().to_vec();
        let &[.., rows, cols] = shape.as_slice() else {
            return Err(Error::Core(allpet_core::Error::Shape {
                what: what.to_owned(),
                expected: "[.., row, col]".to_owned(),
                got: shape,
            }));
        };
        if candidate.is_empty() {
            return Err(Error::TooFew {
                what,
                needed: 1,
                of: "pixels",
                got: 0,
            });
        }
        Ok(Self {
            what,
            candidate: contiguous(candidate),
            reference: contiguous(reference),
            shape,
            rows,
            cols,
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    fn leading(&self) -> &[usize] {
        &self.shape[..self.shape.len() - 2]
    }

    /// Refuses images with a side below `needed`.
    pub(crate) fn at_least(&self, needed: usize) -> Result<()> {
        let got = self.rows.min(self.cols);
        if got >= needed {
            return Ok(());
        }
        Err(Error::TooFew {
            what: self.what,
            needed,
            of: "pixels per side",
            got,
        })
    }

    /// One value per image; `f` sees finite numbers only and may answer NaN for what `f64` cannot hold.
    pub(crate) fn map(&self, f: impl Fn(&[T], &[T]) -> f64 + Sync) -> Result<ArrayD<f64>> {
        let area = self.rows * self.cols;
        let values: Vec<f64> = self
            .candidate
            .par_chunks_exact(area)
            .zip(self.reference.par_chunks_exact(area))
            .map(|(candidate, reference)| {
                if all_finite(candidate) && all_finite(reference) {
                    f(candidate, reference)
                } else {
                    f64::NAN
                }
            })
            .collect();
        if let Some(image) = values.iter().position(|v| v.is_nan()) {
            return Err(self.fault(image));
        }
        Ok(shaped(self.leading(), values))
    }

    /// `K` sums over the pixels of every image, then one value per image from them.
    ///
    /// A sum that is not finite (NaN and infinities survive addition) is reported as the fault it came from.
    pub(crate) fn sums<const K: usize>(
        &self,
        sums: impl Fn(&[T], &[T]) -> [f64; K] + Sync,
        value: impl Fn(usize, [f64; K]) -> Result<f64>,
    ) -> Result<ArrayD<f64>> {
        let area = self.rows * self.cols;
        let chunks = area.div_ceil(CHUNK);
        let images = self.candidate.len() / area;
        let partial: Vec<[f64; K]> = (0..images * chunks)
            .into_par_iter()
            .map(|task| {
                let start = task / chunks * area + task % chunks * CHUNK;
                let end = (start + CHUNK).min((task / chunks + 1) * area);
                sums(&self.candidate[start..end], &self.reference[start..end])
            })
            .collect();
        let mut values = Vec::with_capacity(images);
        for (image, partial) in partial.chunks_exact(chunks).enumerate() {
            let mut total = [0.0; K];
            for part in partial {
                for (total, part) in total.iter_mut().zip(part) {
                    *total += part;
                }
            }
            if total.iter().any(|v| !v.is_finite()) {
                return Err(self.fault(image));
            }
            values.push(value(image, total)?);
        }
        Ok(shaped(self.leading(), values))
    }

    /// Why an image gave no number: the first NaN or infinity of the arrays, or values too large.
    fn fault(&self, image: usize) -> Error {
        let of = |name| format!("{name} of {}", self.what);
        check_finite(&of("candidate"), &self.candidate, &self.shape)
            .and_then(|()| check_finite(&of("reference"), &self.reference, &self.shape))
            .err()
            .unwrap_or(Error::UndefinedImage {
                what: self.what,
                image,
                why: "the values are too large or too small to be squared in f64",
            })
    }
}
