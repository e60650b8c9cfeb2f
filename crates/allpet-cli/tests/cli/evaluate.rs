//! Figures of candidate images against reference images.

mod inception;

use crate::runner::{Folder, npy, text};
use ndarray::{Array1, Array2, Array3, Axis, stack};
use serde_json::Value;

const SETS: &str = "fid,kid,precision-recall,nearest";

/// The images of the anchors, 64 x 64 and values between 0 and 1: reference and candidate.
fn anchors() -> (Array2<f32>, Array2<f32>) {
    let x = |i: usize, j: usize| ((37 * i + 17 * j) % 101) as f64 / 100.0;
    let y = |i: usize, j: usize| {
        let wave = 0.1 * (0.7 * i as f64 + 0.3 * j as f64).sin();
        (x(i, j) + wave).clamp(0.0, 1.0)
    };
    let image = |f: &dyn Fn(usize, usize) -> f64| Array2::from_shape_fn((64, 64), |(i, j)| f(i, j) as f32);
    (image(&y), image(&x))
}

/// Waves of different frequency, phase and height.
fn waves(count: usize, from: usize, size: usize) -> Array3<f32> {
    Array3::from_shape_fn((count, size, size), |(n, i, j)| {
        let n = (n + from) as f32;
        let phase = 0.05 * (1.0 + n % 7.0) * i as f32 + 0.04 * (1.0 + n % 5.0) * j as f32 + 0.9 * n;
        0.5 + 0.3 * (1.0 + (0.3 * n).cos()) * phase.sin() / 2.0
    })
}

fn figure(json: &Value, metric: &str, name: &str) -> f64 {
    json["metrics"][metric][name]
        .as_f64()
        .unwrap_or_else(|| panic!("{metric} {name}: {json}"))
}

fn close(got: f64, expected: f64, within: f64) {
    assert!((got - expected).abs() <= within, "{got} beside {expected}");
}

#[test]
fn figures_of_pairs_are_those_of_other_programs() {
    let folder = Folder::new();
    let (reference, candidate) = anchors();
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &candidate);
    // Values by scikit-image and torchmetrics on float64; files hold float32, which moves the eighth digit.
    let line = "evaluate --reference y.npy --candidate x.npy --data-range 1";
    let json = folder.json(line);
    assert_eq!(json["n"], 1);
    assert_eq!(json["data_range"], 1.0);
    close(figure(&json, "psnr", "mean"), 23.2810823, 1e-5);
    close(figure(&json, "ssim", "mean"), 0.9773777725, 1e-7);
    close(figure(&json, "nmse", "mean"), 0.0139354922, 1e-8);
    assert_eq!(json["metrics"]["ssim"]["convention"], "wang");
    assert_eq!(json["metrics"]["psnr"]["sd"], Value::Null);
    for (convention, expected) in [
        ("wang", 0.9773777725),
        ("skimage", 0.9735853836),
        ("torchmetrics", 0.9776640677),
    ] {
        let json = folder.json(&format!("{line} --metrics ssim --ssim {convention}"));
        assert_eq!(json["metrics"]["ssim"]["convention"], convention);
        close(figure(&json, "ssim", "mean"), expected, 1e-7);
    }
    // NRMSE is the root of NMSE, and neither needs a range.
    let json = folder.json("evaluate --reference y.npy --candidate x.npy --metrics nrmse,nmse,mae,rmse");
    close(
        figure(&json, "nrmse", "mean"),
        figure(&json, "nmse", "mean").sqrt(),
        1e-12,
    );
    assert_eq!(json["data_range"], Value::Null);
    // The control: with the files exchanged NMSE is another number.
    let json = folder.json("evaluate --reference x.npy --candidate y.npy --metrics nmse");
    close(figure(&json, "nmse", "mean"), 0.0140204860, 1e-8);
}

#[test]
fn a_set_has_mean_deviation_and_interval() {
    let folder = Folder::new();
    let reference = Array3::<f32>::zeros((4, 16, 16)) + 1.0;
    // Errors of 0, 1, 2 and 3 everywhere.
    let error = Array1::from_vec(vec![0.0f32, 1.0, 2.0, 3.0]);
    let candidate = &reference + &error.insert_axis(Axis(1)).insert_axis(Axis(2));
    let nested = reference.clone().into_shape_with_order((2, 2, 16, 16)).unwrap();
    let nested_candidate = candidate.clone().into_shape_with_order((2, 2, 16, 16)).unwrap();
    npy(&folder.path("y.npy"), &nested);
    npy(&folder.path("x.npy"), &nested_candidate);
    let line = "evaluate --reference y.npy --candidate x.npy --data-range 10 --metrics mae,rmse,psnr";
    let json = folder.json(line);
    assert_eq!(json["n"], 4);
    for metric in ["mae", "rmse"] {
        close(figure(&json, metric, "mean"), 1.5, 1e-12);
        close(figure(&json, metric, "sd"), (5.0f64 / 3.0).sqrt(), 1e-12);
    }
    // The identical pair is counted apart: 20, 20 - 20 log 2 and 20 - 20 log 3 dB remain.
    assert_eq!(json["metrics"]["psnr"]["infinite"], 1);
    close(
        figure(&json, "psnr", "mean"),
        20.0 - 20.0 * 6.0f64.log10() / 3.0,
        1e-9,
    );
    let interval = |json: &Value| json["metrics"]["mae"]["interval"].clone();
    let ends: [f64; 2] = serde_json::from_value(interval(&json)).unwrap();
    assert!(0.0 <= ends[0] && ends[0] < 1.5 && 1.5 < ends[1] && ends[1] <= 3.0);
    // Seeds fix the bootstrap and nothing else.
    assert_eq!(folder.json(&format!("{line} --seed 0")), json);
    let words = folder.ok(line);
    for word in [
        "4 images of 16 x 16",
        "data range 10",
        "1.50000 ± 1.29",
        "1 identical",
        "bootstrap",
    ] {
        assert!(words.contains(word), "{words}");
    }
    // Identical images only.
    let json =
        folder.json("evaluate --reference y.npy --candidate y.npy --data-range 10 --metrics psnr,ssim");
    assert_eq!(json["metrics"]["psnr"]["infinite"], 4);
    assert_eq!(json["metrics"]["psnr"]["mean"], Value::Null);
    close(figure(&json, "ssim", "mean"), 1.0, 1e-12);
}

#[test]
fn ms_ssim_falls_with_the_error() {
    let folder = Folder::new();
    let reference = waves(1, 0, 176);
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("near.npy"), &(&reference * 0.95));
    npy(&folder.path("far.npy"), &(&reference * 0.5));
    let of = |name: &str| {
        let line =
            format!("evaluate --reference y.npy --candidate {name}.npy --data-range 1 --metrics ms-ssim");
        figure(&folder.json(&line), "ms-ssim", "mean")
    };
    close(of("y"), 1.0, 1e-12);
    assert!(of("far") < of("near") && of("near") < 1.0);
}

#[test]
fn sets_of_different_size_are_compared() {
    let folder = Folder::new();
    npy(&folder.path("set.npy"), &waves(24, 0, 32));
    npy(&folder.path("other.npy"), &waves(30, 24, 32));
    npy(&folder.path("far.npy"), &(waves(30, 24, 32) * 0.3));
    let line = |candidate: &str| {
        format!("evaluate --reference set.npy --candidate {candidate}.npy --data-range 1 --metrics {SETS}")
    };
    let same = folder.json(&line("set"));
    assert!(figure(&same, "fid", "value") < 1e-8, "{same}");
    for share in ["precision", "recall", "coverage"] {
        assert_eq!(figure(&same, "precision-recall", share), 1.0);
    }
    assert_eq!(same["metrics"]["nearest"]["copies"], 24);
    let (near, far) = (folder.json(&line("other")), folder.json(&line("far")));
    assert_eq!(
        (near["n"].clone(), near["n_reference"].clone()),
        (30.into(), 24.into())
    );
    assert_eq!(near["metrics"]["kid"]["subset_size"], 12);
    // The control: a set of lower contrast lies farther away in every figure.
    for (metric, name) in [("fid", "value"), ("kid", "mean"), ("nearest", "mean")] {
        assert!(
            figure(&near, metric, name) < figure(&far, metric, name),
            "{metric}"
        );
    }
    assert!(figure(&far, "precision-recall", "precision") < 0.1);
    for metric in SETS.split(',') {
        let label = near["metrics"][metric]["label"].as_str().unwrap();
        assert!(label.contains("not comparable with published FID"), "{label}");
    }
    let words = folder.ok(&line("other"));
    for word in [
        "random features, not comparable with published FID",
        "30",
        "24",
        "recall",
    ] {
        assert!(words.contains(word), "{words}");
    }
    // The seed draws the features and the subsets.
    assert_eq!(folder.json(&format!("{} --seed 0", line("other"))), near);
    let seven = folder.json(&format!("{} --seed 7", line("other")));
    assert_ne!(figure(&seven, "fid", "value"), figure(&near, "fid", "value"));
}

#[test]
fn datasets_and_archives_are_read() {
    let folder = Folder::new();
    folder.ok(
        "simulate --count 3 --tracer fdg --region brain --views 16 --bins 16 --bin-mm 32 --out a.safetensors",
    );
    folder.ok(
        "simulate --count 5 --seed 9 --tracer fdg --region brain --views 16 --bins 16 --bin-mm 32 --out b.safetensors",
    );
    let dataset = allpet::io::read_dataset(&folder.path("a.safetensors")).unwrap();
    let target = dataset.arrays["target"].view();
    allpet::io::write_npz(&folder.path("a.npz"), &[("sinograms", target)], true).unwrap();
    let json = folder.json("evaluate --reference a.safetensors --candidate a.npz --metrics mae");
    assert_eq!((json["n"].clone(), figure(&json, "mae", "mean")), (3.into(), 0.0));
    folder.fails(
        2,
        "evaluate --reference a.npz --candidate b.safetensors --metrics mae",
        &["b.safetensors", "[5, 16, 16]", "[3, 16, 16]"],
    );
    let json = folder
        .json("evaluate --reference a.npz --candidate b.safetensors --metrics nearest --data-range 100000");
    assert_eq!(json["n"], 5);
}

#[test]
fn what_cannot_be_evaluated_is_said_in_one_line() {
    let folder = Folder::new();
    let (reference, candidate) = anchors();
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &candidate);
    npy(&folder.path("zero.npy"), &Array2::<f32>::zeros((64, 64)));
    npy(&folder.path("small.npy"), &waves(8, 0, 8));
    npy(&folder.path("two.npy"), &stack![Axis(0), reference, candidate]);
    npy(&folder.path("line.npy"), &Array1::<f32>::ones(64));
    npy(&folder.path("none.npy"), &Array3::<f32>::zeros((0, 64, 64)));
    let mut spoilt = candidate.clone();
    spoilt[[3, 5]] = f32::NAN;
    npy(&folder.path("nan.npy"), &spoilt);
    for (files, options, words) in [
        ("y x", "", ["--data-range is missing", "psnr and ssim need it"]),
        (
            "y x",
            "--metrics ms-ssim",
            ["--data-range is missing", "ms-ssim needs it"],
        ),
        (
            "y x",
            "--metrics fid",
            ["--data-range is missing", "fid needs it"],
        ),
        ("y x", "--data-range 0", ["--data-range is 0", "above 0"]),
        ("y x", "--data-range -1", ["--data-range is -1", "above 0"]),
        ("y x", "--data-range NaN", ["--data-range is NaN", "above 0"]),
        ("y x", "--metrics psnr,lpips", ["lpips", "precision-recall"]),
        ("y x", "--data-range 1 --ssim matlab", ["matlab", "torchmetrics"]),
        ("y x", "--data-range 1 --metrics ms-ssim", ["MS-SSIM", "176"]),
        ("y two", "--metrics mae", ["two.npy", "[2, 64, 64]"]),
        (
            "y two",
            "--data-range 1 --metrics fid",
            ["at least 2 samples", "got 1"],
        ),
        (
            "two two",
            "--data-range 1 --metrics kid",
            ["kernel distance", "got 2"],
        ),
        (
            "two two",
            "--data-range 1 --metrics precision-recall",
            ["precision and recall", "at least 4"],
        ),
        (
            "small small",
            "--data-range 1 --metrics fid",
            ["random features", "16"],
        ),
        ("y small", "--data-range 1 --metrics fid", ["small.npy", "8 x 8"]),
        ("y nan", "--metrics mae", ["nan.npy", "[3, 5]"]),
        ("nan y", "--metrics mae", ["nan.npy", "[3, 5]"]),
        ("zero x", "--metrics nmse", ["NMSE", "zero everywhere"]),
        ("line line", "--metrics mae", ["line.npy", "[.., row, col]"]),
        ("none none", "--metrics mae", ["none.npy", "at least 1 element"]),
        ("absent x", "--metrics mae", ["absent.npy", "No such file"]),
    ] {
        let (reference, candidate) = files.split_once(' ').unwrap();
        folder.fails(
            2,
            &format!("evaluate --reference {reference}.npy --candidate {candidate}.npy {options}"),
            &words,
        );
    }
    folder.write("table.txt", b"1 2 3\n");
    folder.fails(
        2,
        "evaluate --reference table.txt --candidate x.npy --metrics mae",
        &["table.txt"],
    );
}

#[test]
fn a_range_that_the_reference_exceeds_is_noted() {
    let folder = Folder::new();
    let (reference, candidate) = anchors();
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &candidate);
    let output = folder.run("evaluate --reference y.npy --candidate x.npy --data-range 0.5 --json");
    assert!(output.status.success());
    let said = text(&output.stderr);
    assert!(
        said.lines().count() == 1 && said.starts_with("note: y.npy") && said.contains("--data-range 0.5"),
        "{said}"
    );
}
