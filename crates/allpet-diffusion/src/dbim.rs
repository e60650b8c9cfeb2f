//! DBIM: Zheng et al., "Diffusion bridge implicit models" (arXiv:2405.15885), for any bridge whose marginals are known.
//!
//! From `s` to `t` with `ω` the noise of the step and `k = √(c_t² - ω²)/c_s`:
//! `x ← k·x + (b_t - k·b_s)·x̂ + (a_t - k·a_s)·x_T + ω·ε`.
//!
//! `η = 1` is the Markovian posterior, where `x_T` drops out: `k = a_t/a_s`, `ω_1² = c_t² - k²·c_s²`, which equals their
//! `α_t·ρ_t·√(1 - ρ_t²/ρ_s²)` but needs no `α` and no `ρ`. In general `ω = η·ω_1`.
//!
//! Second order, for `η = 0` as in the paper, `λ = ln(b/c)`, `h = λ_t - λ_s`, `h₂ = λ_s - λ_u`, `u` before `s`:
//! `x ← (c_t/c_s)·x + (a_t - a_s·c_t/c_s)·x_T + b_t·[(1 - e^-h)·x̂ + (e^-h + h - 1)·(x̂ - x̂_u)/h₂]`.
//!
//! **The ends.** At `T` the state is a point, `c_s = 0`, and any `k` gives the same mean: the step out of `T` draws its
//! noise in full whatever `η` is (their booting noise), `x = a·x_T + b·x̂ + c·ε`, without which every sample would be
//! the same. The last step of a grid adds no noise, and is of first order.

use crate::coefficients::weighted_sum;
use crate::sampler::expect_kind;
use crate::{Error, ForwardProcess, Marginal, ProcessKind, Result, Run, Sampler};
use candle_core::Tensor;

/// The order of a [`Dbim`].
#[derive(Debug, Clone, Copy, PartialEq)]
enum Order {
    First { eta: f64 },
    Second,
}

/// DBIM of order one with `η` in `[0, 1]`, or of order two without noise; one evaluation a step.
///
/// Its grid starts at `T` and goes on just below, as those of [`crate::BridgeSpacing`] do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dbim {
    order: Order,
}

impl Dbim {
    /// First order; `eta = 0` draws noise only on the way out of `T`, `eta = 1` is the posterior ([`crate::I2sb`]).
    ///
    /// # Errors
    /// [`Error::Invalid`] for `eta` outside `[0, 1]`.
    pub fn first_order(eta: f64) -> Result<Self> {
        if (0.0..=1.0).contains(&eta) {
            Ok(Self {
                order: Order::First { eta },
            })
        } else {
            Err(Error::Invalid {
                what: "dbim1",
                faults: vec![format!("eta is {eta}, expected 0 to 1")],
            })
        }
    }

    /// Second order, multistep; the default for restoration tasks.
    pub fn second_order() -> Self {
        Self { order: Order::Second }
    }
}

impl Sampler for Dbim {
    fn name(&self) -> &'static str {
        match self.order {
            Order::First { .. } => "dbim1",
            Order::Second => "dbim2",
        }
    }

    fn fits(&self, kind: ProcessKind) -> bool {
        kind == ProcessKind::Bridge
    }

    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (s, t) = bridge_pair(self.name(), run.process(), from, to)?;
        let terminal = bridge_terminal(run, x)?;
        let x0 = run.denoise(x, from)?;
        let eta = match self.order {
            Order::First { eta } => eta,
            Order::Second => 0.0,
        };
        if self.order == Order::Second {
            let slope = slope_weight(run, s, t);
            let previous = run.history().next().map(|last| last.x0.clone());
            // The state at T says nothing of x_0 (λ = -∞), so that an evaluation there is of no use to later steps.
            if s.c > 0.0 {
                run.remember(from, &x0);
            }
            if let (Some(weight), Some(previous)) = (slope, previous) {
                let kept = t.c / s.c;
                return weighted_sum(&[
                    (kept, x),
                    (t.b - kept * s.b + weight, &x0),
                    (-weight, &previous),
                    (t.a - kept * s.a, &terminal),
                ]);
            }
        }
        first_order_step(run, s, t, eta, x, &x0, &terminal)
    }

    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

/// `b_t·(e^-h + h - 1)/h₂`, the weight of `x̂ - x̂_u`, or none where the step is of first order.
fn slope_weight(run: &Run<'_>, s: Marginal, t: Marginal) -> Option<f64> {
    if run.is_last_step() || t.c <= 0.0 || s.c <= 0.0 {
        return None;
    }
    let lambda = |m: Marginal| (m.b / m.c).ln();
    let before = run.process().marginal(run.history().next()?.time);
    let (h, h2) = (lambda(t) - lambda(s), lambda(s) - lambda(before));
    Some(t.b * ((-h).exp_m1() + h) / h2).filter(|weight| weight.is_finite())
}

/// The step of first order; also that of the posterior, `eta = 1`.
pub(crate) fn first_order_step(
    run: &Run<'_>,
    s: Marginal,
    t: Marginal,
    eta: f64,
    x: &Tensor,
    x0: &Tensor,
    terminal: &Tensor,
) -> Result<Tensor> {
    let markov = t.a / s.a;
    let full = (t.c * t.c - (markov * s.c).powi(2)).max(0.0).sqrt();
    let omega = if run.is_last_step() {
        0.0
    } else if s.c == 0.0 {
        t.c
    } else {
        eta * full
    };
    let kept = if s.c == 0.0 {
        0.0
    } else {
        ((t.c - omega) * (t.c + omega)).max(0.0).sqrt() / s.c
    };
    let mean = weighted_sum(&[(kept, x), (t.b - kept * s.b, x0), (t.a - kept * s.a, terminal)])?;
    if omega == 0.0 {
        return Ok(mean);
    }
    let noise = run.noise_like("diffusion noise", x)?;
    weighted_sum(&[(1.0, &mean), (omega, &noise)])
}

/// The marginals of a step, if the process is a bridge and the step leads towards the data.
pub(crate) fn bridge_pair(
    sampler: &'static str,
    process: &dyn ForwardProcess,
    from: f64,
    to: f64,
) -> Result<(Marginal, Marginal)> {
    expect_kind(sampler, ProcessKind::Bridge, process)?;
    let (s, t) = (process.marginal(from), process.marginal(to));
    if s.a > 0.0 && t.b > 0.0 && (s.c > 0.0 || s.b == 0.0) && t.a * s.b < s.a * t.b {
        return Ok((s, t));
    }
    Err(Error::Step {
        sampler,
        from,
        to,
        reason: format!(
            "a, b, c go from {}, {}, {} to {}, {}, {}, expected the share of x_T to fall",
            s.a, s.b, s.c, t.a, t.b, t.c
        ),
    })
}

/// `x_T` of the run, of the shape and type of `x`.
pub(crate) fn bridge_terminal(run: &Run<'_>, x: &Tensor) -> Result<Tensor> {
    let terminal = run.conditioning().terminal.as_ref().ok_or(Error::NoTerminal)?;
    if terminal.dims() != x.dims() {
        return Err(Error::Shape {
            what: "terminal state",
            expected: format!("{:?}, the shape of the sample", x.dims()),
            got: terminal.dims().to_vec(),
        });
    }
    Ok(terminal.detach().to_dtype(x.dtype())?)
}
