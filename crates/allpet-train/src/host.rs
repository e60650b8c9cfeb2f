//! The values of a contiguous `f32` tensor in host memory, in place.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Storage, Tensor, bail};
use std::sync::Mutex;

/// Runs `f` on the values of a contiguous `f32` CPU tensor, which may change them.
///
/// The lock of the tensor's storage is held meanwhile: calls nest for tensors of different storages only.
pub(crate) fn with_values_mut<R>(
    tensor: &Tensor,
    f: impl FnOnce(&mut [f32]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let op = Visit {
        work: Mutex::new((Some(f), None)),
    };
    tensor.inplace_op1(&op)?;
    let (_, result) = op
        .work
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    match result {
        Some(result) => result,
        None => bail!("the tensor is not in host memory"),
    }
}

/// Runs `f` on the values of a contiguous `f32` CPU tensor.
pub(crate) fn with_values<R>(
    tensor: &Tensor,
    f: impl FnOnce(&[f32]) -> candle_core::Result<R>,
) -> candle_core::Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match (&*storage, layout.contiguous_offsets()) {
        (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) => f(&values[start..end]),
        _ => bail!(
            "expected a contiguous f32 tensor in host memory, got {:?} {:?}",
            tensor.dtype(),
            tensor.shape()
        ),
    }
}

/// Whether [`with_values_mut`] can be used.
pub(crate) fn is_host_f32(tensor: &Tensor) -> bool {
    tensor.device().is_cpu() && tensor.dtype() == DType::F32 && tensor.is_contiguous()
}

/// candle hands out mutable storage to in-place operators only.
struct Visit<F, R> {
    work: Mutex<(Option<F>, Option<candle_core::Result<R>>)>,
}

impl<R, F: FnOnce(&mut [f32]) -> candle_core::Result<R>> InplaceOp1 for Visit<F, R> {
    fn name(&self) -> &'static str {
        "visit"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            bail!("expected a contiguous f32 tensor in host memory");
        };
        let mut work = self
            .work
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(f) = work.0.take() {
            work.1 = Some(f(&mut values[start..end]));
        }
        Ok(())
    }
}
