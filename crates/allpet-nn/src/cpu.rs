//! What the operators share: who computes them, borrowed storage and its checks.

use candle_core::{CpuStorage, DType, Layout, Result, Tensor, bail};

/// Whether the operators have kernels of their own for a tensor: floats in host memory, and with the feature `cuda` also
/// 16-bit floats, on CUDA devices.
pub(crate) fn has_kernels(x: &Tensor) -> bool {
    let on_cuda = cfg!(feature = "cuda") && x.device().is_cuda();
    match x.dtype() {
        DType::F32 => x.device().is_cpu() || on_cuda,
        DType::F16 | DType::BF16 => on_cuda,
        _ => false,
    }
}

/// A parameter as the kernels want it: floats without gaps, whatever the activations are.
pub(crate) fn parameter(p: &Tensor) -> Result<Tensor> {
    p.to_dtype(DType::F32)?.contiguous()
}

/// The floats behind a contiguous tensor, inside an operator of one's own (see [`crate::apply1`]).
///
/// # Errors
/// Another type, or strides that leave gaps; `what` names the operator in the message.
pub fn floats<'a>(what: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let all = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&all[from..to]),
        None => bail!(
            "{what}: expected a contiguous tensor, got strides {:?}",
            layout.stride()
        ),
    }
}
