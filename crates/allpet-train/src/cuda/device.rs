//! The optimiser's kernels on the memory of tensors.

use super::{parts, squares, update};
use crate::adamw::Scalars;
use allpet_kernel::Element;
use allpet_kernel::device::{Program, address};
use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use std::sync::{Mutex, PoisonError};

/// Whether the kernels can be used.
pub(crate) fn takes(tensor: &Tensor) -> bool {
    tensor.device().is_cuda() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

fn program(device: &CudaDevice) -> Program {
    Program::new(device, Element::F32, "")
}

/// Runs `f` on the device and address of a tensor's values, which may change there.
///
/// The lock of the tensor's storage is held meanwhile: calls nest for tensors of different storages only.
fn with_address_mut<R>(tensor: &Tensor, f: impl FnOnce(&CudaDevice, u64) -> Result<R>) -> Result<R> {
    let op = Visit(Mutex::new((Some(f), None)));
    tensor.inplace_op1(&op)?;
    match op.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(result)) => result,
        _ => bail!("the tensor is not on a CUDA device"),
    }
}

/// Runs `f` on the address of a tensor's values.
fn with_address<R>(tensor: &Tensor, f: impl FnOnce(u64) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cuda(storage) = &*storage else {
        bail!("the tensor is not on a CUDA device");
    };
    let stream = storage.device().cuda_stream();
    let (at, guard) = address(storage, layout, Element::F32, &stream)?;
    let result = f(at);
    drop(guard);
    result
}

type Work<F, R> = (Option<F>, Option<Result<R>>);

/// candle hands out mutable storage to in-place operators only.
struct Visit<F, R>(Mutex<Work<F, R>>);

impl<R, F: FnOnce(&CudaDevice, u64) -> Result<R>> InplaceOp1 for Visit<F, R> {
    fn name(&self) -> &'static str {
        "visit"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
        bail!("the tensor is in host memory")
    }

    fn cuda_fwd(&self, storage: &mut CudaStorage, layout: &Layout) -> Result<()> {
        let device = storage.device().clone();
        let Some((start, _)) = layout.contiguous_offsets() else {
            bail!("expected a contiguous tensor");
        };
        let stream = device.cuda_stream();
        let (at, guard) = storage.as_cuda_slice_mut::<f32>()?.device_ptr_mut(&stream);
        let mut work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(f) = work.0.take() {
            work.1 = Some(f(&device, at + 4 * start as u64));
        }
        drop(guard);
        Ok(())
    }
}

/// One update of a parameter, its moments and its moving average (all of one shape), in place.
pub(crate) fn adamw([w, m, v, average]: [&Tensor; 4], gradient: Option<&Tensor>, s: Scalars) -> Result<()> {
    let length = w.elem_count();
    with_address_mut(w, |device, w| {
        with_address_mut(m, |_, m| {
            with_address_mut(v, |_, v| {
                with_address_mut(average, |_, average| {
                    let run = |g| update(&program(device), [w, m, v, average, g], length, s);
                    match gradient {
                        Some(gradient) => with_address(gradient, run),
                        None => run(0),
                    }
                })
            })
        })
    })
}

/// Sum of the squares of all values, in the order given; one transfer for all.
pub(crate) fn sum_of_squares(tensors: &[Tensor]) -> Result<f64> {
    let Some(first) = tensors.first() else {
        return Ok(0.0);
    };
    let device = first.device().as_cuda_device()?;
    let stream = device.cuda_stream();
    let count: usize = tensors.iter().map(|t| parts(t.elem_count())).sum();
    let sums = stream.alloc_zeros::<f64>(count.max(1)).w()?;
    let (mut to, guard) = sums.device_ptr(&stream);
    for tensor in tensors {
        let length = tensor.elem_count();
        with_address(tensor, |at| squares(&program(device), at, length, to))?;
        to += 8 * parts(length) as u64;
    }
    drop(guard);
    let sums = stream.clone_dtoh(&sums).w()?;
    Ok(sums.iter().sum())
}
