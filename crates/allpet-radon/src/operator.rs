//! The linear-operator trait that projector, attenuation, normalisation and their compositions share.

use crate::error::{Error, Result};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, IxDyn};

/// A linear map with its exact (Euclidean) transpose, acting on the trailing axes of `f32` arrays.
///
/// Leading axes are batch axes: element `i` of a batch gives the same bytes as a batch of that element alone, for
/// any number of threads.
pub trait LinearOperator: Send + Sync {
    /// Shape of one input, for example `[rows, cols]`.
    fn domain_shape(&self) -> &[usize];

    /// Shape of one output, for example `[views, bins]`.
    fn range_shape(&self) -> &[usize];

    /// `out = A x`; `x` is `[.., domain]`, `out` is `[.., range]` with the same leading axes and is overwritten.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not fit.
    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()>;

    /// `out = Aᵀ y`; `y` is `[.., range]`, `out` is `[.., domain]` with the same leading axes and is overwritten.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes do not fit.
    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()>;

    /// `A x` in a new array; errors as [`LinearOperator::forward`].
    fn apply(&self, x: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let shape = exchange_tail("input", x.shape(), self.domain_shape(), self.range_shape())?;
        let mut out = ArrayD::zeros(IxDyn(&shape));
        self.forward(x, out.view_mut())?;
        Ok(out)
    }

    /// `Aᵀ y` in a new array; errors as [`LinearOperator::adjoint`].
    fn apply_adjoint(&self, y: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let shape = exchange_tail("input", y.shape(), self.range_shape(), self.domain_shape())?;
        let mut out = ArrayD::zeros(IxDyn(&shape));
        self.adjoint(y, out.view_mut())?;
        Ok(out)
    }
}

/// The shape with its trailing `from` axes replaced by `to`.
///
/// # Errors
/// [`Error::Shape`] when `shape` does not end in `from`.
pub fn exchange_tail(
    what: &'static str,
    shape: &[usize],
    from: &[usize],
    to: &[usize],
) -> Result<Vec<usize>> {
    match shape.strip_suffix(from) {
        Some(batch) => Ok([batch, to].concat()),
        None => Err(Error::Shape {
            what,
            expected: format!("[.., {}]", join(from)),
            got: shape.to_vec(),
        }),
    }
}

/// Checks an input and an output against each other and against the operator; gives the number of batch elements.
///
/// # Errors
/// [`Error::Shape`] naming the array that does not fit.
pub fn batch_of(input: &[usize], from: &[usize], out: &[usize], to: &[usize]) -> Result<usize> {
    let expected = exchange_tail("input", input, from, to)?;
    if out != expected {
        return Err(Error::Shape {
            what: "output",
            expected: format!("[{}]", join(&expected)),
            got: out.to_vec(),
        });
    }
    Ok(input[..input.len() - from.len()].iter().product())
}

fn join(shape: &[usize]) -> String {
    shape
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}
