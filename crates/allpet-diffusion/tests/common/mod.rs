//! Processes, exact denoisers and small helpers that several tests share.

use allpet_diffusion::{Conditioning, Denoiser, ForwardProcess, Result, Run, SampleNoise, Sampler, sample};
use candle_core::{DType, Device, Tensor};
use std::ops::ControlFlow;

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
