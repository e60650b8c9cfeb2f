//! Eqs. 7 to 9, 12 and 13 on candle tensors: channels for the network, the positive/negative loss on what it decodes,
//! attention gates on its features.

pub use crate::attention::tensor::{AttentionGate, gate};

use candle_core::{DType, Result, Tensor, bail};

/// `C_all = [M·S, S, (1 - M)·S]`, `[B, 3, V, R]`, from `[B, 1, V, R]` each (eqs. 7, 8, 13); the same values as
/// [`decompose`](crate::decompose). M is the normalised mask and S not yet shifted: scale and offset come after.
///
/// # Errors
/// Shapes that are not `[B, 1, V, R]` and equal; anything candle reports.
pub fn c_all(sinogram: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (batch, _, views, bins) = sinogram.dims4()?;
    expect("sinogram", sinogram, (batch, 1, views, bins))?;
    expect("mask", mask, (batch, 1, views, bins))?;
    let positive = mask.mul(sinogram)?;
    let negative = mask.affine(-1.0, 1.0)?.mul(sinogram)?;
    Tensor::cat(&[&positive, sinogram, &negative], 1)
}

/// `L_PN` (eq. 9) on decoded channels `[Ĉ_pos, Ŝ, Ĉ_neg]`, `[B, 3, V, R]`, with the mask `[B, 1, V, R]`:
/// `(‖Ĉ_pos - M·Ŝ‖² + ‖Ĉ_neg - (1 - M)·Ŝ‖²) / (B·V·R)`, a differentiable scalar.
///
/// As printed, on channels built by eqs. 7 and 8, the loss is identically zero; it binds only what a network decoded.
/// The paper writes a sum; here it is divided by the number of sinogram values, so that its weight does not depend on
/// batch or size. `offset` is the value that an empty sinogram has in the decoded channels: for channels scaled as
/// `a·C + b` it is `b`, because the relation holds between the unshifted channels.
///
/// # Errors
/// Shapes other than these; anything candle reports.
pub fn loss_pn(decoded: &Tensor, mask: &Tensor, offset: f64) -> Result<Tensor> {
    channels(decoded)?;
    loss(decoded, &decoded.narrow(1, 1, 1)?, mask, offset)
}

/// [`loss_pn`] against the true sinogram `[B, 1, V, R]`, scaled as the decoded channels are, instead of their own Ŝ:
/// Ŝ then has no part in the loss and cannot be pulled toward wrong parts.
///
/// # Errors
/// As [`loss_pn`], and a sinogram of another shape than the mask.
pub fn loss_pn_against(decoded: &Tensor, sinogram: &Tensor, mask: &Tensor, offset: f64) -> Result<Tensor> {
    channels(decoded)?;
    loss(decoded, sinogram, mask, offset)
}

fn loss(decoded: &Tensor, sinogram: &Tensor, mask: &Tensor, offset: f64) -> Result<Tensor> {
    let (batch, _, views, bins) = decoded.dims4()?;
    expect("sinogram", sinogram, (batch, 1, views, bins))?;
    expect("mask", mask, (batch, 1, views, bins))?;
    // Squares of 16-bit floats overflow or lose the small residuals this loss is about.
    let wide = |t: &Tensor| match t.dtype() {
        DType::F16 | DType::BF16 => t.to_dtype(DType::F32),
        _ => Ok(t.clone()),
    };
    let (decoded, mask) = (wide(decoded)?.affine(1.0, -offset)?, wide(mask)?);
    let sinogram = wide(sinogram)?.affine(1.0, -offset)?;
    let positive = (decoded.narrow(1, 0, 1)? - mask.mul(&sinogram)?)?
        .sqr()?
        .mean_all()?;
    let negative = (decoded.narrow(1, 2, 1)? - mask.affine(-1.0, 1.0)?.mul(&sinogram)?)?
        .sqr()?
        .mean_all()?;
    positive + negative
}

fn channels(decoded: &Tensor) -> Result<()> {
    let (batch, _, views, bins) = decoded.dims4()?;
    expect("decoded channels", decoded, (batch, 3, views, bins))
}

fn expect(what: &str, tensor: &Tensor, shape: (usize, usize, usize, usize)) -> Result<()> {
    if tensor.dims4()? != shape {
        bail!("{what}: shape {:?}; expected {shape:?}", tensor.dims());
    }
    Ok(())
}
