//! Gates on feature maps: same values as on arrays, gradients, and what is refused.

#![allow(clippy::unwrap_used)]

use allpet_core::stream;
use allpet_mask::attention::Gate;
use allpet_mask::tensor::{AttentionGate, gate};
use candle_core::{DType, Device, Tensor, Var};
use ndarray::{Array3, Array4, Axis};
use rand::Rng;

const SHAPE: (usize, usize, usize, usize) = (3, 4, 6, 10);
const GATES: [Gate; 2] = [Gate::Printed, Gate::Residual { strength: 1.7 }];

fn features() -> Array4<f32> {
    let mut random = stream(2, "test", 0);
    Array4::from_shape_simple_fn(SHAPE, || random.random_range(-1.0..1.0_f32))
}

fn attention() -> Array3<f32> {
    let mut random = stream(2, "test", 1);
    Array3::from_shape_simple_fn((SHAPE.0, SHAPE.2, SHAPE.3), || {
        random.random_range(-1.0..1.0_f32).max(0.0)
    })
}

fn tensor(features: &Array4<f32>) -> Tensor {
    Tensor::from_iter(features.iter().copied(), &Device::Cpu)
        .unwrap()
        .reshape(features.dim())
        .unwrap()
}

fn maps(attention: &Array3<f32>) -> Tensor {
    let (batch, views, bins) = attention.dim();
    Tensor::from_iter(attention.iter().copied(), &Device::Cpu)
        .unwrap()
        .reshape((batch, 1, views, bins))
        .unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn layer(attention: &Array3<f32>, gate: Gate, dtype: DType) -> candle_core::Result<AttentionGate> {
    AttentionGate::new(attention.view(), gate, dtype, &Device::Cpu)
}

#[test]
fn tensors_get_the_bytes_that_arrays_get() {
    let (f, m) = (features(), attention());
    for by in GATES {
        let expected: Vec<f32> = f
            .axis_iter(Axis(0))
            .zip(m.axis_iter(Axis(0)))
            .flat_map(|(f, m)| by.apply(f.into_dyn(), m).unwrap().into_iter())
            .collect();
        assert_eq!(values(&gate(&tensor(&f), &maps(&m), by).unwrap()), expected);
        let made = layer(&m, by, DType::F32).unwrap();
        assert_eq!(values(&made.forward(&tensor(&f)).unwrap()), expected);
        // One region for a batch; and control: another region gives other values.
        let first = m.slice(ndarray::s![..1, .., ..]).to_owned();
        let shared = layer(&first, by, DType::F32).unwrap();
        let found = values(&shared.forward(&tensor(&f)).unwrap());
        let size = SHAPE.1 * SHAPE.2 * SHAPE.3;
        assert_eq!(found[..size], expected[..size]);
        assert_ne!(found[size..], expected[size..]);
    }
}

#[test]
fn an_empty_region_leaves_features_bit_for_bit_and_cannot_be_printed() {
    let none = Array3::zeros((SHAPE.0, SHAPE.2, SHAPE.3));
    let f = tensor(&features());
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let f = f.to_dtype(dtype).unwrap();
        let out = layer(&none, Gate::default(), dtype).unwrap().forward(&f).unwrap();
        let bits = |t: &Tensor| values(t).iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&out), bits(&f));
        assert_eq!(out.dtype(), dtype);
    }
    let mut second = attention();
    second.index_axis_mut(Axis(0), 1).fill(0.0);
    let error = layer(&second, Gate::Printed, DType::F32).unwrap_err().to_string();
    assert!(error.contains("sample 1 is 0 everywhere"), "{error}");
    assert!(layer(&second, Gate::default(), DType::F32).is_ok());
}

#[test]
fn gradients_are_the_weights_and_the_weighted_features() {
    let (f, m) = (features(), attention());
    let upstream = tensor(&features().mapv(|v| v * v - 0.3));
    for by in GATES {
        let (x, a) = (
            Var::from_tensor(&tensor(&f)).unwrap(),
            Var::from_tensor(&maps(&m)).unwrap(),
        );
        let out = gate(x.as_tensor(), a.as_tensor(), by).unwrap();
        let gradients = (out * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
        let (dx, da) = (
            values(gradients.get(&x).unwrap()),
            values(gradients.get(&a).unwrap()),
        );
        let g = values(&upstream);
        let lambda = if let Gate::Residual { strength } = by {
            strength
        } else {
            1.0
        };
        let (channels, size) = (SHAPE.1, SHAPE.2 * SHAPE.3);
        for sample in 0..SHAPE.0 {
            for i in 0..size {
                let at = sample * size + i;
                let weight = by.weight(m.as_slice().unwrap()[at]);
                let mut expected = 0.0;
                for c in 0..channels {
                    let k = (sample * channels + c) * size + i;
                    assert!((dx[k] - g[k] * weight).abs() < 1e-6);
                    expected += f64::from(g[k]) * f64::from(f.as_slice().unwrap()[k]) * lambda;
                }
                assert!((f64::from(da[at]) - expected).abs() < 1e-5);
            }
        }
        // The layer hands on the same gradient of the features.
        let out = layer(&m, by, DType::F32).unwrap().forward(x.as_tensor()).unwrap();
        let gradients = (out * &upstream).unwrap().sum_all().unwrap().backward().unwrap();
        assert_eq!(values(gradients.get(&x).unwrap()), dx);
        // Control: the gradient is not the upstream one.
        assert_ne!(dx, g);
    }
}

#[test]
fn wrong_shapes_types_and_values_are_clear_errors() {
    let (f, m) = (tensor(&features()), attention());
    let made = layer(&m, Gate::default(), DType::F32).unwrap();
    assert_eq!(made.weights().dims(), [3, 1, 6, 10]);
    let error = |r: candle_core::Result<Tensor>| r.unwrap_err().to_string();
    let narrow = error(made.forward(&f.narrow(3, 0, 9).unwrap()));
    assert!(
        narrow.contains("gate has shape [3, 1, 6, 10]; expected [3, 1, 6, 9] or [1, 1, 6, 9]"),
        "{narrow}"
    );
    let batch = error(made.forward(&f.narrow(0, 0, 2).unwrap()));
    assert!(batch.contains("expected [2, 1, 6, 10]"), "{batch}");
    let dtype = error(made.forward(&f.to_dtype(DType::BF16).unwrap()));
    assert!(
        dtype.contains("gate is F32; expected BF16 as the features"),
        "{dtype}"
    );
    let flat = error(made.forward(&f.flatten_all().unwrap()));
    assert!(flat.contains("[batch, channels, views, bins]"), "{flat}");
    let channels = error(gate(&f, &f, Gate::Printed));
    assert!(
        channels.contains("attention has shape [3, 4, 6, 10]"),
        "{channels}"
    );
    let strength = error(gate(&f, &maps(&m), Gate::Residual { strength: -1.0 }));
    assert!(strength.contains("strength of -1"), "{strength}");
    assert!(
        layer(&m, Gate::default(), DType::U8)
            .unwrap_err()
            .to_string()
            .contains("floating-point")
    );
    let high = layer(&m.mapv(|v| v * 3.0), Gate::default(), DType::F32);
    assert!(high.unwrap_err().to_string().contains("0 to 1"));
}
