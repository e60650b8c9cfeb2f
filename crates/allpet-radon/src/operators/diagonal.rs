//! Multiplication by a weight per element: normalisation, detector efficiency, a mask.

use super::in_standard_layout;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, batch_of};
use allpet_core::check_finite;
use ndarray::{ArrayViewD, ArrayViewMutD};
use rayon::prelude::*;

/// Elements that one task multiplies.
const CHUNK: usize = 8192;

/// `(A x)_i = w_i x_i`, its own transpose.
#[derive(Debug, Clone)]
pub struct Diagonal {
    shape: Vec<usize>,
    weights: Vec<f32>,
}

impl Diagonal {
    /// An operator on arrays of the shape of `weights`; weights may have any sign.
    ///
    /// # Errors
    /// No weights at all; a weight that is not finite.
    pub fn new(weights: ArrayViewD<'_, f32>) -> Result<Self> {
        if weights.is_empty() {
            return Err(Error::Shape {
                what: "weights",
                expected: "at least one value".to_owned(),
                got: weights.shape().to_vec(),
            });
        }
        check_finite("weights", weights.view())?;
        Ok(Self {
            shape: weights.shape().to_vec(),
            weights: weights.iter().copied().collect(),
        })
    }

    /// The weights, in standard layout.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    fn multiply(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(x.shape(), &self.shape, out.shape(), &self.shape)?;
        let length = self.weights.len();
        in_standard_layout(&x, out, |x, out| {
            out.par_chunks_mut(length)
                .zip(x.par_chunks(length))
                .for_each(|(out, x)| {
                    out.par_chunks_mut(CHUNK)
                        .zip(x.par_chunks(CHUNK))
                        .zip(self.weights.par_chunks(CHUNK))
                        .for_each(|((out, x), weights)| {
                            for ((out, x), weight) in out.iter_mut().zip(x).zip(weights) {
                                *out = x * weight;
                            }
                        });
                });
        });
        Ok(())
    }
}

impl LinearOperator for Diagonal {
    fn domain_shape(&self) -> &[usize] {
        &self.shape
    }

    fn range_shape(&self) -> &[usize] {
        &self.shape
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.multiply(x, out)
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.multiply(y, out)
    }
}
