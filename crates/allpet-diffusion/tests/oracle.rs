//! Our DDIM beside candle-transformers' `DDIMScheduler`, which shares no code with it.
//!
//! That scheduler steps from index `k` to `k - T/S` and ends at index 0 (our time 1), so its `Leading` grid is our
//! latent-diffusion grid when `S` divides `T`. Its cosine schedule divides integers and is left out.

use allpet_diffusion::{
    Conditioning, Ddim, Denoiser, Prediction, Predictor, ProcessConfig, Run, SampleNoise, Schedule, Spacing,
    sample,
};
use candle_core::{DType, Device, Tensor};
use candle_transformers::models::stable_diffusion::ddim::DDIMSchedulerConfig;
use candle_transformers::models::stable_diffusion::schedulers::{
    BetaSchedule, PredictionType, SchedulerConfig, TimestepSpacing,
};
use std::ops::ControlFlow;

/// A network that is not linear in `x` and depends on the index `t - 1`.
fn network(x: &Tensor, index: f64) -> candle_core::Result<Tensor> {
    x.affine(0.7 + index / 4000.0, 0.05)?.tanh()
}

#[test]
fn ddim_follows_an_independent_implementation() {
    let cases = [
        (BetaSchedule::Linear, Schedule::linear(), 1e-4, 0.02),
        (
            BetaSchedule::ScaledLinear,
            Schedule::scaled_linear(),
            0.0015,
            0.0195,
        ),
    ];
    let predictions = [
        (PredictionType::Epsilon, Prediction::Epsilon),
        (PredictionType::VPrediction, Prediction::V),
        (PredictionType::Sample, Prediction::X0),
    ];
    for (their_betas, schedule, beta_start, beta_end) in cases {
        for (theirs, ours) in predictions {
            let steps = 50;
            let config = DDIMSchedulerConfig {
                beta_start,
                beta_end,
                beta_schedule: their_betas,
                prediction_type: theirs,
                timestep_spacing: TimestepSpacing::Leading,
                ..DDIMSchedulerConfig::default()
            };
            let mut scheduler = config.build(steps).unwrap();

            let process = ProcessConfig {
                schedule,
                ..ProcessConfig::default()
            }
            .build()
            .unwrap();
            let times = Spacing::LatentDiffusion.times(1000, steps).unwrap();
            let indices: Vec<usize> = times[..steps].iter().map(|&t| t as usize - 1).collect();
            assert_eq!(scheduler.timesteps(), indices);

            let denoiser: &dyn Denoiser =
                &Predictor::new(&process, ours, |x: &Tensor, t: &Tensor, _: &Conditioning| {
                    Ok(network(x, f64::from(t.to_vec1::<f32>()?[0]) - 1.0)?)
                })
                .unwrap();
            let mut run = Run::new(
                &process,
                denoiser,
                Conditioning::default(),
                SampleNoise::consecutive(5, 0, 3),
            );
            let start = run.start(times[0], &[2, 4, 4], DType::F64, &Device::Cpu).unwrap();

            let mut expected = start.clone();
            for index in indices {
                let output = network(&expected, index as f64).unwrap();
                expected = scheduler.step(&output, index, &expected).unwrap();
            }
            let ddim = Ddim { eta: 0.0 };
            let got = sample(&ddim, &mut run, &times, start, &mut |_, _| {
                ControlFlow::Continue(())
            })
            .unwrap();
            let norm = |x: &Tensor| {
                x.sqr()
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .to_scalar::<f64>()
                    .unwrap()
                    .sqrt()
            };
            let error = norm(&(&got - &expected).unwrap()) / norm(&expected);
            println!("{their_betas:?} {theirs:?}: relative difference {error:.1e}");
            assert!(error < 1e-10, "{their_betas:?} {theirs:?}: {error}");
        }
    }
}
