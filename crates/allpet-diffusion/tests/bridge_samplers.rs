//! Samplers of bridges against the analytic Gaussian bridge, exact posteriors and exact solutions of the flow.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

mod common;

use allpet_diffusion::{
    BridgeProcess, BridgeSchedule, BridgeSpacing, Conditioning, Dbim, DdbmHeun, Ddim, Denoiser, Error,
    ForwardProcess, I2sb, Marginal, ProcessConfig, ProcessKind, Result, Run, SampleNoise, Sampler,
    built_in_samplers, sampler_by_name, sampler_for, samplers_for,
};
use candle_core::{DType, Device, Tensor};
use common::{Exact, relative, statistics, values, walk};

fn bridge(schedule: BridgeSchedule) -> BridgeProcess {
    BridgeProcess::new(schedule).unwrap()
}

fn bridges() -> [BridgeProcess; 3] {
    [BridgeSchedule::vp(), BridgeSchedule::ve(), BridgeSchedule::i2sb()].map(bridge)
}

fn dbim1(eta: f64) -> Dbim {
    Dbim::first_order(eta).unwrap()
}

/// Data of the analytic test: `x_0 ~ N(.3, .5²)` whatever `x_T` is, which is -1.
fn exact(process: &dyn ForwardProcess) -> Exact<'_> {
    Exact {
        process,
        mean: 0.3,
        sd: 0.5,
    }
}

fn to(terminal: Tensor) -> Conditioning {
    Conditioning {
        terminal: Some(terminal),
        ..Conditioning::default()
    }
}

fn normal(what: &str, count: usize, dims: &[usize]) -> Tensor {
    SampleNoise::consecutive(5, 0, count)
        .normal(what, 0, dims, DType::F64, &Device::Cpu)
        .unwrap()
}

/// Mean and standard deviation that a sampler without noise but the booting one ends with, exactly: in f64 its result
/// is `mean + sd·ε`. `last` steps of the grid are left out.
fn affine_law(sampler: &dyn Sampler, process: &dyn ForwardProcess, times: &[f64], last: usize) -> (f64, f64) {
    affine_law_of(&exact(process), sampler, times, last)
}

fn affine_law_of(denoiser: &Exact<'_>, sampler: &dyn Sampler, times: &[f64], last: usize) -> (f64, f64) {
    let process = denoiser.process;
    let noise = SampleNoise::consecutive(3, 0, 2);
    let terminal = Tensor::full(-1f64, (2, 1), &Device::Cpu).unwrap();
    let boot = noise
        .normal("diffusion noise", 0, &[1], DType::F64, &Device::Cpu)
        .unwrap();
    let mut run = Run::new(process, denoiser, to(terminal.clone()), noise);
    run.begin(times).unwrap();
    let mut x = terminal;
    while run.step() + 1 + last < times.len() {
        x = run.advance(sampler, &x).unwrap().unwrap();
    }
    let (x, boot) = (values(&x), values(&boot));
    let sd = (x[0] - x[1]) / (boot[0] - boot[1]);
    (x[0] - sd * boot[0], sd)
}

#[test]
fn dbim_on_the_analytic_bridge() {
    let process = bridge(BridgeSchedule::vp());
    let law = |sampler: &dyn Sampler, evaluations: usize| {
        let times = BridgeSpacing::Uniform.times(&process, evaluations).unwrap();
        affine_law(sampler, &process, &times, 0)
    };
    // Evaluations, standard deviation of the first and of the second order.
    for (evaluations, first, second) in [
        (5, 0.3596, 0.3896),
        (10, 0.4315, 0.4741),
        (20, 0.4655, 0.4926),
        (6, 0.3844, 0.4240),
        (11, 0.4378, 0.4787),
        (21, 0.4671, 0.4931),
    ] {
        for (sampler, expected) in [(dbim1(0.0), first), (Dbim::second_order(), second)] {
            let (mean, sd) = law(&sampler, evaluations);
            println!(
                "{}, {evaluations} evaluations: mean {mean:.4}, sd {sd:.4}",
                sampler.name()
            );
            assert!((sd - expected).abs() < 6e-5, "{sd} for {expected}");
            assert!((mean - 0.3).abs() < 6e-4, "{mean}");
        }
    }
    let many = law(&Dbim::second_order(), 320);
    assert!(
        (many.0 - 0.3).abs() < 1e-4 && (many.1 - 0.5).abs() < 5e-4,
        "{many:?}"
    );
}

#[test]
fn dbim_needs_its_booting_noise_and_its_first_order_last_step() {
    let process = bridge(BridgeSchedule::vp());
    let times = BridgeSpacing::Uniform.times(&process, 5).unwrap();
    // Without the step out of T nothing random is left.
    let (_, sd) = statistics(
        &dbim1(0.0),
        &process,
        &exact(&process),
        Some(-1.0),
        &times[1..],
        64,
    );
    assert!(sd < 1e-6, "{sd}");
    // One time more makes the step to t_min an inner one, and so of second order.
    let longer: Vec<f64> = times.iter().copied().chain([0.5e-4]).collect();
    let (_, wild) = affine_law(&Dbim::second_order(), &process, &longer, 1);
    println!("second order also in the last step, 5 evaluations: sd {wild:.3}");
    assert!((wild - 0.92).abs() < 0.01);
}

#[test]
fn the_suited_grid_keeps_the_spread_of_narrow_posteriors() {
    // Spread after 10 evaluations over that of the data, for data of spread 0.5 and 0.1.
    for (process, suited, uniform) in [
        (bridge(BridgeSchedule::vp()), [0.973, 0.950], [0.948, 0.564]),
        (bridge(BridgeSchedule::ve()), [1.187, 0.967], [0.060, 0.031]),
        (bridge(BridgeSchedule::i2sb()), [0.875, 0.953], [0.917, 0.675]),
    ] {
        let sampler = Dbim::second_order();
        for (spacing, expected) in [
            (BridgeSpacing::suited_to(sampler.name(), &process), suited),
            (BridgeSpacing::Uniform, uniform),
        ] {
            let times = spacing.times(&process, 10).unwrap();
            let spread = [0.5, 0.1].map(|sd| {
                let denoiser = Exact {
                    process: &process,
                    mean: 0.3,
                    sd,
                };
                affine_law_of(&denoiser, &sampler, &times, 0).1 / sd
            });
            println!("{} {spacing:?}: {spread:.3?}", process.name());
            for (got, expected) in spread.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-3);
            }
        }
    }
}

#[test]
fn no_graph_is_left_behind() {
    let process = bridge(BridgeSchedule::vp());
    let gaussian = ProcessConfig::default().build().unwrap();
    let scale = candle_core::Var::new(0.9f32, &Device::Cpu).unwrap();
    let end = candle_core::Var::from_tensor(&normal("end", 2, &[4]).to_dtype(DType::F32).unwrap()).unwrap();
    struct Scaled(Tensor);
    impl Denoiser for Scaled {
        fn predict_x0(&self, x: &Tensor, _: &Tensor, _: &Conditioning) -> Result<Tensor> {
            Ok(x.broadcast_mul(&self.0)?)
        }
    }
    let denoiser = Scaled(scale.as_tensor().clone());
    for process in [&process as &dyn ForwardProcess, &gaussian] {
        for sampler in built_in_samplers().iter().filter(|s| s.fits(process.kind())) {
            let noise = SampleNoise::consecutive(6, 0, 2);
            let mut run = Run::new(process, &denoiser, to(end.as_tensor().clone()), noise);
            let times: Vec<f64> = [0.999, 0.8, 0.55, 0.2, 0.01, 0.0]
                .map(|t| t * process.terminal())
                .to_vec();
            let start = run.start(times[0], &[4], DType::F32, &Device::Cpu).unwrap();
            let x = walk(sampler.as_ref(), &mut run, &times, start);
            let kept = run
                .history()
                .flat_map(|e| [Some(&e.x0), e.state.as_ref()])
                .flatten();
            assert!(
                !x.track_op() && kept.into_iter().all(|x| !x.track_op()),
                "{}",
                sampler.name()
            );
        }
    }
}

#[test]
fn ddbm_with_churn_and_its_collapse_without() {
    let process = bridge(BridgeSchedule::vp());
    let denoiser = exact(&process);
    let count = 50_000;
    let law = |sampler: &DdbmHeun, steps: usize, count: usize| {
        let times = BridgeSpacing::Ddbm.times(&process, steps).unwrap();
        let (mean, sd) = statistics(sampler, &process, &denoiser, Some(-1.0), &times, count);
        let calls = sampler.evaluations_on(&process, &times);
        println!(
            "ddbm, churn {}, {calls} evaluations: mean {mean:.4}, sd {sd:.4}",
            sampler.churn()
        );
        (mean, sd, calls)
    };
    for (steps, calls, expected) in [(10, 29, 0.595), (40, 119, 0.529)] {
        let (_, sd, counted) = law(&DdbmHeun::default(), steps, count);
        assert_eq!((counted, DdbmHeun::default().evaluations(steps)), (calls, calls));
        let error = 4.0 * expected / (2.0 * count as f64).sqrt();
        assert!((sd - expected).abs() < error + 5e-4, "{sd}");
    }
    // All samples are one, and not the mean of the data, .3.
    let (mean, sd, calls) = law(&DdbmHeun::new(0.0).unwrap(), 40, 64);
    assert_eq!(calls, 79);
    assert!(sd < 1e-6 && (mean - 0.179).abs() < 6e-4, "{mean} {sd}");
}

/// Relative error of a sampler without noise on the flow of `x_0 ~ N(.3, .5²)`, `x_T = -1` from `first` to `last`, where
/// `(x - a·x_T - .3·b)/√(.5²·b² + c²)` stays as it is.
fn bridge_error(sampler: &dyn Sampler, process: &BridgeProcess, first: f64, last: f64, steps: usize) -> f64 {
    let denoiser = exact(process);
    let share = |i: usize| i as f64 / steps as f64;
    let times: Vec<f64> = (0..=steps).map(|i| first + (last - first) * share(i)).collect();
    let z = normal("z", 1, &[16]);
    let terminal = Tensor::full(-1f64, (1, 16), &Device::Cpu).unwrap();
    let state = |t: f64| {
        let m = process.marginal(f64::from(t as f32));
        let spread = (0.25 * m.b * m.b + m.c * m.c).sqrt();
        z.affine(spread, 0.3 * m.b - m.a).unwrap()
    };
    let mut run = Run::new(
        process,
        &denoiser,
        to(terminal),
        SampleNoise::consecutive(1, 0, 1),
    );
    let end = walk(sampler, &mut run, &times, state(first));
    relative(&values(&end), &values(&state(last)))
}

#[test]
fn orders_of_convergence() {
    for process in bridges() {
        let end = process.terminal();
        let order = |sampler: &dyn Sampler, first: f64, last: f64, steps: usize| {
            let error = |n| bridge_error(sampler, &process, first * end, last * end, n);
            (error(steps) / error(2 * steps)).log2()
        };
        let heun = DdbmHeun::new(0.0).unwrap();
        let second = Dbim::second_order();
        for (sampler, low, high) in [
            (&dbim1(0.0) as &dyn Sampler, 0.9, 1.1),
            (&second, 1.85, 2.1),
            (&heun, 1.85, 2.15),
        ] {
            let measured = [20, 40, 80].map(|n| order(sampler, 0.9, 0.2, n));
            println!(
                "{} on {}: {measured:.3?}, from T - 1e-3: {:.3}",
                sampler.name(),
                process.name(),
                order(sampler, 0.999, 1e-3, 80)
            );
            assert!((low..high).contains(&measured[2]));
        }
    }
}

struct Fixed(Tensor);

impl Denoiser for Fixed {
    fn predict_x0(&self, _: &Tensor, _: &Tensor, _: &Conditioning) -> Result<Tensor> {
        Ok(self.0.clone())
    }
}

/// One inner step with a given `x̂`; returns the result and the noise of the step.
fn one_step(
    sampler: &dyn Sampler,
    process: &BridgeProcess,
    from: f64,
    to_: f64,
    x: &Tensor,
) -> [Vec<f64>; 2] {
    let noise = SampleNoise::consecutive(9, 0, 2);
    let u = noise
        .normal("diffusion noise", 0, &[6], DType::F64, &Device::Cpu)
        .unwrap();
    let denoiser = Fixed(normal("x0", 2, &[6]));
    let mut run = Run::new(process, &denoiser, to(normal("terminal", 2, &[6])), noise);
    run.begin(&[from, to_, 0.5 * to_]).unwrap();
    let next = run.advance(sampler, x).unwrap().unwrap();
    [values(&next), values(&u)]
}

#[test]
fn the_stochastic_limit_is_the_exact_posterior() {
    for process in bridges() {
        let end = process.terminal();
        for (from, to_) in [(1.0, 0.7), (0.8, 0.79), (0.8, 0.3), (0.3, 0.01)] {
            let grid = [from * end, to_ * end].map(|t| f64::from(t as f32));
            // At T the state is x_T itself.
            let x = if from == 1.0 {
                normal("terminal", 2, &[6])
            } else {
                normal("x", 2, &[6])
            };
            // q(x_t | x_s, x_0) by Bayes: x_t | x_0 of the diffusion, and x_s | x_t.
            let (s, t) = (process.sde(grid[0]).unwrap(), process.sde(grid[1]).unwrap());
            let (prior, slope) = (t.alpha.powi(2) * t.rho2, s.alpha / t.alpha);
            let likelihood = s.alpha.powi(2) * (s.rho2 - t.rho2);
            let precision = 1.0 / prior + slope * slope / likelihood;
            let x0 = values(&normal("x0", 2, &[6]));
            let expected = |u: &[f64]| -> Vec<f64> {
                let mean = |i: usize| t.alpha / prior * x0[i] + slope / likelihood * values(&x)[i];
                (0..12)
                    .map(|i| mean(i) / precision + u[i] / precision.sqrt())
                    .collect()
            };
            for sampler in [&I2sb as &dyn Sampler, &dbim1(1.0)] {
                let [next, u] = one_step(sampler, &process, grid[0], grid[1], &x);
                assert!(relative(&next, &expected(&u)) < 1e-9, "{}", process.name());
            }
            let [next, u] = one_step(&dbim1(0.9), &process, grid[0], grid[1], &x);
            let off = relative(&next, &expected(&u));
            // Out of T the noise is full whatever eta is.
            assert!((off < 1e-9) == (from == 1.0), "eta 0.9: {off}");
        }
    }
}

#[test]
fn every_eta_keeps_the_marginal() {
    // With x̂ = x_0 a state a·x_T + b·x_0 + c·ε must become one of the next time: its noise has k²c_s² + ω² = c_t².
    for process in bridges() {
        let grid = [0.8, 0.3].map(|share| f64::from((share * process.terminal()) as f32));
        let [x0, terminal, eps] = ["x0", "terminal", "eps"].map(|what| normal(what, 2, &[6]));
        let mix = |m: Marginal, eps: &Tensor| {
            let fixed = (terminal.affine(m.a, 0.0).unwrap() + x0.affine(m.b, 0.0).unwrap()).unwrap();
            (fixed + eps.affine(m.c, 0.0).unwrap()).unwrap()
        };
        let (s, t) = (process.marginal(grid[0]), process.marginal(grid[1]));
        for eta in [0.0, 0.3, 0.8, 1.0] {
            let step = |eps: &Tensor| one_step(&dbim1(eta), &process, grid[0], grid[1], &mix(s, eps));
            let ([with, u], [without, _]) = (step(&eps), step(&eps.zeros_like().unwrap()));
            let centre = values(&mix(t, &eps.zeros_like().unwrap()));
            let ratio = (with[0] - without[0]) / values(&eps)[0];
            let omega = (without[0] - centre[0]) / u[0];
            assert!(((ratio * ratio + omega * omega) / (t.c * t.c) - 1.0).abs() < 1e-9);
            for i in 0..12 {
                assert!((without[i] - centre[i] - omega * u[i]).abs() < 1e-9 * (1.0 + centre[i].abs()));
            }
            assert_eq!(omega.abs() < 1e-9, eta == 0.0);
        }
    }
}

/// `x_t = x_0 + t·ε`, the variance-exploding bridge with its end at infinity.
struct Exploding;

impl ForwardProcess for Exploding {
    fn marginal(&self, t: f64) -> Marginal {
        Marginal { a: 0.0, b: 1.0, c: t }
    }
    fn terminal(&self) -> f64 {
        1e9
    }
    fn training_time(&self, unit: f64) -> f64 {
        unit
    }
}

#[test]
fn far_from_its_end_dbim_is_ddim() {
    let (x, x0) = (normal("x", 2, &[6]), normal("x0", 2, &[6]));
    let noise = || SampleNoise::consecutive(9, 0, 2);
    for eta in [0.0, 0.6, 1.0] {
        let gaussian = {
            let denoiser = Fixed(x0.clone());
            let mut run = Run::new(&Exploding, &denoiser, Conditioning::default(), noise());
            run.begin(&[2.0, 1.0, 0.5]).unwrap();
            values(&run.advance(&Ddim { eta }, &x).unwrap().unwrap())
        };
        let gap = |terminal: f64| {
            let process = bridge(BridgeSchedule::DdbmVe { terminal });
            let [next, _] = one_step(&dbim1(eta), &process, 2.0, 1.0, &x);
            relative(&next, &gaussian)
        };
        let gaps = [1e2, 1e3, 1e4].map(gap);
        println!("dbim1 against ddim, eta {eta}, T = 1e2, 1e3, 1e4: {gaps:?}");
        if eta == 1.0 {
            // The posterior forgets x_T, and with it T.
            assert!(gaps.iter().all(|gap| *gap < 1e-14));
            continue;
        }
        assert!(gaps[2] < 1e-7);
        for pair in gaps.windows(2) {
            assert!(
                (pair[0] / pair[1] - 100.0).abs() < 1.0,
                "not of order T^-2: {gaps:?}"
            );
        }
    }
}

#[test]
fn one_evaluation_is_the_prediction_at_the_end() {
    let process = bridge(BridgeSchedule::vp());
    let denoiser = exact(&process);
    let times = BridgeSpacing::Uniform.times(&process, 1).unwrap();
    for sampler in [&Dbim::second_order() as &dyn Sampler, &dbim1(0.0), &I2sb] {
        let (mean, sd) = statistics(sampler, &process, &denoiser, Some(-1.0), &times, 16);
        assert!((mean - 0.3).abs() < 1e-3 && sd < 1e-6, "{}", sampler.name());
    }
}

#[test]
fn a_sample_has_the_same_bytes_alone_and_among_eight() {
    let gaussian = ProcessConfig::default().build().unwrap();
    let mut processes: Vec<Box<dyn ForwardProcess>> = vec![Box::new(gaussian)];
    processes.extend(bridges().map(|p| Box::new(p) as Box<dyn ForwardProcess>));
    let dims = [2usize, 5];
    for process in &processes {
        let end = process.terminal();
        let times: Vec<f64> = [0.999, 0.8, 0.55, 0.2, 0.01, 0.0].map(|t| t * end).to_vec();
        for sampler in built_in_samplers().iter().filter(|s| s.fits(process.kind())) {
            let denoiser = allpet_diffusion::check::GaussianDenoiser { process, sd: 0.7 };
            let restore = |indices: Vec<u64>| {
                let noise = SampleNoise::new(8, indices);
                let terminal = noise.normal("end", 0, &dims, DType::F32, &Device::Cpu).unwrap();
                let mut run = Run::new(process, &denoiser, to(terminal), noise);
                let x = run.start(times[0], &dims, DType::F32, &Device::Cpu).unwrap();
                let x = walk(sampler.as_ref(), &mut run, &times, x);
                assert!(!x.track_op());
                x.flatten_from(1).unwrap().to_vec2::<f32>().unwrap()
            };
            let eight = restore((0..8).collect());
            for (i, row) in eight.iter().enumerate() {
                assert_eq!(restore(vec![i as u64])[0], *row, "{}", sampler.name());
                assert!(row.iter().all(|v| v.is_finite()));
            }
            assert_ne!(eight[0], eight[1]);
        }
    }
}

#[test]
fn faults_name_sampler_and_process() {
    let gaussian = ProcessConfig::default().build().unwrap();
    let process = bridge(BridgeSchedule::vp());
    assert_eq!(
        sampler_for(&gaussian, "dbim2", 0.0).err().unwrap().to_string(),
        "sampler `dbim2` is made for a bridge, but the process is a Gaussian process (`gaussian`); \
         samplers for it: ddpm, ddim, dpm++, unipc, heun"
    );
    assert_eq!(
        sampler_for(&process, "unipc", 0.0).err().unwrap().to_string(),
        "sampler `unipc` is made for a Gaussian process, but the process is a bridge (`ddbm-vp`); \
         samplers for it: dbim1, dbim2, i2sb, ddbm"
    );
    assert_eq!(
        samplers_for(ProcessKind::Bridge),
        ["dbim1", "dbim2", "i2sb", "ddbm"]
    );
    for name in ["dpm++", "unipc", "heun", "dbim2"] {
        let message = sampler_by_name(name, 0.5).err().unwrap().to_string();
        assert!(message.contains("eta is 0.5, expected 0"), "{message}");
    }
    assert!(Dbim::first_order(1.1).is_err() && DdbmHeun::new(1.0).is_err());

    let denoiser = exact(&process);
    let x = normal("x", 2, &[3]);
    let step = |sampler: &dyn Sampler, conditioning: Conditioning, times: &[f64]| {
        let mut run = Run::new(
            &process,
            &denoiser,
            conditioning,
            SampleNoise::consecutive(1, 0, 2),
        );
        run.begin(times).unwrap();
        run.advance(sampler, &x).map(|_| ())
    };
    let full = || to(normal("terminal", 2, &[3]));
    for sampler in built_in_samplers() {
        let result = step(sampler.as_ref(), full(), &[0.9, 0.5]);
        if sampler.fits(ProcessKind::Bridge) {
            result.unwrap();
            let without = step(sampler.as_ref(), Conditioning::default(), &[0.9, 0.5]);
            assert!(matches!(without, Err(Error::NoTerminal)), "{}", sampler.name());
            let narrow = step(sampler.as_ref(), to(normal("terminal", 2, &[1])), &[0.9, 0.5]);
            assert!(matches!(narrow, Err(Error::Shape { .. })));
        } else {
            assert!(matches!(result, Err(Error::Unfit { .. })), "{}", sampler.name());
        }
    }
    // From T itself DDBM needs churn.
    step(&DdbmHeun::default(), full(), &[1.0, 0.5]).unwrap();
    let refused = step(&DdbmHeun::new(0.0).unwrap(), full(), &[1.0, 0.5]).unwrap_err();
    assert!(refused.to_string().contains("singular at T"), "{refused}");
}
