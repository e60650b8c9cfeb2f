//! Any [`LinearOperator`] as a differentiable candle operation, projector and filtered back-projection on CPU and CUDA.
//!
//! The operator is linear, so the gradient of `A x` is `Aᵀ` of the incoming gradient, and the gradient of `Aᵀ y`
//! is `A` of it; each is again such an operation, so derivatives of any order exist.
//!
//! On the CPU tensors are `f32`. With feature `cuda`, [`project`], [`back_project`] and [`reconstruct`] also take `f32`
//! and `f16` tensors of a CUDA device (sums are `f32`); nothing is copied to the host.

use crate::{Fbp, LinearOperator, Projector, exchange_tail};
use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Tensor};
use ndarray::{ArrayViewD, ArrayViewMutD, IxDyn};
use std::sync::Arc;

/// Line integrals of `[.., row, col]` to `[.., view, radial]`, in (image unit)·mm; differentiable.
///
/// # Errors
/// A tensor that is not `f32` on the CPU (`f16` also on CUDA), or whose trailing axes are not the projector's grid.
pub fn project(projector: &Arc<Projector>, image: &Tensor) -> Result<Tensor> {
    apply(Operator::Projector(projector.clone()), false, image)
}

/// The transpose of [`project`], `[.., view, radial]` to `[.., row, col]`; differentiable. Not a reconstruction.
///
/// # Errors
/// As [`project`]; trailing axes that are not the projector's sinogram.
pub fn back_project(projector: &Arc<Projector>, sinogram: &Tensor) -> Result<Tensor> {
    apply(Operator::Projector(projector.clone()), true, sinogram)
}

/// `A x` for any operator, on the CPU; errors as [`project`].
pub fn forward<O: LinearOperator + 'static>(operator: &Arc<O>, x: &Tensor) -> Result<Tensor> {
    apply(Operator::Any(operator.clone()), false, x)
}

/// `Aᵀ y` for any operator, on the CPU; errors as [`project`].
pub fn adjoint<O: LinearOperator + 'static>(operator: &Arc<O>, y: &Tensor) -> Result<Tensor> {
    apply(Operator::Any(operator.clone()), true, y)
}

/// Filtered back-projection of `[.., view, radial]` to `[.., row, col]`; it has no gradient.
///
/// # Errors
/// As [`project`]; trailing axes that are not the reconstruction's sinogram.
pub fn reconstruct(fbp: &Arc<Fbp>, sinogram: &Tensor) -> Result<Tensor> {
    sinogram.contiguous()?.apply_op1_no_bwd(&Reconstruct(fbp.clone()))
}

fn apply(operator: Operator, transposed: bool, x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(Op { operator, transposed })
}

/// The values of a contiguous CPU tensor.
fn values<'a>(name: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<ArrayViewD<'a, f32>> {
    let CpuStorage::F32(values) = storage else {
        return Err(Error::Msg(format!(
            "{name} needs f32; the tensor holds another type"
        )));
    };
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::Msg(format!("{name} needs a contiguous tensor")));
    };
    ArrayViewD::from_shape(IxDyn(layout.dims()), &values[start..end]).map_err(Error::wrap)
}

#[derive(Clone)]
enum Operator {
    Projector(Arc<Projector>),
    Any(Arc<dyn LinearOperator>),
}

struct Op {
    operator: Operator,
    transposed: bool,
}

impl Op {
    fn as_linear(&self) -> &dyn LinearOperator {
        match &self.operator {
            Operator::Projector(projector) => projector,
            Operator::Any(operator) => operator,
        }
    }

    /// Shape of the result.
    fn result(&self, dims: &[usize]) -> Result<Vec<usize>> {
        let operator = self.as_linear();
        let (mut from, mut to) = (operator.domain_shape(), operator.range_shape());
        if self.transposed {
            std::mem::swap(&mut from, &mut to);
        }
        exchange_tail("tensor", dims, from, to).map_err(Error::wrap)
    }
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
        let input = values(self.name(), storage, layout)?;
        let shape = self.result(layout.dims())?;
        let mut out = vec![0.0f32; shape.iter().product()];
        let output = ArrayViewMutD::from_shape(IxDyn(&shape), &mut out).map_err(Error::wrap)?;
        let done = if self.transposed {
            self.as_linear().adjoint(input, output)
        } else {
            self.as_linear().forward(input, output)
        };
        done.map_err(Error::wrap)?;
        Ok((CpuStorage::F32(out), shape.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let Operator::Projector(projector) = &self.operator else {
            return Err(Error::Msg(format!(
                "{} of this operator runs on the CPU only; the tensor is on a CUDA device",
                self.name()
            )));
        };
        let shape = self.result(layout.dims())?.into();
        let work = crate::cuda::Work {
            storage,
            layout,
            shape,
        };
        crate::cuda::project(projector, self.transposed, work)
    }

    fn bwd(&self, _input: &Tensor, _output: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        apply(self.operator.clone(), !self.transposed, gradient).map(Some)
    }
}

struct Reconstruct(Arc<Fbp>);

impl CustomOp1 for Reconstruct {
    fn name(&self) -> &'static str {
        "filtered back-projection"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let image = self
            .0
            .reconstruct(values(self.name(), storage, layout)?)
            .map_err(Error::wrap)?;
        let shape = image.shape().to_vec();
        Ok((CpuStorage::F32(image.into_raw_vec_and_offset().0), shape.into()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        storage: &candle_core::CudaStorage,
        layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (from, to) = (self.0.geometry().shape(), self.0.grid().shape());
        let shape = exchange_tail("sinogram", layout.dims(), &from, &to).map_err(Error::wrap)?;
        let work = crate::cuda::Work {
            storage,
            layout,
            shape: shape.into(),
        };
        crate::cuda::reconstruct(&self.0, work)
    }
}
