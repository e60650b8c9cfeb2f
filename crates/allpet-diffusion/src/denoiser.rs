//! Denoisers: what a sampler asks for `x_0`, and the adapter from a network of any [`Prediction`].

use crate::{ForwardProcess, Prediction, Result};
use candle_core::{DType, Tensor};
use std::sync::Arc;

/// What a denoiser is told beside the noisy sample; whatever is absent is not used.
#[derive(Debug, Clone, Default)]
pub struct Conditioning {
    /// Prompt embedding `[B, D]`.
    pub embedding: Option<Tensor>,
    /// Feature map or image `[B, C, H, W]`.
    pub spatial: Option<Tensor>,
    /// Terminal state `x_T [B, ..]` of a bridge, of the sample's shape.
    pub terminal: Option<Tensor>,
}

impl Conditioning {
    /// The conditioning of these samples of the batch, in this order.
    ///
    /// # Errors
    /// candle's own, for an index outside the batch.
    pub fn select(&self, samples: &[u32]) -> Result<Self> {
        let pick = |tensor: &Option<Tensor>| -> Result<Option<Tensor>> {
            let Some(tensor) = tensor else { return Ok(None) };
            let index = Tensor::from_slice(samples, samples.len(), tensor.device())?;
            Ok(Some(tensor.index_select(&index, 0)?))
        };
        Ok(Self {
            embedding: pick(&self.embedding)?,
            spatial: pick(&self.spatial)?,
            terminal: pick(&self.terminal)?,
        })
    }
}

/// Predicts the clean sample. Object-safe.
pub trait Denoiser {
    /// `x_0 [B, ..]` of `x [B, ..]` at process times `t [B]` (f32, 0 clean).
    ///
    /// Sample `i` of the result must depend on sample `i` alone.
    ///
    /// # Errors
    /// Whatever the network behind it raises, through [`crate::Error::network`].
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor>;
}

macro_rules! forward_to_target {
    ($pointer:ty) => {
        impl<D: Denoiser + ?Sized> Denoiser for $pointer {
            fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
                (**self).predict_x0(x, t, conditioning)
            }
        }
    };
}
forward_to_target!(&D);
forward_to_target!(Box<D>);
forward_to_target!(Arc<D>);

/// A network `(x, t, conditioning) -> output` of a given [`Prediction`], as a [`Denoiser`].
#[derive(Debug, Clone)]
pub struct Predictor<P, N> {
    process: P,
    prediction: Prediction,
    network: N,
}

impl<P, N> Predictor<P, N>
where
    P: ForwardProcess,
    N: Fn(&Tensor, &Tensor, &Conditioning) -> Result<Tensor>,
{
    /// Wraps `network`; its arguments and its output have the shapes of [`Denoiser::predict_x0`].
    ///
    /// # Errors
    /// [`crate::Error::EpsilonAtZeroSnr`] when `prediction` does not suit `process`.
    pub fn new(process: P, prediction: Prediction, network: N) -> Result<Self> {
        prediction.check(&process)?;
        Ok(Self {
            process,
            prediction,
            network,
        })
    }
}

impl<P, N> Denoiser for Predictor<P, N>
where
    P: ForwardProcess,
    N: Fn(&Tensor, &Tensor, &Conditioning) -> Result<Tensor>,
{
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let output = (self.network)(x, t, conditioning)?;
        let times = t.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        self.prediction
            .x0(&self.process, &output, x, &times, conditioning.terminal.as_ref())
    }
}
