//! `evaluate --inception`, on the weights and images of which pytorch-fid's network has told its features.

#[path = "../../../../allpet-metrics/tests/formula/mod.rs"]
mod formula;

use super::{close, figure};
use crate::runner::{Folder, npy, text};
use allpet::io::{Tensors, write_tensors};
use allpet::metrics::distribution::{InceptionScoreSettings, inception_score};
use formula::{GOLDEN, image, range, tensors};
use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, stack};
use std::collections::BTreeMap;

/// Images by their numbers.
fn set(numbers: impl IntoIterator<Item = usize>) -> Array3<f32> {
    let images: Vec<Array2<f32>> = numbers.into_iter().map(|n| image(n, 64, 48)).collect();
    let views: Vec<ArrayView2<'_, f32>> = images.iter().map(|i| i.view()).collect();
    stack(Axis(0), &views).unwrap()
}

/// What pytorch-fid's network says of an image.
fn theirs(what: &str, n: usize) -> Array1<f64> {
    serde_json::from_value(GOLDEN["pytorch_fid"][what][n].clone())
        .map(Array1::<f64>::from_vec)
        .unwrap()
}

#[test]
fn figures_stand_on_the_network_of_the_file() {
    let folder = Folder::new();
    let weights: Tensors = tensors()
        .map(|(name, shape, values)| (name, (shape, values)))
        .collect();
    write_tensors(&folder.path("w.safetensors"), &weights, &BTreeMap::new()).unwrap();
    drop(weights);
    let numbers: Vec<usize> = (0..11).map(|i| i % 2).collect();
    npy(&folder.path("x.npy"), &set(numbers.iter().copied()));
    npy(&folder.path("y.npy"), &set([0, 0]));
    let line = "evaluate --reference y.npy --inception w.safetensors";
    let full = format!(
        "{line} --candidate x.npy --metrics fid,is,nearest --data-range {} --report out.html",
        range()
    );
    let json = folder.json(&full);
    let label = json["label"].as_str().unwrap();
    assert!(
        label.starts_with("Inception v3 (FID), resize pytorch-fid, weights sha256 "),
        "{label}"
    );
    // Five of eleven candidates lie d away from the one reference, the others are it: the distance of the means, and
    // the sample variance of the candidates alone.
    let (f0, d) = (
        theirs("features", 0),
        theirs("features", 1) - theirs("features", 0),
    );
    let share = 5.0 / 11.0;
    let fid = d.dot(&d) * (share * share + 1.1 * share * (1.0 - share));
    close(figure(&json, "fid", "value"), fid, 1e-3 * fid);
    let apart = (d.dot(&d) / f0.dot(&f0)).sqrt();
    close(figure(&json, "nearest", "mean"), share * apart, 1e-3 * apart);
    assert_eq!(json["metrics"]["nearest"]["copies"], 6);
    let logits: Vec<Array1<f64>> = numbers.iter().map(|&n| theirs("logits", n)).collect();
    let logits: Vec<_> = logits.iter().map(|l| l.view()).collect();
    let score = inception_score(
        stack(Axis(0), &logits).unwrap().view(),
        &InceptionScoreSettings::default(),
    )
    .unwrap();
    assert!(score.mean > 1.0);
    close(figure(&json, "is", "mean"), score.mean, 1e-5);
    close(figure(&json, "is", "sd"), score.sd, 1e-5);
    // Two references make no ten splits.
    assert!(json["metrics"]["is"]["reference"].is_null());
    assert_eq!(
        (
            json["clipped"]["candidate"].clone(),
            json["clipped"]["reference"].clone()
        ),
        (0.0.into(), 0.0.into())
    );
    let page = text(&folder.bytes("out.html"));
    for word in [
        label,
        "<th scope=\"row\">is</th>",
        "10 splits of up to 2 images",
        "(bootstrap, subsets and splits)",
    ] {
        assert!(page.contains(word), "{word}");
    }
    for word in ["not comparable", "clipped"] {
        assert!(!page.contains(word), "{word}");
    }

    // Controls: the other resize and half the range are other figures, and the table says which.
    npy(&folder.path("x.npy"), &set([1]));
    let half = range() / 2.0;
    let words = folder.ok(&format!(
        "{line} --candidate x.npy --metrics nearest --data-range {half} --inception-resize torch-fidelity"
    ));
    for word in [
        "resize torch-fidelity, weights sha256",
        "(2048 features)",
        "clipped to 0..=R: 4",
    ] {
        assert!(words.contains(word), "{words}");
    }
    let mean: f64 = words
        .lines()
        .find_map(|line| line.strip_prefix("nearest"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|value| value.parse().ok())
        .unwrap();
    assert!((mean - apart).abs() > 0.01 * apart, "{mean} beside {apart}");
}

#[test]
fn weights_that_lack_are_said_in_one_line() {
    let folder = Folder::new();
    npy(&folder.path("y.npy"), &set([0, 1, 2]));
    folder.write("w.pth", b"PK\x03\x04 a pickle of PyTorch");
    let one: Tensors = BTreeMap::from([("fc.weight".to_owned(), (vec![1008, 1], vec![0.0; 1008]))]);
    write_tensors(&folder.path("one.safetensors"), &one, &BTreeMap::new()).unwrap();
    for (options, words) in [
        (
            "--metrics is",
            ["--metrics is", "--inception WEIGHTS.safetensors"],
        ),
        (
            "--metrics fid,is",
            ["--metrics is", "--inception WEIGHTS.safetensors"],
        ),
        (
            "--inception absent.safetensors --metrics is",
            ["absent.safetensors", "No such file"],
        ),
        (
            "--inception w.pth --metrics fid",
            ["w.pth", "is not a safetensors file"],
        ),
        (
            "--inception one.safetensors --metrics fid",
            [
                "holds no `Conv2d_1a_3x3.conv.weight`",
                "expected f32 [32, 3, 3, 3]",
            ],
        ),
        (
            "--inception one.safetensors",
            [
                "--inception one.safetensors",
                "fid, kid, is, precision-recall and nearest",
            ],
        ),
        (
            "--inception-resize pytorch-fid --metrics fid",
            ["--inception <WEIGHTS>", "required"],
        ),
        (
            "--inception one.safetensors --inception-resize bicubic --metrics fid",
            ["bicubic", "pytorch-fid, torch-fidelity"],
        ),
    ] {
        folder.fails(
            2,
            &format!("evaluate --reference y.npy --candidate y.npy --data-range 4 {options}"),
            &words,
        );
    }
    // Said before anything is read.
    folder.fails(
        2,
        "evaluate --reference absent.npy --candidate y.npy --data-range 4 --metrics is",
        &["--metrics is"],
    );
    let help = folder.ok("evaluate --help");
    for word in [
        "--inception <WEIGHTS>",
        "--inception-resize",
        "- is:",
        "save_file",
    ] {
        assert!(help.contains(word), "{word}\n{help}");
    }
}
