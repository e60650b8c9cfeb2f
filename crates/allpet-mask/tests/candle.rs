//! Eqs. 7 to 9 and 13 on tensors: same values as on arrays, the loss and its gradient.

#![allow(clippy::unwrap_used)]

use allpet_core::{ParallelGeometry, stream};
use allpet_mask::tensor::{c_all, loss_pn, loss_pn_against};
use allpet_mask::{MaskConfig, MaskGenerator, consistency, decompose};
use candle_core::{DType, Device, Tensor, Var};
use ndarray::{Array3, Axis};
use rand::Rng;

const SHAPE: (usize, usize, usize) = (2, 6, 16);

fn example() -> (Array3<f32>, Array3<f32>) {
    let config = MaskConfig {
        size: 16,
        block: (3, 5),
        blocks: (1, 2),
        ..MaskConfig::default()
    };
    let generator = MaskGenerator::new(config, ParallelGeometry::new(6, 16, 1.0).unwrap()).unwrap();
    let mut random = stream(4, "test", 0);
    let sinograms = Array3::from_shape_simple_fn(SHAPE, || random.random_range(0.0..3.0_f32));
    (sinograms, generator.masks(9, 0, 2).unwrap())
}

fn tensor(array: &Array3<f32>) -> Tensor {
    let values = array.iter().copied().collect::<Vec<_>>();
    let (batch, views, bins) = array.dim();
    Tensor::from_vec(values, (batch, 1, views, bins), &Device::Cpu).unwrap()
}

fn noise(seed: u64) -> Tensor {
    let mut random = stream(seed, "noise", 0);
    let values: Vec<f32> = (0..2 * 3 * 6 * 16)
        .map(|_| random.random_range(-1.0..1.0))
        .collect();
    Tensor::from_vec(values, (2, 3, 6, 16), &Device::Cpu).unwrap()
}

fn value(loss: &Tensor) -> f64 {
    loss.to_dtype(DType::F64).unwrap().to_scalar().unwrap()
}

#[test]
fn channels_equal_those_of_the_array_version() {
    let (sinograms, masks) = example();
    let found = c_all(&tensor(&sinograms), &tensor(&masks)).unwrap();
    assert_eq!(found.dims(), [2, 3, 6, 16]);
    let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
    let expected: Vec<f32> = sinograms
        .axis_iter(Axis(0))
        .zip(masks.axis_iter(Axis(0)))
        .flat_map(|(s, m)| decompose(s, m).unwrap().into_iter())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn loss_is_zero_on_built_channels_whatever_their_scale_and_positive_on_wrong_ones() {
    let (sinograms, masks) = example();
    let (s, m) = (tensor(&sinograms), tensor(&masks));
    let built = c_all(&s, &m).unwrap();
    assert_eq!(value(&loss_pn(&built, &m, 0.0).unwrap()), 0.0);
    assert_eq!(value(&loss_pn_against(&built, &s, &m, 0.0).unwrap()), 0.0);
    // Scaled as a network sees them: 0.4·C - 1.
    let scaled = built.affine(0.4, -1.0).unwrap();
    assert!(value(&loss_pn(&scaled, &m, -1.0).unwrap()) < 1e-12);
    assert!(value(&loss_pn_against(&scaled, &s.affine(0.4, -1.0).unwrap(), &m, -1.0).unwrap()) < 1e-12);
    // Controls: a forgotten offset, the complement of the mask, noise.
    assert!(value(&loss_pn(&scaled, &m, 0.0).unwrap()) > 1e-2);
    assert!(value(&loss_pn(&built, &m.affine(-1.0, 1.0).unwrap(), 0.0).unwrap()) > 1e-2);
    assert!(value(&loss_pn(&(&built + noise(1)).unwrap(), &m, 0.0).unwrap()) > 1e-2);
    // A wrong Ŝ shows only against itself.
    let zero = s.zeros_like().unwrap();
    let (pos, neg) = (built.narrow(1, 0, 1).unwrap(), built.narrow(1, 2, 1).unwrap());
    let without = Tensor::cat(&[&pos, &zero, &neg], 1).unwrap();
    assert!(value(&loss_pn(&without, &m, 0.0).unwrap()) > 0.1);
    assert_eq!(value(&loss_pn_against(&without, &s, &m, 0.0).unwrap()), 0.0);
}

#[test]
fn loss_is_the_mean_that_the_array_version_gives() {
    let (sinograms, masks) = example();
    let m = tensor(&masks);
    let decoded = (c_all(&tensor(&sinograms), &m).unwrap() + noise(2)).unwrap();
    let values: Vec<f32> = decoded.flatten_all().unwrap().to_vec1().unwrap();
    let mean: f64 = values
        .chunks(3 * 6 * 16)
        .zip(masks.axis_iter(Axis(0)))
        .map(|(c, mask)| {
            let c = Array3::from_shape_vec((3, 6, 16), c.to_vec()).unwrap();
            consistency(c.view(), mask).unwrap().mean / 2.0
        })
        .sum();
    let loss = value(&loss_pn(&decoded, &m, 0.0).unwrap());
    assert!((loss / mean - 1.0).abs() < 1e-5, "{loss} {mean}");
    // 16-bit channels are widened before they are squared.
    let half = value(&loss_pn(&decoded.to_dtype(DType::BF16).unwrap(), &m, 0.0).unwrap());
    assert!((half / mean - 1.0).abs() < 1e-2, "{half} {mean}");
}

#[test]
fn gradient_equals_finite_differences() {
    let (sinograms, masks) = example();
    let wide = |t: Tensor| t.to_dtype(DType::F64).unwrap();
    let (s, m) = (wide(tensor(&sinograms)), wide(tensor(&masks)));
    let start = (c_all(&s, &m).unwrap() + wide(noise(3))).unwrap();
    for against in [false, true] {
        let loss = |x: &Tensor| {
            if against {
                loss_pn_against(x, &s, &m, -0.3).unwrap()
            } else {
                loss_pn(x, &m, -0.3).unwrap()
            }
        };
        let variable = Var::from_tensor(&start).unwrap();
        let gradients = loss(variable.as_tensor()).backward().unwrap();
        let gradient = gradients.get(&variable).unwrap();
        for seed in 10..16 {
            let direction = wide(noise(seed));
            let slope = value(&(gradient * &direction).unwrap().sum_all().unwrap());
            let h = 1e-4;
            let at = |h: f64| value(&loss(&(&start + (&direction * h).unwrap()).unwrap()));
            let difference = (at(h) - at(-h)) / (2.0 * h);
            assert!(
                (slope - difference).abs() < 1e-8 * (1.0 + slope.abs()),
                "{slope} {difference}"
            );
            // Control: the gradient of another offset is noticed.
            let other = Var::from_tensor(&(&start + 0.1).unwrap()).unwrap();
            let gradients = loss(other.as_tensor()).backward().unwrap();
            let wrong = value(
                &(gradients.get(&other).unwrap() * &direction)
                    .unwrap()
                    .sum_all()
                    .unwrap(),
            );
            assert!((wrong - difference).abs() > 1e-6);
        }
        let middle = gradient
            .narrow(1, 1, 1)
            .unwrap()
            .abs()
            .unwrap()
            .sum_all()
            .unwrap();
        assert_eq!(
            value(&middle) == 0.0,
            against,
            "only the loss on its own sinogram pulls at it"
        );
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let (sinograms, masks) = example();
    let (s, m) = (tensor(&sinograms), tensor(&masks));
    let three = c_all(&s, &m).unwrap();
    assert!(c_all(&three, &m).is_err());
    assert!(c_all(&s, &m.narrow(3, 0, 15).unwrap()).is_err());
    assert!(loss_pn(&s, &m, 0.0).is_err());
    assert!(loss_pn(&three, &three, 0.0).is_err());
    assert!(loss_pn_against(&three, &three, &m, 0.0).is_err());
    let error = loss_pn(&three, &m.narrow(0, 0, 1).unwrap(), 0.0)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("mask: shape [1, 1, 6, 16]; expected (2, 1, 6, 16)"),
        "{error}"
    );
}
