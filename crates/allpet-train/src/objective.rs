//! What is trained on and what is minimised.

use crate::BoxError;
use candle_core::Tensor;

/// Where batches come from.
///
/// A batch is a function of the step alone (draws through [`allpet_core::stream`] keyed by the step), so that a
/// resumed run sees the batches it would have seen. Batches are drawn on a thread of their own, in step order,
/// while the step before is computed.
pub trait Source: Send + Sync {
    /// What one gradient is computed from.
    type Batch: Send;

    /// The batch of a step, counted from 0; of a part of a step where gradients are added up (`accumulate`).
    ///
    /// # Errors
    /// Whatever went wrong; the run stops and reports it with the step.
    fn batch(&self, step: u64) -> Result<Self::Batch, BoxError>;
}

/// What is minimised. The model's layers are inside, made from the [`allpet_nn::Params`] that are trained.
pub trait Objective {
    /// What one gradient is computed from.
    type Batch;

    /// The loss of a batch. Noise is drawn from streams keyed by `step` (counted from 0), never from a hidden state.
    ///
    /// # Errors
    /// Whatever went wrong; the run stops and reports it with the step.
    fn loss(&self, batch: &Self::Batch, step: u64) -> Result<Loss, BoxError>;
}

/// A loss and what it is made of.
#[derive(Debug, Clone)]
pub struct Loss {
    /// The scalar that is differentiated (one element, any float type).
    pub total: Tensor,
    /// Named parts for the log; they do not enter the gradient.
    pub parts: Vec<(&'static str, f64)>,
}

impl From<Tensor> for Loss {
    fn from(total: Tensor) -> Self {
        Self {
            total,
            parts: Vec::new(),
        }
    }
}
