//! Operators that compose: what stands around a projector in a model of an acquisition.
//!
//! The mean of a PET sinogram is `n·a·P(G x) + b`: [`GaussianPsf`] is `G`, [`Attenuation`] and [`Diagonal`] are `a`
//! and `n`, [`Product`] joins them. Every operator has its exact transpose and native batch axes; see
//! [`crate::check::registry`].

mod attenuation;
mod diagonal;
mod gaussian_psf;
mod product;
mod scaled;
mod subset;
mod sum;

pub use attenuation::Attenuation;
pub use diagonal::Diagonal;
pub use gaussian_psf::GaussianPsf;
pub use product::Product;
pub use scaled::Scaled;
pub use subset::Subset;
pub use sum::Sum;

use crate::error::{Error, Result};
use crate::operator::LinearOperator;
use ndarray::{ArrayViewD, ArrayViewMutD, IxDyn};
use std::sync::Arc;

macro_rules! pass_on {
    ($($pointer:ty),+) => {
        $(impl<O: LinearOperator + ?Sized> LinearOperator for $pointer {
            fn domain_shape(&self) -> &[usize] {
                (**self).domain_shape()
            }

            fn range_shape(&self) -> &[usize] {
                (**self).range_shape()
            }

            fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
                (**self).forward(x, out)
            }

            fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
                (**self).adjoint(y, out)
            }
        })+
    };
}

pass_on!(&O, Box<O>, Arc<O>);

/// Runs `work` on the values of both arrays in standard layout, through a copy where one is laid out otherwise.
fn in_standard_layout(
    input: &ArrayViewD<'_, f32>,
    mut out: ArrayViewMutD<'_, f32>,
    work: impl FnOnce(&[f32], &mut [f32]),
) {
    let input = input.as_standard_layout();
    let Some(input) = input.as_slice() else { return };
    if let Some(out) = out.as_slice_mut() {
        work(input, out);
    } else {
        let mut copy = vec![0.0; out.len()];
        work(input, &mut copy);
        out.iter_mut().zip(copy).for_each(|(to, from)| *to = from);
    }
}

/// A buffer of a pool as an array.
fn shaped<'a>(what: &'static str, shape: &[usize], buffer: &'a mut [f32]) -> Result<ArrayViewMutD<'a, f32>> {
    let got = vec![buffer.len()];
    ArrayViewMutD::from_shape(IxDyn(shape), buffer).map_err(|_| Error::Shape {
        what,
        expected: format!("{shape:?}"),
        got,
    })
}

/// Refuses operators whose shapes do not meet.
fn must_fit(what: &'static str, got: &[usize], expected: &[usize]) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::Shape {
        what,
        expected: format!("{expected:?}"),
        got: got.to_vec(),
    })
}
