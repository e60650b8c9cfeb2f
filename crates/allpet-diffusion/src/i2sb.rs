//! The posterior sampler of I2SB: Liu et al., "I²SB: image-to-image Schrödinger bridge" (arXiv:2302.05872), eq. 4, on
//! any bridge.
//!
//! `q(x_t | x_s, x̂_0)` is the product of `N(x̂_0, ρ_t²)` and `N(x_s, ρ_s² - ρ_t²)` for `α = 1`: mean
//! `(1 - ρ_t²/ρ_s²)·x̂_0 + (ρ_t²/ρ_s²)·x_s`, variance `ρ_t²·(1 - ρ_t²/ρ_s²)`. With `ρ_t²/ρ_s² = a_t/a_s` it needs the
//! marginals alone, and is DBIM of first order at `η = 1`: DDPM's step for bridges. As in the authors' sampler no noise
//! is added on the last step. At `T` nothing is singular: the first step leads from `x_T` itself.

use crate::dbim::{bridge_pair, bridge_terminal, first_order_step};
use crate::{ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// Ancestral sampling of a bridge; one evaluation a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct I2sb;

impl Sampler for I2sb {
    fn name(&self) -> &'static str {
        "i2sb"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Bridge
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (s, t) = bridge_pair(self.name(), run.process(), from, to)?;
        let terminal = bridge_terminal(run, x)?;
        let x0 = run.denoise(x, from)?;
        first_order_step(run, s, t, 1.0, x, &x0, &terminal)
    }

    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}
