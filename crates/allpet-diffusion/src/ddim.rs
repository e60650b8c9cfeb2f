//! DDIM: Song et al., "Denoising diffusion implicit models" (2021), eqs. 12 and 16; ALL-PET eqs. 20-21.
//!
//! `x_p = b_p·x̂_0 + √(c_p² - σ²)·ε̂ + σ·u` with `ε̂ = (x_t - b_t·x̂_0)/c_t` and `σ = η` times the standard deviation
//! of the DDPM posterior, `√((1-ᾱ_p)/(1-ᾱ_t))·√(1-ᾱ_t/ᾱ_p)`. ALL-PET's eq. 20 writes `η` where `σ` belongs; at
//! its `η = 1` the root would be imaginary.

use crate::coefficients::weighted_sum;
use crate::ddpm::{gaussian_pair, posterior};
use crate::{Error, ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// DDIM; `eta = 0` is deterministic, `eta = 1` has the noise of DDPM.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Ddim {
    /// Share of DDPM's noise, in `[0, 1]`.
    pub eta: f64,
}

impl Ddim {
    /// DDIM with this `eta`.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside `[0, 1]`.
    pub fn new(eta: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&eta) {
            Ok(Self { eta })
        } else {
            Err(Error::Invalid {
                what: "ddim",
                faults: vec![format!("eta is {eta}, expected 0 to 1")],
            })
        }
    }
}

impl Sampler for Ddim {
    fn name(&self) -> &'static str {
        "ddim"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Gaussian
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        Self::new(self.eta)?;
        let (t, p) = gaussian_pair(self.name(), run.process(), from, to)?;
        let sigma = self.eta * posterior(t, p).variance.sqrt();
        let direction = ((p.c - sigma) * (p.c + sigma)).max(0.0).sqrt() / t.c;
        let x0 = run.denoise(x, from)?;
        let mean = weighted_sum(&[(direction, x), (p.b - direction * t.b, &x0)])?;
        if sigma == 0.0 {
            return Ok(mean);
        }
        let noise = run.noise_like("diffusion noise", x)?;
        weighted_sum(&[(1.0, &mean), (sigma, &noise)])
    }

    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}
