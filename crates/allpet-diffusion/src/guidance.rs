//! Classifier-free guidance: Ho and Salimans (2022), in the form `D_∅ + w·(D_c - D_∅)`.

use crate::coefficients::weighted_sum;
use crate::{Conditioning, Denoiser, Error, Result};
use candle_core::Tensor;

/// A denoiser whose prompt is strengthened: `D(null) + weight·(D(prompt) - D(null))`.
///
/// Weight 1 is the plain conditional denoiser and 0 the unconditional one, both without a second evaluation.
#[derive(Debug, Clone)]
pub struct Guided<D> {
    /// The denoiser, trained with its prompt left out now and then.
    pub inner: D,
    /// Strength `w`, 1 for none.
    pub weight: f64,
    /// Embedding `[1, D]` of no prompt.
    pub null: Tensor,
}

impl<D: Denoiser> Denoiser for Guided<D> {
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        if self.weight == 1.0 {
            return self.inner.predict_x0(x, t, conditioning);
        }
        let &[1, width] = self.null.dims() else {
            return Err(Error::Shape {
                what: "null embedding",
                expected: "[1, D]".to_owned(),
                got: self.null.dims().to_vec(),
            });
        };
        let null = self.null.broadcast_as((x.dim(0)?, width))?.contiguous()?;
        let without = Conditioning {
            embedding: Some(null),
            ..conditioning.clone()
        };
        let unconditional = self.inner.predict_x0(x, t, &without)?;
        if self.weight == 0.0 {
            return Ok(unconditional);
        }
        let conditional = self.inner.predict_x0(x, t, conditioning)?;
        weighted_sum(&[(1.0 - self.weight, &unconditional), (self.weight, &conditional)])
    }
}
