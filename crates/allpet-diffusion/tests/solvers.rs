//! DPM-Solver++(2M), UniPC and Heun against exact solutions of the probability flow.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

mod common;
mod flow;

use allpet_diffusion::{
    Conditioning, Ddim, Denoiser, DpmSolver, ForwardProcess, GaussianProcess, Heun, Prediction,
    ProcessConfig, Result, Run, SampleNoise, Sampler, Schedule, Spacing, UniPc, karras_times,
};
use candle_core::{DType, Device, Tensor};
use common::{Exact, relative, statistics, values, walk};
use flow::{Exploding, flow_error, measured_order};

#[test]
fn orders_on_gaussian_data() {
    let mut orders = Vec::new();
    for (sampler, low, high) in [
        (&Ddim { eta: 0.0 } as &dyn Sampler, 0.95, 1.05),
        (&DpmSolver, 1.9, 2.1),
        (&UniPc, 2.5, 3.2),
        (&Heun, 1.9, 2.1),
    ] {
        let measured = [40, 80, 160].map(|steps| measured_order(sampler, steps));
        println!(
            "{}: orders {measured:.3?}, error at 40 steps {:.1e}",
            sampler.name(),
            flow_error(sampler, 40)
        );
        assert!(
            (low..high).contains(&measured[2]),
            "{}: {measured:?}",
            sampler.name()
        );
        orders.push(measured[2]);
    }
    assert!(
        orders[2] - orders[1] > 0.5,
        "the corrector of UniPC adds no order"
    );
}

/// The exact denoiser of two Gaussians at ±1 of spread 0.2 under `x_t = x_0 + t·ε`.
struct TwoModes;

const SPREAD: f64 = 0.2;

fn two_modes(x: f64, sigma: f64) -> f64 {
    let (data, noise) = (SPREAD * SPREAD, sigma * sigma);
    let total = data + noise;
    (data * x + noise * (x / total).tanh()) / total
}

impl Denoiser for TwoModes {
    fn predict_x0(&self, x: &Tensor, t: &Tensor, _: &Conditioning) -> Result<Tensor> {
        let sigma = f64::from(t.to_vec1::<f32>()?[0]);
        let x0: Vec<f64> = values(x).into_iter().map(|x| two_modes(x, sigma)).collect();
        Ok(Tensor::from_vec(x0, x.shape(), x.device())?)
    }
}

/// `dx/dσ = (x - D)/σ` by the classical Runge-Kutta rule in `ln σ`, where the slope is `x - D`.
fn runge_kutta(x: f64, from: f64, to: f64) -> f64 {
    let steps = 4000;
    let d = (to / from).ln() / f64::from(steps);
    let slope = |x: f64, log: f64| x - two_modes(x, log.exp());
    (0..steps).fold(x, |x, i| {
        let log = from.ln() + f64::from(i) * d;
        let k1 = slope(x, log);
        let k2 = slope(x + 0.5 * d * k1, log + 0.5 * d);
        let k3 = slope(x + 0.5 * d * k2, log + 0.5 * d);
        let k4 = slope(x + d * k3, log + d);
        x + d / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    })
}

#[test]
fn orders_on_a_mixture() {
    let process = Exploding(5.0);
    let start = vec![-4.0, -0.7, -0.2, 0.15, 0.6, 2.0, 5.5];
    let mut reference = Vec::new();
    let mut error = |sampler: &dyn Sampler, steps: usize| {
        let mut times = karras_times(&process, steps + 1, 5.0, 0.05).unwrap();
        times.pop();
        let mut run = Run::new(
            &process,
            &TwoModes,
            Conditioning::default(),
            SampleNoise::consecutive(1, 0, 1),
        );
        let x = Tensor::from_vec(start.clone(), (1, start.len()), &Device::Cpu).unwrap();
        let end = values(&walk(sampler, &mut run, &times, x));
        if reference.is_empty() {
            let ends = (run.times()[0], *run.times().last().unwrap());
            reference = start.iter().map(|&x| runge_kutta(x, ends.0, ends.1)).collect();
        }
        relative(&end, &reference)
    };
    for (sampler, low, high) in [
        (&Ddim { eta: 0.0 } as &dyn Sampler, 0.9, 1.1),
        (&DpmSolver, 1.85, 2.15),
        (&UniPc, 2.4, 3.3),
        (&Heun, 1.85, 2.15),
    ] {
        let errors = [80, 160, 320].map(|steps| error(sampler, steps));
        let orders = [0, 1].map(|i| (errors[i] / errors[i + 1]).log2());
        println!("{}: errors {errors:?}, orders {orders:.3?}", sampler.name());
        assert!((low..high).contains(&orders[1]), "{}", sampler.name());
    }
}

fn processes() -> Vec<GaussianProcess> {
    [
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
    ]
    .map(|config| config.build().unwrap())
    .to_vec()
}

/// EDM's weights without the guard for long steps.
struct Unguarded;

impl Sampler for Unguarded {
    fn name(&self) -> &'static str {
        "unguarded"
    }
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let (s, t) = (run.process().marginal(from), run.process().marginal(to));
        let (y, high, low) = ((x / s.b)?, s.c / s.b, t.c / t.b);
        let slope = ((&y - run.denoise(x, from)?)? / high)?;
        let guess = (&y + slope.affine(low - high, 0.0)?)?;
        if low == 0.0 {
            return Ok(guess);
        }
        let there = run.denoise(&guess.affine(t.b, 0.0)?, to)?;
        let slope = ((slope + ((&guess - there)? / low)?)? / 2.0)?;
        Ok((y + slope.affine(low - high, 0.0)?)?.affine(t.b, 0.0)?)
    }
    fn evaluations(&self, steps: usize) -> usize {
        2 * steps - 1
    }
}

/// Error at the clean end against the exact flow of `N(.3, .5²)`: `(x - .3b)/√(.25b² + c²)` is kept.
fn clean_error(sampler: &dyn Sampler, process: &GaussianProcess, times: &[f64]) -> f64 {
    let denoiser = Exact {
        process,
        mean: 0.3,
        sd: 0.5,
    };
    let mut run = Run::new(
        process,
        &denoiser,
        Conditioning::default(),
        SampleNoise::consecutive(1, 0, 2),
    );
    let z = run.start(times[0], &[8], DType::F64, &Device::Cpu).unwrap();
    let m = process.marginal(times[0]);
    let start = z
        .affine((0.25 * m.b * m.b + m.c * m.c).sqrt(), 0.3 * m.b)
        .unwrap();
    let end = walk(sampler, &mut run, times, start);
    let expected = z.affine(0.5, 0.3).unwrap();
    relative(&values(&end), &values(&expected))
}

#[test]
fn few_steps_on_the_schedules_of_synthesis() {
    for (i, process) in processes().iter().enumerate() {
        let times = Spacing::Trailing.times(1000, 20).unwrap();
        let error = |sampler: &dyn Sampler, times: &[f64]| clean_error(sampler, process, times);
        let ddim = error(&Ddim { eta: 0.0 }, &times);
        let [solver, unipc, heun] = [&DpmSolver as &dyn Sampler, &UniPc, &Heun].map(|s| error(s, &times));
        let karras = if i == 2 {
            0.0
        } else {
            error(&Heun, &process.karras_times(20).unwrap())
        };
        println!(
            "schedule {i}, 20 steps: ddim {ddim:.4}, dpm++ {solver:.4}, unipc {unipc:.4}, heun {heun:.4}, \
             on a Karras grid {karras:.4}"
        );
        assert!(solver < 0.5 * ddim && unipc < 0.5 * ddim && heun < 0.5 * ddim);
        if i == 1 {
            let wild = error(&Unguarded, &times);
            println!("EDM's weights unguarded on that grid: {wild:.2}");
            assert!(wild > 10.0 * heun, "the guard is not needed");
        }
    }
}

#[test]
fn solvers_draw_the_distribution_of_the_data() {
    let process = &processes()[1];
    let denoiser = Exact {
        process,
        mean: 0.3,
        sd: 0.5,
    };
    let times = Spacing::Trailing.times(1000, 40).unwrap();
    let count = 20_000;
    for sampler in [&DpmSolver as &dyn Sampler, &UniPc, &Heun] {
        let (mean, sd) = statistics(sampler, process, &denoiser, None, &times, count);
        println!("{}, 40 steps: mean {mean:.4}, sd {sd:.4}", sampler.name());
        let error = 4.0 * 0.5 / (count as f64).sqrt();
        // Four standard errors, and one per cent for the steps.
        assert!((mean - 0.3).abs() < error + 0.005 && (sd - 0.5).abs() < error / 2f64.sqrt() + 0.005);
    }
}

#[test]
fn heun_has_the_weights_of_edm() {
    let process = &processes()[0];
    let denoiser = Exact {
        process,
        mean: 0.3,
        sd: 0.5,
    };
    let one = |sampler: &dyn Sampler, times: [f64; 2]| {
        let noise = SampleNoise::consecutive(1, 0, 2);
        let mut run = Run::new(process, &denoiser, Conditioning::default(), noise);
        let x = run.start(times[0], &[8], DType::F64, &Device::Cpu).unwrap();
        values(&walk(sampler, &mut run, &times, x))
    };
    // σ falls by 1.5 and by 50.
    let (short, long) = ([600.0, 540.0], [900.0, 100.0]);
    assert!(relative(&one(&Heun, short), &one(&Unguarded, short)) < 1e-12);
    assert!(relative(&one(&Heun, long), &one(&Unguarded, long)) > 1e-2);
}

/// A prediction that depends on the time alone: `1 + λ - λ²/5`.
struct Polynomial<'a>(&'a dyn ForwardProcess);

impl Denoiser for Polynomial<'_> {
    fn predict_x0(&self, x: &Tensor, t: &Tensor, _: &Conditioning) -> Result<Tensor> {
        let m = self.0.marginal(f64::from(t.to_vec1::<f32>()?[0]));
        Ok(x.affine(0.0, polynomial((m.b / m.c).ln()))?)
    }
}

fn polynomial(lambda: f64) -> f64 {
    1.0 + lambda - lambda * lambda / 5.0
}

#[test]
fn the_corrector_integrates_a_parabola_exactly() {
    let process = &processes()[0];
    let denoiser = Polynomial(process);
    let noise = SampleNoise::consecutive(1, 0, 1);
    let mut run = Run::new(process, &denoiser, Conditioning::default(), noise);
    run.begin(&[900.0, 700.0, 520.0, 300.0]).unwrap();
    let mut x = run.start(900.0, &[3], DType::F64, &Device::Cpu).unwrap();
    let mut predicted = x.clone();
    while let Some(next) = run.advance(&UniPc, &x).unwrap() {
        if run.step() == 2 {
            predicted = next.clone();
        }
        x = next;
    }
    let mut states = run.history().map(|e| values(e.state.as_ref().unwrap())[0]);
    let (late, early) = (states.next().unwrap(), states.next().unwrap());
    let (u, s) = (process.marginal(700.0), process.marginal(520.0));
    let [low, high] = [u, s].map(|m| (m.b / m.c).ln());
    // x_s = (c_s/c_u)·x_u + c_s·∫ e^λ x̂ dλ, by Simpson's rule.
    let count = 2000;
    let width = (high - low) / f64::from(count);
    let integral: f64 = (0..=count)
        .map(|i| {
            let lambda = low + width * f64::from(i);
            let weight = match i {
                0 => 1.0,
                i if i == count => 1.0,
                i if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * width / 3.0 * lambda.exp() * polynomial(lambda)
        })
        .sum();
    let exact = s.c / u.c * early + s.c * integral;
    assert!((late - exact).abs() < 1e-9, "{late} {exact}");
    assert!(
        (values(&predicted)[0] - exact).abs() > 1e-4,
        "the predictor is exact already"
    );
}

#[test]
fn karras_grids_meet_their_levels() {
    for process in &processes()[..2] {
        let times = karras_times(process, 18, 20.0, 0.02).unwrap();
        assert_eq!((times.len(), times[18]), (19, 0.0));
        for (i, &t) in times[..18].iter().enumerate() {
            let m = process.marginal(t);
            let root =
                20f64.powf(1.0 / 7.0) + (0.02f64.powf(1.0 / 7.0) - 20f64.powf(1.0 / 7.0)) * i as f64 / 17.0;
            assert!((m.c / m.b / root.powi(7) - 1.0).abs() < 1e-9, "level {i}");
        }
        let own = process.karras_times(5).unwrap();
        assert!((own[4] - 1.0).abs() < 1e-9 && own[0] <= 1000.0);
    }
    for (steps, high, low) in [
        (0, 20.0, 0.02),
        (5, 0.01, 0.02),
        (5, 20.0, 0.0),
        (5, f64::NAN, 0.1),
    ] {
        assert!(karras_times(&processes()[0], steps, high, low).is_err());
    }
    let bridge = allpet_diffusion::BridgeConfig::default().build().unwrap();
    let message = karras_times(&bridge, 5, 20.0, 0.02).unwrap_err().to_string();
    assert!(message.contains("a bridge (`ddbm-vp`)"), "{message}");
}
