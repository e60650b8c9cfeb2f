//! Inception v3 in its FID form against pytorch-fid and torch-fidelity (`golden/inception.py`), on weights and images
//! that the script and this test compute from the same formulas.

#![allow(clippy::unwrap_used)]

mod formula;

use allpet_metrics::distribution::{
    Inception, InceptionFeatures, InceptionScoreSettings, Resize, inception_score,
};
use formula::{GOLDEN, image, range};
use ndarray::{Array3, ArrayView1, Axis, s};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

type Named = (String, Vec<usize>, Dtype, Vec<u8>);

fn write<'a>(path: &Path, tensors: impl IntoIterator<Item = &'a Named>) {
    let views = tensors
        .into_iter()
        .map(|(name, shape, dtype, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

/// Every tensor that the file of weights holds.
static TENSORS: LazyLock<Vec<Named>> = LazyLock::new(|| {
    let mut tensors: Vec<Named> = formula::tensors()
        .map(|(name, shape, values)| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name, shape, Dtype::F32, bytes)
        })
        .collect();
    // What a converted checkpoint holds besides.
    let counter = "Conv2d_1a_3x3.bn.num_batches_tracked".to_owned();
    tensors.push((counter, vec![], Dtype::I64, vec![0; 8]));
    tensors.push(("AuxLogits.fc.bias".to_owned(), vec![2], Dtype::F32, vec![255; 8]));
    tensors
});

/// The file of weights, in the folder that the build keeps for tests: no run leaves another copy behind.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("inception.safetensors");
    write(&path, &*TENSORS);
    path
});

fn load() -> Inception {
    Inception::load(&FILE).unwrap()
}

static NETWORK: LazyLock<Inception> = LazyLock::new(load);

/// What the network says of [`pictures`].
static PAIR: LazyLock<InceptionFeatures> =
    LazyLock::new(|| NETWORK.extract(pictures().view(), range()).unwrap());

fn pictures() -> Array3<f32> {
    ndarray::stack![Axis(0), image(0, 64, 48), image(1, 64, 48)]
}

/// Largest difference over the largest magnitude of theirs.
fn off(ours: ArrayView1<'_, f32>, theirs: &Value) -> f64 {
    let theirs: Vec<f64> = serde_json::from_value(theirs.clone()).unwrap();
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.iter().fold(0.0, |m: f64, v| m.max(v.abs()));
    ours.iter()
        .zip(&theirs)
        .fold(0.0, |m: f64, (a, b)| m.max((f64::from(*a) - b).abs()))
        / largest
}

#[test]
fn features_and_logits_are_those_of_pytorch_fid_and_torch_fidelity() {
    let ours = &*PAIR;
    assert_eq!(ours.features.dim(), (2, Inception::FEATURES));
    assert_eq!(ours.logits.dim(), (2, Inception::LOGITS));
    assert_eq!(ours.clipped, 0.0);
    for n in 0..2 {
        let theirs = &GOLDEN["pytorch_fid"];
        for (ours, theirs) in [
            (&ours.features, &theirs["features"][n]),
            (&ours.logits, &theirs["logits"][n]),
        ] {
            let off = off(ours.row(n), theirs);
            assert!(off < 1e-4, "image {n}: {off:e}");
        }
    }
    // Controls: the same program with the pools of torchvision, and the other image.
    for wrong in [
        &GOLDEN["count_include_pad"],
        &GOLDEN["last_average"],
        &GOLDEN["pytorch_fid"]["features"][1],
    ] {
        let off = off(ours.features.row(0), wrong);
        assert!(off > 1e-2, "{off:e}");
    }

    let theirs = &GOLDEN["torch_fidelity"];
    let network = load().with_resize(Resize::TorchFidelity);
    let first = pictures().slice_move(s![..1, .., ..]);
    let other = network.extract(first.view(), range()).unwrap();
    for (ours, theirs) in [
        (&other.features, &theirs["features"]),
        (&other.logits, &theirs["logits"]),
    ] {
        let off = off(ours.row(0), theirs);
        assert!(off < 1e-4, "{off:e}");
    }
    // Control: the resizes differ by far more than the tolerance.
    assert!(off(ours.features.row(0), &theirs["features"]) > 1e-3);
}

#[test]
fn an_image_has_one_answer_in_any_set_and_on_any_number_of_threads() {
    let network = &*NETWORK;
    let pictures = pictures();
    let both = &*PAIR;
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let second = pictures.slice(s![1.., .., ..]);
        let alone = pool.install(|| network.extract(second, range())).unwrap();
        assert_eq!(alone.features.row(0), both.features.row(1));
        assert_eq!(alone.logits.row(0), both.logits.row(1));
    }
}

#[test]
fn the_logits_feed_the_inception_score() {
    let ours = &*PAIR;
    let settings = InceptionScoreSettings {
        splits: 1,
        shuffle: None,
    };
    let score = inception_score(ours.logits.view(), &settings).unwrap();
    // exp(mean_x KL(p(y|x) ‖ p(y))) of the program's logits.
    let theirs: Vec<Vec<f64>> = serde_json::from_value(GOLDEN["pytorch_fid"]["logits"].clone()).unwrap();
    let shares: Vec<Vec<f64>> = theirs
        .iter()
        .map(|logits| {
            let sum: f64 = logits.iter().map(|v| v.exp()).sum();
            logits.iter().map(|v| v.exp() / sum).collect()
        })
        .collect();
    let divergence: f64 = shares
        .iter()
        .flat_map(|p| {
            p.iter()
                .enumerate()
                .map(|(k, p)| 0.5 * p * (p / (0.5 * (shares[0][k] + shares[1][k]))).ln())
        })
        .sum();
    assert!(
        (score.mean - divergence.exp()).abs() < 1e-5,
        "{} {}",
        score.mean,
        divergence.exp()
    );
}

#[test]
fn what_lies_outside_the_range_is_clipped_and_counted() {
    let network = &*NETWORK;
    let mut picture = pictures().slice_move(s![..1, .., ..]);
    picture[[0, 0, 0]] = 0.0;
    picture[[0, 5, 7]] = range() as f32;
    let inside = network.extract(picture.view(), range()).unwrap();
    picture[[0, 0, 0]] = -0.5;
    picture[[0, 5, 7]] = 2.0 * range() as f32;
    let outside = network.extract(picture.view(), range()).unwrap();
    assert_eq!(outside.features, inside.features);
    assert_eq!((inside.clipped, outside.clipped), (0.0, 2.0 / (64.0 * 48.0)));
}

#[test]
fn the_label_names_resize_and_weights() {
    let network = &*NETWORK;
    let bytes = std::fs::read(&*FILE).unwrap();
    let digest = Sha256::digest(&bytes);
    assert_eq!(network.sha256().len(), 64);
    assert!(
        digest
            .iter()
            .zip(network.sha256().as_bytes().chunks(2))
            .all(|(byte, digits)| {
                u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16) == Ok(*byte)
            })
    );
    assert_eq!(
        network.label(),
        format!(
            "Inception v3 (FID), resize pytorch-fid, weights sha256 {}",
            network.sha256()
        )
    );
    assert_eq!(network.resize(), Resize::PytorchFid);
    for resize in Resize::ALL {
        assert_eq!(resize.name().parse::<Resize>().unwrap(), resize);
    }
    assert!("bicubic".parse::<Resize>().is_err());
}

#[test]
fn a_file_that_does_not_hold_the_network_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    let refused = |tensors: &[Named]| {
        write(&path, tensors);
        Inception::load(&path).unwrap_err().to_string()
    };
    let ends = |message: String, end: &str| {
        assert_eq!(message, format!("{}: {end}", path.display()));
    };
    let all = &*TENSORS;
    let mut first: Vec<Named> = all
        .iter()
        .filter(|t| t.0.starts_with("Conv2d_1a_3x3."))
        .cloned()
        .collect();
    let at = |tensors: &[Named], name: &str| tensors.iter().position(|t| t.0 == name).unwrap();

    ends(
        refused(&first),
        "holds no `Conv2d_2a_3x3.conv.weight`; expected f32 [32, 32, 3, 3]",
    );
    let weight = at(&first, "Conv2d_1a_3x3.conv.weight");
    let kept = first[weight].clone();
    first[weight].1 = vec![32, 27];
    ends(
        refused(&first),
        "`Conv2d_1a_3x3.conv.weight` is f32 [32, 27]; expected f32 [32, 3, 3, 3]",
    );
    first[weight] = kept.clone();
    first[weight].2 = Dtype::F16;
    first[weight].3.truncate(kept.3.len() / 2);
    ends(
        refused(&first),
        "`Conv2d_1a_3x3.conv.weight` is f16 [32, 3, 3, 3]; expected f32 [32, 3, 3, 3]",
    );
    first[weight] = kept.clone();
    first[weight].3[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    ends(
        refused(&first),
        "`Conv2d_1a_3x3.conv.weight` holds NaN at element 2; expected finite numbers",
    );
    first[weight] = kept;
    let variance = at(&first, "Conv2d_1a_3x3.bn.running_var");
    first[variance].3[..4].copy_from_slice(&(-1.0_f32).to_le_bytes());
    ends(
        refused(&first),
        "`Conv2d_1a_3x3.bn.running_var` holds -1 at element 0; expected no negative variance",
    );

    // torchvision's own weights: the same names, another last layer.
    let mut torchvision = all.clone();
    let last = at(&torchvision, "fc.weight");
    torchvision[last].1[0] = 1000;
    torchvision[last].3.truncate(1000 * 2048 * 4);
    ends(
        refused(&torchvision),
        "`fc.weight` is f32 [1000, 2048]; expected f32 [1008, 2048]",
    );

    std::fs::write(&path, "PK\x03\x04 a pickle of PyTorch").unwrap();
    let message = Inception::load(&path).unwrap_err().to_string();
    assert!(message.contains("is not a safetensors file"), "{message}");
    std::fs::remove_file(&path).unwrap();
    let message = Inception::load(&path).unwrap_err().to_string();
    assert!(
        message.starts_with(&format!("cannot read {}", path.display())),
        "{message}"
    );
}

#[test]
fn images_without_an_answer_are_one_clear_error() {
    let network = &*NETWORK;
    let refused =
        |images: Array3<f32>, range: f64| network.extract(images.view(), range).unwrap_err().to_string();
    assert_eq!(
        refused(Array3::zeros((1, 8, 8)), 0.0),
        "data range is 0; expected a finite number above 0"
    );
    assert_eq!(
        refused(Array3::zeros((1, 0, 8)), 1.0),
        "Inception features needs at least 1 rows and columns; got 0"
    );
    let mut images = Array3::zeros((2, 8, 8));
    images[[1, 2, 3]] = f32::NAN;
    assert_eq!(
        refused(images, 1.0),
        "images holds NaN at index [1, 2, 3]; every value must be finite"
    );
    let none = network.extract(Array3::zeros((0, 8, 8)).view(), 1.0).unwrap();
    assert_eq!((none.features.nrows(), none.clipped), (0, 0.0));
    let dot = network.extract(Array3::ones((1, 1, 1)).view(), 1.0).unwrap();
    assert!(dot.features.iter().all(|v| v.is_finite()));
}

#[test]
fn weights_that_overflow_are_an_error() {
    let mut tensors = TENSORS.clone();
    for (name, _, _, bytes) in &mut tensors {
        if name.ends_with(".bn.weight") {
            for value in bytes.chunks_exact_mut(4) {
                value.copy_from_slice(&1e30_f32.to_le_bytes());
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.safetensors");
    write(&path, &tensors);
    let network = Inception::load(&path).unwrap();
    let message = network
        .extract(pictures().view(), range())
        .unwrap_err()
        .to_string();
    assert!(message.contains("overflow"), "{message}");
}
