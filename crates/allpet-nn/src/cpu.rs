//! What the CPU operators share: borrowed storage and its checks.

use candle_core::{CpuStorage, Layout, Result, bail};

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
