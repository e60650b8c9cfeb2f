//! Distribution metrics against pytorch-fid, torch-fidelity and torchmetrics (`golden/distribution.py`), 1e-5 relative.

#![allow(clippy::unwrap_used)]

use allpet_metrics::distribution::{
    GaussianStatistics, InceptionScoreSettings, frechet_distance, frechet_distance_of, inception_score,
    polynomial_mmd, precision_recall,
};
use ndarray::Array2;
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/distribution.json")).unwrap()
}

/// The generator of the script.
fn uniform(seed: u64, samples: usize, features: usize, scale: f64, shift: f64) -> Array2<f64> {
    let mut state = seed;
    Array2::from_shape_simple_fn((samples, features), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / 2_f64.powi(31)
    })
    .indexed_iter()
    .map(|((_, j), v)| v * scale + shift * (j % 3) as f64)
    .collect::<ndarray::Array1<f64>>()
    .into_shape_with_order((samples, features))
    .unwrap()
}

fn cases() -> [(&'static str, Array2<f64>, Array2<f64>); 4] {
    [
        (
            "tall",
            uniform(1, 60, 16, 1.1, 0.05),
            uniform(2, 60, 16, 1.0, 0.0),
        ),
        (
            "uneven",
            uniform(3, 60, 16, 0.8, 0.1),
            uniform(4, 75, 16, 1.0, 0.0),
        ),
        (
            "wide",
            uniform(6, 40, 64, 1.1, 0.05),
            uniform(7, 40, 64, 1.0, 0.0),
        ),
        (
            "mixed",
            uniform(8, 20, 32, 1.1, 0.05),
            uniform(9, 50, 32, 1.0, 0.0),
        ),
    ]
}

fn off(ours: f64, theirs: &Value) -> f64 {
    let theirs = theirs.as_f64().unwrap();
    (ours - theirs).abs() / theirs.abs()
}

#[test]
fn frechet_distance_agrees_by_both_routes() {
    let golden = golden();
    for (name, candidate, reference) in cases() {
        let direct = frechet_distance_of(candidate.view(), reference.view()).unwrap();
        let streamed = [&candidate, &reference].map(|set| {
            let mut statistics = GaussianStatistics::new(set.ncols()).unwrap();
            statistics.update(set.view()).unwrap();
            statistics
        });
        let by_covariance = frechet_distance(&streamed[0], &streamed[1]).unwrap();
        assert_eq!(direct.is_singular(), name == "wide" || name == "mixed");
        for tool in ["fid_pytorch_fid", "fid_torch_fidelity", "fid_torchmetrics"] {
            let theirs = &golden[name][tool];
            let (a, b) = (off(direct.distance, theirs), off(by_covariance.distance, theirs));
            println!("{name} {tool}: direct {a:.1e}, by covariance {b:.1e}");
            assert!(a < 1e-5 && b < 1e-5, "{name} {tool}: {a:e} {b:e}");
        }
        let routes = (direct.distance - by_covariance.distance).abs() / direct.distance;
        assert!(routes < 1e-10, "{name}: the routes differ by {routes:e}");
    }
}

#[test]
fn a_covariance_over_n_does_not_agree() {
    let (name, candidate, reference) = &cases()[0];
    let shrunk = [candidate, reference].map(|set| {
        let mut statistics = GaussianStatistics::new(set.ncols()).unwrap();
        statistics.update(set.view()).unwrap();
        let factor = (set.nrows() - 1) as f64 / set.nrows() as f64;
        let covariance = statistics.covariance().unwrap() * factor;
        GaussianStatistics::from_moments(set.nrows(), statistics.mean().unwrap().view(), covariance.view())
            .unwrap()
    });
    let distance = frechet_distance(&shrunk[0], &shrunk[1]).unwrap().distance;
    assert!(off(distance, &golden()[name]["fid_pytorch_fid"]) > 1e-3);
}

#[test]
fn kernel_discrepancy_agrees() {
    let golden = golden();
    for (name, candidate, reference) in cases() {
        let ours = polynomial_mmd(candidate.view(), reference.view()).unwrap();
        for tool in ["mmd_torch_fidelity", "mmd_torchmetrics"] {
            let Some(theirs) = golden[name].get(tool) else {
                continue;
            };
            let off = off(ours, theirs);
            println!("{name} {tool}: {off:.1e}");
            assert!(off < 1e-5, "{name} {tool}: {off:e}");
        }
    }
}

#[test]
fn inception_score_agrees() {
    let golden = &golden()["inception_score"];
    let logits = uniform(5, 100, 37, 6.0, 0.5);
    let settings = |splits| InceptionScoreSettings {
        splits,
        shuffle: None,
    };
    let ten = inception_score(logits.view(), &settings(10)).unwrap();
    let one = inception_score(logits.view(), &settings(1)).unwrap();
    for (ours, key) in [(ten.mean, "mean"), (ten.sd, "sd"), (one.mean, "whole")] {
        let off = off(ours, &golden[key]);
        println!("inception score {key}: {off:.1e}");
        assert!(off < 1e-5, "{key}: {off:e}");
    }
    assert_eq!(one.sd, 0.0);
}

#[test]
fn precision_and_recall_agree() {
    let golden = golden();
    for (name, candidate, reference) in cases() {
        let ours = precision_recall(candidate.view(), reference.view(), 3).unwrap();
        // torch-fidelity averages in f32.
        assert!(
            off(ours.precision, &golden[name]["precision"]) < 1e-6,
            "{name} {ours:?}"
        );
        assert!(
            off(ours.recall, &golden[name]["recall"]) < 1e-6,
            "{name} {ours:?}"
        );
        let swapped = precision_recall(reference.view(), candidate.view(), 3).unwrap();
        assert_eq!((swapped.precision, swapped.recall), (ours.recall, ours.precision));
        assert!(
            off(swapped.precision, &golden[name]["precision"]) > 0.1,
            "the control agrees too"
        );
    }
}
