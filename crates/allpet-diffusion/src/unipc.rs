//! UniPC of order two: Zhao et al., "UniPC: a unified predictor-corrector framework for fast sampling of diffusion
//! models" (arXiv:2302.04867), algorithms 1-2 with data prediction and `B(h) = e^h - 1` (their B₂).
//!
//! The prediction at the end of a step both corrects that step and starts the next, so that the corrector costs no
//! evaluation and adds one order. In `λ = ln(b/c)`, for the step from `u` to `s` (`h = λ_s - λ_u`, `v` before `u`,
//! `r = (λ_v - λ_u)/h`):
//!
//! - corrector: `x_s = (c_s/c_u)·x_u + G·[x̂_u + ρ_1·(x̂_v - x̂_u)/r + ρ_2·(x̂_s - x̂_u)]`, `G = b_s·(1 - e^-h)`, where
//!   `ρ_1 + ρ_2 = β_1`, `r·ρ_1 + ρ_2 = β_2`, `β_1 = (φ/(-h) - 1)/φ`, `β_2 = 2·((φ/(-h) - 1)/(-h) - 1/2)/φ`,
//!   `φ = e^-h - 1`; in the first step `ρ_2 = 1/2` alone;
//! - predictor: the same without `x̂_s`, where the paper sets `ρ_1 = 1/2`, which is DPM-Solver++(2M).
//!
//! A step into the clean time (`λ = ∞`) is DDIM's, and none is corrected that began at zero SNR (`λ = -∞`).

use crate::coefficients::weighted_sum;
use crate::ddpm::gaussian_pair;
use crate::dpm_solver::{lambda, multistep};
use crate::{Evaluation, Marginal, ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// Predictor-corrector of the probability flow, predictor and corrector of order two; one evaluation a step, without
/// noise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UniPc;

impl Sampler for UniPc {
    fn name(&self) -> &'static str {
        "unipc"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Gaussian
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (s, t) = gaussian_pair(self.name(), run.process(), from, to)?;
        let x0 = run.denoise(x, from)?;
        let past: Vec<Evaluation> = run.history().take(2).cloned().collect();
        let at = |e: &Evaluation| run.process().marginal(e.time);
        let corrected = match past.first() {
            Some(last) => correct((at(last), last), past.get(1).map(|e| (at(e), &e.x0)), (s, &x0))?,
            None => None,
        };
        let state = corrected.as_ref().unwrap_or(x);
        let next = multistep(s, t, state, &x0, past.first().map(|e| (at(e), &e.x0)))?;
        run.remember_state(from, &x0, state);
        Ok(next)
    }

    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

/// The state at `s` again, now that `x̂_s` is known; none where `λ_u` is infinite.
fn correct(
    (u, last): (Marginal, &Evaluation),
    before: Option<(Marginal, &Tensor)>,
    (s, x0): (Marginal, &Tensor),
) -> Result<Option<Tensor>> {
    let h = lambda(s) - lambda(u);
    let (Some(state), true) = (&last.state, h.is_finite()) else {
        return Ok(None);
    };
    let kept = s.c / u.c;
    let gain = s.b - kept * u.b;
    let older = before
        .map(|(v, x0)| ((lambda(v) - lambda(u)) / h, x0))
        .filter(|(r, _)| r.is_finite());
    let Some((r, older)) = older else {
        return weighted_sum(&[(kept, state), (0.5 * gain, &last.x0), (0.5 * gain, x0)]).map(Some);
    };
    let phi = (-h).exp_m1();
    let first = phi / -h - 1.0;
    let (beta1, beta2) = (first / phi, 2.0 * (first / -h - 0.5) / phi);
    let rho1 = (beta1 - beta2) / (1.0 - r);
    let rho2 = beta1 - rho1;
    weighted_sum(&[
        (kept, state),
        (gain * (1.0 - rho1 / r - rho2), &last.x0),
        (gain * rho1 / r, older),
        (gain * rho2, x0),
    ])
    .map(Some)
}
