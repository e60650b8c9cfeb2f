//! The harness that compares ways to restore, on phantoms whose scores are known in closed form.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{Dataset, ImageGrid, ParallelGeometry, Prompt, Region, Task, Tracer, fill_normal, stream};
use allpet_radon::analytic::{Ellipse, project};
use allpet_tasks::study::{Cases, cell};
use allpet_tasks::{Downstream, LowDose, Separation};
use ndarray::{Array2, Array3, Array4, ArrayView2, Axis, stack};

mod paired;
use paired::{says, simulate};

const SIDE: usize = 64;
const DOSE: f64 = 0.25;

fn geometry() -> ParallelGeometry {
    ParallelGeometry::new(SIDE, SIDE, 5.0).unwrap()
}

fn disc(value: f64, x_mm: f64, y_mm: f64, radius_mm: f64) -> Ellipse {
    Ellipse {
        value,
        x_mm,
        y_mm,
        a_mm: radius_mm,
        b_mm: radius_mm,
        tilt_rad: 0.0,
    }
}

/// Lesions of the two cases: one large in each, and one in the second that is too small to measure.
const LESIONS: [&[(f64, f64, f64)]; 2] = [&[(20.0, -10.0, 50.0)], &[(-25.0, 15.0, 45.0), (77.5, -62.5, 3.0)]];

/// Sinograms `[2, 1, view, radial]` of bodies of 1 whose lesions have this much more.
fn bodies(excess: f64) -> Array4<f32> {
    let cases = LESIONS.map(|lesions| {
        let mut shapes = vec![disc(1.0, 0.0, 0.0, 130.0)];
        shapes.extend(lesions.iter().map(|(x, y, r)| disc(excess, *x, *y, *r)));
        project(&shapes, &geometry())
    });
    let views: Vec<ArrayView2<'_, f32>> = cases.iter().map(|c| c.view()).collect();
    stack(Axis(0), &views).unwrap().insert_axis(Axis(1))
}

/// Labels on the grid of the reconstructions: 0, or the number of the lesion from 1.
fn labels() -> Array3<f32> {
    let grid = ImageGrid::square(SIDE, 5.0).unwrap();
    Array3::from_shape_fn((2, SIDE, SIDE), |(case, row, col)| {
        let (x, y) = (grid.x_mm(col as f64), grid.y_mm(row as f64));
        let inside = |(cx, cy, r): &(f64, f64, f64)| (x - cx).hypot(y - cy) <= *r;
        LESIONS[case]
            .iter()
            .position(inside)
            .map_or(0.0, |i| (i + 1) as f32)
    })
}

fn dataset() -> Dataset {
    let clean = bodies(2.0).index_axis_move(Axis(1), 0);
    let input = &clean * DOSE as f32;
    let metadata = [("task", "low-dose"), ("dose", "0.25")];
    Dataset {
        arrays: [("input", input), ("clean", clean), ("lesion_mask", labels())]
            .map(|(name, array)| (name.to_owned(), array.into_dyn()))
            .into(),
        subjects: vec![1, 2],
        prompts: vec![Prompt::pet(Tracer::Fdg, Region::Trunk); 2],
        geometry: Some(geometry()),
        metadata: metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
    }
}

fn cases() -> Cases {
    Cases::new(&dataset()).unwrap()
}

#[test]
fn the_truth_scores_best() {
    let cases = cases();
    assert_eq!((cases.len(), cases.is_empty()), (2, false));
    assert_eq!(cases.task, Downstream::LowDose(LowDose { dose: DOSE }));
    assert_eq!(cases.shown, [(Some(Tracer::Fdg), Some(Region::Trunk)); 2]);
    // The inputs are a quarter of the truth, so that brought to its unit they are the truth.
    for candidate in [cases.truth.clone(), cases.unrestored()] {
        let row = cases.score("truth", candidate.view(), None, 1.5).unwrap();
        for scores in [&row.sinogram, &row.image] {
            assert_eq!(scores.psnr, [f64::INFINITY; 2]);
            assert!(scores.ssim.iter().all(|v| (v - 1.0).abs() < 1e-12));
            assert_eq!(
                (&scores.nmse[..], &scores.rmse[..]),
                (&[0.0; 2][..], &[0.0; 2][..])
            );
        }
        // One lesion of each case; the third has too few pixels.
        assert_eq!((row.contrast, row.coverage), (vec![0.0; 2], None));
        assert_eq!((row.name.as_str(), row.seconds), ("truth", 1.5));
    }
}

#[test]
fn a_candidate_too_bright_by_a_share_scores_in_closed_form() {
    let (cases, share) = (cases(), 0.1);
    let brighter = cases.truth.mapv(|v| v * (1.0 + share as f32));
    let row = cases.score("brighter", brighter.view(), None, 0.0).unwrap();
    let close =
        |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-4, "{found} {expected}");
    for (scores, truth) in [
        (&row.sinogram, cases.truth.view()),
        (&row.image, cases.reference()),
    ] {
        for (i, truth) in truth.outer_iter().enumerate() {
            let most = truth.iter().fold(0f64, |m, v| m.max(f64::from(*v)));
            let square = truth.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / truth.len() as f64;
            close(scores.rmse[i], share * square.sqrt());
            close(scores.nmse[i], share * share);
            close(scores.psnr[i], 20.0 * (most / (share * square.sqrt())).log10());
            assert!(scores.ssim[i] < 1.0);
        }
    }
    // The unit of contrast is the reference's ring, so that a contrast of c is off by share·c.
    let own = contrasts(&cases, cases.reference());
    for (found, contrast) in row.contrast.iter().zip(own) {
        close(*found, share * contrast);
    }
}

/// Contrast of the first lesion of each case, by brute force over the pixels.
fn contrasts(cases: &Cases, images: ndarray::ArrayView4<'_, f32>) -> Vec<f64> {
    let labels = labels();
    (0..2)
        .map(|case| {
            let label = labels.index_axis(Axis(0), case);
            let inside: Vec<(usize, usize)> = label
                .indexed_iter()
                .filter(|(_, v)| **v == 1.0)
                .map(|(at, _)| at)
                .collect();
            let distance = |(row, col): (usize, usize)| {
                let each = inside.iter().map(|(r, c)| r.abs_diff(row).max(c.abs_diff(col)));
                each.min().unwrap()
            };
            let ring: Vec<(usize, usize)> = label
                .indexed_iter()
                .filter(|(at, v)| **v == 0.0 && (2..=4).contains(&distance(*at)))
                .map(|(at, _)| at)
                .collect();
            let mean = |image: ArrayView2<'_, f32>, pixels: &[(usize, usize)]| {
                pixels.iter().map(|at| f64::from(image[*at])).sum::<f64>() / pixels.len() as f64
            };
            let (image, reference) = (images.index_axis(Axis(0), case), cases.reference());
            let reference = reference.index_axis(Axis(0), case);
            let unit = mean(reference.index_axis(Axis(0), 0), &ring);
            let image = image.index_axis(Axis(0), 0);
            (mean(image, &inside) - mean(image, &ring)) / unit
        })
        .collect()
}

#[test]
fn contrast_errors_are_those_of_discs() {
    let cases = cases();
    let off = |excess: f64| {
        let candidate = bodies(excess);
        let found = cases
            .score("discs", candidate.view(), None, 0.0)
            .unwrap()
            .contrast;
        let images = cases.images(candidate.view()).unwrap();
        let own = contrasts(&cases, images.view());
        let right = contrasts(&cases, cases.reference());
        for ((found, own), right) in found.iter().zip(own).zip(right) {
            assert!((found - (own - right).abs()).abs() < 1e-9);
        }
        found
    };
    for excess in [0.0, 1.0, 3.0] {
        let found = off(excess);
        println!("contrast of {excess} for 2: errors {found:.3?}");
        // Discs of 1 + excess in 1: the contrast is the excess, less what the edges lose to blur.
        let expected = (excess - 2.0).abs();
        assert!(
            found.iter().all(|v| (v / expected - 1.0).abs() < 0.12),
            "{found:?}"
        );
    }
    assert!(off(2.0).iter().all(|v| *v == 0.0));
}

/// Share of the truth inside the interval of `samples` draws from the law that the truth is drawn from, with the standard
/// deviation that is told multiplied by `told`.
fn covered(samples: usize, told: f32) -> f64 {
    let mut data = dataset();
    let (n, size) = (2, SIDE * SIDE);
    let draw = |index: usize| {
        let mut values = vec![0f32; n * size];
        fill_normal(&mut stream(1, "coverage", index as u64), &mut values);
        // Not negative by eight deviations, and everywhere above what counts as background.
        let spread = |(i, v): (usize, f32)| 40.0 + (1.0 + (i % 5) as f32) * v;
        let values = values.into_iter().enumerate().map(spread).collect();
        Array4::from_shape_vec((n, 1, SIDE, SIDE), values).unwrap()
    };
    data.arrays
        .insert("clean".into(), draw(0).index_axis_move(Axis(1), 0).into_dyn());
    let cases = Cases::new(&data).unwrap();
    let draws: Vec<Array4<f32>> = (1..=samples).map(draw).collect();
    let mut mean = Array4::<f32>::zeros(cases.truth.dim());
    draws.iter().for_each(|d| mean += d);
    mean /= samples as f32;
    let mut sd = Array4::<f32>::zeros(cases.truth.dim());
    draws.iter().for_each(|d| sd += &(d - &mean).mapv(|v| v * v));
    sd.mapv_inplace(|v| told * (v / (samples - 1) as f32).sqrt());
    let row = cases
        .score("draws", mean.view(), Some((sd.view(), samples)), 0.0)
        .unwrap();
    row.coverage.unwrap()
}

#[test]
fn nine_tenths_of_the_truth_lie_in_the_right_interval() {
    for samples in [4, 8, 64] {
        let (right, narrow) = (covered(samples, 1.0), covered(samples, 0.5));
        println!("{samples} samples: covered {right:.4}, with half the deviation {narrow:.4}");
        assert!(
            (right - 0.9).abs() < 0.02 && narrow < 0.75,
            "{samples}: {right} {narrow}"
        );
    }
}

#[test]
fn rows_are_compared_pair_by_pair() {
    let mut noise = vec![0f32; 400];
    fill_normal(&mut stream(2, "rows", 0), &mut noise);
    let ours: Vec<f64> = noise.iter().map(|v| 30.0 + 5.0 * f64::from(*v)).collect();
    let same = cell(&ours, &ours, 1).unwrap();
    assert_eq!((same.difference, same.interval), (0.0, [0.0, 0.0]));
    let n = ours.len() as f64;
    let mean = ours.iter().sum::<f64>() / n;
    let sd = (ours.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    assert!(
        (same.mean - mean).abs() < 1e-9 && (same.sd / sd - 1.0).abs() < 2e-3,
        "{} {sd}",
        same.sd
    );
    // Half a dB everywhere is half a dB, however far the cases lie apart.
    let less: Vec<f64> = ours.iter().map(|v| v - 0.5).collect();
    let better = cell(&ours, &less, 1).unwrap();
    for found in [better.difference, better.interval[0], better.interval[1]] {
        assert!((found - 0.5).abs() < 1e-9);
    }
    // Differences that vary: the normal interval, ±1.96·sd/√n, to the bootstrap's own error.
    let wide: Vec<f64> = vec![30.0; 400];
    let found = cell(&ours, &wide, 1).unwrap();
    let half = 1.96 * sd / n.sqrt();
    for (end, sign) in found.interval.into_iter().zip([-1.0, 1.0]) {
        assert!(
            (end - (mean - 30.0 + sign * half)).abs() < 0.15 * half,
            "{found:?} {half}"
        );
    }
    assert_eq!(found, cell(&ours, &wide, 1).unwrap());
    assert_ne!(found.interval, cell(&ours, &wide, 2).unwrap().interval);
    says(cell(&ours, &ours[1..], 1).unwrap_err(), &["399 of both", "400"]);
    says(cell(&[], &[], 1).unwrap_err(), &["at least 1"]);
}

#[test]
fn simulated_cases_have_an_output_for_every_tracer() {
    let cases = Cases::new(&simulate(Task::Separation, 2)).unwrap();
    assert_eq!(cases.task, Downstream::Separation(Separation::default()));
    assert_eq!(cases.truth.dim(), (2, 2, 32, 32));
    assert_eq!(cases.reference().dim(), (2, 2, 32, 32));
    let twice = cases.unrestored();
    assert_eq!(twice.index_axis(Axis(1), 0), cases.inputs);
    assert_eq!(twice.index_axis(Axis(1), 0), twice.index_axis(Axis(1), 1));
    let row = cases.score("input", twice.view(), None, 0.0).unwrap();
    assert_eq!(row.sinogram.psnr.len(), 4);
    // What both show lies above what either shows.
    assert!(row.sinogram.psnr.iter().all(|v| v.is_finite()) && row.sinogram.nmse.iter().all(|v| *v > 0.0));
}

#[test]
fn misfits_are_one_clear_error() {
    let cases = cases();
    let wrong = |candidate: &Array4<f32>, words: &[&str]| {
        says(
            cases.score("ours", candidate.view(), None, 0.0).unwrap_err(),
            words,
        );
    };
    wrong(
        &Array4::ones((2, 2, SIDE, SIDE)),
        &["ours", "[2, 1, 64, 64]", "[2, 2, 64, 64]"],
    );
    wrong(&Array4::ones((2, 1, SIDE, 32)), &["ours", "[2, 1, 64, 32]"]);
    let mut nan = cases.truth.clone();
    nan[[1, 0, 2, 3]] = f32::NAN;
    wrong(&nan, &["NaN"]);
    let sd = Array4::<f32>::ones((2, 1, SIDE, 32));
    let told = cases.score("ours", cases.truth.view(), Some((sd.view(), 8)), 0.0);
    says(
        told.unwrap_err(),
        &["deviation", "ours", "[2, 1, 64, 64]", "[2, 1, 64, 32]"],
    );
    let refused = |change: &dyn Fn(&mut Dataset), words: &[&str]| {
        let mut data = dataset();
        change(&mut data);
        says(Cases::new(&data).unwrap_err(), words);
    };
    refused(&|d| d.geometry = None, &["geometry", "none"]);
    refused(&|d| drop(d.arrays.remove("clean")), &["clean", "input"]);
    refused(&|d| drop(d.arrays.remove("input")), &["input", "clean"]);
    refused(&|d| drop(d.metadata.remove("dose")), &["no `dose`"]);
    let put = |name: &'static str, shape: [usize; 4]| {
        move |d: &mut Dataset| {
            d.arrays
                .insert(name.into(), Array4::<f32>::ones(shape).into_dyn());
        }
    };
    refused(
        &put("clean", [2, 2, SIDE, SIDE]),
        &["array `clean`", "1 output(s)", "[2, 2, 64, 64]"],
    );
    refused(
        &put("clean", [2, 1, SIDE, 32]),
        &["array `clean`", "[2, 1, 64, 32]"],
    );
    refused(
        &put("input", [2, 1, SIDE, SIDE]),
        &["array `input`", "[2, 1, 64, 64]"],
    );
    // The control: these are the shapes that fit.
    let mut data = dataset();
    put("clean", [2, 1, SIDE, SIDE])(&mut data);
    assert_eq!(Cases::new(&data).unwrap().truth.dim(), (2, 1, SIDE, SIDE));
    // Lesions on another grid cannot be measured.
    let mut coarse = dataset();
    let mask = Array2::<f32>::ones((32, 32));
    coarse.arrays.insert(
        "lesion_mask".into(),
        stack(Axis(0), &[mask.view(); 2]).unwrap().into_dyn(),
    );
    let row = Cases::new(&coarse).unwrap();
    let row = row.score("truth", row.truth.view(), None, 0.0).unwrap();
    assert!(row.contrast.is_empty());
}
