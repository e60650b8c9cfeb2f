//! The conformance checks must fail for samplers that break them, and the traits must hold what is not Gaussian
//! DDPM: a multistep sampler and a bridge, written here against the public interface alone.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

mod common;
mod flow;

use allpet_core::{fill_normal, stream};
use allpet_diffusion::{
    BridgeConfig, BridgeSchedule, BridgeSpacing, Error, ForwardProcess, Marginal, Prediction, ProcessConfig,
    Result, Run, SAMPLERS, Sampler, Schedule, Spacing, built_in_samplers, check, sampler_by_name,
    sampler_for, samplers_for,
};
use candle_core::{Device, Tensor};
use common::{Exact, statistics};
use flow::{Exploding, measured_order};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

enum Fault {
    DrawsFromAClock,
    DrawsForTheBatch,
    CallsTwice,
}

/// DDIM with one fault.
struct Broken {
    fault: Fault,
    state: AtomicU64,
}

impl Sampler for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let next = allpet_diffusion::Ddim { eta: 0.0 }.step(run, from, to, x)?;
        let draw = |index: u64| -> Result<Tensor> {
            let mut values = vec![0f32; x.elem_count()];
            fill_normal(&mut stream(1, "broken", index), &mut values);
            Ok(Tensor::from_vec(values, x.shape(), &Device::Cpu)?)
        };
        match self.fault {
            Fault::DrawsFromAClock => Ok((next + draw(self.state.fetch_add(1, Ordering::SeqCst))?)?),
            Fault::DrawsForTheBatch => Ok((next + draw(run.step() as u64)?)?),
            Fault::CallsTwice => {
                run.denoise(x, from)?;
                Ok(next)
            }
        }
    }
    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

#[test]
fn conformance_catches_broken_samplers() {
    let process = ProcessConfig::default().build().unwrap();
    let times = Spacing::Trailing.times(1000, 6).unwrap();
    for (fault, expected) in [
        (Fault::DrawsFromAClock, "determinism"),
        (Fault::DrawsForTheBatch, "batch invariance"),
        (Fault::CallsTwice, "evaluations"),
    ] {
        let broken = Broken {
            fault,
            state: AtomicU64::new(0),
        };
        match check::check_sampler(&broken, &process, &times) {
            Err(Error::Conformance { property, .. }) => assert_eq!(property, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

/// DPM-Solver++(2M), Lu et al. (2022), on any Gaussian process; its memory is the run's.
struct Multistep;

impl Sampler for Multistep {
    fn name(&self) -> &'static str {
        "dpm++2m"
    }
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let x0 = run.denoise(x, from)?;
        let (t, p) = (run.process().marginal(from), run.process().marginal(to));
        let lambda = |m: Marginal| (m.b / m.c).ln();
        let mut guess = x0.clone();
        if let (Some(last), true) = (run.history().next(), p.c > 0.0) {
            let ratio = (lambda(p) - lambda(t)) / (lambda(t) - lambda(run.process().marginal(last.time)));
            guess = (x0.affine(1.0 + 0.5 * ratio, 0.0)? - last.x0.affine(0.5 * ratio, 0.0)?)?;
        }
        run.remember(from, &x0);
        let kept = p.c / t.c;
        Ok((x.affine(kept, 0.0)? + guess.affine(p.b - kept * t.b, 0.0)?)?)
    }
    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

#[test]
fn a_multistep_sampler_fits() {
    let process = ProcessConfig::default().build().unwrap();
    check::check_sampler(&Multistep, &process, &Spacing::Trailing.times(1000, 10).unwrap()).unwrap();
    let order = measured_order(&Multistep, 160);
    println!("DPM-Solver++(2M), 160 to 320 steps: order {order:.3}");
    assert!((order - 2.0).abs() < 0.1);
}

/// A multistep method that keeps its last evaluation in a field and forgets it when a walk begins, so that only two
/// walks in turns can show the fault.
struct Stateful(Mutex<Option<Tensor>>);

impl Sampler for Stateful {
    fn name(&self) -> &'static str {
        "stateful"
    }
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let next = allpet_diffusion::Ddim { eta: 0.0 }.step(run, from, to, x)?;
        match self.0.lock().unwrap().replace(next.clone()) {
            Some(last) if run.step() > 0 && last.dims() == next.dims() => {
                Ok((next.affine(1.1, 0.0)? - last.affine(0.1, 0.0)?)?)
            }
            _ => Ok(next),
        }
    }
    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

#[test]
fn state_outside_the_run_is_caught() {
    let process = ProcessConfig::default().build().unwrap();
    let times = Spacing::Trailing.times(1000, 6).unwrap();
    match check::check_sampler(&Stateful(Mutex::new(None)), &process, &times) {
        Err(Error::Conformance { property, .. }) => assert_eq!(property, "independent runs"),
        other => panic!("a sampler that keeps state passes: {other:?}"),
    }
}

/// The variance-preserving bridge of Zhou et al. (2023), `β_d = 2`, `β_min = 0.1`, `T = 1`.
struct Bridge;

impl Bridge {
    fn base(t: f64) -> (f64, f64) {
        let integral = t * t + 0.1 * t;
        ((-0.5 * integral).exp(), integral.exp_m1())
    }
}

impl ForwardProcess for Bridge {
    fn marginal(&self, t: f64) -> Marginal {
        let ((alpha, rho2), (alpha_end, rho2_end)) = (Self::base(t.clamp(0.0, 1.0)), Self::base(1.0));
        let rest = 1.0 - rho2 / rho2_end;
        Marginal {
            a: alpha / alpha_end * rho2 / rho2_end,
            b: alpha * rest,
            c: alpha * (rho2 * rest).sqrt(),
        }
    }
    fn terminal(&self) -> f64 {
        1.0
    }
    fn training_time(&self, unit: f64) -> f64 {
        1e-4 + unit * (1.0 - 2e-4)
    }
}

/// DBIM of first order without noise, Zheng et al. (2024), with its booting noise on the step out of `T`.
struct BridgeImplicit;

impl Sampler for BridgeImplicit {
    fn name(&self) -> &'static str {
        "dbim"
    }
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor> {
        let x0 = run.denoise(x, from)?;
        let terminal = run.conditioning().terminal.clone().ok_or(Error::NoTerminal)?;
        let (s, t) = (run.process().marginal(from), run.process().marginal(to));
        let (other, kept) = if from == run.process().terminal() {
            (run.noise_like("diffusion noise", x)?.affine(t.c, 0.0)?, 0.0)
        } else {
            (x.affine(t.c / s.c, 0.0)?, t.c / s.c)
        };
        let fixed = terminal.affine(t.a - kept * s.a, 0.0)?;
        Ok(((other + x0.affine(t.b - kept * s.b, 0.0)?)? + fixed)?)
    }
    fn evaluations(&self, steps: usize) -> usize {
        steps
    }
}

#[test]
fn a_bridge_fits() {
    let golden = Bridge.marginal(0.5);
    for (got, expected) in [(golden.a, 0.260422), (golden.b, 0.710458), (golden.c, 0.462534)] {
        assert!((got - expected).abs() < 1e-6);
    }
    let denoiser = Exact {
        process: &Bridge,
        mean: 0.3,
        sd: 0.5,
    };
    // Standard deviations of the exact recursion for 5, 10 and 20 evaluations on a uniform grid from T - 1e-3.
    for (evaluations, expected) in [(5, 0.3596), (10, 0.4315), (20, 0.4655)] {
        let steps = evaluations - 1;
        let (first, last) = (1.0 - 1e-3, 1e-4);
        let grid = (0..=steps).map(|i| first + (last - first) * f64::from(i) / f64::from(steps));
        let times: Vec<f64> = std::iter::once(1.0).chain(grid).collect();
        let (mean, sd) = statistics(&BridgeImplicit, &Bridge, &denoiser, Some(-1.0), &times, 50_000);
        println!("DBIM, {evaluations} evaluations: mean {mean:.4}, sd {sd:.4} (exact {expected})");
        let error = 4.0 * expected / 50_000f64.sqrt();
        assert!((mean - 0.3).abs() < error && (sd - expected).abs() < error / 2f64.sqrt() + 1e-4);
        check::check_sampler(&BridgeImplicit, &Bridge, &times).unwrap();
    }
    let message = check::check_sampler(&allpet_diffusion::Ddpm, &Bridge, &[0.9, 0.5])
        .unwrap_err()
        .to_string();
    assert!(message.contains("the process is a bridge"), "{message}");
    // DDBM's own sampler needs more than marginals, and says so.
    let message = check::check_sampler(&allpet_diffusion::DdbmHeun::default(), &Bridge, &[0.9, 0.5])
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("expected its drift and diffusion too"),
        "{message}"
    );
}

/// A process and the grids it is sampled on.
type Sampled = (Box<dyn ForwardProcess>, Vec<Vec<f64>>);

fn processes() -> Vec<Sampled> {
    let mut list: Vec<Sampled> = Vec::new();
    let gaussian = [
        ProcessConfig::default(),
        ProcessConfig {
            schedule: Schedule::cosine(),
            ..ProcessConfig::default()
        },
        ProcessConfig {
            schedule: Schedule::scaled_linear(),
            zero_terminal_snr: true,
            prediction: Prediction::X0,
            ..ProcessConfig::default()
        },
    ];
    for config in gaussian {
        let process = config.build().unwrap();
        let mut grids = [
            Spacing::Leading,
            Spacing::Linspace,
            Spacing::Trailing,
            Spacing::LatentDiffusion,
        ]
        .map(|spacing| spacing.times(1000, 7).unwrap())
        .to_vec();
        grids.push(process.karras_times(7).unwrap());
        grids.push(vec![1000.0, 0.0]);
        list.push((config.build_any().unwrap(), grids));
    }
    list.push((Box::new(Exploding(20.0)), vec![vec![20.0, 4.0, 1.0, 0.2, 0.0]]));
    for schedule in [BridgeSchedule::vp(), BridgeSchedule::ve(), BridgeSchedule::i2sb()] {
        let config = ProcessConfig::default().with_bridge(BridgeConfig::new(schedule));
        let process = config.build_bridge().unwrap();
        let end = process.terminal();
        let mut grids = vec![[0.9, 0.6, 0.3, 0.1].map(|t| t * end).to_vec()];
        for steps in [1, 2, 6] {
            grids.extend(
                [
                    BridgeSpacing::Uniform,
                    BridgeSpacing::Quadratic,
                    BridgeSpacing::Karras,
                    BridgeSpacing::Ddbm,
                ]
                .map(|spacing| spacing.times(&process, steps).unwrap()),
            );
        }
        grids.push(vec![end, 0.5 * end, 0.0]);
        list.push((config.build_any().unwrap(), grids));
    }
    list
}

#[test]
fn every_registered_sampler_conforms_on_every_process_it_fits() {
    let (mut checked, mut refused) = (0, 0);
    for (process, grids) in processes() {
        let fitting = samplers_for(process.kind());
        for sampler in built_in_samplers() {
            assert!(SAMPLERS.contains(&sampler.name()));
            assert_eq!(fitting.contains(&sampler.name()), sampler.fits(process.kind()));
            for times in &grids {
                let result = check::check_sampler(sampler.as_ref(), &process, times);
                if sampler.fits(process.kind()) {
                    result.unwrap_or_else(|e| panic!("{} on {}: {e}", sampler.name(), process.name()));
                    checked += 1;
                } else {
                    assert!(matches!(result, Err(Error::Unfit { .. })), "{}", sampler.name());
                    refused += 1;
                }
            }
        }
        check::check_built_in(&process, &grids[0]).unwrap();
        for name in SAMPLERS {
            assert_eq!(sampler_by_name(name, 0.0).unwrap().name(), *name);
            let found = sampler_for(&process, name, 0.0);
            assert_eq!(found.is_ok(), fitting.contains(name));
        }
    }
    println!("{checked} pairs conform, {refused} are refused");
    assert!(checked > 150 && refused > 100);
    // Each name is registered once and is in the list that the checks run over.
    for name in SAMPLERS {
        assert_eq!(SAMPLERS.iter().filter(|n| *n == name).count(), 1);
        assert!(built_in_samplers().iter().any(|s| s.name() == *name), "{name}");
    }
}
