//! What a network predicts, and the way from there to `x_0`.
//!
//! `ε`: Ho et al. (2020), ALL-PET eq. 19. `v = b·ε - c·x_0`: Salimans and Ho, "Progressive distillation for fast
//! sampling of diffusion models" (2022), here for any `b, c`: `x_0 = (b·y - c·v)/(b² + c²)`, `y = x_t - a·x_T`.

use crate::coefficients::scale_samples;
use crate::{Error, ForwardProcess, Marginal, Result};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// The quantity a network is trained to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Prediction {
    /// The noise `ε`; impossible where `b = 0`.
    Epsilon,
    /// The clean sample.
    X0,
    /// `b·ε - c·x_0`.
    V,
}

impl Prediction {
    /// Whether this prediction can give `x_0` at every time of the process.
    ///
    /// # Errors
    /// [`Error::EpsilonAtZeroSnr`].
    pub fn check(self, process: &dyn ForwardProcess) -> Result<()> {
        if self == Self::Epsilon && process.marginal(process.terminal()).b <= 0.0 {
            return Err(Error::EpsilonAtZeroSnr);
        }
        Ok(())
    }

    /// `x_0 [B, ..]` from the network's output `[B, ..]` at `x [B, ..]`, one time per sample; `terminal` is `x_T`,
    /// used by bridges. Gradients pass through. Nothing is clipped: latents have no range.
    ///
    /// # Errors
    /// [`Error::EpsilonAtZeroSnr`], [`Error::NoTerminal`], [`Error::Shape`] or candle's own.
    pub fn x0(
        self,
        process: &dyn ForwardProcess,
        output: &Tensor,
        x: &Tensor,
        times: &[f64],
        terminal: Option<&Tensor>,
    ) -> Result<Tensor> {
        if self == Self::X0 {
            return Ok(output.clone());
        }
        let marginals = marginals(process, times);
        let noisy = without_terminal(x, &marginals, terminal)?;
        let of = |f: &dyn Fn(&Marginal) -> f64| marginals.iter().map(f).collect::<Vec<f64>>();
        let (from_x, from_output) = if self == Self::Epsilon {
            if marginals.iter().any(|m| m.b <= 0.0) {
                return Err(Error::EpsilonAtZeroSnr);
            }
            (of(&|m| 1.0 / m.b), of(&|m| -m.c / m.b))
        } else {
            let norm = |m: &Marginal| m.b * m.b + m.c * m.c;
            (of(&|m| m.b / norm(m)), of(&|m| -m.c / norm(m)))
        };
        Ok((scale_samples(&noisy, &from_x)? + scale_samples(output, &from_output)?)?)
    }

    /// What the network should give for `x0 [B, ..]` and `noise [B, ..]`, one time per sample.
    ///
    /// # Errors
    /// [`Error::Shape`] or candle's own.
    pub fn target(
        self,
        process: &dyn ForwardProcess,
        x0: &Tensor,
        noise: &Tensor,
        times: &[f64],
    ) -> Result<Tensor> {
        Ok(match self {
            Self::Epsilon => noise.clone(),
            Self::X0 => x0.clone(),
            Self::V => {
                let marginals = marginals(process, times);
                let b: Vec<f64> = marginals.iter().map(|m| m.b).collect();
                let c: Vec<f64> = marginals.iter().map(|m| m.c).collect();
                (scale_samples(noise, &b)? - scale_samples(x0, &c)?)?
            }
        })
    }
}

pub(crate) fn marginals(process: &dyn ForwardProcess, times: &[f64]) -> Vec<Marginal> {
    times.iter().map(|&t| process.marginal(t)).collect()
}

/// `x_t - a·x_T`, which is `x_t` itself when every `a` is 0.
pub(crate) fn without_terminal(
    x: &Tensor,
    marginals: &[Marginal],
    terminal: Option<&Tensor>,
) -> Result<Tensor> {
    if marginals.iter().all(|m| m.a == 0.0) {
        return Ok(x.clone());
    }
    let terminal = terminal.ok_or(Error::NoTerminal)?;
    let a: Vec<f64> = marginals.iter().map(|m| m.a).collect();
    Ok((x - scale_samples(terminal, &a)?)?)
}
