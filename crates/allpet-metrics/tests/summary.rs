//! Summaries: closed forms, streaming and merging, infinities, and what the bootstrap interval must do.

#![allow(clippy::unwrap_used)]

use allpet_metrics::{Accumulator, Bootstrap, Error, Summary, quantile};
use rand::Rng;

fn of(values: &[f64]) -> Accumulator {
    let mut set = Accumulator::new();
    set.update(values.iter().copied()).unwrap();
    set
}

fn draws(seed: u64, n: usize) -> Vec<f64> {
    let mut stream = allpet_core::stream(seed, "summary test", 0);
    (0..n).map(|_| stream.random_range(0.0..1.0)).collect()
}

#[test]
fn closed_forms() {
    let values: Vec<f64> = (1..=9).map(f64::from).collect();
    let summary = of(&values).compute(None).unwrap();
    let expected = Summary {
        n: 9,
        infinite: 0,
        mean: Some(5.0),
        // The sample variance of 1..n is n(n+1)/12.
        sd: Some(7.5f64.sqrt()),
        min: Some(1.0),
        median: Some(5.0),
        max: Some(9.0),
        interval: None,
    };
    assert_eq!(summary, expected);
    let even = of(&[4.0, 1.0, 2.0, 8.0]).compute(None).unwrap();
    assert_eq!((even.median, even.mean), (Some(3.0), Some(3.75)));
}

#[test]
fn streaming_and_merging_in_any_order_are_the_batch() {
    let values = draws(1, 1000);
    let bootstrap = Some(Bootstrap::new(3));
    let whole = of(&values).compute(bootstrap).unwrap();
    let mut one_by_one = Accumulator::new();
    for &value in values.iter().rev() {
        one_by_one.update([value]).unwrap();
    }
    assert_eq!(one_by_one.compute(bootstrap).unwrap(), whole);
    let mut merged = Accumulator::new();
    for part in values.chunks(137).rev() {
        merged.merge(of(part));
    }
    merged.merge(Accumulator::new());
    assert_eq!(merged.compute(bootstrap).unwrap(), whole);
    assert_eq!(merged.len(), 1000);
    // The control: one value more is another summary.
    merged.update([0.5]).unwrap();
    assert_ne!(merged.compute(bootstrap).unwrap(), whole);
}

#[test]
fn infinities_stand_apart_and_nan_stays_out() {
    let mut set = of(&[30.0, f64::INFINITY, 34.0, f64::INFINITY]);
    let summary = set.compute(Some(Bootstrap::new(0))).unwrap();
    assert_eq!((summary.n, summary.infinite, summary.mean), (4, 2, Some(32.0)));
    assert_eq!(summary.sd, Some(8f64.sqrt()));
    let before = set.clone();
    for bad in [f64::NAN, f64::NEG_INFINITY] {
        assert!(matches!(
            set.update([1.0, f64::INFINITY, bad]),
            Err(Error::Setting { .. })
        ));
        assert_eq!(set, before);
    }
    let identical = of(&[f64::INFINITY; 3]).compute(Some(Bootstrap::new(0))).unwrap();
    assert_eq!(
        (
            identical.n,
            identical.infinite,
            identical.mean,
            identical.interval
        ),
        (3, 3, None, None)
    );
}

#[test]
fn few_values() {
    let none = Accumulator::new().compute(Some(Bootstrap::new(0))).unwrap();
    assert_eq!((none.n, none.mean, none.sd, none.median), (0, None, None, None));
    let one = of(&[2.5]).compute(Some(Bootstrap::new(0))).unwrap();
    assert_eq!((one.mean, one.sd, one.interval), (Some(2.5), None, None));
    let same = of(&[0.1; 7]).compute(Some(Bootstrap::new(0))).unwrap();
    assert_eq!((same.mean, same.sd), (Some(0.1), Some(0.0)));
    let huge = of(&[f64::MAX / 2.0, f64::MAX / 2.0, -f64::MAX / 2.0])
        .compute(Some(Bootstrap::new(0)))
        .unwrap();
    let third = huge.mean.unwrap() / f64::MAX - 1.0 / 6.0;
    assert!(third.abs() < 1e-15 && huge.sd.unwrap().is_finite());
    assert!(of(&[f64::MAX, -f64::MAX]).compute(None).is_err());
}

#[test]
fn large_offsets_keep_their_digits() {
    let values: Vec<f64> = draws(2, 500).iter().map(|v| 1e9 + v).collect();
    let plain: Vec<f64> = values.iter().map(|v| v - 1e9).collect();
    let (far, near) = (
        of(&values).compute(None).unwrap(),
        of(&plain).compute(None).unwrap(),
    );
    assert!((far.sd.unwrap() / near.sd.unwrap() - 1.0).abs() < 1e-9);
}

#[test]
fn the_interval_is_that_of_the_mean() {
    let values = draws(4, 400);
    let set = of(&values);
    let summary = set.compute(Some(Bootstrap::new(9))).unwrap();
    let interval = summary.interval.unwrap();
    // Of 400 uniform draws the mean is normal for all purposes: ±1.96 sd/√n.
    let half = 1.959964 * summary.sd.unwrap() / 400f64.sqrt();
    assert!(
        ((interval.high - interval.low) / (2.0 * half) - 1.0).abs() < 0.08,
        "{interval:?}"
    );
    assert!(interval.low < summary.mean.unwrap() && summary.mean.unwrap() < interval.high);
    // The seed and nothing else decides; a level of 0.5 is narrower by the normal's 0.6745/1.96.
    assert_eq!(set.compute(Some(Bootstrap::new(9))).unwrap(), summary);
    assert_ne!(set.compute(Some(Bootstrap::new(10))).unwrap(), summary);
    let level = Bootstrap {
        level: 0.5,
        ..Bootstrap::new(9)
    };
    let half_interval = set.compute(Some(level)).unwrap().interval.unwrap();
    let narrower = (half_interval.high - half_interval.low) / (interval.high - interval.low);
    assert!((narrower / (0.674490 / 1.959964) - 1.0).abs() < 0.1, "{narrower}");
}

#[test]
fn the_interval_covers_the_mean_as_often_as_it_says() {
    let covers = |scale: f64| {
        (0..300)
            .filter(|&seed| {
                let values: Vec<f64> = draws(100 + seed, 60)
                    .iter()
                    .map(|v| 0.5 + scale * (v - 0.5))
                    .collect();
                let bootstrap = Bootstrap {
                    resamples: 400,
                    level: 0.9,
                    seed,
                };
                let interval = of(&values).compute(Some(bootstrap)).unwrap().interval.unwrap();
                let centre = if scale == 1.0 { 0.5 } else { 0.56 };
                interval.low <= centre && centre <= interval.high
            })
            .count()
    };
    // 270 of 300 expected, standard deviation 5.2, a little less for a percentile interval of 60 values.
    let count = covers(1.0);
    assert!((250..=288).contains(&count), "{count} of 300");
    // The control: a mean that is not the truth is covered less often than claimed.
    assert!(covers(0.999) < 200);
}

#[test]
fn any_number_of_threads_gives_the_same_interval() {
    let set = of(&draws(5, 200));
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| set.compute(Some(Bootstrap::new(1))).unwrap())
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn settings_out_of_range() {
    let set = of(&[1.0, 2.0]);
    for level in [0.0, 1.0, -0.5, f64::NAN] {
        assert!(
            set.compute(Some(Bootstrap {
                level,
                ..Bootstrap::new(0)
            }))
            .is_err(),
            "{level}"
        );
    }
    let none = Bootstrap {
        resamples: 0,
        ..Bootstrap::new(0)
    };
    assert_eq!(
        set.compute(Some(none)).unwrap_err().to_string(),
        "bootstrap interval needs at least 1 resamples; got 0"
    );
}

#[test]
fn quantiles_are_those_of_numpy() {
    let sorted = [-2.5, -0.06, 0.31, 4.0, 4.0, 7.125, 1000.0];
    // numpy.quantile of NumPy 2.4.6.
    for (q, expected) in [
        (0.0, -2.5),
        (0.025, -2.134),
        (0.25, 0.125),
        (0.37, 1.121_8),
        (0.5, 4.0),
        (0.75, 5.5625),
        (0.975, 851.068_75),
        (1.0, 1000.0),
    ] {
        let got = quantile(&sorted, q).unwrap();
        assert!((got - expected).abs() < 1e-9, "{q}: {got}");
    }
    // Control: the nearest rank is another convention.
    assert!((quantile(&sorted, 0.25).unwrap() - sorted[1]).abs() > 0.1);
    assert_eq!(quantile(&[7.0], 0.3), Some(7.0));
    assert_eq!(quantile(&[1.0, f64::INFINITY], 0.0), Some(1.0));
    for q in [-0.1, 1.1, f64::NAN] {
        assert_eq!(quantile(&sorted, q), None);
    }
}
