//! DPM-Solver++(2M): Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models"
//! (arXiv:2211.01095), algorithm 2.
//!
//! With `λ = ln(b/c)`, `h = λ_t - λ_s`, `h₂ = λ_s - λ_u`, `u` the time before `s`:
//! `x ← (c_t/c_s)·x + (b_t - b_s·c_t/c_s)·[x̂ + (h/2h₂)·(x̂ - x̂_u)]`; `b_t - b_s·c_t/c_s = -b_t·(e^-h - 1)`.
//! The first step is DDIM, and so is one into the clean time (`λ = ∞`) or after zero SNR (`λ = -∞`).

use crate::coefficients::weighted_sum;
use crate::ddpm::gaussian_pair;
use crate::{Marginal, ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// Multistep solver of the probability flow, order two; one evaluation a step, without noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DpmSolver;

impl Sampler for DpmSolver {
    fn name(&self) -> &'static str {
        "dpm++"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Gaussian
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (s, t) = gaussian_pair(self.name(), run.process(), from, to)?;
        let x0 = run.denoise(x, from)?;
        let before = run.history().next().cloned();
        run.remember(from, &x0);
        let previous = before
            .as_ref()
            .map(|last| (run.process().marginal(last.time), &last.x0));
        multistep(s, t, x, &x0, previous)
    }

    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

/// Half log-SNR `ln(b/c)`.
pub(crate) fn lambda(m: Marginal) -> f64 {
    (m.b / m.c).ln()
}

/// The step of second order, or of first without a usable previous prediction.
pub(crate) fn multistep(
    s: Marginal,
    t: Marginal,
    x: &Tensor,
    x0: &Tensor,
    previous: Option<(Marginal, &Tensor)>,
) -> Result<Tensor> {
    let kept = t.c / s.c;
    let gain = t.b - kept * s.b;
    if let Some((u, before)) = previous {
        let ratio = 0.5 * (lambda(t) - lambda(s)) / (lambda(s) - lambda(u));
        if ratio.is_finite() && ratio != 0.0 {
            return weighted_sum(&[(kept, x), (gain * (1.0 + ratio), x0), (-gain * ratio, before)]);
        }
    }
    weighted_sum(&[(kept, x), (gain, x0)])
}
