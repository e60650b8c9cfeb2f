//! Arc correction preserves counts and returns densities.

use crate::common::{geometry, noise};
use allpet_core::CylindricalScanner;
use allpet_radon::analytic::{Ellipse, Shape};
use allpet_radon::arc_correct;
use ndarray::Array2;

/// What ring bin `k` collects of a disc: the integral of its projection between the bin's edges.
fn ring_counts(scanner: &CylindricalScanner, disc: &Ellipse, views: usize) -> Array2<f32> {
    let radius = scanner.ring_radius_mm + scanner.depth_mm;
    let edge = |k: f64| {
        radius
            * ((k - 0.5 - (scanner.bins / 2) as f64) * std::f64::consts::PI / scanner.crystals as f64).sin()
    };
    Array2::from_shape_fn((views, scanner.bins), |(view, k)| {
        let (lo, hi) = (edge(k as f64), edge(k as f64 + 1.0));
        let angle = view as f64 * std::f64::consts::PI / views as f64;
        (disc.bin_mean(angle, (lo + hi) / 2.0, hi - lo) * (hi - lo)) as f32
    })
}

#[test]
fn counts_are_preserved_and_the_disc_lands_where_it_is() {
    let scanner = CylindricalScanner::mmr();
    let disc = Ellipse {
        value: 1.0,
        x_mm: 120.0,
        y_mm: 60.0,
        a_mm: 100.0,
        b_mm: 100.0,
        tilt_rad: 0.0,
    };
    let ring = ring_counts(&scanner, &disc, 12);
    let target = geometry(12, 345, scanner.bin_mm, 180.0, 0.0, 0.0);
    let flat = arc_correct(ring.clone().into_dyn().view(), &scanner, &target).unwrap();
    let (before, after) = (ring.sum(), flat.sum());
    assert!((before / after - 1.0).abs() < 1e-5, "{before} {after}");
    let error = |sinogram: &Array2<f32>| {
        let (mut difference, mut size) = (0.0, 0.0);
        for ((view, bin), &value) in sinogram.indexed_iter() {
            let exact =
                disc.bin_mean(target.angle(view), target.s_mm(bin as f64), target.bin_mm) * target.bin_mm;
            difference += (f64::from(value) - exact).powi(2);
            size += exact * exact;
        }
        (difference / size).sqrt()
    };
    let corrected = error(&flat.into_dimensionality().unwrap());
    // Left in their places, the bins are too narrow and too near the axis.
    let uncorrected = error(&Array2::from_shape_fn((12, 345), |(v, k)| {
        if k < 344 { ring[[v, k]] } else { 0.0 }
    }));
    println!("{corrected:.4} against {uncorrected:.4}");
    assert!(corrected < 5e-3 && uncorrected > 10.0 * corrected);
}

#[test]
fn uniform_density_stays_uniform_at_any_target() {
    let scanner = CylindricalScanner::mmr();
    let wide = Ellipse {
        value: 1.0,
        x_mm: 0.0,
        y_mm: 0.0,
        a_mm: 1e6,
        b_mm: 1e6,
        tilt_rad: 0.0,
    };
    let ring = ring_counts(&scanner, &wide, 3).into_dyn();
    for target in [
        geometry(3, 200, 2.0445, 180.0, 0.0, 0.0),
        geometry(3, 91, 5.3, 180.0, 0.0, 4.25),
    ] {
        let flat = arc_correct(ring.view(), &scanner, &target).unwrap();
        let expected = 2e6 * target.bin_mm as f32;
        assert!(flat.iter().all(|v| (v / expected - 1.0).abs() < 1e-5));
    }
}

#[test]
fn batches_edges_and_errors() {
    let scanner = CylindricalScanner {
        bins: 504,
        ..CylindricalScanner::mmr()
    };
    let target = geometry(2, 9, 4.0, 180.0, 0.0, 0.0);
    let ring = noise(1, &[3, 2, 504]);
    assert_eq!(
        arc_correct(ring.view(), &scanner, &target).unwrap().shape(),
        [3, 2, 9]
    );
    let beyond = arc_correct(ring.view(), &scanner, &target.with_offset_bins(1e4)).unwrap();
    assert!(beyond.iter().all(|&v| v == 0.0));
    let error = arc_correct(noise(1, &[3, 503]).view(), &scanner, &target).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sinogram has shape [3, 503]; expected [.., 2, 504]"
    );
    assert!(
        arc_correct(
            ring.view(),
            &CylindricalScanner {
                crystals: 7,
                ..scanner
            },
            &target
        )
        .is_err()
    );
}
