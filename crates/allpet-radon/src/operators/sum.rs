//! Two operators side by side.

use super::{must_fit, shaped};
use crate::error::Result;
use crate::operator::{LinearOperator, batch_of};
use crate::pool::Pool;
use ndarray::{ArrayViewD, ArrayViewMutD};

/// `A + B`.
#[derive(Debug, Clone)]
pub struct Sum<A, B> {
    first: A,
    second: B,
    pool: Pool,
}

impl<A: LinearOperator, B: LinearOperator> Sum<A, B> {
    /// `first + second`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when the two differ in domain or range.
    pub fn new(first: A, second: B) -> Result<Self> {
        must_fit(
            "domain of the second term",
            second.domain_shape(),
            first.domain_shape(),
        )?;
        must_fit(
            "range of the second term",
            second.range_shape(),
            first.range_shape(),
        )?;
        Ok(Self {
            first,
            second,
            pool: Pool::default(),
        })
    }
}

/// Adds what `work` writes into a spare buffer to `out`.
fn add(
    pool: &Pool,
    mut out: ArrayViewMutD<'_, f32>,
    work: impl FnOnce(ArrayViewMutD<'_, f32>) -> Result<()>,
) -> Result<()> {
    let mut buffer = pool.take(out.len());
    let mut term = shaped("sum", out.shape(), &mut buffer)?;
    work(term.view_mut())?;
    out += &term;
    Ok(())
}

impl<A: LinearOperator, B: LinearOperator> LinearOperator for Sum<A, B> {
    fn domain_shape(&self) -> &[usize] {
        self.first.domain_shape()
    }

    fn range_shape(&self) -> &[usize] {
        self.first.range_shape()
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(x.shape(), self.domain_shape(), out.shape(), self.range_shape())?;
        self.first.forward(x.view(), out.view_mut())?;
        add(&self.pool, out, |term| self.second.forward(x, term))
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(y.shape(), self.range_shape(), out.shape(), self.domain_shape())?;
        self.first.adjoint(y.view(), out.view_mut())?;
        add(&self.pool, out, |term| self.second.adjoint(y, term))
    }
}
