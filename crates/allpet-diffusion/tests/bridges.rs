//! Bridge processes against closed forms, their preconditioning, and what a trainer draws from them.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

use allpet_diffusion::{
    BridgeConfig, BridgeProcess, BridgeSchedule, BridgeSpacing, Conditioning, Denoiser, Error,
    ForwardProcess, Marginal, Preconditioned, Preconditioning, ProcessConfig, ProcessKind, SampleNoise,
    training,
};
use candle_core::{DType, Device, Tensor, Var};

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// `‖x - y‖ / ‖y‖`.
fn relative(x: &[f64], y: &[f64]) -> f64 {
    let square: f64 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
    (square / y.iter().map(|y| y * y).sum::<f64>()).sqrt()
}

fn bridges() -> Vec<BridgeProcess> {
    [
        BridgeSchedule::vp(),
        BridgeSchedule::ve(),
        BridgeSchedule::i2sb(),
        BridgeSchedule::DdbmVp {
            beta_d: 6.0,
            beta_min: 0.4,
        },
        BridgeSchedule::DdbmVe { terminal: 3.0 },
    ]
    .map(|schedule| BridgeProcess::new(schedule).unwrap())
    .to_vec()
}

fn draw(what: &str, count: usize, dims: &[usize]) -> Tensor {
    SampleNoise::consecutive(5, 0, count)
        .normal(what, 0, dims, DType::F64, &Device::Cpu)
        .unwrap()
}

#[test]
fn golden_values_of_the_variance_preserving_bridge() {
    let golden = |schedule: BridgeSchedule| {
        let process = BridgeProcess::new(schedule).unwrap();
        let (sde, half, tenth) = (
            process.sde(0.5).unwrap(),
            process.marginal(0.5),
            process.marginal(0.1),
        );
        let scales = Preconditioning::default().scales(half);
        [
            (sde.alpha, 0.860708),
            (sde.rho2, 0.349859),
            (half.a, 0.260422),
            (half.b, 0.710458),
            (half.c, 0.462534),
            (scales.skip, 0.497408),
            (scales.out, 0.402061),
            (scales.input, 1.673467),
            (tenth.a, 0.017297),
            (tenth.b, 0.980070),
            (tenth.c, 0.140006),
        ]
    };
    for (got, expected) in golden(BridgeSchedule::vp()) {
        assert!((got - expected).abs() < 6e-7, "{got} for {expected}");
    }
    assert!((Preconditioning::noise_level(0.5) - -173.2868).abs() < 5e-5);
    let wrong = golden(BridgeSchedule::DdbmVp {
        beta_d: 2.0,
        beta_min: 0.11,
    });
    assert!(
        wrong.iter().all(|(got, expected)| (got - expected).abs() > 1e-5),
        "the golden values do not see beta_min"
    );
}

#[test]
fn the_ends_are_points() {
    for process in bridges() {
        let (clean, end) = (process.marginal(0.0), process.marginal(process.terminal()));
        assert_eq!([clean.a, clean.b, clean.c], [0.0, 1.0, 0.0], "{}", process.name());
        assert_eq!([end.a, end.b, end.c], [1.0, 0.0, 0.0], "{}", process.name());
        // Close to T the bridge is ρ_T² - ρ² wide; what is left must keep its digits.
        let near = process.terminal() * (1.0 - 1e-9);
        let (m, sde, last) = (
            process.marginal(near),
            process.sde(near).unwrap(),
            process.sde(process.terminal()).unwrap(),
        );
        let variance = (process.terminal() - near) * last.diffusion;
        assert!(
            (m.c * m.c / variance - 1.0).abs() < 1e-6,
            "{}: {} {variance}",
            process.name(),
            m.c * m.c
        );
        assert!(sde.rho2 < last.rho2);
        assert_eq!(process.kind(), ProcessKind::Bridge);
    }
}

/// The law of `x_t` given both ends, by Bayes from `x_t | x_0` and `x_T | x_t` of the unpinned diffusion.
fn by_bayes(process: &BridgeProcess, t: f64) -> Marginal {
    let (here, end) = (process.sde(t).unwrap(), process.sde(process.terminal()).unwrap());
    let prior = here.alpha.powi(2) * here.rho2;
    let slope = end.alpha / here.alpha;
    let likelihood = end.alpha.powi(2) * (end.rho2 - here.rho2);
    let precision = 1.0 / prior + slope * slope / likelihood;
    Marginal {
        a: slope / likelihood / precision,
        b: here.alpha / prior / precision,
        c: precision.sqrt().recip(),
    }
}

#[test]
fn marginals_are_the_pinned_diffusion() {
    for process in bridges() {
        let shift = |t: f64, by: f64| process.sde(t + by).unwrap();
        for share in [0.02, 0.1, 0.37, 0.62, 0.9, 0.99] {
            let t = share * process.terminal();
            let (m, expected) = (process.marginal(t), by_bayes(&process, t));
            for (got, expected) in [(m.a, expected.a), (m.b, expected.b), (m.c, expected.c)] {
                assert!((got / expected - 1.0).abs() < 1e-9, "{} {t}", process.name());
            }
            // The diffusion's own: dα/dt = f·α and α²·dρ²/dt = g².
            let d = 1e-5 * process.terminal();
            let (sde, up, down) = (shift(t, 0.0), shift(t, d), shift(t, -d));
            let alpha = (up.alpha - down.alpha) / (2.0 * d);
            let rho2 = (up.rho2 - down.rho2) / (2.0 * d);
            let (drift, diffusion) = (alpha / sde.alpha, sde.alpha.powi(2) * rho2);
            assert!((drift - sde.drift).abs() < 1e-6 * (1.0 + drift.abs()));
            assert!(
                (diffusion / sde.diffusion - 1.0).abs() < 1e-6,
                "{} {t}: {diffusion} {}",
                process.name(),
                sde.diffusion
            );
        }
        assert_eq!(process.marginal(-1.0), process.marginal(0.0));
        assert_eq!(process.marginal(1e9), process.marginal(process.terminal()));
    }
}

#[test]
fn i2sb_is_the_product_of_two_gaussians_on_its_published_schedule() {
    // β_i = (√1e-4 + (√3e-4 - √1e-4)·i/999)² for the first half of a thousand levels, then mirrored; their sums are the
    // variances forward and backward.
    let count = 1000;
    let root = |i: usize| 1e-4f64.sqrt() + (3e-4f64.sqrt() - 1e-4f64.sqrt()) * i as f64 / 999.0;
    let betas: Vec<f64> = (0..count).map(|i| root(i.min(count - 1 - i)).powi(2)).collect();
    let process = BridgeProcess::new(BridgeSchedule::i2sb()).unwrap();
    let linear = BridgeProcess::new(BridgeSchedule::I2sb {
        beta_min: 0.2,
        beta_max: 0.2,
    })
    .unwrap();
    let mut wrong = 0f64;
    for level in [1usize, 50, 250, 500, 750, 990] {
        let forward: f64 = betas[..level].iter().sum();
        let backward: f64 = betas[level..].iter().sum();
        let total = forward + backward;
        let t = level as f64 / count as f64;
        let m = process.marginal(t);
        let expected = [
            forward / total,
            backward / total,
            (forward * backward / total).sqrt(),
        ];
        for (got, expected) in [m.a, m.b, m.c].iter().zip(expected) {
            // Sums against integrals: relative 1/1000.
            assert!((got / expected - 1.0).abs() < 1.1e-3, "{level}: {got} {expected}");
        }
        wrong = wrong.max((linear.marginal(t).c / expected[2] - 1.0).abs());
    }
    assert!(wrong > 0.1, "a constant beta goes unnoticed");
}

#[test]
fn preconditioned_inputs_and_targets_have_unit_variance() {
    let count = 200_000;
    let (sd_data, sd_terminal, covariance) = (0.4, 0.7, 0.15);
    let true_spread = Preconditioning {
        sd_data,
        sd_terminal,
        covariance,
    };
    let (u, v) = (draw("u", 1, &[count]), draw("v", 1, &[count]));
    let noise = draw("noise", 1, &[count]);
    let x0 = u.affine(sd_data, 0.0).unwrap();
    let slope = covariance / sd_data;
    let rest = (sd_terminal * sd_terminal - slope * slope).sqrt();
    let terminal = (u.affine(slope, 0.0).unwrap() + v.affine(rest, 0.0).unwrap()).unwrap();
    let moments = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>() / count as f64;
    for process in bridges() {
        let mut blind = 0f64;
        for share in [0.01, 0.3, 0.8, 1.0] {
            let times = [share * process.terminal()];
            let x = training::add_noise(&process, &x0, Some(&terminal), &times, &noise).unwrap();
            let input = values(&true_spread.input(&process, &x, &times).unwrap());
            let target = values(&true_spread.target(&process, &x0, &x, &times).unwrap());
            // Standard error of a variance of one is √(2/n) = .0032, of a correlation .0022.
            assert!(
                (moments(&input, &input) - 1.0).abs() < 0.013,
                "{}",
                process.name()
            );
            assert!((moments(&target, &target) - 1.0).abs() < 0.013);
            assert!(
                moments(&input, &target).abs() < 0.009,
                "c_skip leaves what x explains"
            );
            let naive = Preconditioning {
                covariance: 0.0,
                ..true_spread
            };
            let target = values(&naive.target(&process, &x0, &x, &times).unwrap());
            blind = blind.max(moments(&input, &target).abs());
        }
        assert!(blind > 0.1, "{}: the covariance goes unnoticed", process.name());
    }
}

#[test]
fn the_two_forms_of_the_loss_agree() {
    let process = BridgeProcess::new(BridgeSchedule::vp()).unwrap();
    let spread = Preconditioning::default();
    let (x0, terminal) = (draw("x0", 4, &[2, 3]), draw("terminal", 4, &[2, 3]));
    let noisy = training::draw_noisy(&process, &x0, Some(&terminal), 3, 7, &[5, 6, 7, 8]).unwrap();
    let output = Var::from_tensor(&draw("output", 4, &[2, 3])).unwrap();
    let denoised = spread.x0(&process, &output, &noisy.x, &noisy.times).unwrap();
    let weights = spread.weights(&process, &noisy.times);
    let weighted = training::weighted_loss(&denoised, &x0, &weights).unwrap();
    let target = spread.target(&process, &x0, &noisy.x, &noisy.times).unwrap();
    let plain = training::loss(&output, &target).unwrap();
    let gradient = |loss: &Tensor| values(loss.backward().unwrap().get(&output).unwrap());
    assert!(relative(&values(&weighted), &values(&plain)) < 1e-10);
    assert!(relative(&gradient(&weighted), &gradient(&plain)) < 1e-10);
    let unweighted = training::weighted_loss(&denoised, &x0, &[1.0; 4]).unwrap();
    assert!(relative(&values(&unweighted), &values(&plain)) > 1e-2);
    // The loss itself, written out.
    let (d, x) = (values(&denoised), values(&x0));
    let written: f64 = (0..24)
        .map(|i| weights[i / 6] * (d[i] - x[i]).powi(2))
        .sum::<f64>()
        / 24.0;
    assert!((values(&weighted)[0] / written - 1.0).abs() < 1e-12);
    assert!(training::weighted_loss(&denoised, &x0, &[1.0; 3]).is_err());
    assert!(training::weighted_loss(&denoised, &x0.narrow(1, 0, 1).unwrap(), &[1.0; 4]).is_err());
    let clean = spread.target(&process, &x0, &x0, &[0.5, 0.0, 0.5, 0.5]);
    assert!(clean.unwrap_err().to_string().contains("sample 1 has t = 0"));
}

#[test]
fn training_pairs_belong_to_their_samples() {
    for process in bridges() {
        let indices = [9u64, 4, 30, 2, 77, 5, 6, 1];
        let (x0, terminal) = (draw("x0", 8, &[2, 3]), draw("terminal", 8, &[2, 3]));
        let all = training::draw_noisy(&process, &x0, Some(&terminal), 1, 2, &indices).unwrap();
        for (i, &index) in indices.iter().enumerate() {
            let pick = |x: &Tensor| x.narrow(0, i, 1).unwrap();
            let one =
                training::draw_noisy(&process, &pick(&x0), Some(&pick(&terminal)), 1, 2, &[index]).unwrap();
            assert_eq!(values(&one.x), values(&pick(&all.x)));
            let m = process.marginal(all.times[i]);
            let expected: Vec<f64> = values(&pick(&terminal))
                .iter()
                .zip(values(&pick(&x0)))
                .zip(values(&pick(&all.noise)))
                .map(|((end, clean), eps)| m.a * end + m.b * clean + m.c * eps)
                .collect();
            assert!(relative(&values(&one.x), &expected) < 1e-12);
        }
        assert!(matches!(
            training::draw_noisy(&process, &x0, None, 1, 2, &indices),
            Err(Error::NoTerminal)
        ));
        let narrow = terminal.narrow(1, 0, 1).unwrap();
        assert!(matches!(
            training::draw_noisy(&process, &x0, Some(&narrow), 1, 2, &indices),
            Err(Error::Shape { .. })
        ));
        let many: Vec<u64> = (0..4000).collect();
        let times = training::draw_times(&process, 3, 0, &many);
        let (first, last) = (process.time_min(), process.terminal());
        assert!(
            times
                .iter()
                .all(|t| (first * 0.999999..=last * 1.000001).contains(t))
        );
        let mean = times.iter().sum::<f64>() / 4000.0;
        assert!((mean - 0.5 * (first + last)).abs() < 4.0 * (last - first) / (12.0 * 4000f64).sqrt());
    }
}

#[test]
fn the_wrapped_network_sees_scaled_input_and_log_time() {
    let process = BridgeProcess::new(BridgeSchedule::vp()).unwrap();
    let spread = Preconditioning::default();
    let (x, terminal) = (draw("x", 3, &[2]), draw("terminal", 3, &[2]));
    let network = |x: &Tensor, level: &Tensor, c: &Conditioning| {
        let level = level.to_dtype(DType::F64)?.affine(1e-3, 0.0)?.reshape(((), 1))?;
        Ok((x.broadcast_mul(&level)? + c.terminal.as_ref().unwrap())?)
    };
    let denoiser = Preconditioned::new(&process, spread, network).unwrap();
    let times = [1e-4, 0.5, 1.0];
    let t = training::time_tensor(&times, &Device::Cpu).unwrap();
    let conditioning = Conditioning {
        terminal: Some(terminal.clone()),
        ..Conditioning::default()
    };
    let got = values(&denoiser.predict_x0(&x, &t, &conditioning).unwrap());
    let (x_values, end) = (values(&x), values(&terminal));
    for i in 0..6 {
        let s = spread.scales(process.marginal(times[i / 2]));
        let level = 0.25 * times[i / 2].ln();
        let expected = s.skip * x_values[i] + s.out * (s.input * x_values[i] * level + end[i]);
        assert!((got[i] - expected).abs() < 1e-6, "{} {expected}", got[i]);
    }
    let without = denoiser.predict_x0(&x, &t, &Conditioning::default());
    assert!(matches!(without, Err(Error::NoTerminal)));
    let wrong = Preconditioning {
        covariance: 0.3,
        ..spread
    };
    assert!(Preconditioned::new(&process, wrong, network).is_err());
}

#[test]
fn configurations_name_bridges() {
    let config: ProcessConfig = toml::from_str(
        "[bridge]\nschedule = { kind = \"i2sb\", beta_max = 0.5 }\npreconditioning = { sd_data = 0.8 }\n",
    )
    .unwrap();
    let bridge = config.bridge.unwrap();
    assert_eq!(
        bridge.schedule,
        BridgeSchedule::I2sb {
            beta_min: 0.1,
            beta_max: 0.5
        }
    );
    assert_eq!(
        (bridge.preconditioning.sd_data, bridge.preconditioning.sd_terminal),
        (0.8, 0.5)
    );
    assert_eq!(config.build_any().unwrap().name(), "i2sb");
    assert_eq!(config.build_bridge().unwrap().name(), "i2sb");
    let message = config.build().unwrap_err().to_string();
    assert_eq!(
        message,
        "invalid diffusion: the configuration names the bridge `i2sb`, expected a Gaussian process"
    );
    let gaussian = ProcessConfig::default();
    assert!(gaussian.build_bridge().is_err());
    assert_eq!(gaussian.build_any().unwrap().kind(), ProcessKind::Gaussian);
    // A Gaussian configuration is written as it was before there were bridges.
    assert!(!toml::to_string(&gaussian).unwrap().contains("bridge"));
    for schedule in [BridgeSchedule::vp(), BridgeSchedule::ve(), BridgeSchedule::i2sb()] {
        let config = gaussian.with_bridge(BridgeConfig::new(schedule));
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains(schedule.name()), "{text}");
        assert_eq!(toml::from_str::<ProcessConfig>(&text).unwrap(), config);
    }
    assert!(toml::from_str::<BridgeConfig>("schedule = { kind = \"ddbm-vp\", beta = 1.0 }").is_err());
    let broken = BridgeConfig {
        schedule: BridgeSchedule::DdbmVp {
            beta_d: -1.0,
            beta_min: f64::NAN,
        },
        preconditioning: Preconditioning {
            sd_data: 0.0,
            ..Preconditioning::default()
        },
    };
    let message = gaussian.with_bridge(broken).validate().unwrap_err().to_string();
    for word in ["beta_d is -1", "beta_min is NaN", "sd_data is 0"] {
        assert!(message.contains(word), "{message}");
    }
    for schedule in [
        BridgeSchedule::DdbmVp {
            beta_d: 200.0,
            beta_min: 0.1,
        },
        BridgeSchedule::DdbmVe { terminal: 0.001 },
        BridgeSchedule::I2sb {
            beta_min: 0.2,
            beta_max: 0.1,
        },
    ] {
        assert!(BridgeProcess::new(schedule).is_err(), "{schedule:?}");
    }
}

#[test]
fn grids_of_a_bridge() {
    for process in bridges() {
        let (first, last) = (process.terminal(), process.time_min());
        for steps in [1usize, 2, 5, 40] {
            for (spacing, root) in [
                (BridgeSpacing::Uniform, 1.0),
                (BridgeSpacing::Quadratic, 2.0),
                (BridgeSpacing::Karras, 7.0),
            ] {
                let times = spacing.times(&process, steps).unwrap();
                assert_eq!((times.len(), times[0], times[steps]), (steps + 1, first, last));
                assert!(steps == 1 || times[1] == first * 0.999);
                let gaps: Vec<f64> = times[1..]
                    .windows(2)
                    .map(|w| w[0].powf(1.0 / root) - w[1].powf(1.0 / root))
                    .collect();
                assert!(gaps.iter().all(|gap| (gap / gaps[0] - 1.0).abs() < 1e-9));
            }
            let own = BridgeSpacing::Ddbm.times(&process, steps).unwrap();
            assert_eq!((own.len(), own[steps]), (steps + 1, 0.0));
            assert!((first - own[0] - 1e-4).abs() < 1e-9);
            assert!(steps == 1 || own[steps - 1] == last);
        }
        assert!(BridgeSpacing::Uniform.times(&process, 0).is_err());
        assert!(BridgeSpacing::Ddbm.times(&process, 0).is_err());
        assert_eq!(BridgeSpacing::suited_to("ddbm", &process), BridgeSpacing::Ddbm);
        let suited = BridgeSpacing::suited_to("dbim2", &process);
        assert_eq!(suited == BridgeSpacing::Karras, process.name() == "ddbm-ve");
    }
    assert_eq!(
        toml::from_str::<Spaced>("spacing = \"quadratic\"")
            .unwrap()
            .spacing,
        BridgeSpacing::Quadratic
    );
}

#[derive(serde::Deserialize)]
struct Spaced {
    spacing: BridgeSpacing,
}
