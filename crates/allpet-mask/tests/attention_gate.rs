//! Step 3 of TMA: eq. 12 as printed, and the residual gate.

#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry, stream};
use allpet_mask::attention::{AttentionConfig, Gate, Roi, RoiShape};
use ndarray::{Array2, Array4, ArrayD, Axis};
use rand::Rng;

fn features() -> ArrayD<f32> {
    let mut random = stream(1, "test", 0);
    let mut features = Array4::from_shape_simple_fn((2, 3, 12, 21), || random.random_range(-2.0..2.0_f32));
    // Values whose bits arithmetic could change.
    features[[0, 0, 0, 0]] = -0.0;
    features[[0, 0, 0, 1]] = f32::MIN_POSITIVE / 8.0;
    features[[1, 2, 11, 20]] = f32::MAX;
    features.into_dyn()
}

fn disc() -> Array2<f32> {
    let lesion = RoiShape::Ellipse {
        x_mm: 0.0,
        y_mm: 0.0,
        a_mm: 5.0,
        b_mm: 5.0,
        tilt_deg: 0.0,
    };
    Roi::from_shapes(vec![lesion], ImageGrid::square(16, 1.0).unwrap())
        .unwrap()
        .attention(
            &ParallelGeometry::new(12, 21, 1.0).unwrap(),
            &AttentionConfig::default(),
        )
        .unwrap()
}

fn bits(a: &ArrayD<f32>) -> Vec<u32> {
    a.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn eq_12_on_the_disc_whose_attention_is_a_semicircle() {
    let (features, attention) = (features(), disc());
    let printed = Gate::Printed.apply(features.view(), attention.view()).unwrap();
    let residual = Gate::Residual { strength: 2.5 }
        .apply(features.view(), attention.view())
        .unwrap();
    for ((at, &f), (&p, &r)) in features.indexed_iter().zip(printed.iter().zip(&residual)) {
        let s = at[3] as f64 - 10.0;
        let m = (1.0 - s * s / 25.0).max(0.0).sqrt();
        let f = f64::from(f);
        if f.abs() < 10.0 {
            assert!((f64::from(p) - m * f).abs() < 1e-6);
            assert!((f64::from(r) - f * (1.0 + 2.5 * m)).abs() < 1e-6);
        }
    }
    // Off the region the printed gate erases and the residual one keeps every bit.
    let off = |a: &ArrayD<f32>| bits(&a.index_axis(Axis(3), 2).to_owned());
    assert!(off(&printed).iter().all(|b| b & 0x7fff_ffff == 0));
    assert_eq!(off(&residual), off(&features));
    // Control: on it, it does not.
    let on = |a: &ArrayD<f32>| bits(&a.index_axis(Axis(3), 10).to_owned());
    assert_ne!(on(&residual), on(&features));
}

#[test]
fn the_residual_gate_with_an_empty_region_is_the_identity_bit_for_bit() {
    let features = features();
    let none = Array2::<f32>::zeros((12, 21));
    for strength in [0.0, 1.0, 1000.0] {
        let out = Gate::Residual { strength }
            .apply(features.view(), none.view())
            .unwrap();
        assert_eq!(bits(&out), bits(&features));
    }
    // λ = 0 is the identity for any region; control: λ = 1 is not.
    let same = Gate::Residual { strength: 0.0 }
        .apply(features.view(), disc().view())
        .unwrap();
    assert_eq!(bits(&same), bits(&features));
    let other = Gate::default().apply(features.view(), disc().view()).unwrap();
    assert_ne!(bits(&other), bits(&features));
}

#[test]
fn two_axes_are_enough_and_leading_ones_share_the_attention() {
    let (features, attention) = (features(), disc());
    let all = Gate::default().apply(features.view(), attention.view()).unwrap();
    let one = features.index_axis(Axis(0), 1);
    let one = one.index_axis(Axis(0), 2);
    let alone = Gate::default().apply(one.view(), attention.view()).unwrap();
    assert_eq!(
        bits(&alone),
        bits(&all.index_axis(Axis(0), 1).index_axis(Axis(0), 2).to_owned())
    );
    // Any memory layout gives the same.
    let mut reversed = features.view();
    reversed.invert_axis(Axis(3));
    let mut flipped = attention.view();
    flipped.invert_axis(Axis(1));
    let mut out = Gate::default().apply(reversed, flipped).unwrap();
    out.invert_axis(Axis(3));
    assert_eq!(bits(&out), bits(&all));
}

#[test]
fn faults_are_one_clear_line_and_leave_the_features() {
    let (features, attention) = (features(), disc());
    let error = |gate: Gate, attention: &Array2<f32>| {
        let mut copy = features.clone();
        let error = gate
            .apply_in_place(copy.view_mut(), attention.view())
            .unwrap_err()
            .to_string();
        assert_eq!(bits(&copy), bits(&features));
        assert!(!error.contains('\n'));
        error
    };
    let none = Array2::zeros((12, 21));
    let empty = error(Gate::Printed, &none);
    assert!(
        empty.contains("0 everywhere") && empty.contains("eq. 12"),
        "{empty}"
    );
    let shape = error(Gate::Printed, &disc().slice(ndarray::s![..11, ..]).to_owned());
    assert_eq!(
        shape,
        "feature map has shape [2, 3, 12, 21]; expected [.., 11, 21] as the attention"
    );
    let mut wrong = attention.clone();
    wrong[[4, 5]] = 1.5;
    assert_eq!(
        error(Gate::default(), &wrong),
        "mask holds 1.5 at index [4, 5]; expected a normalised mask, 0 to 1"
    );
    wrong[[4, 5]] = f32::NAN;
    assert!(error(Gate::default(), &wrong).contains("NaN"));
    for strength in [-0.1, f64::NAN, 1e4] {
        assert!(error(Gate::Residual { strength }, &attention).contains("strength"));
    }
    let flat = ArrayD::<f32>::zeros(vec![21]);
    assert!(Gate::default().apply(flat.view(), attention.view()).is_err());
    assert!(
        Gate::default()
            .apply(flat.view(), Array2::zeros((0, 0)).view())
            .is_err()
    );
}

#[test]
fn gates_survive_a_file() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct File {
        gate: Gate,
    }
    for gate in [Gate::Printed, Gate::Residual { strength: 0.5 }] {
        let again: File = toml::from_str(&toml::to_string(&File { gate }).unwrap()).unwrap();
        assert_eq!(again.gate, gate);
    }
    assert!(toml::from_str::<File>("gate = { by = \"residual\" }").is_err());
}
