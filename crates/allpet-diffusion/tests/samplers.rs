//! DDPM and DDIM against ALL-PET's equations, each other, and exact solutions for Gaussian data.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

mod common;
mod flow;

use allpet_diffusion::{
    Conditioning, Ddim, Ddpm, Denoiser, Error, ForwardProcess, GaussianProcess, Prediction, ProcessConfig,
    Result, Run, SAMPLERS, SampleNoise, Sampler, Schedule, Spacing, check, sample, sampler_by_name,
};
use candle_core::{DType, Device, Tensor};
use common::{Exact, relative, statistics, values, walk};
use flow::measured_order;
use std::ops::ControlFlow;

fn linear() -> GaussianProcess {
    ProcessConfig::default().build().unwrap()
}

fn full_grid() -> Vec<f64> {
    Spacing::Trailing.times(1000, 1000).unwrap()
}

/// One step of `sampler` in f64 with a given `ε̂`: returns `x_t`, `ε̂`, the noise of the step and the result.
fn one_step(sampler: &dyn Sampler, from: f64, to: f64) -> [Vec<f64>; 4] {
    let process = linear();
    let noise = SampleNoise::consecutive(9, 0, 2);
    let draw = |what: &str| noise.normal(what, 0, &[6], DType::F64, &Device::Cpu).unwrap();
    let (x, eps, u) = (draw("x"), draw("eps"), draw("diffusion noise"));
    let m = process.marginal(from);
    let x0 = ((&x - eps.affine(m.c, 0.0).unwrap()).unwrap() / m.b).unwrap();
    let denoiser = Fixed(x0);
    let mut run = Run::new(&process, &denoiser, Conditioning::default(), noise);
    run.begin(&[from, to]).unwrap();
    let next = run.advance(sampler, &x).unwrap().unwrap();
    [values(&x), values(&eps), values(&u), values(&next)]
}

struct Fixed(Tensor);

impl Denoiser for Fixed {
    fn predict_x0(&self, _: &Tensor, _: &Tensor, _: &Conditioning) -> Result<Tensor> {
        Ok(self.0.clone())
    }
}

#[test]
fn ddpm_is_equation_18_with_the_right_variance() {
    let process = linear();
    let alpha_bar = |t: usize| process.schedule().alpha_bar(t).unwrap();
    let betas = Schedule::linear().betas(1000);
    for t in [2usize, 3, 100, 1000] {
        let [x, eps, u, next] = one_step(&Ddpm, t as f64, (t - 1) as f64);
        let alpha = 1.0 - betas[t - 1];
        let right = (1.0 - alpha_bar(t - 1)) / (1.0 - alpha_bar(t)) * betas[t - 1];
        let misprint = (1.0 - alpha_bar(t)) / (1.0 - alpha) * betas[t - 1];
        let expected = |variance: f64| -> Vec<f64> {
            let mean =
                |i: usize| (x[i] - (1.0 - alpha) * eps[i] / (1.0 - alpha_bar(t)).sqrt()) / alpha.sqrt();
            (0..x.len()).map(|i| mean(i) + variance.sqrt() * u[i]).collect()
        };
        assert!(relative(&next, &expected(right)) < 1e-10);
        assert!(
            relative(&next, &expected(misprint)) > 1e-3,
            "the misprinted variance of eq. 17 goes unnoticed"
        );
    }
}

#[test]
fn ddim_is_equation_20_with_sigma_for_eta() {
    let process = linear();
    for (eta, from, to) in [
        (0.0, 700.0, 650.0),
        (0.5, 700.0, 650.0),
        (1.0, 20.0, 1.0),
        (1.0, 14.0, 0.0),
    ] {
        let [x, eps, u, next] = one_step(&Ddim { eta }, from, to);
        let a = |t: f64| process.schedule().alpha_bar(t as usize).unwrap();
        let sigma = eta * ((1.0 - a(to)) / (1.0 - a(from))).sqrt() * (1.0 - a(from) / a(to)).sqrt();
        let value = |i: usize| {
            let x0 = (x[i] - (1.0 - a(from)).sqrt() * eps[i]) / a(from).sqrt();
            a(to).sqrt() * x0 + (1.0 - a(to) - sigma * sigma).max(0.0).sqrt() * eps[i] + sigma * u[i]
        };
        assert!(
            relative(&next, &(0..x.len()).map(value).collect::<Vec<f64>>()) < 1e-10,
            "eta {eta}"
        );
    }
}

#[test]
fn ddim_with_eta_1_is_ddpm() {
    let process = linear();
    let denoiser = Exact {
        process: &process,
        mean: 0.2,
        sd: 0.7,
    };
    let grids = [full_grid(), Spacing::Leading.times(1000, 50).unwrap()];
    for (dtype, bound) in [(DType::F64, 1e-11), (DType::F32, 2e-5)] {
        for times in &grids {
            let end = |sampler: &dyn Sampler| {
                let noise = SampleNoise::consecutive(2, 0, 3);
                let mut run = Run::new(&process, &denoiser, Conditioning::default(), noise);
                let start = run.start(times[0], &[2, 4, 4], dtype, &Device::Cpu).unwrap();
                values(&walk(sampler, &mut run, times, start))
            };
            let ddpm = end(&Ddpm);
            let difference = relative(&end(&Ddim { eta: 1.0 }), &ddpm);
            println!(
                "{dtype:?}, {} steps: relative difference {difference:.1e}",
                times.len() - 1
            );
            assert!(difference < bound);
            assert!(relative(&end(&Ddim { eta: 0.9 }), &ddpm) > 1e-2);
        }
    }
}

#[test]
fn deterministic_ddim_is_of_order_one() {
    for steps in [40, 80, 160] {
        let order = measured_order(&Ddim { eta: 0.0 }, steps);
        println!("DDIM, {steps} to {} steps: order {order:.3}", 2 * steps);
        assert!((order - 1.0).abs() < 0.1);
    }
}

/// DDPM with the variance that ALL-PET's eq. 17 prints.
struct Misprint;

impl Sampler for Misprint {
    fn name(&self) -> &'static str {
        "misprint"
    }
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let x0 = run.denoise(x, from)?;
        let (t, p) = (run.process().marginal(from), run.process().marginal(to));
        let (ratio, beta) = (t.b / p.b, 1.0 - (t.b / p.b).powi(2));
        let mean =
            (x.affine(ratio * (p.c / t.c).powi(2), 0.0)? + x0.affine(p.b * beta / (t.c * t.c), 0.0)?)?;
        let variance = if p.c > 0.0 { t.c * t.c / beta * beta } else { 0.0 };
        Ok((mean
            + run
                .noise_like("diffusion noise", x)?
                .affine(variance.sqrt(), 0.0)?)?)
    }
    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

/// Standard deviation that ancestral sampling with the exact denoiser of `N(·, sd²)` ends with, by the recursion of
/// its variance in `α, β, ᾱ` (Ho et al., eqs. 6-7); the start has variance 1.
fn recursion(process: &GaussianProcess, sd: f64) -> f64 {
    let alpha_bar = |t: usize| process.schedule().alpha_bar(t).unwrap();
    let mut variance = 1.0;
    for t in (1..=process.steps()).rev() {
        let (now, before) = (alpha_bar(t), alpha_bar(t - 1));
        let (alpha, beta) = (now / before, 1.0 - now / before);
        let gain = now.sqrt() * sd * sd / (now * sd * sd + 1.0 - now);
        let slope = (before.sqrt() * beta * gain + alpha.sqrt() * (1.0 - before)) / (1.0 - now);
        variance = slope * slope * variance + (1.0 - before) / (1.0 - now) * beta;
    }
    variance.sqrt()
}

#[test]
fn ddpm_ends_in_the_distribution_of_the_data() {
    let count = 20_000;
    for config in [
        ProcessConfig::default(),
        ProcessConfig {
            schedule: Schedule::cosine(),
            ..ProcessConfig::default()
        },
        ProcessConfig {
            zero_terminal_snr: true,
            prediction: Prediction::V,
            ..ProcessConfig::default()
        },
    ] {
        let process = config.build().unwrap();
        let denoiser = Exact {
            process: &process,
            mean: 0.3,
            sd: 0.5,
        };
        let (mean, sd) = statistics(&Ddpm, &process, &denoiser, None, &full_grid(), count);
        let expected = recursion(&process, 0.5);
        println!(
            "DDPM, 1000 steps, {count} samples of N(0.3, 0.5²): mean {mean:.4}, sd {sd:.4} (recursion {expected:.4})"
        );
        let error = 4.0 * 0.5 / (count as f64).sqrt();
        assert!((mean - 0.3).abs() < error && (sd - expected).abs() < error / 2f64.sqrt());
        // The small variance falls short of the data's own by little.
        assert!((expected - 0.5).abs() < 0.01);
    }
    let process = linear();
    let denoiser = Exact {
        process: &process,
        mean: 0.3,
        sd: 0.5,
    };
    let (_, sd) = statistics(&Misprint, &process, &denoiser, None, &full_grid(), 2_000);
    println!("the same with the variance printed in eq. 17: sd {sd:.3}");
    assert!((sd - 0.5).abs() > 0.1);
}

#[test]
fn no_noise_enters_the_clean_time_but_does_in_parity_mode() {
    let process = linear();
    let denoiser = Exact {
        process: &process,
        mean: 0.0,
        sd: 1.0,
    };
    let end = |sampler: &dyn Sampler, seed: u64, times: &[f64]| {
        let noise = SampleNoise::consecutive(seed, 0, 1);
        let mut run = Run::new(&process, &denoiser, Conditioning::default(), noise);
        let x = Tensor::new(&[[0.3f32, -1.2]], &Device::Cpu).unwrap();
        values(&walk(sampler, &mut run, times, x))
    };
    for sampler in [&Ddpm as &dyn Sampler, &Ddim { eta: 1.0 }] {
        for times in [[1.0, 0.0], [15.0, 0.0]] {
            let clean = end(sampler, 1, &times);
            assert_eq!(clean, end(sampler, 2, &times));
            let m = process.marginal(times[0]);
            assert!(
                (clean[0] - 0.3f64 * m.b).abs() < 1e-6,
                "the last step returns the prediction itself"
            );
        }
        let parity = Spacing::LatentDiffusion.times(1000, 70).unwrap();
        assert_ne!(end(sampler, 1, &parity[71..]), end(sampler, 2, &parity[71..]));
    }
}

#[test]
fn every_built_in_sampler_conforms() {
    for config in [
        ProcessConfig::default(),
        ProcessConfig {
            schedule: Schedule::cosine(),
            ..ProcessConfig::default()
        },
        ProcessConfig {
            zero_terminal_snr: true,
            prediction: Prediction::V,
            ..ProcessConfig::default()
        },
    ] {
        let process = config.build().unwrap();
        for spacing in [
            Spacing::Leading,
            Spacing::Linspace,
            Spacing::Trailing,
            Spacing::LatentDiffusion,
        ] {
            check::check_built_in(&process, &spacing.times(1000, 10).unwrap()).unwrap();
        }
    }
    for name in SAMPLERS {
        assert_eq!(sampler_by_name(name, 0.0).unwrap().name(), *name);
    }
    let message = sampler_by_name("ddmp", 0.0).err().unwrap().to_string();
    assert_eq!(
        message,
        format!("unknown sampler `ddmp`; known: {}", SAMPLERS.join(", "))
    );
    assert!(sampler_by_name("ddim", 1.5).is_err() && Ddim::new(f64::NAN).is_err());
}

/// FNV-1a of the bytes of 64 samples drawn through a network that multiplies matrices.
fn digest() -> u64 {
    let process = linear();
    let weights = SampleNoise::consecutive(4, 0, 256)
        .normal("weights", 0, &[256], DType::F32, &Device::Cpu)
        .unwrap();
    let network =
        |x: &Tensor, _: &Tensor, _: &Conditioning| Ok(x.matmul(&weights)?.affine(0.05, 0.0)?.tanh()?);
    let denoiser = allpet_diffusion::Predictor::new(&process, Prediction::V, network).unwrap();
    let times = Spacing::Trailing.times(1000, 8).unwrap();
    let mut run = Run::new(
        &process,
        &denoiser,
        Conditioning::default(),
        SampleNoise::consecutive(6, 0, 64),
    );
    let start = run.start(times[0], &[256], DType::F32, &Device::Cpu).unwrap();
    let end = walk(&Ddpm, &mut run, &times, start)
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let bytes = end.iter().flat_map(|v| v.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

const DIGEST_FILE: &str = "ALLPET_DIFFUSION_TEST_DIGEST";

#[test]
fn samples_have_the_same_bytes_with_one_thread_or_two() {
    // The number of threads is fixed when a process starts, so the test runs itself again, once for each.
    if let Some(file) = std::env::var_os(DIGEST_FILE) {
        std::fs::write(file, digest().to_string()).unwrap();
        return;
    }
    let here = digest().to_string();
    assert_eq!(here, digest().to_string());
    for threads in ["1", "2"] {
        let file = std::env::temp_dir().join(format!("allpet-digest-{}-{threads}", std::process::id()));
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "samples_have_the_same_bytes_with_one_thread_or_two"])
            .env(DIGEST_FILE, &file)
            .env("RAYON_NUM_THREADS", threads)
            .stdout(std::process::Stdio::null())
            .status();
        assert!(status.unwrap().success());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), here, "{threads} threads");
        std::fs::remove_file(file).unwrap();
    }
}

#[test]
fn samplers_do_not_leave_a_graph_behind() {
    let process = linear();
    let scale = candle_core::Var::new(0.9f32, &Device::Cpu).unwrap();
    let network = |x: &Tensor, _: &Tensor, _: &Conditioning| Ok(x.broadcast_mul(scale.as_tensor())?);
    let denoiser = allpet_diffusion::Predictor::new(&process, Prediction::X0, network).unwrap();
    let mut run = Run::new(
        &process,
        &denoiser,
        Conditioning::default(),
        SampleNoise::consecutive(6, 0, 2),
    );
    let times = full_grid();
    let start = run.start(times[0], &[4], DType::F32, &Device::Cpu).unwrap();
    let end = walk(&Ddpm, &mut run, &times, start);
    assert!(!end.track_op());
    assert_eq!(run.evaluations(), 1000);
}

#[test]
fn faults_are_errors_and_an_observer_can_stop() {
    let process = linear();
    let denoiser = Exact {
        process: &process,
        mean: 0.0,
        sd: 1.0,
    };
    let mut run = Run::new(
        &process,
        &denoiser,
        Conditioning::default(),
        SampleNoise::consecutive(1, 0, 2),
    );
    for times in [
        &[1000.0][..],
        &[1.0, 5.0],
        &[5.0, 5.0],
        &[1001.0, 0.0],
        &[5.0, -1.0],
        &[f64::NAN, 0.0],
    ] {
        assert!(
            matches!(run.begin(times), Err(Error::Invalid { .. })),
            "{times:?}"
        );
    }
    let x = Tensor::zeros((3, 4), DType::F32, &Device::Cpu).unwrap();
    let result = sample(&Ddpm, &mut run, &[500.0, 100.0], x, &mut |_, _| {
        ControlFlow::Continue(())
    });
    assert!(
        matches!(result, Err(Error::Shape { .. })),
        "a batch of three with the noise of two"
    );

    let mut seen = Vec::new();
    let start = run.start(1000.0, &[4], DType::F32, &Device::Cpu).unwrap();
    let grid = Spacing::Trailing.times(1000, 10).unwrap();
    let result = sample(&Ddpm, &mut run, &grid, start, &mut |done, total| {
        seen.push((done, total));
        if done == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(matches!(result, Err(Error::Stopped { done: 3, total: 10 })));
    assert_eq!(seen, [(1, 10), (2, 10), (3, 10)]);
}
