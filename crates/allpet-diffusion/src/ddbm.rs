//! DDBM's own hybrid sampler: Zhou et al., "Denoising diffusion bridge models" (arXiv:2309.16948); ALL-PET eqs. 23-25.
//!
//! A step first goes the share `churn` of its way by Euler's rule on the reverse SDE, the rest by Heun's on the
//! probability-flow ODE (`s` the bridge score of eq. 25, `h` the pull towards `x_T`):
//! - SDE: `dx = [f·x - g²·(s - h)] dt + g dw`, where `s - h = (α·x̂ - x)/(αρ)²` exactly, with no 0/0 at `T`;
//! - ODE: `dx = [f·x - g²·(s/2 - h)] dt`, `s = -(x - a·x_T - b·x̂)/c²`, `h = -(x - (α/α_T)·x_T)/(α²(ρ_T² - ρ²))`.
//!
//! **The ends.** `s` and `h` have no limit one by one at `T`, so that a grid starts below it
//! ([`crate::BridgeSpacing::Ddbm`]: `T - 1e-4`, with `x_T` for the state); from `T` itself only a step with churn is
//! possible. A step to `t = 0` ends by Euler's rule, since both are singular there too. On `N` times and 0 this makes
//! `3N - 1` evaluations, `2N - 1` without churn (`N = 40`: 119 and 79).
//!
//! **Without churn it collapses**: the ODE starts at the point `x_T`, so that all samples are one, and not the mean
//! either (for `x_0 ~ N(.3, .5²)`, `x_T = -1` it is .179). Use churn, or [`crate::Dbim`].

use crate::coefficients::weighted_sum;
use crate::dbim::{bridge_pair, bridge_terminal};
use crate::{Error, ForwardProcess, ProcessKind, Result, Run, Sampler, Sde};
use candle_core::Tensor;

/// Hybrid of Euler on the SDE and Heun on the ODE; three evaluations a step, two without churn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DdbmHeun {
    churn: f64,
}

impl Default for DdbmHeun {
    /// The reference's churn, 0.33.
    fn default() -> Self {
        Self { churn: 0.33 }
    }
}

impl DdbmHeun {
    /// The sampler with this share of stochastic way.
    ///
    /// # Errors
    /// [`Error::Invalid`] outside `[0, 1)`.
    pub fn new(churn: f64) -> Result<Self> {
        if (0.0..1.0).contains(&churn) {
            Ok(Self { churn })
        } else {
            Err(Error::Invalid {
                what: "ddbm",
                faults: vec![format!("churn is {churn}, expected at least 0 and below 1")],
            })
        }
    }

    /// Share of each step that is stochastic.
    pub fn churn(&self) -> f64 {
        self.churn
    }

    fn calls(&self) -> usize {
        if self.churn > 0.0 { 3 } else { 2 }
    }
}

impl Sampler for DdbmHeun {
    fn name(&self) -> &'static str {
        "ddbm"
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Bridge
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        bridge_pair(self.name(), run.process(), from, to)?;
        let terminal = bridge_terminal(run, x)?;
        let flow = Flow::new(run.process()).ok_or_else(|| Error::Step {
            sampler: self.name(),
            from,
            to,
            reason: format!(
                "the process `{}` tells only its marginals, expected its drift and diffusion too",
                run.process().name()
            ),
        })?;
        // Rounded as the run's own times are, since the denoiser sees an f32.
        let middle = f64::from((from + self.churn * (to - from)) as f32);
        let mut x = x.clone();
        if self.churn > 0.0 {
            let x0 = run.denoise(&x, from)?;
            let dt = middle - from;
            let (sde, [on_x, on_x0]) = flow.stochastic(from);
            let noise = run.noise_like("diffusion noise", &x)?;
            x = weighted_sum(&[
                (1.0 + dt * on_x, &x),
                (dt * on_x0, &x0),
                ((sde.diffusion * -dt).sqrt(), &noise),
            ])?;
        } else if run.process().marginal(from).c <= 0.0 {
            return Err(Error::Step {
                sampler: self.name(),
                from,
                to,
                reason:
                    "the probability flow is singular at T, expected a grid that starts below it, or churn"
                        .to_owned(),
            });
        }
        let dt = to - middle;
        let x0 = run.denoise(&x, middle)?;
        let slope = flow.slope(middle, &x, &x0, &terminal)?;
        let guess = weighted_sum(&[(1.0, &x), (dt, &slope)])?;
        if run.process().marginal(to).c <= 0.0 {
            return Ok(guess);
        }
        let x0 = run.denoise(&guess, to)?;
        let slope_there = flow.slope(to, &guess, &x0, &terminal)?;
        weighted_sum(&[(1.0, &x), (0.5 * dt, &slope), (0.5 * dt, &slope_there)])
    }

    /// For a grid that ends at the clean time, as DDBM's does.
    fn evaluations(&self, steps: usize) -> usize {
        (self.calls() * steps).saturating_sub(1)
    }

    fn evaluations_on(&self, process: &dyn ForwardProcess, times: &[f64]) -> usize {
        let steps = times.len().saturating_sub(1);
        let clean = times.last().is_some_and(|&t| process.marginal(t).c <= 0.0);
        (self.calls() * steps).saturating_sub(usize::from(clean))
    }
}

/// The drifts of both equations.
struct Flow<'a> {
    process: &'a dyn ForwardProcess,
    end: Sde,
}

impl<'a> Flow<'a> {
    fn new(process: &'a dyn ForwardProcess) -> Option<Self> {
        let end = process.sde(process.terminal())?;
        Some(Self { process, end })
    }

    fn at(&self, t: f64) -> Sde {
        self.process.sde(t).unwrap_or(self.end)
    }

    /// Weights of `x` and `x̂` in the drift of the reverse SDE.
    fn stochastic(&self, t: f64) -> (Sde, [f64; 2]) {
        let sde = self.at(t);
        let spread = sde.alpha * sde.alpha * sde.rho2;
        let on_x = sde.drift + sde.diffusion / spread;
        (sde, [on_x, -sde.diffusion * sde.alpha / spread])
    }

    /// The drift of the probability flow.
    fn slope(&self, t: f64, x: &Tensor, x0: &Tensor, terminal: &Tensor) -> Result<Tensor> {
        let (sde, m) = (self.at(t), self.process.marginal(t));
        let score = 0.5 * sde.diffusion / (m.c * m.c);
        let pull = sde.diffusion / (sde.alpha * sde.alpha * (self.end.rho2 - sde.rho2));
        weighted_sum(&[
            (sde.drift + score - pull, x),
            (-score * m.b, x0),
            (pull * sde.alpha / self.end.alpha - score * m.a, terminal),
        ])
    }
}
