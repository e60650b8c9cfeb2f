//! Heun's rule on the probability flow in the form of EDM: Karras et al., "Elucidating the design space of
//! diffusion-based generative models" (arXiv:2206.00364), algorithm 1, for any Gaussian process.
//!
//! With `y = x/b` and `σ = c/b` the flow is `dy/dσ = (y - x̂)/σ`. A step from `σ_s` to `σ_t` by Euler's rule is DDIM,
//! with slope averaged at both ends it is, `r = σ_t/σ_s`,
//! `y ← r·y + (1 - r)·[(1 - 1/2r)·x̂_s + (1/2r)·x̂_t]`, `x̂_t` asked at the end of Euler's step; into the clean time
//! (`r = 0`) Euler's alone.
//!
//! **Long steps (ours).** The weights leave `[-1, 2]` when `r < 1/4` and grow without bound, which on a grid uniform
//! in `t` ruins the first step (a cosine schedule starts at `σ = 10⁴`). There `x̂_s` and `x̂_t` weigh one half each:
//! the same rule in the variable `1/σ`, of the same order, and finite from zero SNR. Karras grids of 18 or more steps
//! from 80 to 0.002 never come there.

use crate::coefficients::weighted_sum;
use crate::ddpm::gaussian_pair;
use crate::{ForwardProcess, ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// The smallest `σ_t/σ_s` at which EDM's own weights are used.
const RATIO_MIN: f64 = 0.25;

/// Heun's rule, order two; two evaluations a step, one in a step to the clean time, without noise. Made for
/// [`crate::karras_times`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heun;

impl Sampler for Heun {
    fn name(&self) -> &'static str {
        "heun"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Gaussian
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (s, t) = gaussian_pair(self.name(), run.process(), from, to)?;
        let kept = t.c / s.c;
        let gain = t.b - kept * s.b;
        let x0 = run.denoise(x, from)?;
        let guess = weighted_sum(&[(kept, x), (gain, &x0)])?;
        if t.c <= 0.0 {
            return Ok(guess);
        }
        let there = run.denoise(&guess, to)?;
        let ratio = kept * s.b / t.b;
        let late = if ratio < RATIO_MIN { 0.5 } else { 0.5 / ratio };
        weighted_sum(&[(kept, x), (gain * (1.0 - late), &x0), (gain * late, &there)])
    }

    /// For a grid that ends at the clean time.
    fn evaluations(&self, steps: usize) -> usize {
        (2 * steps).saturating_sub(1)
    }

    fn evaluations_on(&self, process: &dyn ForwardProcess, times: &[f64]) -> usize {
        let clean = times.last().is_some_and(|&t| process.marginal(t).c <= 0.0);
        (2 * times.len().saturating_sub(1)).saturating_sub(usize::from(clean))
    }
}
