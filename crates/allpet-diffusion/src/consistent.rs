//! Predictions kept to data: every `x_0` that a denoiser predicts is moved before the sampler sees it, the form that data
//! consistency takes in diffusion solvers of inverse problems (Zhu et al., "Denoising diffusion models for plug-and-play
//! image restoration", CVPRW 2023; Singh et al., "Score-based generative models for PET image reconstruction", MELBA 2024).

use crate::{Conditioning, Denoiser, Result};
use candle_core::Tensor;

/// A denoiser whose predictions are moved by `movement(x_0 [B, ..], t [B])`, which gives the same shape.
///
/// Sample `i` of what it gives must depend on sample `i` alone.
#[derive(Debug, Clone)]
pub struct Consistent<D, M> {
    /// The denoiser.
    pub inner: D,
    /// What moves its predictions.
    pub movement: M,
}

impl<D, M> Denoiser for Consistent<D, M>
where
    D: Denoiser,
    M: Fn(&Tensor, &Tensor) -> Result<Tensor>,
{
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        (self.movement)(&self.inner.predict_x0(x, t, conditioning)?, t)
    }
}
