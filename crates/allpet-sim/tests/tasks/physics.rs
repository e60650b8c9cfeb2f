//! Pairs against closed forms: counts, doses, attenuation, kinetics, sums.

use crate::common::{clean, far, low, simulate, small, sum};
use allpet_core::{Dataset, ImageGrid, ParallelGeometry, Region, Task, Tracer, stream};
use allpet_sim::kinetics::Kinetics;
use allpet_sim::positivity::non_negative;
use allpet_sim::raster::Rendering;
use allpet_sim::tasks::{Conversion, Delayed, DoseMode, LowDose, Separation};
use allpet_sim::{Acquisition, Measurement, PairedTask, Subject, TaskConfig, Tissue};
use ndarray::{Array2, ArrayD, Axis, Slice};

fn plane(data: &Dataset, name: &str, t: usize) -> ArrayD<f32> {
    data.arrays[name].index_axis(Axis(1), t).to_owned()
}

/// Half axes, centre and turn of an ellipse of 8 kBq/mL in water.
const ELLIPSE: ([f64; 2], [f64; 2], f64) = ([130.0, 85.0], [10.0, -6.0], 0.3);

fn ellipse(grid: ImageGrid) -> Rendering {
    let ([a, b], [cx, cy], turn) = ELLIPSE;
    let share = Array2::from_shape_fn(grid.shape(), |(r, c)| {
        let inside = (0..64).filter(|k| {
            let at = |i: usize| (i as f64 + 0.5) / 8.0 - 0.5;
            let (x, y) = (
                grid.x_mm(c as f64 + at(k % 8)) - cx,
                grid.y_mm(r as f64 + at(k / 8)) - cy,
            );
            let (u, v) = (turn.cos() * x + turn.sin() * y, turn.cos() * y - turn.sin() * x);
            (u / a).hypot(v / b) < 1.0
        });
        inside.count() as f32 / 64.0
    });
    Rendering {
        grid,
        activity: &share * 8.0,
        attenuation: share * 0.0096,
    }
}

/// Chord of the ellipse at a bin's centre: `2ab·√(w² - s²)/w²` with `w² = a²cos² + b²sin²`.
fn chord(geometry: &ParallelGeometry, view: usize, bin: usize) -> f64 {
    let ([a, b], [cx, cy], turn) = ELLIPSE;
    let theta = geometry.angle(view);
    let s = geometry.s_mm(bin as f64) - (cx * theta.cos() + cy * theta.sin());
    let w2 = (a * (theta - turn).cos()).powi(2) + (b * (theta - turn).sin()).powi(2);
    2.0 * a * b * (w2 - s * s).max(0.0).sqrt() / w2
}

fn clinical(counts: f64) -> Acquisition {
    Acquisition {
        counts,
        positron_range_mm: 0.6,
        ..Acquisition::draw(&mut stream(1, "test", 0), 1e6)
    }
}

/// Mean of `(y - ȳ)/√ȳ` and of its square, over bins and repetitions; about 0 and 1 for Poisson counts of mean `ȳ`.
fn poisson_moments(expected: &Array2<f32>, mut draw: impl FnMut() -> Array2<f32>) -> [f64; 2] {
    let (mut first, mut second, mut n) = (0.0, 0.0, 0.0);
    for _ in 0..60 {
        for (&y, &mean) in draw().iter().zip(expected).filter(|(_, mean)| **mean > 0.02) {
            assert!(y >= 0.0 && y.fract() == 0.0);
            let z = (f64::from(y) - f64::from(mean)) / f64::from(mean).sqrt();
            first += z;
            second += z * z;
            n += 1.0;
        }
    }
    assert!(n > 5e4);
    [first / n, second / n]
}

#[test]
fn low_dose_counts_are_poisson_about_the_dose_s_share() {
    let geometry = ParallelGeometry::new(24, 64, 8.0).unwrap();
    let rendering = ellipse(ImageGrid::square(120, 3.0).unwrap());
    let full = clinical(4e5).measure(&rendering, geometry, None).unwrap();
    let rng = &mut stream(4, "test", 1);
    for (dose, mode) in [
        (0.25, DoseMode::Time),
        (0.01, DoseMode::Time),
        (0.25, DoseMode::Activity),
    ] {
        let reduced = LowDose { dose, mode }.reduced(&full);
        // Trues and scatter by the dose, randoms by the dose or its square.
        let randoms = if mode == DoseMode::Time { dose } else { dose * dose };
        let own = &full.expectation - &full.randoms;
        let wanted = &own * dose as f32 + &full.randoms * randoms as f32;
        assert!(far(&reduced.expectation.clone().into_dyn(), &wanted.into_dyn()) < 1e-6);
        let [mean, square] = poisson_moments(&reduced.expectation, || reduced.drawn(Some(rng)).prompts);
        println!("dose {dose} {mode:?}: mean {mean:.4}, variance over mean {square:.4}");
        // 90,000 bins: 5 standard errors of the mean are 0.017; of the square at few counts some 0.05.
        assert!(mean.abs() < 0.02 && (square - 1.0).abs() < 0.06);
        // Control: counts of the whole dose, thinned on paper only (values scaled), have another variance.
        let [_, scaled] = poisson_moments(&full.expectation, || {
            full.drawn(Some(rng)).prompts.mapv(|y| (y * 1.1).round())
        });
        assert!((scaled - 1.0).abs() > 0.06, "{scaled}");
    }
}

#[test]
fn low_dose_totals_stand_in_the_ratio_of_the_doses() {
    // Without noise: exactly, for a shorter scan.
    let exact = simulate(&clean(small(low(0.25, DoseMode::Time), 3)));
    assert!(far(&exact.arrays["input"], &(&exact.arrays["target"] * 0.25)) < 1e-5);
    assert_eq!(exact.arrays["target"], exact.arrays["clean"]);
    for (dose, mode) in [
        (0.25, DoseMode::Time),
        (0.01, DoseMode::Time),
        (0.25, DoseMode::Activity),
    ] {
        let data = simulate(&small(low(dose, mode), 6));
        let counts = &data.arrays["counts"];
        let [less, all] = [0, 1].map(|t| sum(&counts.index_axis(Axis(1), t).to_owned()));
        let ratio = less / all;
        let input = sum(&data.arrays["input"]) / (dose * sum(&data.arrays["clean"]));
        let target = sum(&data.arrays["target"]) / sum(&data.arrays["clean"]);
        println!("dose {dose} {mode:?}: prompts {ratio:.5}, corrected total {input:.4}, target {target:.4}");
        let spread = 5.0 * ratio * (1.0 / less + 1.0 / all).sqrt();
        match mode {
            DoseMode::Time => assert!((ratio - dose).abs() < spread),
            // Randoms, a fifth of the prompts, go by the square of the dose.
            DoseMode::Activity => assert!(ratio < 0.95 * dose && ratio > 0.7 * dose),
        }
        assert!((input - 1.0).abs() < if dose < 0.1 { 0.05 } else { 0.01 });
        assert!((target - 1.0).abs() < 0.004);
        // Control: another dose is told apart.
        assert!((ratio - 1.1 * dose).abs() > spread);
    }
}

#[test]
fn both_realisations_are_independent_and_every_dose_shares_its_target() {
    let quarter = simulate(&small(low(0.25, DoseMode::Time), 3));
    let hundredth = simulate(&small(low(0.01, DoseMode::Time), 3));
    for name in [
        "target",
        "clean",
        "image",
        "attenuation",
        "lesions",
        "lesion_mask",
    ] {
        assert_eq!(quarter.arrays[name], hundredth.arrays[name], "{name}");
    }
    assert_ne!(quarter.arrays["input"], hundredth.arrays["input"]);
    let correlation = |a: &ArrayD<f32>, b: &ArrayD<f32>, truth: &ArrayD<f32>| {
        let (mut ab, mut aa, mut bb, mut n) = (0.0, 0.0, 0.0, 0.0);
        for ((&a, &b), &truth) in a.iter().zip(b).zip(truth).filter(|(_, t)| **t > 50.0) {
            let (a, b) = (f64::from(a - truth), f64::from(b - truth));
            (ab, aa, bb, n) = (ab + a * b, aa + a * a, bb + b * b, n + 1.0);
        }
        assert!(n > 1000.0);
        [ab / (aa * bb).sqrt(), 5.0 / f64::sqrt(n)]
    };
    let truth = &quarter.arrays["clean"];
    let input = &quarter.arrays["input"] * 4.0;
    let [r, spread] = correlation(&input, &quarter.arrays["target"], truth);
    println!("correlation of the noise {r:.4}");
    assert!(r.abs() < spread);
    // Control: the noise of one realisation is not independent of itself with more added.
    let more = &input + &quarter.arrays["target"] - truth;
    assert!(correlation(&more, &quarter.arrays["target"], truth)[0] > 2.0 * spread);
}

#[test]
fn values_without_negatives_keep_total_and_neighbourhood() {
    let rng = &mut stream(2, "test", 0);
    let geometry = ParallelGeometry::new(64, 64, 8.0).unwrap();
    let rendering = ellipse(ImageGrid::square(120, 3.0).unwrap());
    let full = clinical(2e3).measure(&rendering, geometry, None).unwrap();
    let truth = full.corrected(true);
    let (mut kept, mut cut) = (
        Array2::<f32>::zeros(truth.dim()),
        Array2::<f32>::zeros(truth.dim()),
    );
    for _ in 0..100 {
        let drawn = full.drawn(Some(rng));
        let signed = &drawn.prompts - &full.randoms - &full.scatter;
        let out = non_negative(signed.clone());
        assert!(out.iter().all(|&v| v >= 0.0));
        assert!((sum(&out.into_dyn()) / sum(&signed.into_dyn()) - 1.0).abs() < 1e-5);
        kept += &(drawn.corrected(true) / 100.0);
        cut += &(drawn.precorrected() / 100.0);
    }
    // Inside the body, quarter by quarter: the mean of many realisations against the expectation.
    let quarters = |values: &Array2<f32>| -> Vec<f64> {
        (0..4)
            .map(|q| {
                let rows = values.slice_axis(Axis(0), Slice::from(q * 16..q * 16 + 16));
                let inner = rows.slice_axis(Axis(1), Slice::from(26..38));
                inner.iter().map(|&v| f64::from(v)).sum()
            })
            .collect()
    };
    let bias = |values: &Array2<f32>| -> f64 {
        quarters(values)
            .iter()
            .zip(quarters(&truth))
            .map(|(a, b)| (a / b - 1.0).abs())
            .fold(0.0, f64::max)
    };
    println!(
        "bias with local means kept {:.3}, cut off {:.3}",
        bias(&kept),
        bias(&cut)
    );
    assert!(bias(&kept) < 0.05);
    // Control: cutting off at 0 shows.
    assert!(bias(&cut) > 3.0 * bias(&kept));
    // What has no negatives stays as it is.
    assert_eq!(
        non_negative(truth.mapv(|v| v.max(0.0))),
        truth.mapv(|v| v.max(0.0))
    );
}

#[test]
fn attenuation_is_the_exponential_of_the_ellipse_s_chord() {
    let geometry = ParallelGeometry::new(24, 192, 2.0).unwrap();
    let quiet = Acquisition {
        psf_fwhm_mm: 0.0,
        ..Acquisition::ideal()
    };
    let measured = quiet
        .measure(&ellipse(ImageGrid::square(300, 1.0).unwrap()), geometry, None)
        .unwrap();
    let (with, without) = (measured.corrected(false), measured.corrected(true));
    let worst = |mu: f64| {
        let mut worst = [0.0f64; 2];
        for ((view, bin), &attenuated) in with.indexed_iter() {
            let chord = chord(&geometry, view, bin);
            if chord < 80.0 {
                continue;
            }
            let factor = (-mu * chord).exp();
            let ratio = f64::from(attenuated / without[[view, bin]]);
            worst[0] = worst[0].max((ratio / factor - 1.0).abs());
            worst[1] = worst[1].max((f64::from(attenuated) / (8.0 * chord * factor) - 1.0).abs());
        }
        worst
    };
    let [ratio, value] = worst(0.0096);
    println!("ratio off by at most {ratio:.4}, value by {value:.4}");
    // The chord of a bin's centre stands for the mean over its 2 mm.
    assert!(ratio < 0.01 && value < 0.02);
    // Control: a tenth less attenuation is seen.
    assert!(worst(0.0086)[0] > 5.0 * ratio);
    let data = simulate(&clean(small(PairedTask::new(Task::Attenuation).unwrap(), 4)));
    let path = &data.arrays["attenuation_sinogram"];
    assert!(path.iter().any(|&d| d > 2.0) && path.iter().all(|&d| d >= 0.0));
    for ((&input, &target), &d) in data.arrays["input"].iter().zip(&data.arrays["target"]).zip(path) {
        if d > 0.0 && d < 4.6 {
            assert!(
                (input - target * (-d).exp()).abs() <= 1e-3 * target.max(1.0),
                "{input} {target} {d}"
            );
        }
    }
    let noisy = simulate(&small(PairedTask::new(Task::Attenuation).unwrap(), 4));
    assert_eq!(noisy.arrays["attenuation_sinogram"], *path);
    let counts = &noisy.arrays["counts"];
    assert_eq!(counts.index_axis(Axis(1), 0), counts.index_axis(Axis(1), 1));
}

#[test]
fn a_delayed_frame_follows_kinetics_and_decay() {
    let delayed = |minutes| TaskConfig {
        regions: vec![Region::Abdomen],
        ..clean(small(PairedTask::Delayed(Delayed { minutes }), 4))
    };
    let config = delayed([60.0, 120.0]);
    let late = simulate(&config);
    let hour = simulate(&delayed([30.0, 60.0]));
    // At one hour the picture is the one that every other task shows.
    let usual = simulate(&TaskConfig {
        task: low(0.25, DoseMode::Time),
        tracers: vec![Tracer::Fdg],
        ..config.clone()
    });
    assert_eq!(hour.arrays["image"], usual.arrays["image"]);
    // The early input is the usual target, as far as one expectation goes.
    assert!(far(&late.arrays["input"], &usual.arrays["clean"]) < 1e-6);
    for (minutes, data) in [([60.0, 120.0], &late), ([30.0, 60.0], &hour)] {
        let decay = (-(minutes[1] - minutes[0]) * 60.0f64 * 2f64.ln() / 6584.04).exp();
        for row in data.arrays["calibration"].outer_iter() {
            assert!((f64::from(row[1] / row[0]) / decay - 1.0).abs() < 1e-5);
        }
    }
    let mut seen = 0;
    for (i, &id) in late.subjects.iter().enumerate() {
        let subject = Subject::draw(config.seed, id);
        let kinetics = Kinetics::draw(&subject, Tracer::Fdg).unwrap();
        let of = |data: &Dataset, name: &str| data.arrays[name].index_axis(Axis(0), i).to_owned();
        let (after, before) = (of(&late, "lesions"), of(&usual, "lesions"));
        for (after, before) in after
            .outer_iter()
            .zip(before.outer_iter())
            .filter(|(a, _)| a[2] > 0.0)
        {
            // The host column of both tables: one tissue at two times.
            let ratio = f64::from(after[6] / before[6]);
            let known = Tissue::ALL
                .iter()
                .map(|&tissue| (kinetics.factor(tissue, 120.0).unwrap() / ratio - 1.0).abs())
                .fold(f64::MAX, f64::min);
            assert!(known < 1e-5, "{ratio}");
            seen += 1;
        }
        // Whole picture: no pixel grows by more than a tumour does, none shrinks by more than blood.
        for (&after, &before) in of(&late, "image").iter().zip(&of(&usual, "image")) {
            if before > 0.5 {
                assert!((0.4..1.7).contains(&(after / before)), "{before} {after}");
            }
        }
    }
    assert!(seen > 0);
    // Control: two hours are not one.
    assert!(far(&late.arrays["image"], &usual.arrays["image"]) > 0.05);
}

#[test]
fn conversion_shows_one_anatomy_with_two_tracers() {
    let convert = |from, to| TaskConfig {
        regions: vec![Region::Trunk],
        ..clean(small(PairedTask::Conversion(Conversion { from, to }), 4))
    };
    let there = simulate(&convert(Tracer::Fdg, Tracer::Psma));
    let back = simulate(&convert(Tracer::Psma, Tracer::Fdg));
    assert_eq!(there.arrays["attenuation"], back.arrays["attenuation"]);
    assert_eq!(there.prompts[0].tracer, Some(Tracer::Psma));
    // What is the target there is the input back, but for the acquisition of its own.
    let difference = far(&there.arrays["clean"], &back.arrays["input"]);
    println!("there against back {difference:.2e}");
    assert!(difference < 1e-3);
    let single = simulate(&TaskConfig {
        task: low(0.5, DoseMode::Time),
        tracers: vec![Tracer::Psma],
        regions: vec![Region::Trunk],
        ..clean(small(low(0.5, DoseMode::Time), 4))
    });
    assert_eq!(there.arrays["image"], single.arrays["image"]);
    // Control: the tracers are not each other.
    assert!(far(&there.arrays["input"], &there.arrays["target"]) > 0.3);
}

#[test]
fn separated_expectations_add_up_and_so_do_counts() {
    for tracers in [[Tracer::Fdg, Tracer::Psma], [Tracer::Fdg, Tracer::Dopa]] {
        let task = PairedTask::Separation(Separation { tracers });
        let exact = simulate(&clean(small(task, 4)));
        let both = plane(&exact, "clean", 0) + plane(&exact, "clean", 1);
        let difference = far(&both, &exact.arrays["input"]);
        println!("{tracers:?}: sum of the targets against the input {difference:.1e}");
        assert!(difference < 1e-5);
        assert_eq!(exact.arrays["target"].shape(), [4, 2, 32, 64]);
        assert_eq!(exact.arrays["image"].shape(), [4, 2, 64, 64]);
        assert_eq!(exact.prompts[0].tracer, None);
        // Control: neither alone is the sum.
        assert!((0..2).all(|t| far(&plane(&exact, "clean", t), &exact.arrays["input"]) > 0.01));
        let noisy = simulate(&small(task, 4));
        for row in noisy.arrays["counts"].outer_iter() {
            assert_eq!(row[0], row[1] + row[2]);
            assert!(row[1] > 0.0 && row[2] > 0.0);
        }
        let total = sum(&noisy.arrays["input"]) / sum(&exact.arrays["input"]);
        assert!((total - 1.0).abs() < 0.01, "{total}");
    }
}

#[test]
fn positrons_move_by_half_their_range_along_a_line() {
    let grid = ImageGrid::square(81, 0.5).unwrap();
    let mut activity = Array2::zeros(grid.shape());
    activity[[40, 40]] = 1.0;
    let rendering = Rendering {
        grid,
        attenuation: Array2::zeros(grid.shape()),
        activity,
    };
    let geometry = ParallelGeometry::new(1, 161, 0.25).unwrap();
    let spread = |range: f64| {
        let acquisition = Acquisition {
            psf_fwhm_mm: 0.0,
            positron_range_mm: range,
            ..Acquisition::ideal()
        };
        let row = acquisition.measure(&rendering, geometry, None).unwrap().prompts;
        let total: f64 = row.iter().map(|&v| f64::from(v)).sum();
        let away: f64 = row
            .indexed_iter()
            .map(|((_, bin), &v)| f64::from(v) * geometry.s_mm(bin as f64).abs())
            .sum();
        away / total
    };
    let distance = spread(3.5);
    println!("mean distance along the line {distance:.3} mm");
    // The pixel and the bins add a little of their own, in squares.
    assert!((distance - 1.75).abs() < 0.03, "{distance}");
    assert!(spread(0.0) < 0.15 && (spread(0.6) - 0.3).abs() < 0.06);
}

#[test]
fn measurements_of_two_tracers_add() {
    let geometry = ParallelGeometry::new(8, 32, 16.0).unwrap();
    let one: Measurement = clinical(1e5)
        .measure(&ellipse(ImageGrid::square(60, 6.0).unwrap()), geometry, None)
        .unwrap();
    let two = one.with(&one.scaled(0.5, 0.5));
    assert!((two.total() / one.total() - 1.5).abs() < 1e-5);
}
