//! Processes, exact denoisers and small helpers that several tests share.

use allpet_diffusion::{
    Conditioning, Denoiser, ForwardProcess, Marginal, Result, Run, SampleNoise, Sampler, sample,
};
use candle_core::{DType, Device, Tensor};
use std::ops::ControlFlow;

/// Variance-exploding process: `x_t = x_0 + t·ε`.
pub(crate) struct Exploding(pub(crate) f64);

impl ForwardProcess for Exploding {
    fn marginal(&self, t: f64) -> Marginal {
        Marginal {
            a: 0.0,
            b: 1.0,
            c: t.clamp(0.0, self.0),
        }
    }
    fn terminal(&self) -> f64 {
        self.0
    }
    fn training_time(&self, unit: f64) -> f64 {
        unit * self.0
    }
}

/// `E[x_0 | x_t, x_T]` of data `N(mean, sd²)` that do not depend on `x_T`, in closed form.
pub(crate) struct Exact<'a> {
    pub(crate) process: &'a dyn ForwardProcess,
    pub(crate) mean: f64,
    pub(crate) sd: f64,
}

impl Denoiser for Exact<'_> {
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let m = self.process.marginal(f64::from(t.to_vec1::<f32>()?[0]));
        let variance = self.sd * self.sd;
        let total = m.b * m.b * variance + m.c * m.c;
        let gain = if total > 0.0 { m.b * variance / total } else { 0.0 };
        let noisy = match &conditioning.terminal {
            Some(terminal) => (x - terminal.affine(m.a, 0.0)?)?,
            None => x.clone(),
        };
        Ok(noisy.affine(gain, self.mean * (1.0 - gain * m.b))?)
    }
}

pub(crate) fn walk(sampler: &dyn Sampler, run: &mut Run<'_>, times: &[f64], x: Tensor) -> Tensor {
    sample(sampler, run, times, x, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// Draws `count` samples of one value each and returns their mean and standard deviation.
pub(crate) fn statistics(
    sampler: &dyn Sampler,
    process: &dyn ForwardProcess,
    denoiser: &dyn Denoiser,
    terminal: Option<f64>,
    times: &[f64],
    count: usize,
) -> (f64, f64) {
    let terminal = terminal.map(|v| Tensor::full(v as f32, (1, count), &Device::Cpu).unwrap());
    let conditioning = Conditioning {
        terminal,
        ..Conditioning::default()
    };
    let mut run = Run::new(process, denoiser, conditioning, SampleNoise::consecutive(3, 0, 1));
    let start = run.start(times[0], &[count], DType::F32, &Device::Cpu).unwrap();
    let values = values(&walk(sampler, &mut run, times, start));
    let mean = values.iter().sum::<f64>() / count as f64;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1) as f64;
    (mean, variance.sqrt())
}

pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// `‖x - y‖ / ‖y‖`.
pub(crate) fn relative(x: &[f64], y: &[f64]) -> f64 {
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut y.iter().copied())
}

/// Error of a sampler against the exact solution `x(σ) = x_0·√((s²+σ²)/(s²+σ_0²))` of the probability flow of
/// `N(0, s²)`, from σ = 10 to 0.01 in `steps` steps of a Karras grid, in f64.
pub(crate) fn flow_error(sampler: &dyn Sampler, steps: usize) -> f64 {
    let (sd, from, to, rho) = (0.5, 10.0f64, 0.01f64, 7.0f64);
    let process = Exploding(from);
    let denoiser = Exact {
        process: &process,
        mean: 0.0,
        sd,
    };
    let level = |i: usize| {
        let share = i as f64 / steps as f64;
        (from.powf(1.0 / rho) * (1.0 - share) + to.powf(1.0 / rho) * share).powf(rho)
    };
    let mut times: Vec<f64> = (0..=steps).map(level).collect();
    times[0] = from;
    let mut run = Run::new(
        &process,
        &denoiser,
        Conditioning::default(),
        SampleNoise::consecutive(1, 0, 2),
    );
    let start = run.start(from, &[8], DType::F64, &Device::Cpu).unwrap();
    let end = walk(sampler, &mut run, &times, start.clone());
    let last = *run.times().last().unwrap();
    let scale = ((sd * sd + last * last) / (sd * sd + from * from)).sqrt();
    relative(&values(&end), &values(&start.affine(scale, 0.0).unwrap()))
}

/// Slope of `log error` between grids of `steps` and `2·steps`.
pub(crate) fn measured_order(sampler: &dyn Sampler, steps: usize) -> f64 {
    (flow_error(sampler, steps) / flow_error(sampler, 2 * steps)).log2()
}
