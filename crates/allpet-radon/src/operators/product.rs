//! One operator after another.

use super::{must_fit, shaped};
use crate::error::Result;
use crate::operator::{LinearOperator, batch_of, exchange_tail};
use crate::pool::Pool;
use ndarray::{ArrayViewD, ArrayViewMutD};

/// `A B`: first `B`, then `A`; the transpose is `Bᵀ Aᵀ`.
#[derive(Debug, Clone)]
pub struct Product<A, B> {
    left: A,
    right: B,
    pool: Pool,
}

impl<A: LinearOperator, B: LinearOperator> Product<A, B> {
    /// `left · right`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] when what `right` gives is not what `left` takes.
    pub fn new(left: A, right: B) -> Result<Self> {
        must_fit(
            "range of the right factor",
            right.range_shape(),
            left.domain_shape(),
        )?;
        Ok(Self {
            left,
            right,
            pool: Pool::default(),
        })
    }
}

impl<A: LinearOperator, B: LinearOperator> LinearOperator for Product<A, B> {
    fn domain_shape(&self) -> &[usize] {
        self.right.domain_shape()
    }

    fn range_shape(&self) -> &[usize] {
        self.left.range_shape()
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(x.shape(), self.domain_shape(), out.shape(), self.range_shape())?;
        let shape = exchange_tail("input", x.shape(), self.domain_shape(), self.left.domain_shape())?;
        let mut buffer = self.pool.take(shape.iter().product());
        let mut middle = shaped("product", &shape, &mut buffer)?;
        self.right.forward(x, middle.view_mut())?;
        self.left.forward(middle.view(), out)
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(y.shape(), self.range_shape(), out.shape(), self.domain_shape())?;
        let shape = exchange_tail("input", y.shape(), self.range_shape(), self.left.domain_shape())?;
        let mut buffer = self.pool.take(shape.iter().product());
        let mut middle = shaped("product", &shape, &mut buffer)?;
        self.left.adjoint(y, middle.view_mut())?;
        self.right.adjoint(middle.view(), out)
    }
}
