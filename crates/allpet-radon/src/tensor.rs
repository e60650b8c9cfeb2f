//! Any [`LinearOperator`] as a differentiable candle operation on CPU `f32` tensors.
//!
//! The operator is linear, so the gradient of `A x` is `Aᵀ` of the incoming gradient, and the gradient of `Aᵀ y`
//! is `A` of it; each is again such an operation, so derivatives of any order exist.

use crate::{LinearOperator, Projector, exchange_tail};
use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Tensor};
use ndarray::{ArrayViewD, ArrayViewMutD, IxDyn};
use std::sync::Arc;

/// Line integrals of `[.., row, col]` to `[.., view, radial]`, in (image unit)·mm; differentiable.
///
/// # Errors
/// A tensor that is not `f32` on the CPU, or whose trailing axes are not the projector's grid.
pub fn project(projector: &Arc<Projector>, image: &Tensor) -> Result<Tensor> {
    forward(projector, image)
}

/// The transpose of [`project`], `[.., view, radial]` to `[.., row, col]`; differentiable. Not a reconstruction.
///
/// # Errors
/// A tensor that is not `f32` on the CPU, or whose trailing axes are not the projector's sinogram.
pub fn back_project(projector: &Arc<Projector>, sinogram: &Tensor) -> Result<Tensor> {
    adjoint(projector, sinogram)
}

/// `A x` for any operator; errors as [`project`].
pub fn forward<O: LinearOperator + 'static>(operator: &Arc<O>, x: &Tensor) -> Result<Tensor> {
    apply(operator.clone(), false, x)
}

/// `Aᵀ y` for any operator; errors as [`project`].
pub fn adjoint<O: LinearOperator + 'static>(operator: &Arc<O>, y: &Tensor) -> Result<Tensor> {
    apply(operator.clone(), true, y)
}

fn apply(operator: Arc<dyn LinearOperator>, transposed: bool, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Op { operator, transposed })
}

struct Op {
    operator: Arc<dyn LinearOperator>,
    transposed: bool,
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        if self.transposed {
            "radon adjoint"
        } else {
            "radon forward"
        }
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(values) = storage else {
            return Err(Error::Msg(format!(
                "{} needs f32; the tensor holds another type",
                self.name()
            )));
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(Error::Msg(format!("{} needs a contiguous tensor", self.name())));
        };
        let (mut from, mut to) = (self.operator.domain_shape(), self.operator.range_shape());
        if self.transposed {
            std::mem::swap(&mut from, &mut to);
        }
        let shape = exchange_tail("tensor", layout.dims(), from, to).map_err(Error::wrap)?;
        let mut out = vec![0.0f32; shape.iter().product()];
        let input = ArrayViewD::from_shape(IxDyn(layout.dims()), &values[start..end]).map_err(Error::wrap)?;
        let output = ArrayViewMutD::from_shape(IxDyn(&shape), &mut out).map_err(Error::wrap)?;
        let done = if self.transposed {
            self.operator.adjoint(input, output)
        } else {
            self.operator.forward(input, output)
        };
        done.map_err(Error::wrap)?;
        Ok((CpuStorage::F32(out), shape.into()))
    }

    fn bwd(&self, _input: &Tensor, _output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        apply(self.operator.clone(), !self.transposed, gradient).map(Some)
    }
}
