//! Schedules against 40-digit decimal products and closed forms; grids against the published ones.

use allpet_diffusion::{
    Error, ForwardProcess, GaussianProcess, NoiseSchedule, Prediction, ProcessConfig, Schedule, Spacing,
};

fn close(got: f64, expected: f64) {
    assert!(
        (got / expected - 1.0).abs() < 1e-12,
        "{got:e} is not {expected:e}"
    );
}

#[test]
fn tables_have_their_golden_values() {
    let golden: [(Schedule, [(usize, f64); 6]); 3] = [
        (
            Schedule::linear(),
            [
                (1, 9.999e-1),
                (2, 9.99780092072072e-1),
                (100, 8.9701814567496e-1),
                (500, 7.85872428817782e-2),
                (900, 2.75205911903399e-4),
                (1000, 4.03582976537568e-5),
            ],
        ),
        (
            Schedule::scaled_linear(),
            [
                (1, 9.985e-1),
                (2, 9.96994427069975e-1),
                (100, 8.25084439265167e-1),
                (500, 1.15844490810348e-1),
                (900, 8.87447906787532e-4),
                (1000, 1.42303975192018e-4),
            ],
        ),
        (
            Schedule::cosine(),
            [
                (1, 9.99958715775178e-1),
                (100, 9.72092737113969e-1),
                (500, 4.93843590440638e-1),
                (900, 2.40917241400859e-2),
                (999, 2.42876690703447e-6),
                (1000, 2.42876690703447e-9),
            ],
        ),
    ];
    for (schedule, values) in golden {
        let table = NoiseSchedule::new(&schedule, 1000, false).unwrap();
        assert_eq!(
            (table.steps(), table.alpha_bar(0), table.alpha_bar(1001)),
            (1000, Some(1.0), None)
        );
        for (t, expected) in values {
            close(table.alpha_bar(t).unwrap(), expected);
        }
    }
}

#[test]
fn zero_terminal_snr_keeps_the_first_and_ends_at_zero() {
    let golden: [(Schedule, [(usize, f64); 4]); 2] = [
        (
            Schedule::linear(),
            [
                (1, 9.999e-1),
                (500, 7.60287505471147e-2),
                (900, 1.06130440604157e-4),
                (999, 4.21326246508806e-9),
            ],
        ),
        (
            Schedule::scaled_linear(),
            [
                (1, 9.985e-1),
                (500, 1.10488717232399e-1),
                (900, 3.26768619594356e-4),
                (999, 1.42717101371972e-8),
            ],
        ),
    ];
    for (schedule, values) in golden {
        let table = NoiseSchedule::new(&schedule, 1000, true).unwrap();
        assert!(table.zero_terminal_snr());
        assert_eq!(table.alpha_bar(1000), Some(0.0));
        for (t, expected) in values {
            assert!((table.alpha_bar(t).unwrap() / expected - 1.0).abs() < 1e-9);
        }
    }
    assert!(
        !NoiseSchedule::new(&Schedule::linear(), 1000, false)
            .unwrap()
            .zero_terminal_snr()
    );
}

#[test]
fn cosine_has_every_beta() {
    let betas = Schedule::cosine().betas(1000);
    assert!(betas.iter().all(|&beta| beta > 0.0 && beta <= 0.999));
    // The broken control: `t / T` in whole numbers leaves one beta of a thousand and is refused.
    let cosine = |t: usize| {
        (((t / 1000) as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2)
            .cos()
            .powi(2)
    };
    let broken: Vec<f64> = (0..1000)
        .map(|i| (1.0 - cosine(i + 1) / cosine(i)).min(0.999))
        .collect();
    assert_eq!(broken.iter().filter(|&&beta| beta != 0.0).count(), 1);
    let product = broken.iter().scan(1.0, |p, beta| {
        *p *= 1.0 - beta;
        Some(*p)
    });
    assert!(matches!(
        NoiseSchedule::from_alpha_bar(product.collect()),
        Err(Error::Invalid { .. })
    ));
}

#[test]
fn a_table_must_decrease_inside_the_unit_interval() {
    assert!(NoiseSchedule::from_alpha_bar(vec![0.9, 0.5, 0.1]).is_ok());
    assert!(
        NoiseSchedule::from_alpha_bar(vec![0.9, 0.5, 0.0])
            .unwrap()
            .zero_terminal_snr()
    );
    let wrong: [&[f64]; 7] = [
        &[],
        &[0.9],
        &[1.0, 0.5],
        &[0.9, 0.9],
        &[0.5, 0.9],
        &[0.9, 0.0, 0.0],
        &[0.9, f64::NAN, 0.1],
    ];
    for table in wrong {
        assert!(
            matches!(
                NoiseSchedule::from_alpha_bar(table.to_vec()),
                Err(Error::Invalid { .. })
            ),
            "{table:?}"
        );
    }
    assert!(NoiseSchedule::from_alpha_bar(vec![0.9, -0.1]).is_err());
}

#[test]
fn zero_terminal_snr_refuses_epsilon_when_built() {
    let config = ProcessConfig {
        zero_terminal_snr: true,
        ..ProcessConfig::default()
    };
    let message = config.build().unwrap_err().to_string();
    assert!(message.contains("expected `v` or `x0`"), "{message}");
    for prediction in [Prediction::V, Prediction::X0] {
        let process = ProcessConfig { prediction, ..config }.build().unwrap();
        assert!(prediction.check(&process).is_ok());
        assert!(matches!(
            Prediction::Epsilon.check(&process),
            Err(Error::EpsilonAtZeroSnr)
        ));
    }
}

#[test]
fn a_configuration_reports_every_fault_and_no_unknown_field() {
    let config = ProcessConfig {
        schedule: Schedule::Linear {
            first: -1.0,
            last: 2.0,
        },
        steps: 1,
        zero_terminal_snr: true,
        prediction: Prediction::Epsilon,
        ..ProcessConfig::default()
    };
    let Err(Error::Invalid { faults, .. }) = config.build() else {
        panic!("built")
    };
    assert_eq!(faults.len(), 4, "{faults:?}");

    let config: ProcessConfig = toml::from_str("").unwrap();
    assert_eq!(config, ProcessConfig::default());
    let text = "steps = 100\nprediction = \"v\"\nschedule = { kind = \"scaled-linear\", last = 0.1 }";
    let config: ProcessConfig = toml::from_str(text).unwrap();
    assert_eq!(
        config.schedule,
        Schedule::ScaledLinear {
            first: 0.0015,
            last: 0.1
        }
    );
    assert_eq!(
        toml::from_str::<ProcessConfig>(&toml::to_string(&config).unwrap()).unwrap(),
        config
    );
    for text in [
        "step = 3",
        "schedule = { kind = \"cosine\", first = 1.0 }",
        "schedule = { kind = \"cosin\" }",
    ] {
        assert!(toml::from_str::<ProcessConfig>(text).is_err(), "{text}");
    }
}

#[test]
fn the_process_is_exact_at_whole_times_and_finite_between() {
    for (schedule, zero) in [
        (Schedule::linear(), false),
        (Schedule::cosine(), false),
        (Schedule::linear(), true),
    ] {
        let table = NoiseSchedule::new(&schedule, 1000, zero).unwrap();
        let process = GaussianProcess::new(table.clone());
        for t in 0..=1000 {
            let m = process.marginal(t as f64);
            let alpha_bar = table.alpha_bar(t).unwrap();
            assert_eq!((m.a, m.b, m.c), (0.0, alpha_bar.sqrt(), (1.0 - alpha_bar).sqrt()));
        }
        let clean = process.marginal(0.0);
        assert_eq!((clean.b, clean.c), (1.0, 0.0));
        let mut previous = clean;
        for i in 1..=4000 {
            let m = process.marginal(f64::from(i) / 4.0);
            assert!(
                m.b < previous.b && m.c > previous.c && m.c.is_finite(),
                "t = {}",
                f64::from(i) / 4.0
            );
            assert!((m.b * m.b + m.c * m.c - 1.0).abs() < 1e-12);
            previous = m;
        }
        assert_eq!(process.marginal(1e9), process.marginal(1000.0));
        assert_eq!(process.marginal(-1.0), clean);
        assert!((process.start_scale(1000.0) - 1.0).abs() < 1e-12);
        assert_eq!(
            (process.training_time(0.0), process.training_time(1.0 - 1e-16)),
            (1.0, 1000.0)
        );
    }
}

#[test]
fn grids_are_the_published_ones() {
    let whole = |spacing: Spacing, total, steps| -> Vec<i64> {
        spacing
            .times(total, steps)
            .unwrap()
            .iter()
            .map(|&t| t as i64)
            .collect()
    };
    // Lin et al., table 2, ten steps of a thousand, counted from 1; our grids add the clean end.
    assert_eq!(
        whole(Spacing::Leading, 1000, 10),
        [901, 801, 701, 601, 501, 401, 301, 201, 101, 1, 0]
    );
    assert_eq!(
        whole(Spacing::Linspace, 1000, 10),
        [1000, 889, 778, 667, 556, 445, 334, 223, 112, 1, 0]
    );
    assert_eq!(
        whole(Spacing::Trailing, 1000, 10),
        [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100, 0]
    );
    assert_eq!(
        whole(Spacing::Trailing, 1000, 7),
        [1000, 857, 714, 571, 429, 286, 143, 0]
    );
    assert_eq!(
        whole(Spacing::Linspace, 1000, 7),
        [1000, 833, 667, 501, 334, 167, 1, 0]
    );
    assert_eq!(whole(Spacing::Linspace, 1000, 1), [1000, 0]);

    // The latent-diffusion code's indices, from 0: 1, 15, … 995, 72 of them for any request from 67 to 71.
    for steps in 67..=71 {
        let times = whole(Spacing::LatentDiffusion, 1000, steps);
        let indices: Vec<i64> = times[..72].iter().rev().map(|t| t - 1).collect();
        assert_eq!(
            indices,
            (0..1000).step_by(14).map(|i| i + 1).collect::<Vec<i64>>()
        );
        assert_eq!((times.len(), times[0], times[71], times[72]), (73, 996, 2, 1));
    }
    assert_eq!(whole(Spacing::LatentDiffusion, 1000, 66).len(), 68);
    assert_eq!(whole(Spacing::LatentDiffusion, 1000, 250).len(), 251);
    assert!(Spacing::LatentDiffusion.times(1000, 1000).is_err());

    for spacing in [Spacing::Leading, Spacing::Linspace, Spacing::Trailing] {
        assert!(spacing.times(1000, 0).is_err() && spacing.times(1000, 1001).is_err());
        for steps in [1, 2, 3, 50, 250, 333, 667, 999, 1000] {
            let times = spacing.times(1000, steps).unwrap();
            assert_eq!((times.len(), times[steps]), (steps + 1, 0.0));
            assert!(
                times[0] <= 1000.0 && times.windows(2).all(|w| w[0] > w[1]),
                "{spacing:?} {steps}"
            );
        }
        assert_eq!(whole(spacing, 1000, 1000), (0..=1000).rev().collect::<Vec<i64>>());
    }
}
