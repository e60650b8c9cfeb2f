//! Preconditioning of a bridge's network by the best linear estimate from both ends (ours).
//!
//! DDBM's preconditioning ([`crate::Preconditioning`]) knows one spread for all channels and starts from the best linear
//! estimate of `x_0` from `x_t` alone, though the network is given `x_T` too. Here every channel has its own moments, and
//! the start is the best linear estimate from both. With `κ = cov/σ_T²`, `s² = σ_0² - cov²/σ_T²` and `r = μ_0 + κ(x_T - μ_T)`,
//! `x_0` given `x_T` has mean `r` and variance `s²`, and `x_t - a·x_T = b·x_0 + c·ε`, so that
//!
//! `D = r + g·(x_t - a·x_T - b·r) + c_out·F`, `g = b·s²/(b²s² + c²)`, `c_out = s·c/√(b²s² + c²)`.
//!
//! The target of `F` has variance one, and `F = 0` is exact for ends that are jointly normal. At `T`, where `b = c = 0`,
//! `g = 0` and `c_out = s`: the network predicts what linear regression on `x_T` leaves. With `a = 0` and no correlation it
//! is EDM's (Karras et al. 2022).

use crate::prediction::marginals;
use crate::{Conditioning, Denoiser, Error, ForwardProcess, Marginal, Result};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_2_PI;

/// Correlations are taken to be no closer to ±1 than this: `1 - 1e-6` leaves a spread of 0.14 %.
const LARGEST_CORRELATION: f64 = 1.0 - 1e-6;

/// First and second moments of both ends of a bridge, for every channel (axis 1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndMoments {
    /// Mean of `x_0`.
    pub mean_data: Vec<f64>,
    /// Standard deviation of `x_0`, above 0.
    pub sd_data: Vec<f64>,
    /// Mean of `x_T`.
    pub mean_terminal: Vec<f64>,
    /// Standard deviation of `x_T`, above 0.
    pub sd_terminal: Vec<f64>,
    /// Correlation of `x_0` and `x_T`, between -1 and 1.
    pub correlation: Vec<f64>,
}

/// Sums from which [`EndMoments`] follow.
#[derive(Debug, Clone, Default)]
pub struct MomentSums {
    count: f64,
    /// For each channel: x_0, x_T, x_0², x_T², x_0·x_T.
    sums: Vec<[f64; 5]>,
}

impl MomentSums {
    /// Adds a batch of pairs `[B, C, ..]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the two differ, or have other channels than those before.
    pub fn add(&mut self, data: &Tensor, terminal: &Tensor) -> Result<()> {
        if data.dims() != terminal.dims() || data.rank() < 2 {
            return Err(Error::Shape {
                what: "terminal state",
                expected: format!("{:?}, the shape of the clean sample", data.dims()),
                got: terminal.dims().to_vec(),
            });
        }
        let channels = data.dim(1)?;
        if self.sums.is_empty() {
            self.sums = vec![[0.0; 5]; channels];
        }
        if self.sums.len() != channels {
            return Err(Error::Shape {
                what: "pairs",
                expected: format!("[B, {}, ..] as before", self.sums.len()),
                got: data.dims().to_vec(),
            });
        }
        let plane = data.elem_count() / (data.dim(0)? * channels).max(1);
        let host = |t: &Tensor| -> Result<Vec<f32>> { Ok(t.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?) };
        let (data, terminal) = (host(data)?, host(terminal)?);
        for (i, (x0, xt)) in data
            .chunks_exact(plane.max(1))
            .zip(terminal.chunks_exact(plane.max(1)))
            .enumerate()
        {
            let sums = &mut self.sums[i % channels];
            for (x0, xt) in x0.iter().zip(xt) {
                let (x0, xt) = (f64::from(*x0), f64::from(*xt));
                for (sum, value) in sums.iter_mut().zip([x0, xt, x0 * x0, xt * xt, x0 * xt]) {
                    *sum += value;
                }
            }
        }
        self.count += (data.len() / channels.max(1)) as f64;
        Ok(())
    }

    /// The moments of what was added.
    ///
    /// # Errors
    /// [`Error::Invalid`] when nothing was added, or a channel does not vary.
    pub fn finish(&self) -> Result<EndMoments> {
        let mut moments = EndMoments {
            mean_data: Vec::new(),
            sd_data: Vec::new(),
            mean_terminal: Vec::new(),
            sd_terminal: Vec::new(),
            correlation: Vec::new(),
        };
        let n = self.count.max(1.0);
        for [x0, xt, x0x0, xtxt, x0xt] in &self.sums {
            let (mean0, mean_t) = (x0 / n, xt / n);
            let sd0 = (x0x0 / n - mean0 * mean0).max(0.0).sqrt();
            let sd_t = (xtxt / n - mean_t * mean_t).max(0.0).sqrt();
            moments.mean_data.push(mean0);
            moments.mean_terminal.push(mean_t);
            moments.sd_data.push(sd0);
            moments.sd_terminal.push(sd_t);
            moments.correlation.push(
                ((x0xt / n - mean0 * mean_t) / (sd0 * sd_t)).clamp(-LARGEST_CORRELATION, LARGEST_CORRELATION),
            );
        }
        moments.validate()?;
        Ok(moments)
    }
}

/// What the preconditioning of one channel is at one time: `D = skip·x + terminal·x_T + offset + out·F`, and the network
/// sees `input·(x - centre)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointScales {
    /// Weight of `x`.
    pub skip: f64,
    /// Weight of `x_T`.
    pub terminal: f64,
    /// Constant.
    pub offset: f64,
    /// Weight of the network's output.
    pub out: f64,
    /// Inverse of the standard deviation of `x`.
    pub input: f64,
    /// Mean of `x`.
    pub centre: f64,
}

impl EndMoments {
    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.mean_data.len()
    }

    /// Variance of `x_0` given `x_T`, by linear regression, of a channel.
    fn residual_variance(&self, channel: usize) -> f64 {
        let r = self.correlation[channel].clamp(-LARGEST_CORRELATION, LARGEST_CORRELATION);
        self.sd_data[channel].powi(2) * (1.0 - r * r)
    }

    /// The scales of a channel where the process has this marginal.
    pub fn scales(&self, m: Marginal, channel: usize) -> JointScales {
        let (sd0, sd_t) = (self.sd_data[channel], self.sd_terminal[channel]);
        let (mean0, mean_t) = (self.mean_data[channel], self.mean_terminal[channel]);
        let covariance = self.correlation[channel] * sd0 * sd_t;
        let slope = covariance / (sd_t * sd_t);
        let variance = self.residual_variance(channel);
        let total = m.b * m.b * variance + m.c * m.c;
        let (gain, out) = if total > 0.0 {
            (m.b * variance / total, variance.sqrt() * m.c / total.sqrt())
        } else {
            (0.0, variance.sqrt())
        };
        let left = 1.0 - gain * m.b;
        let spread = (m.a * sd_t).powi(2) + (m.b * sd0).powi(2) + 2.0 * m.a * m.b * covariance + m.c * m.c;
        JointScales {
            skip: gain,
            terminal: slope * left - gain * m.a,
            offset: (mean0 - slope * mean_t) * left,
            out,
            input: spread.sqrt().recip(),
            centre: m.a * mean_t + m.b * mean0,
        }
    }

    /// Reports every fault at once.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        let n = self.channels();
        let all = [
            ("mean_data", &self.mean_data),
            ("sd_data", &self.sd_data),
            ("mean_terminal", &self.mean_terminal),
            ("sd_terminal", &self.sd_terminal),
            ("correlation", &self.correlation),
        ];
        if n == 0 {
            faults.push("no channels; expected at least 1".to_owned());
        }
        for (name, values) in all {
            if values.len() != n {
                faults.push(format!("{name} has {} channels; expected {n}", values.len()));
            }
            let ok = |v: f64| match name {
                "correlation" => (-1.0..=1.0).contains(&v),
                _ if name.starts_with("sd") => v.is_finite() && v > 0.0,
                _ => v.is_finite(),
            };
            if let Some(i) = values.iter().position(|v| !ok(*v)) {
                let expected = match name {
                    "correlation" => "-1 to 1",
                    _ if name.starts_with("sd") => "a number above 0",
                    _ => "a number",
                };
                faults.push(format!(
                    "{name} of channel {i} is {}; expected {expected}",
                    values[i]
                ));
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "moments",
                faults,
            })
        }
    }
}

/// The moments of every sample of a batch: samples of several kinds (tasks, say) may stand in one.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchMoments {
    each: Vec<EndMoments>,
}

impl BatchMoments {
    /// One for each sample, in batch order, or a single one for all.
    ///
    /// # Errors
    /// [`Error::Invalid`] for none, for moments out of range, and for different numbers of channels.
    pub fn new(each: Vec<EndMoments>) -> Result<Self> {
        let mut faults = Vec::new();
        if each.is_empty() {
            faults.push("none; expected one for each sample, or one for all".to_owned());
        }
        for moments in &each {
            moments.validate()?;
            if moments.channels() != each[0].channels() {
                faults.push(format!(
                    "{} channels beside {}; expected one number for all samples",
                    moments.channels(),
                    each[0].channels()
                ));
            }
        }
        if faults.is_empty() {
            Ok(Self { each })
        } else {
            Err(Error::Invalid {
                what: "moments",
                faults,
            })
        }
    }

    /// Of sample `i`.
    fn of(&self, i: usize) -> &EndMoments {
        self.each.get(i).unwrap_or(&self.each[0])
    }

    fn channels(&self) -> usize {
        self.each[0].channels()
    }

    /// The network's input `(x - E x)/sd x [B, C, ..]`, one time per sample.
    ///
    /// # Errors
    /// [`Error::Shape`] or candle's own.
    pub fn input(&self, process: &dyn ForwardProcess, x: &Tensor, times: &[f64]) -> Result<Tensor> {
        let [scale, shift] = self.each(process, x, times, |s| [s.input, -s.input * s.centre])?;
        Ok(x.broadcast_mul(&scale)?.broadcast_add(&shift)?)
    }

    /// `x_T [B, C, ..]` as the network sees it, of mean 0 and variance 1.
    ///
    /// # Errors
    /// [`Error::Shape`] or candle's own.
    pub fn terminal(&self, terminal: &Tensor) -> Result<Tensor> {
        let rows = terminal.dims().first().copied().unwrap_or(0);
        self.check(terminal, rows)?;
        let (mut scale, mut shift) = (Vec::new(), Vec::new());
        for i in 0..rows {
            let moments = self.of(i);
            for (sd, mean) in moments.sd_terminal.iter().zip(&moments.mean_terminal) {
                scale.push(1.0 / sd);
                shift.push(-mean / sd);
            }
        }
        let (scale, shift) = (column(&scale, rows, terminal)?, column(&shift, rows, terminal)?);
        Ok(terminal.broadcast_mul(&scale)?.broadcast_add(&shift)?)
    }

    /// `D [B, C, ..]` of the network's output. Gradients pass through.
    ///
    /// # Errors
    /// [`Error::Shape`] or candle's own.
    pub fn x0(
        &self,
        process: &dyn ForwardProcess,
        output: &Tensor,
        x: &Tensor,
        terminal: &Tensor,
        times: &[f64],
    ) -> Result<Tensor> {
        let [out] = self.each(process, x, times, |s| [s.out])?;
        Ok((self.linear(process, x, terminal, times)? + output.broadcast_mul(&out)?)?)
    }

    /// What the network should give, `(x_0 - D|_{F=0})/c_out [B, C, ..]`, of variance 1: the plain mean square against it
    /// weighs every channel and time by `c_out^-2`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a time where `c_out = 0` (the clean one), [`Error::Shape`] or candle's own.
    pub fn target(
        &self,
        process: &dyn ForwardProcess,
        x0: &Tensor,
        x: &Tensor,
        terminal: &Tensor,
        times: &[f64],
    ) -> Result<Tensor> {
        for (i, m) in marginals(process, times).into_iter().enumerate() {
            if (0..self.channels()).any(|c| self.of(i).scales(m, c).out <= 0.0) {
                return Err(Error::Invalid {
                    what: "training time",
                    faults: vec![format!(
                        "sample {i} has t = {}, where nothing is left to predict; expected t > 0",
                        times[i]
                    )],
                });
            }
        }
        let [inverse] = self.each(process, x, times, |s| [1.0 / s.out])?;
        Ok((x0 - self.linear(process, x, terminal, times)?)?.broadcast_mul(&inverse)?)
    }

    /// What the network is told of the time, f32 `[B]`: `1000·(2/π)·atan(c/(b·s))`, from 0, clean, to 1000 at `T`; `s` is the
    /// root mean square over channels of what regression leaves. It is the time at which a cosine schedule of 1000 levels
    /// has the same ratio of noise to signal.
    ///
    /// # Errors
    /// candle's own.
    pub fn levels(
        &self,
        process: &dyn ForwardProcess,
        times: &[f64],
        device: &candle_core::Device,
    ) -> Result<Tensor> {
        let level = |(i, m): (usize, Marginal)| {
            let moments = self.of(i);
            let channels = moments.channels();
            let mean = (0..channels).map(|c| moments.residual_variance(c)).sum::<f64>() / channels as f64;
            let ratio = if m.b > 0.0 {
                m.c / (m.b * mean.sqrt())
            } else {
                f64::INFINITY
            };
            (1000.0 * FRAC_2_PI * ratio.atan()) as f32
        };
        let levels: Vec<f32> = marginals(process, times)
            .into_iter()
            .enumerate()
            .map(level)
            .collect();
        let count = levels.len();
        Ok(Tensor::from_vec(levels, count, device)?)
    }

    fn linear(
        &self,
        process: &dyn ForwardProcess,
        x: &Tensor,
        terminal: &Tensor,
        times: &[f64],
    ) -> Result<Tensor> {
        self.check(terminal, times.len())?;
        let [skip, of_terminal, offset] = self.each(process, x, times, |s| [s.skip, s.terminal, s.offset])?;
        let terminal = terminal.broadcast_mul(&of_terminal)?;
        Ok((x.broadcast_mul(&skip)? + terminal)?.broadcast_add(&offset)?)
    }

    /// Values of every sample and channel as tensors `[B, C, 1, ..]` that broadcast over `x`.
    fn each<const N: usize>(
        &self,
        process: &dyn ForwardProcess,
        x: &Tensor,
        times: &[f64],
        f: impl Fn(JointScales) -> [f64; N],
    ) -> Result<[Tensor; N]> {
        self.check(x, times.len())?;
        let mut values = vec![Vec::with_capacity(times.len() * self.channels()); N];
        for (i, m) in marginals(process, times).into_iter().enumerate() {
            for channel in 0..self.channels() {
                for (values, value) in values.iter_mut().zip(f(self.of(i).scales(m, channel))) {
                    values.push(value);
                }
            }
        }
        let tensors = values
            .iter()
            .map(|v| column(v, times.len(), x))
            .collect::<Result<Vec<Tensor>>>()?;
        <[Tensor; N]>::try_from(tensors).map_err(|_| Error::Shape {
            what: "scales",
            expected: format!("{N}"),
            got: Vec::new(),
        })
    }

    fn check(&self, x: &Tensor, rows: usize) -> Result<()> {
        let fits = self.each.len() == 1 || self.each.len() == rows;
        if x.rank() >= 2 && x.dims()[..2] == [rows, self.channels()] && fits {
            return Ok(());
        }
        let samples = if self.each.len() == 1 {
            rows
        } else {
            self.each.len()
        };
        Err(Error::Shape {
            what: "sample",
            expected: format!("[{samples}, {}, ..], a channel for every moment", self.channels()),
            got: x.dims().to_vec(),
        })
    }
}

/// `[rows, C, 1, ..]` of the rank, type and device of `like`.
fn column(values: &[f64], rows: usize, like: &Tensor) -> Result<Tensor> {
    let mut shape = vec![1; like.rank()];
    shape[0] = rows;
    shape[1] = values.len() / rows.max(1);
    Ok(Tensor::from_slice(values, shape, like.device())?.to_dtype(like.dtype())?)
}

/// A network `F(input, level, conditioning) -> output` as a [`Denoiser`] of a bridge. The network finds `x_T`, brought to mean 0
/// and variance 1, in [`Conditioning::terminal`].
#[derive(Debug, Clone)]
pub struct JointlyPreconditioned<P, N> {
    process: P,
    moments: BatchMoments,
    network: N,
}

impl<P, N> JointlyPreconditioned<P, N>
where
    P: ForwardProcess,
    N: Fn(&Tensor, &Tensor, &Conditioning) -> Result<Tensor>,
{
    /// Wraps `network`, for batches of the samples that `moments` are of.
    pub fn new(process: P, moments: BatchMoments, network: N) -> Self {
        Self {
            process,
            moments,
            network,
        }
    }
}

impl<P, N> Denoiser for JointlyPreconditioned<P, N>
where
    P: ForwardProcess,
    N: Fn(&Tensor, &Tensor, &Conditioning) -> Result<Tensor>,
{
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let terminal = conditioning.terminal.as_ref().ok_or(Error::NoTerminal)?;
        let times = t.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let input = self.moments.input(&self.process, x, &times)?;
        let level = self.moments.levels(&self.process, &times, x.device())?;
        let told = Conditioning {
            terminal: Some(self.moments.terminal(terminal)?),
            ..conditioning.clone()
        };
        let output = (self.network)(&input, &level, &told)?;
        self.moments.x0(&self.process, &output, x, terminal, &times)
    }
}
