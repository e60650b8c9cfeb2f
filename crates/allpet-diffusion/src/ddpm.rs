//! DDPM: ancestral sampling with the posterior of the forward process, Ho et al. (2020); ALL-PET eqs. 17-18.
//!
//! With `r = b_t/b_p` and `v = c_t² - r²·c_p²` (`p` the time stepped to; `r² = α_t`, `v = β_t` on the full grid):
//! mean `r·(c_p²/c_t²)·x_t + b_p·(v/c_t²)·x̂_0`, variance `(c_p²/c_t²)·v = (1-ᾱ_{t-1})/(1-ᾱ_t)·β_t`.
//! ALL-PET's eq. 17 prints `(1-ᾱ_t)/(1-α_t)` there, which is a misprint (it exceeds 1).

use crate::coefficients::weighted_sum;
use crate::sampler::expect_kind;
use crate::{Error, ForwardProcess, Marginal, ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// DDPM with the small (posterior) variance, on any descending grid: `t - 1` becomes the next grid time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ddpm;

impl Sampler for Ddpm {
    fn name(&self) -> &'static str {
        "ddpm"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Gaussian
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (t, p) = gaussian_pair(self.name(), run.process(), from, to)?;
        let posterior = posterior(t, p);
        let x0 = run.denoise(x, from)?;
        let mean = weighted_sum(&[(posterior.from_x, x), (posterior.from_x0, &x0)])?;
        if posterior.variance == 0.0 {
            return Ok(mean);
        }
        let noise = run.noise_like("diffusion noise", x)?;
        weighted_sum(&[(1.0, &mean), (posterior.variance.sqrt(), &noise)])
    }

    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

/// `q(x_p | x_t, x_0)` as weights of `x_t` and `x_0` and a variance.
pub(crate) struct Posterior {
    pub(crate) from_x: f64,
    pub(crate) from_x0: f64,
    pub(crate) variance: f64,
}

pub(crate) fn posterior(t: Marginal, p: Marginal) -> Posterior {
    let ratio = t.b / p.b;
    let kept = (p.c / t.c).powi(2);
    let transition = (t.c * t.c - (ratio * p.c).powi(2)).max(0.0);
    Posterior {
        from_x: ratio * kept,
        from_x0: p.b * transition / (t.c * t.c),
        variance: kept * transition,
    }
}

/// The marginals of a step, if the process is Gaussian and the step leads from more noise to less.
pub(crate) fn gaussian_pair(
    sampler: &'static str,
    process: &dyn ForwardProcess,
    from: f64,
    to: f64,
) -> Result<(Marginal, Marginal)> {
    expect_kind(sampler, ProcessKind::Gaussian, process)?;
    let (t, p) = (process.marginal(from), process.marginal(to));
    if t.c > 0.0 && p.b > 0.0 && t.b * p.c < t.c * p.b {
        return Ok((t, p));
    }
    Err(Error::Step {
        sampler,
        from,
        to,
        reason: format!(
            "b, c go from {}, {} to {}, {}, expected the noise to fall",
            t.b, t.c, p.b, p.c
        ),
    })
}
