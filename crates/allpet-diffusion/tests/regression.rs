//! Preconditioning by both ends against Gaussian conditioning on the joint covariance of `x_0`, `x_T` and `x_t`; a broken
//! control beside each check.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_diffusion::{
    BridgeProcess, BridgeSchedule, BridgeSpacing, Conditioning, EndMoments, ForwardProcess,
    JointlyPreconditioned, Marginal, Run, SampleNoise, sample, sampler_for, training,
};
use candle_core::{DType, Device, Tensor};
use std::ops::ControlFlow;

mod jointly;
use jointly::{alone, channels, draw, flipped, moments, pairs, values, worst};

const SHARES: [f64; 6] = [0.01, 0.1, 0.37, 0.62, 0.9, 0.99];

fn bridges() -> [BridgeProcess; 3] {
    [BridgeSchedule::vp(), BridgeSchedule::ve(), BridgeSchedule::i2sb()]
        .map(|schedule| BridgeProcess::new(schedule).unwrap())
}

/// Mean and covariance of `(x_0, x_T, x_t)` of a channel, from `x_t = a·x_T + b·x_0 + c·ε`.
fn joint(moments: &EndMoments, m: Marginal, channel: usize) -> ([f64; 3], [[f64; 3]; 3]) {
    let (sd0, sd_t) = (moments.sd_data[channel], moments.sd_terminal[channel]);
    let cross = moments.correlation[channel] * sd0 * sd_t;
    let ends = [
        [sd0 * sd0, cross, 0.0],
        [cross, sd_t * sd_t, 0.0],
        [0.0, 0.0, 1.0],
    ];
    let map = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [m.b, m.a, m.c]];
    let of_ends = [moments.mean_data[channel], moments.mean_terminal[channel], 0.0];
    let mean = map.map(|row| (0..3).map(|k| row[k] * of_ends[k]).sum());
    let covariance = map.map(|left| {
        map.map(|right| {
            (0..3)
                .flat_map(|i| (0..3).map(move |j| (i, j)))
                .map(|(i, j)| left[i] * ends[i][j] * right[j])
                .sum()
        })
    });
    (mean, covariance)
}

/// Weights of `x_T - E x_T` and `x_t - E x_t` in `E[x_0 | x_T, x_t]`, and the variance left: `S_12·S_22⁻¹` by Cramer's rule.
fn conditioned(covariance: &[[f64; 3]; 3]) -> ([f64; 2], f64) {
    let [s0, st, sx] = covariance;
    let determinant = st[1] * sx[2] - st[2] * sx[1];
    let weights = [
        (s0[1] * sx[2] - s0[2] * sx[1]) / determinant,
        (s0[2] * st[1] - s0[1] * st[2]) / determinant,
    ];
    (weights, s0[0] - weights[0] * s0[1] - weights[1] * s0[2])
}

/// Mean and standard deviation of each of three channels of `[1, 3, N]`.
fn by_channel(x: &Tensor) -> Vec<[f64; 2]> {
    let values = values(x);
    values
        .chunks_exact(values.len() / 3)
        .map(|v| {
            let n = v.len() as f64;
            let mean = v.iter().sum::<f64>() / n;
            [
                mean,
                (v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt(),
            ]
        })
        .collect()
}

#[test]
fn without_a_network_the_estimate_is_the_conditional_mean() {
    let (count, dtype) = (50, DType::F64);
    let (x0, terminal) = pairs(&moments(), 1, count, dtype);
    let zero = x0.zeros_like().unwrap();
    for process in bridges() {
        let (mut error, mut spread, mut control) = (0f64, 0f64, f64::INFINITY);
        for share in SHARES {
            let t = share * process.terminal();
            let m = process.marginal(t);
            let noise = draw("noise", 0, x0.dims(), dtype);
            let x = training::add_noise(&process, &x0, Some(&terminal), &[t], &noise).unwrap();
            let (xs, terminals) = (values(&x), values(&terminal));
            let expected: Vec<f64> = (0..3 * count)
                .map(|i| {
                    let (mean, covariance) = joint(&moments(), m, i / count);
                    let ([of_terminal, of_x], _) = conditioned(&covariance);
                    mean[0] + of_terminal * (terminals[i] - mean[1]) + of_x * (xs[i] - mean[2])
                })
                .collect();
            let estimate = |of: EndMoments| {
                let found = alone(of).x0(&process, &zero, &x, &terminal, &[t]).unwrap();
                worst(&values(&found), &expected)
            };
            error = error.max(estimate(moments()));
            control = control.min(estimate(flipped()));
            for channel in 0..3 {
                let (mean, covariance) = joint(&moments(), m, channel);
                let (_, left) = conditioned(&covariance);
                let scales = moments().scales(m, channel);
                spread = spread.max((scales.out / left.sqrt() - 1.0).abs());
                spread = spread.max((scales.input * covariance[2][2].sqrt() - 1.0).abs());
                spread = spread.max((scales.centre - mean[2]).abs());
            }
        }
        let name = process.name();
        println!("{name}: off by {error:.1e}, scales by {spread:.1e}; signs turned {control:.1e}");
        assert!(error < 1e-8 && spread < 1e-7, "{name}: {error} {spread}");
        assert!(
            control > 0.01,
            "{name}: turned correlations go unnoticed, {control}"
        );
    }
}

#[test]
fn targets_and_inputs_have_unit_variance() {
    // Standard errors are 1/√n of a mean and 1/√(2n) of a standard deviation: five of them.
    let count = 100_000;
    let (mean_within, sd_within) = (5.0 / (count as f64).sqrt(), 5.0 / (2.0 * count as f64).sqrt());
    let (x0, terminal) = pairs(&moments(), 1, count, DType::F64);
    let off = |x: &Tensor| {
        by_channel(x).iter().fold([0f64; 2], |[mean, sd], found| {
            [mean.max(found[0].abs()), sd.max((found[1] - 1.0).abs())]
        })
    };
    for process in bridges() {
        let mut worst = [0f64; 2];
        for (i, share) in SHARES.into_iter().chain([1.0]).enumerate() {
            let t = share * process.terminal();
            let noise = draw("noise", i as u64, x0.dims(), DType::F64);
            let x = training::add_noise(&process, &x0, Some(&terminal), &[t], &noise).unwrap();
            let target = |of: EndMoments| alone(of).target(&process, &x0, &x, &terminal, &[t]).unwrap();
            let seen = [
                target(moments()),
                alone(moments()).input(&process, &x, &[t]).unwrap(),
                alone(moments()).terminal(&terminal).unwrap(),
            ];
            for [mean, sd] in seen.iter().map(off) {
                worst = [worst[0].max(mean), worst[1].max(sd)];
            }
            let [_, control] = off(&target(flipped()));
            // Early on x_t tells everything, and how the ends hang together nothing.
            assert!(
                share < 0.3 || control > 3.0 * sd_within,
                "{} {t}: {control}",
                process.name()
            );
        }
        println!(
            "{}: means within {:.1e}, sd {:.1e}",
            process.name(),
            worst[0],
            worst[1]
        );
        assert!(worst[0] < mean_within && worst[1] < sd_within, "{worst:?}");
    }
}

#[test]
fn targets_lead_back_to_the_data() {
    let (x0, terminal) = pairs(&moments(), 4, 30, DType::F32);
    let noise = draw("noise", 0, x0.dims(), DType::F32);
    for process in bridges() {
        let end = process.terminal();
        let times = [process.time_min(), 0.3 * end, 0.95 * end, end];
        let x = training::add_noise(&process, &x0, Some(&terminal), &times, &noise).unwrap();
        let both = alone(moments());
        let target = both.target(&process, &x0, &x, &terminal, &times).unwrap();
        let back = |target: &Tensor| {
            let found = both.x0(&process, target, &x, &terminal, &times).unwrap();
            worst(&values(&found), &values(&x0))
        };
        let (error, control) = (back(&target), back(&(&target * 1.01).unwrap()));
        assert!(
            error < 1e-4 && control > 1e-3,
            "{}: {error} {control}",
            process.name()
        );
    }
}

#[test]
fn both_ends_are_finite_and_the_clean_one_is_refused() {
    let (x0, terminal) = pairs(&moments(), 1, 8, DType::F64);
    let both = alone(moments());
    for process in bridges() {
        let end = process.terminal();
        let zero = x0.zeros_like().unwrap();
        // At T linear regression on x_T alone: E[x_0 | x_T] = μ_0 + ρ·σ_0/σ_T·(x_T - μ_T).
        let found = values(&both.x0(&process, &zero, &terminal, &terminal, &[end]).unwrap());
        let of = moments();
        let expected: Vec<f64> = values(&terminal)
            .iter()
            .enumerate()
            .map(|(i, x)| {
                let c = i / 8;
                of.mean_data[c]
                    + of.correlation[c] * of.sd_data[c] / of.sd_terminal[c] * (x - of.mean_terminal[c])
            })
            .collect();
        assert!(worst(&found, &expected) < 1e-12, "{}", process.name());
        let target = both.target(&process, &x0, &terminal, &terminal, &[end]).unwrap();
        assert!(values(&target).iter().all(|v| v.is_finite()));
        // At 0 the state is the answer, and nothing is left to learn.
        let same = both.x0(&process, &zero, &x0, &terminal, &[0.0]).unwrap();
        assert!(worst(&values(&same), &values(&x0)) < 1e-12);
        let error = both.target(&process, &x0, &x0, &terminal, &[0.0]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sample 0 has t = 0") && text.contains("t > 0"),
            "{text}"
        );
        // The level is the time of a cosine schedule with the same ratio: tan(π/2·level/1000) = c/(b·s).
        let mean: f64 = (0..3)
            .map(|c| of.sd_data[c].powi(2) * (1.0 - of.correlation[c].powi(2)))
            .sum();
        let level = |t: f64| values(&both.levels(&process, &[t], &Device::Cpu).unwrap())[0];
        assert_eq!([level(0.0), level(end)], [0.0, 1000.0]);
        for share in SHARES {
            let m = process.marginal(share * end);
            let ratio = (level(share * end) * std::f64::consts::PI / 2000.0).tan();
            let expected = m.c / (m.b * (mean / 3.0).sqrt());
            // An f32 of about 1000 is 6e-5 wide, and the tangent steep.
            assert!(
                (ratio / expected - 1.0).abs() < 1e-3,
                "{} {ratio} {expected}",
                process.name()
            );
        }
    }
}

/// Mean and standard deviation by channel of what `dbim2` makes of one `x_T`, told these moments and no network.
fn sampled(
    process: &BridgeProcess,
    of: EndMoments,
    terminal: &[f64],
    count: usize,
    steps: usize,
) -> Vec<[f64; 2]> {
    let network = |x: &Tensor, _: &Tensor, _: &Conditioning| Ok(x.zeros_like()?);
    let denoiser = JointlyPreconditioned::new(process, alone(of), network);
    let terminal = channels(terminal, DType::F32)
        .broadcast_as((1, 3, count))
        .unwrap()
        .contiguous()
        .unwrap();
    let conditioning = Conditioning {
        terminal: Some(terminal),
        ..Conditioning::default()
    };
    let noise = SampleNoise::consecutive(4, 0, 1);
    let mut run = Run::new(process, &denoiser, conditioning, noise);
    let times = BridgeSpacing::suited_to("dbim2", process)
        .times(process, steps)
        .unwrap();
    let start = run
        .start(times[0], &[3, count], DType::F32, &Device::Cpu)
        .unwrap();
    let sampler = sampler_for(process, "dbim2", 0.0).unwrap();
    let done = sample(sampler.as_ref(), &mut run, &times, start, &mut |_, _| {
        ControlFlow::Continue(())
    });
    by_channel(&done.unwrap())
}

#[test]
fn a_walk_with_the_exact_estimate_samples_what_is_left_open() {
    let count = 20_000;
    let of = moments();
    // Away from its mean, where the correlation moves x_0.
    let terminal: Vec<f64> = (0..3)
        .map(|c| of.mean_terminal[c] + 1.3 * of.sd_terminal[c])
        .collect();
    let expected: Vec<[f64; 2]> = (0..3)
        .map(|c| {
            let r = of.correlation[c];
            [
                of.mean_data[c] + 1.3 * r * of.sd_data[c],
                of.sd_data[c] * (1.0 - r * r).sqrt(),
            ]
        })
        .collect();
    // In units of the conditional standard deviation; standard errors are 0.007 of the mean, 0.005 of the deviation.
    let off = |found: &[[f64; 2]]| {
        let each = found.iter().zip(&expected);
        let parts = each.map(|(f, e)| [(f[0] - e[0]).abs() / e[1], (f[1] / e[1] - 1.0).abs()]);
        parts.fold([0f64; 2], |a, b| [a[0].max(b[0]), a[1].max(b[1])])
    };
    for process in bridges() {
        // A walk of few steps makes too little of what is wider than the bridge itself: narrow I2SB needs the most.
        let steps = if process.name() == "i2sb" { 480 } else { 120 };
        let [mean, sd] = off(&sampled(&process, moments(), &terminal, count, steps));
        println!("{}: mean off {mean:.4}, sd {sd:.4}", process.name());
        assert!(mean < 0.03 && sd < 0.02, "{}: {mean} {sd}", process.name());
        let [control, _] = off(&sampled(&process, flipped(), &terminal, count, 20));
        assert!(control > 1.0, "{}: {control}", process.name());
    }
}
