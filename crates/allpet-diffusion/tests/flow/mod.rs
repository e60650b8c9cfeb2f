//! Measured order of a sampler on the probability flow of Gaussian data, for the tests that need it.

use crate::common::{Exact, relative, values, walk};
use allpet_diffusion::{Conditioning, ForwardProcess, Marginal, Run, SampleNoise, Sampler};
use candle_core::{DType, Device};

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
