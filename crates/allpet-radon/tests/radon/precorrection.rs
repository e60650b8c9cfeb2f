//! Precorrection and the sharing out of views, against closed forms.

use crate::common::{geometry, noise, poisson, relative};
use allpet_core::{CylindricalScanner, ParallelGeometry, stream};
use allpet_radon::analytic::{Ellipse, Shape};
use allpet_radon::{
    Blocks, CrystalPairs, Error, GapFilling, arc_correct, precorrect, rebin_views, ring_counts,
};
use ndarray::{Array2, Ix2};
use rand::Rng;

fn ellipses() -> [Ellipse; 2] {
    let ellipse = |value, x_mm, y_mm, a_mm, b_mm| Ellipse {
        value,
        x_mm,
        y_mm,
        a_mm,
        b_mm,
        tilt_rad: 0.3,
    };
    [
        ellipse(0.02, 10.0, -15.0, 75.0, 100.0),
        ellipse(0.05, -30.0, 20.0, 18.0, 12.0),
    ]
}

/// Means of the ring's bins: line integrals times the bins' widths.
fn ring_means(scanner: &CylindricalScanner) -> Array2<f64> {
    let radius = scanner.ring_radius_mm + scanner.depth_mm;
    let views = scanner.views();
    Array2::from_shape_fn((views, scanner.bins), |(view, k)| {
        let angle = view as f64 * std::f64::consts::PI / views as f64;
        let width = (std::f64::consts::PI / scanner.crystals as f64)
            * (radius.powi(2) - scanner.s_mm(k).powi(2)).sqrt();
        let at = |shape: &Ellipse| shape.line_integral(angle, scanner.s_mm(k));
        ellipses().iter().map(at).sum::<f64>() * width
    })
}

/// Efficiencies of blocks with gaps and of crystals that differ, and randoms that lie over all bins that have any.
fn model(scanner: &CylindricalScanner) -> (Array2<f32>, Array2<f32>) {
    let (pairs, blocks) = (CrystalPairs::of(scanner).unwrap(), Blocks::mmr());
    let mut draws = stream(4, "crystals", 0);
    let crystals: Vec<f32> = (0..scanner.crystals)
        .map(|i| match blocks.is_gap(i) {
            true => 0.0,
            false => draws.random_range(0.8..1.2),
        })
        .collect();
    let n = Array2::from_shape_fn(pairs.shape(), |(view, bin)| {
        let (a, b) = pairs.pair(view, bin);
        crystals[a] * crystals[b]
    });
    let randoms = n.mapv(|n| 0.4 * n);
    (n, randoms)
}

#[test]
fn measured_bins_stay_and_gaps_are_filled() {
    let scanner = CylindricalScanner::mmr();
    let (n, randoms) = model(&scanner);
    let means = ring_means(&scanner).mapv(|v| v as f32);
    let prompts = &means * &n + &randoms;
    let corrected = precorrect(
        prompts.view(),
        n.view(),
        randoms.view(),
        &scanner,
        &GapFilling::default(),
    )
    .unwrap();
    let (mut gaps, mut truth, mut worst) = (Vec::new(), Vec::new(), 0f32);
    for ((at, &n), (&c, &mean)) in n.indexed_iter().zip(corrected.iter().zip(&means)) {
        if n > 0.0 {
            worst = worst.max((c - mean).abs());
        } else {
            gaps.push(corrected[at]);
            truth.push(mean);
        }
    }
    assert!(worst < 1e-4, "{worst}");
    let share = gaps.len() as f64 / n.len() as f64;
    assert!((0.15..0.25).contains(&share), "{share} of the bins are gaps");
    // What stands in bins without efficiency does not matter.
    let mut noisy = prompts.clone();
    for (y, n) in noisy.iter_mut().zip(&n) {
        if *n == 0.0 {
            *y = 50.0;
        }
    }
    let same = precorrect(
        noisy.view(),
        n.view(),
        randoms.view(),
        &scanner,
        &GapFilling::default(),
    );
    assert_eq!(same.unwrap(), corrected);
    // Broken control: what a mean of all bins would put there.
    let (error, flat) = (
        relative(&gaps, &truth),
        relative(&vec![means.mean().unwrap(); gaps.len()], &truth),
    );
    println!("gaps: {error:.4}, a flat filling {flat:.4}");
    assert!(error < 0.06 && flat > 10.0 * error, "{error} {flat}");
}

#[test]
fn counts_of_few_events_are_right_on_average() {
    let scanner = CylindricalScanner::mmr();
    let (n, randoms) = model(&scanner);
    let means = ring_means(&scanner);
    let truth = means.sum();
    let expected = Array2::from_shape_fn(means.dim(), |at| 0.2 * (means[at] as f32 * n[at] + randoms[at]));
    let prompts = poisson(9, &expected).into_dimensionality::<Ix2>().unwrap();
    let correct = |randoms: &Array2<f32>| {
        precorrect(
            prompts.view(),
            n.view(),
            randoms.view(),
            &scanner,
            &GapFilling::default(),
        )
        .unwrap()
    };
    let corrected = correct(&randoms.mapv(|r| 0.2 * r));
    let total: f64 = corrected.iter().map(|v| f64::from(*v)).sum();
    // The variance of Σ (y - r)/n is Σ ȳ/n² over the bins that measure; half as much again for those filled from them.
    let variance: f64 = n
        .indexed_iter()
        .filter(|(_, n)| **n > 0.0)
        .map(|(at, &n)| 1.5 * f64::from(expected[at]) / f64::from(n).powi(2))
        .sum();
    let off = (total - 0.2 * truth) / variance.sqrt();
    println!("total {total:.0} of {:.0}: {off:.2} sigma", 0.2 * truth);
    assert!(off.abs() < 4.0);
    assert!(corrected.iter().any(|&v| v < 0.0) && corrected.iter().all(|v| v.is_finite()));
    // Broken control: randoms left in are seen at once.
    let wrong: f64 = correct(&(&randoms * 0.0)).iter().map(|v| f64::from(*v)).sum();
    assert!((wrong - 0.2 * truth) / variance.sqrt() > 20.0);
}

#[test]
fn nothing_measured_stays_finite() {
    let scanner = CylindricalScanner::mmr();
    let shape = (scanner.views(), scanner.bins);
    let (zeros, ones) = (Array2::<f32>::zeros(shape), Array2::<f32>::ones(shape));
    let filling = GapFilling::default();
    let run = |y: &Array2<f32>, n: &Array2<f32>, r: &Array2<f32>| {
        precorrect(y.view(), n.view(), r.view(), &scanner, &filling)
    };
    // No bin measures; nothing was counted.
    assert!(run(&ones, &zeros, &zeros).unwrap().iter().all(|&v| v == 0.0));
    let (n, randoms) = model(&scanner);
    assert!(run(&zeros, &n, &randoms).unwrap().iter().all(|v| v.is_finite()));
    // A whole block dead, and nothing else wrong.
    let mut dead = n.clone();
    dead.slice_mut(ndarray::s![40..60, ..]).fill(0.0);
    let prompts = ring_means(&scanner).mapv(|v| v as f32) * &n + &randoms;
    let filled = run(&prompts, &dead, &randoms).unwrap();
    assert!(filled.slice(ndarray::s![50, 150..200]).iter().all(|&v| v > 0.0));

    let mut bad = ones.clone();
    bad[[3, 4]] = f32::NAN;
    for (y, n, r, name) in [
        (&bad, &ones, &zeros, "prompts"),
        (&ones, &bad, &zeros, "efficiencies"),
        (&ones, &ones, &bad, "randoms"),
    ] {
        let error = run(y, n, r).unwrap_err();
        assert!(
            matches!(error, Error::Negative { what, .. } if what == name),
            "{error}"
        );
    }
    let small = Array2::ones((3, 4));
    assert!(matches!(
        run(&small, &ones, &zeros).unwrap_err(),
        Error::Shape { what: "prompts", .. }
    ));
    let tiny = Array2::from_elem(shape, 1e-45f32);
    assert!(run(&ones, &tiny, &zeros).is_err(), "1/1e-45 is no finite f32");
}

#[test]
fn a_smooth_sinogram_comes_back_to_the_ring() {
    let scanner = CylindricalScanner::mmr();
    let means = ring_means(&scanner).mapv(|v| v as f32);
    let target = ParallelGeometry::new(scanner.views(), 287, scanner.bin_mm).unwrap();
    let flat = arc_correct(means.view().into_dyn(), &scanner, &target).unwrap();
    let back = ring_counts(flat.view(), &target, &scanner).unwrap();
    let error = relative(back.as_slice().unwrap(), means.as_slice().unwrap());
    // Broken control: without the width of a ring bin, narrower toward the edge.
    let wrong = ring_counts(
        flat.view(),
        &ParallelGeometry {
            bin_mm: 1.1 * scanner.bin_mm,
            ..target
        },
        &scanner,
    )
    .unwrap();
    let control = relative(wrong.as_slice().unwrap(), means.as_slice().unwrap());
    println!("back to the ring {error:.4}, control {control:.4}");
    assert!(error < 0.02 && control > 5.0 * error);
    assert!(ring_counts(noise(1, &[3, 4]).view(), &target, &scanner).is_err());
}

#[test]
fn views_are_shared_out_by_their_angles() {
    let from = geometry(252, 61, 4.0, 180.0, 0.0, 0.0);
    // Bins of a view of width Δ: the mean over its angles, from many lines.
    let means = |geometry: &ParallelGeometry| {
        let step = std::f64::consts::PI / geometry.views as f64;
        Array2::from_shape_fn((geometry.views, geometry.bins), |(view, bin)| {
            let at = |i: usize| geometry.angle(view) + ((i as f64 + 0.5) / 64.0 - 0.5) * step;
            let line = |i: usize| -> f64 {
                ellipses()
                    .iter()
                    .map(|e| e.line_integral(at(i), geometry.s_mm(bin as f64)))
                    .sum()
            };
            ((0..64).map(line).sum::<f64>() / 64.0 * step) as f32
        })
    };
    let counts = means(&from);
    for views in [126, 128, 84, 252, 300] {
        let shared = rebin_views(counts.view().into_dyn(), &from, views).unwrap();
        assert!((shared.sum() / counts.sum() - 1.0).abs() < 1e-5);
        let exact = means(&ParallelGeometry { views, ..from });
        let error = relative(shared.as_slice().unwrap(), exact.as_slice().unwrap());
        println!("{views} views: {error:.5}");
        assert!(error < 0.01, "{views} views: {error}");
        // The first view is half from the last, seen from the other side.
        let first = |s: &[f32]| s[..61].to_vec();
        let (got, exact) = (
            first(shared.as_slice().unwrap()),
            first(exact.as_slice().unwrap()),
        );
        assert!(relative(&got, &exact) < 0.01);
    }
    // Broken control: every other view left out and the rest doubled, as interpolation does, has other counts of single events.
    let events = noise(3, &[252, 61]).mapv(|v| f32::from(v > 0.9));
    let shared = rebin_views(events.view(), &from, 126).unwrap();
    let skipped: f32 = events.outer_iter().step_by(2).map(|view| 2.0 * view.sum()).sum();
    assert!((shared.sum() - events.sum()).abs() < 0.01 && (skipped - events.sum()).abs() > 1.0);
    assert_eq!(
        rebin_views(noise(3, &[2, 252, 61]).view(), &from, 10)
            .unwrap()
            .shape(),
        [2, 10, 61]
    );

    for wrong in [
        geometry(252, 61, 4.0, 360.0, 0.0, 0.0),
        geometry(252, 61, 4.0, 180.0, 0.0, 0.5),
    ] {
        assert!(matches!(
            rebin_views(events.view(), &wrong, 126),
            Err(Error::Setting { .. })
        ));
    }
    assert!(rebin_views(events.view(), &from, 0).is_err());
    assert!(rebin_views(noise(3, &[251, 61]).view(), &from, 126).is_err());
}
