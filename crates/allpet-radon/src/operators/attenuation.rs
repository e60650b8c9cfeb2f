//! Attenuation: both photons of a pair survive with probability `exp(-∫μ)` along their whole line, wherever on it
//! the pair was made, so that attenuation is one factor per bin (Bailey, Townsend, Valk, Maisey (eds.), "Positron
//! Emission Tomography: Basic Sciences" (2005), ch. 2).

use super::{Diagonal, must_fit};
use crate::entry::non_negative;
use crate::error::Result;
use crate::operator::LinearOperator;
use allpet_core::check_finite;
use ndarray::{ArrayViewD, ArrayViewMutD};

/// Multiplies sinograms by the survival probability of their bins.
#[derive(Debug, Clone)]
pub struct Attenuation(Diagonal);

impl Attenuation {
    /// `exp(-P μ)` of an attenuation image in mm⁻¹ (no batch axes) and a projector with lengths in mm.
    ///
    /// # Errors
    /// An image that is not the projector's domain or not finite; line integrals so negative that a factor overflows.
    pub fn from_image(projector: &dyn LinearOperator, mu_per_mm: ArrayViewD<'_, f32>) -> Result<Self> {
        must_fit("attenuation image", mu_per_mm.shape(), projector.domain_shape())?;
        check_finite("attenuation image", mu_per_mm.view())?;
        let mut factors = projector.apply(mu_per_mm)?;
        factors.mapv_inplace(|integral| (-integral).exp());
        check_finite("attenuation factors", factors.view())?;
        Ok(Self(Diagonal::new(factors.view())?))
    }

    /// Factors that are known, of the sinogram's shape; 1 is no attenuation.
    ///
    /// # Errors
    /// No factors at all; a factor that is negative or not finite.
    pub fn from_factors(factors: ArrayViewD<'_, f32>) -> Result<Self> {
        non_negative("attenuation factors", factors.view())?;
        Ok(Self(Diagonal::new(factors)?))
    }

    /// The factor of every bin, in standard layout.
    pub fn factors(&self) -> &[f32] {
        self.0.weights()
    }
}

impl LinearOperator for Attenuation {
    fn domain_shape(&self) -> &[usize] {
        self.0.domain_shape()
    }

    fn range_shape(&self) -> &[usize] {
        self.0.range_shape()
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.0.forward(x, out)
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.0.adjoint(y, out)
    }
}
