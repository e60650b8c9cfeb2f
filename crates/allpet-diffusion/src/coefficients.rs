//! Weighted sums of tensors with coefficients computed in f64.

use crate::{Error, Result};
use candle_core::Tensor;

/// `Σ weight·tensor`, one weight for the whole tensor; terms of weight 0 are left out, so that what they hold
/// (an infinity, say) does not matter.
pub(crate) fn weighted_sum(terms: &[(f64, &Tensor)]) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    for &(weight, tensor) in terms {
        if weight != 0.0 {
            let term = tensor.affine(weight, 0.0)?;
            sum = Some(match sum {
                Some(sum) => (sum + term)?,
                None => term,
            });
        }
    }
    match (sum, terms.first()) {
        (Some(sum), _) => Ok(sum),
        (None, Some((_, tensor))) => Ok(tensor.zeros_like()?),
        (None, None) => Err(Error::Shape {
            what: "sum",
            expected: "one term".to_owned(),
            got: Vec::new(),
        }),
    }
}

/// `weights[i]·tensor[i]` for every sample `i`, weights rounded to the tensor's type.
pub(crate) fn scale_samples(tensor: &Tensor, weights: &[f64]) -> Result<Tensor> {
    if tensor.rank() == 0 || tensor.dims()[0] != weights.len() {
        return Err(Error::Shape {
            what: "batch",
            expected: format!("[{}, ..], one sample per time", weights.len()),
            got: tensor.dims().to_vec(),
        });
    }
    let mut shape = vec![1; tensor.rank()];
    shape[0] = weights.len();
    let weights = Tensor::from_slice(weights, shape, tensor.device())?.to_dtype(tensor.dtype())?;
    Ok(tensor.broadcast_mul(&weights)?)
}
