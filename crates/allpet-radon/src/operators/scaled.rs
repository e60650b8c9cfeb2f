//! An operator times a number.

use crate::error::{Error, Result};
use crate::operator::LinearOperator;
use ndarray::{ArrayViewD, ArrayViewMutD};

/// `c A`.
#[derive(Debug, Clone)]
pub struct Scaled<A> {
    operator: A,
    factor: f32,
}

impl<A: LinearOperator> Scaled<A> {
    /// `factor · operator`.
    ///
    /// # Errors
    /// [`Error::Setting`] when the factor is not finite.
    pub fn new(operator: A, factor: f32) -> Result<Self> {
        if factor.is_finite() {
            return Ok(Self { operator, factor });
        }
        Err(Error::Setting {
            what: "factor of an operator",
            expected: "a finite number",
            got: f64::from(factor),
        })
    }
}

impl<A: LinearOperator> LinearOperator for Scaled<A> {
    fn domain_shape(&self) -> &[usize] {
        self.operator.domain_shape()
    }

    fn range_shape(&self) -> &[usize] {
        self.operator.range_shape()
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.operator.forward(x, out.view_mut())?;
        out *= self.factor;
        Ok(())
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.operator.adjoint(y, out.view_mut())?;
        out *= self.factor;
        Ok(())
    }
}
