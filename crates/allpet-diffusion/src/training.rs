//! What a trainer needs: times, noise, noisy samples and the loss (ALL-PET eqs. 16 and 19; for bridges Zhou et al.,
//! arXiv:2309.16948).

use crate::coefficients::scale_samples;
use crate::noise::key;
use crate::prediction::marginals;
use crate::{Error, ForwardProcess, ProcessKind, Result, SampleNoise};
use allpet_core::stream;
use candle_core::{DType, Device, Tensor};
use rand::Rng;

/// A training time for each of the samples `indices`, keyed by `(seed, step, index)`: for a Gaussian process a whole
/// time, uniform on `1..=T`. Rounded to f32, the type the network sees.
pub fn draw_times(process: &dyn ForwardProcess, seed: u64, step: u64, indices: &[u64]) -> Vec<f64> {
    let name = key("training time", step);
    let draw = |&index: &u64| {
        let unit: f64 = stream(seed, &name, index).random();
        f64::from(process.training_time(unit) as f32)
    };
    indices.iter().map(draw).collect()
}

/// Standard normal f32 `[B, sample_dims..]`, keyed by `(seed, step, index)`.
///
/// # Errors
/// candle's own.
pub fn draw_noise(
    seed: u64,
    step: u64,
    indices: &[u64],
    sample_dims: &[usize],
    device: &Device,
) -> Result<Tensor> {
    SampleNoise::new(seed, indices.to_vec()).normal("training noise", step, sample_dims, DType::F32, device)
}

/// `x_t [B, ..] = a·x_T + b·x_0 + c·ε`, one time per sample (eq. 16 when `a = 0`); `terminal` is `x_T`, for bridges.
///
/// # Errors
/// [`Error::NoTerminal`] for a bridge without `x_T`, [`Error::Shape`], candle's own.
pub fn add_noise(
    process: &dyn ForwardProcess,
    x0: &Tensor,
    terminal: Option<&Tensor>,
    times: &[f64],
    noise: &Tensor,
) -> Result<Tensor> {
    let marginals = marginals(process, times);
    let b: Vec<f64> = marginals.iter().map(|m| m.b).collect();
    let c: Vec<f64> = marginals.iter().map(|m| m.c).collect();
    let noisy = (scale_samples(x0, &b)? + scale_samples(noise, &c)?)?;
    if marginals.iter().all(|m| m.a == 0.0) {
        return Ok(noisy);
    }
    let a: Vec<f64> = marginals.iter().map(|m| m.a).collect();
    Ok((noisy + scale_samples(terminal.ok_or(Error::NoTerminal)?, &a)?)?)
}

/// A batch as a network is trained on it.
#[derive(Debug, Clone)]
pub struct Noisy {
    /// Time of every sample, exactly representable in f32.
    pub times: Vec<f64>,
    /// `x_t [B, ..]`.
    pub x: Tensor,
    /// The `ε [B, ..]` within it.
    pub noise: Tensor,
}

/// Draws time and noise of every sample and mixes `x_t`: [`draw_times`], [`draw_noise`] and [`add_noise`] in one, so that
/// sample `indices[i]` has the same `x_t` in any batch. `terminal [B, ..]` is `x_T`, for bridges.
///
/// # Errors
/// [`Error::NoTerminal`] for a bridge without `x_T`, [`Error::Shape`] when batch, indices and `x_T` do not fit together.
pub fn draw_noisy(
    process: &dyn ForwardProcess,
    x0: &Tensor,
    terminal: Option<&Tensor>,
    seed: u64,
    step: u64,
    indices: &[u64],
) -> Result<Noisy> {
    if process.kind() == ProcessKind::Bridge {
        let terminal = terminal.ok_or(Error::NoTerminal)?;
        if terminal.dims() != x0.dims() {
            return Err(Error::Shape {
                what: "terminal state",
                expected: format!("{:?}, the shape of the clean sample", x0.dims()),
                got: terminal.dims().to_vec(),
            });
        }
    }
    let times = draw_times(process, seed, step, indices);
    let noise = SampleNoise::new(seed, indices.to_vec()).normal_like("training noise", step, x0)?;
    let x = add_noise(process, x0, terminal, &times, &noise)?;
    Ok(Noisy { times, x, noise })
}

/// Times as the network takes them: f32 `[B]`.
///
/// # Errors
/// candle's own.
pub fn time_tensor(times: &[f64], device: &Device) -> Result<Tensor> {
    let times: Vec<f32> = times.iter().map(|&t| t as f32).collect();
    let count = times.len();
    Ok(Tensor::from_vec(times, count, device)?)
}

/// The loss of eq. 19: the mean over all elements of `(output - target)²`, a scalar that gradients pass through.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn loss(output: &Tensor, target: &Tensor) -> Result<Tensor> {
    if output.dims() != target.dims() {
        return Err(Error::Shape {
            what: "network output",
            expected: format!("{:?}, the shape of its target", target.dims()),
            got: output.dims().to_vec(),
        });
    }
    Ok((output - target)?.sqr()?.mean_all()?)
}

/// A weighted loss: the mean over the samples of `weights[i]` times the mean of `(output - target)²` within sample `i`.
/// With [`crate::Preconditioning::weights`] on `D` and `x_0` it is DDBM's.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or a weight is missing.
pub fn weighted_loss(output: &Tensor, target: &Tensor, weights: &[f64]) -> Result<Tensor> {
    if output.dims() != target.dims() {
        return Err(Error::Shape {
            what: "network output",
            expected: format!("{:?}, the shape of its target", target.dims()),
            got: output.dims().to_vec(),
        });
    }
    Ok(scale_samples(&(output - target)?.sqr()?, weights)?.mean_all()?)
}
