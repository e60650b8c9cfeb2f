//! Preconditioning of a bridge's network: Zhou et al., "Denoising diffusion bridge models" (arXiv:2309.16948), which is
//! that of Karras et al. (2022) with a second end.
//!
//! `D = c_skip·x + c_out·F([c_in·x, x_T], c_noise)` with `A = a²σ_T² + b²σ_0² + 2ab·σ_0T + c²`,
//! `c_in = A^-½`, `c_skip = (bσ_0² + a·σ_0T)/A`, `c_out = √(a²(σ_0²σ_T² - σ_0T²) + σ_0²c²)·c_in`, `c_noise = 250·ln t`:
//! the input of `F` has variance one, its target has variance one, and `c_out` is as small as it can be.
//! With `a = 0` it is EDM's own.

use crate::coefficients::scale_samples;
use crate::prediction::marginals;
use crate::{Conditioning, Denoiser, Error, ForwardProcess, Marginal, Result};
use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Spread of the data at both ends of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preconditioning {
    /// `σ_0`, standard deviation of `x_0`.
    pub sd_data: f64,
    /// `σ_T`, standard deviation of `x_T`.
    pub sd_terminal: f64,
    /// `σ_0T`, covariance of `x_0` and `x_T`, within `±σ_0·σ_T`.
    pub covariance: f64,
}

impl Default for Preconditioning {
    /// The reference's 0.5, 0.5 and 0.
    fn default() -> Self {
        Self {
            sd_data: 0.5,
            sd_terminal: 0.5,
            covariance: 0.0,
        }
    }
}

/// What the preconditioning is at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Weight of `x` in `D`.
    pub skip: f64,
    /// Weight of the network's output in `D`.
    pub out: f64,
    /// Scale of `x` before the network.
    pub input: f64,
}

impl Scales {
    /// Weight of `‖D - x_0‖²` in the loss, `c_out^-2`.
    pub fn weight(&self) -> f64 {
        1.0 / (self.out * self.out)
    }
}

impl Preconditioning {
    /// `c_skip`, `c_out` and `c_in` where the process has this marginal.
    pub fn scales(&self, m: Marginal) -> Scales {
        let (data, terminal) = (self.sd_data * self.sd_data, self.sd_terminal * self.sd_terminal);
        let cov = self.covariance;
        let total = m.a * m.a * terminal + m.b * m.b * data + 2.0 * m.a * m.b * cov + m.c * m.c;
        let left = m.a * m.a * (data * terminal - cov * cov) + data * m.c * m.c;
        Scales {
            skip: (m.b * data + m.a * cov) / total,
            out: (left / total).sqrt(),
            input: total.sqrt().recip(),
        }
    }

    /// What the network is told of the time: `250·ln t`, `t` not below the smallest positive f32.
    pub fn noise_level(t: f64) -> f64 {
        250.0 * t.max(f64::from(f32::MIN_POSITIVE)).ln()
    }

    /// [`Preconditioning::noise_level`] of every time, f32 `[B]`.
    ///
    /// # Errors
    /// candle's own.
    pub fn noise_levels(times: &[f64], device: &Device) -> Result<Tensor> {
        let levels: Vec<f32> = times.iter().map(|&t| Self::noise_level(t) as f32).collect();
        let count = levels.len();
        Ok(Tensor::from_vec(levels, count, device)?)
    }

    /// The network's input `c_in·x [B, ..]`, one time per sample.
    ///
    /// # Errors
    /// [`Error::Shape`] or candle's own.
    pub fn input(&self, process: &dyn ForwardProcess, x: &Tensor, times: &[f64]) -> Result<Tensor> {
        scale_samples(x, &self.each(process, times, |s| s.input))
    }

    /// `D = c_skip·x + c_out·output [B, ..]`, the predicted `x_0`. Gradients pass through.
    ///
    /// # Errors
    /// [`Error::Shape`] or candle's own.
    pub fn x0(
        &self,
        process: &dyn ForwardProcess,
        output: &Tensor,
        x: &Tensor,
        times: &[f64],
    ) -> Result<Tensor> {
        let kept = scale_samples(x, &self.each(process, times, |s| s.skip))?;
        Ok((kept + scale_samples(output, &self.each(process, times, |s| s.out))?)?)
    }

    /// What the network should give, `(x_0 - c_skip·x)/c_out [B, ..]`: the plain mean square against it
    /// ([`crate::training::loss`]) is the loss `c_out^-2·‖D - x_0‖²`, without its cancellation at small times.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time where `c_out = 0` (the clean one), [`Error::Shape`] or candle's own.
    pub fn target(
        &self,
        process: &dyn ForwardProcess,
        x0: &Tensor,
        x: &Tensor,
        times: &[f64],
    ) -> Result<Tensor> {
        let out = self.each(process, times, |s| s.out);
        if let Some(i) = out.iter().position(|&out| out <= 0.0) {
            return Err(Error::Invalid {
                what: "training time",
                faults: vec![format!(
                    "sample {i} has t = {}, where nothing is left to predict; expected t > 0",
                    times[i]
                )],
            });
        }
        let rest = (x0 - scale_samples(x, &self.each(process, times, |s| s.skip))?)?;
        scale_samples(&rest, &out.iter().map(|out| 1.0 / out).collect::<Vec<f64>>())
    }

    /// `c_out^-2` at every time, the weights of [`crate::training::weighted_loss`] on `D` and `x_0`.
    pub fn weights(&self, process: &dyn ForwardProcess, times: &[f64]) -> Vec<f64> {
        self.each(process, times, |s| s.weight())
    }

    fn each(&self, process: &dyn ForwardProcess, times: &[f64], f: impl Fn(Scales) -> f64) -> Vec<f64> {
        let marginals = marginals(process, times);
        marginals.into_iter().map(|m| f(self.scales(m))).collect()
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, sd) in [("sd_data", self.sd_data), ("sd_terminal", self.sd_terminal)] {
            if !(sd.is_finite() && sd > 0.0) {
                faults.push(format!("{name} is {sd}, expected a number above 0"));
            }
        }
        let bound = self.sd_data * self.sd_terminal;
        if faults.is_empty() && !(-bound..=bound).contains(&self.covariance) {
            faults.push(format!(
                "covariance is {}, expected -{bound} to {bound}",
                self.covariance
            ));
        }
        faults
    }

    /// Reports every fault at once.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn validate(&self) -> Result<()> {
        let faults = self.faults();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "preconditioning",
                faults,
            })
        }
    }
}

/// A network `F(c_in·x, c_noise, conditioning) -> output` as a [`Denoiser`]. The network takes `x_T` from
/// [`Conditioning::terminal`]; `c_noise` is f32 `[B]`.
#[derive(Debug, Clone)]
pub struct Preconditioned<P, N> {
    process: P,
    preconditioning: Preconditioning,
    network: N,
}

impl<P, N> Preconditioned<P, N>
where
    P: ForwardProcess,
    N: Fn(&Tensor, &Tensor, &Conditioning) -> Result<Tensor>,
{
    /// Wraps `network`; its first argument and its output are `[B, ..]`, as in [`Denoiser::predict_x0`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a spread out of range.
    pub fn new(process: P, preconditioning: Preconditioning, network: N) -> Result<Self> {
        preconditioning.validate()?;
        Ok(Self {
            process,
            preconditioning,
            network,
        })
    }
}

impl<P, N> Denoiser for Preconditioned<P, N>
where
    P: ForwardProcess,
    N: Fn(&Tensor, &Tensor, &Conditioning) -> Result<Tensor>,
{
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        if self.process.kind() == crate::ProcessKind::Bridge && conditioning.terminal.is_none() {
            return Err(Error::NoTerminal);
        }
        let times = t.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let input = self.preconditioning.input(&self.process, x, &times)?;
        let level = Preconditioning::noise_levels(&times, x.device())?;
        let output = (self.network)(&input, &level, conditioning)?;
        self.preconditioning.x0(&self.process, &output, x, &times)
    }
}
