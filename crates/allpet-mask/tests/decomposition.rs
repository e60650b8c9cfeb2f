//! Eqs. 7 to 9 and 13 on host arrays.

#![allow(clippy::unwrap_used)]

use allpet_core::{ParallelGeometry, stream};
use allpet_mask::{MaskConfig, MaskGenerator, Normalisation, consistency, consistency_with, decompose};
use ndarray::{Array2, Axis, s};
use rand::Rng;

fn example(normalise: Normalisation) -> (Array2<f32>, Array2<f32>) {
    let config = MaskConfig {
        size: 64,
        block: (6, 14),
        normalise,
        ..MaskConfig::default()
    };
    let geometry = ParallelGeometry::new(40, 64, 1.0).unwrap();
    let mask = MaskGenerator::new(config, geometry).unwrap().mask(2, 3);
    let mut random = stream(1, "test", 0);
    (
        Array2::from_shape_simple_fn((40, 64), || random.random_range(0.0..900.0_f32)),
        mask,
    )
}

#[test]
fn the_parts_sum_to_the_sinogram_to_rounding() {
    for normalise in [Normalisation::Linear, Normalisation::Clip] {
        let (sinogram, mask) = example(normalise);
        let c_all = decompose(sinogram.view(), mask.view()).unwrap();
        assert_eq!(c_all.dim(), (3, 40, 64));
        assert_eq!(c_all.index_axis(Axis(0), 1), sinogram);
        for ((view, bin), &s) in sinogram.indexed_iter() {
            let sum = f64::from(c_all[[0, view, bin]]) + f64::from(c_all[[2, view, bin]]);
            assert!(
                (sum - f64::from(s)).abs() <= f64::from(f32::EPSILON) * f64::from(s),
                "{sum} {s}"
            );
            let expected = f64::from(mask[[view, bin]]) * f64::from(s);
            assert!((f64::from(c_all[[0, view, bin]]) - expected).abs() <= 1e-7 * expected);
        }
        // Both parts are there: neither channel is empty nor the whole.
        for part in [0, 2] {
            let channel = c_all.index_axis(Axis(0), part);
            assert!(channel.iter().any(|&v| v > 0.0) && channel != sinogram);
        }
    }
}

#[test]
fn consistency_is_zero_on_built_channels_and_the_closed_form_on_disturbed_ones() {
    let (sinogram, mask) = example(Normalisation::Linear);
    let mut c_all = decompose(sinogram.view(), mask.view()).unwrap();
    let built = consistency(c_all.view(), mask.view()).unwrap();
    assert_eq!(
        (built.positive, built.negative, built.mean, built.relative),
        (0.0, 0.0, 0.0, 0.0)
    );

    c_all.slice_mut(s![0, .., ..]).mapv_inplace(|v| v + 2.0);
    c_all.slice_mut(s![2, .., ..]).mapv_inplace(|v| v - 1.0);
    let n = (40 * 64) as f64;
    let moved = consistency(c_all.view(), mask.view()).unwrap();
    assert!((moved.positive / (4.0 * n) - 1.0).abs() < 1e-5 && (moved.negative / n - 1.0).abs() < 1e-5);
    assert!((moved.mean - 5.0).abs() < 1e-4);
    let norm: f64 = sinogram
        .iter()
        .zip(&mask)
        .map(|(&s, &m)| (f64::from(s) * f64::from(m)).powi(2) + (f64::from(s) * (1.0 - f64::from(m))).powi(2))
        .sum();
    assert!((moved.relative - (5.0 * n / norm).sqrt()).abs() < 1e-5 * moved.relative.max(1e-3));

    // A wrong middle channel shows against itself, and does not against the true sinogram.
    let mut wrong = decompose(sinogram.view(), mask.view()).unwrap();
    wrong.slice_mut(s![1, .., ..]).fill(0.0);
    assert_eq!(
        consistency(wrong.view(), mask.view()).unwrap().relative,
        f64::INFINITY
    );
    assert_eq!(
        consistency_with(wrong.view(), sinogram.view(), mask.view())
            .unwrap()
            .mean,
        0.0
    );
    // Swapped channels are wrong ones.
    let mut swapped = decompose(sinogram.view(), mask.view()).unwrap();
    swapped.invert_axis(Axis(0));
    assert!(consistency(swapped.view(), mask.view()).unwrap().relative > 0.5);
}

#[test]
fn raw_chords_and_wrong_shapes_are_refused() {
    let (sinogram, mask) = example(Normalisation::Linear);
    let mut chords = mask.clone();
    chords[[3, 5]] = 64.0;
    let error = decompose(sinogram.view(), chords.view()).unwrap_err().to_string();
    assert_eq!(
        error,
        "mask holds 64 at index [3, 5]; expected a normalised mask, 0 to 1"
    );
    chords[[3, 5]] = f32::NAN;
    assert!(decompose(sinogram.view(), chords.view()).is_err());
    let error = decompose(sinogram.view(), mask.slice(s![..39, ..]))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[39, 64]") && error.contains("[40, 64]"),
        "{error}"
    );
    let c_all = decompose(sinogram.view(), mask.view()).unwrap();
    assert!(consistency(c_all.slice(s![..2, .., ..]), mask.view()).is_err());
    assert!(consistency_with(c_all.view(), sinogram.slice(s![.., ..9]), mask.view()).is_err());
}
