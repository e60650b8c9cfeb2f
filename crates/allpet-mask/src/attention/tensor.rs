//! Eq. 12 on candle tensors: gates on feature maps `[B, C, view, radial]`.

use super::gate::Gate;
use candle_core::{DType, Device, Error, Result, Tensor, bail};
use ndarray::{ArrayView3, Axis};

/// Attention of a batch, checked once on the host and kept as weights on the device of the features.
#[derive(Debug, Clone)]
pub struct AttentionGate {
    weights: Tensor,
}

impl AttentionGate {
    /// A gate of attention `[B, view, radial]`, or `[1, view, radial]` for one region that a whole batch shares.
    ///
    /// # Errors
    /// Those of [`Gate::apply`], the sample named; a type that is no floating-point number; anything candle reports.
    pub fn new(attention: ArrayView3<'_, f32>, gate: Gate, dtype: DType, device: &Device) -> Result<Self> {
        if !dtype.is_float() {
            bail!("attention gate of {dtype:?}; expected a floating-point type");
        }
        for (sample, attention) in attention.axis_iter(Axis(0)).enumerate() {
            gate.check(attention, sample).map_err(Error::wrap)?;
        }
        let (batch, views, bins) = attention.dim();
        let weights: Vec<f32> = attention.iter().map(|&m| gate.weight(m)).collect();
        let weights = Tensor::from_vec(weights, (batch, 1, views, bins), device)?.to_dtype(dtype)?;
        Ok(Self { weights })
    }

    /// The factors, `[B or 1, 1, view, radial]`: `M` or `1 + λM`.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }

    /// Weights features `[B, C, view, radial]`; differentiable in them.
    ///
    /// # Errors
    /// Features of another type, batch, views or bins than the gate's; anything candle reports.
    pub fn forward(&self, features: &Tensor) -> Result<Tensor> {
        weigh(features, &self.weights, "gate")
    }
}

/// Weights features `[B, C, view, radial]` by attention `[B or 1, 1, view, radial]`, 0 to 1; differentiable in both.
///
/// The values of the attention are not looked at, which on a GPU would wait for it: an attention of zeros erases
/// everything through [`Gate::Printed`]. [`AttentionGate`] checks.
///
/// # Errors
/// Shapes or types that do not fit each other; a strength outside its range; anything candle reports.
pub fn gate(features: &Tensor, attention: &Tensor, gate: Gate) -> Result<Tensor> {
    gate.validate().map_err(Error::wrap)?;
    match gate {
        Gate::Printed => weigh(features, attention, "attention"),
        Gate::Residual { strength } => weigh(features, &attention.affine(strength, 1.0)?, "attention"),
    }
}

fn weigh(features: &Tensor, weights: &Tensor, what: &str) -> Result<Tensor> {
    let (batch, _, views, bins) = match features.dims4() {
        Ok(dims) => dims,
        Err(_) => bail!(
            "features have shape {:?}; expected [batch, channels, views, bins]",
            features.dims()
        ),
    };
    let dims = weights.dims();
    if dims != [batch, 1, views, bins] && dims != [1, 1, views, bins] {
        bail!(
            "{what} has shape {dims:?}; expected [{batch}, 1, {views}, {bins}] or [1, 1, {views}, {bins}] for features \
             {:?}",
            features.dims()
        );
    }
    if weights.dtype() != features.dtype() {
        bail!(
            "{what} is {:?}; expected {:?} as the features",
            weights.dtype(),
            features.dtype()
        );
    }
    features.broadcast_mul(weights)
}
