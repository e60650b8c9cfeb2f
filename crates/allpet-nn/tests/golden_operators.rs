//! Every operator beside PyTorch's stored values, one by one: outputs, and the gradients of `Σ r·y`.
//!
//! `golden/operators.safetensors` was written by `golden/operators.py`, which says how to make it again.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_nn::{
    Window, attention, channel_attention, conv2d, gelu_gate, group_norm, grouped_conv2d, layer_norm, linear,
    record, upsample_nearest,
};
use candle_core::{Device, Result, Tensor, Var, safetensors};
use std::collections::{BTreeSet, HashMap};

/// Largest deviation that is allowed, relative to the largest entry of a tensor.
const ALLOWED: f64 = 1e-5;

const HALVE: Window = Window {
    stride: 2,
    padding: 1,
};

type Operator = fn(&[Tensor]) -> Result<Tensor>;

const OPERATORS: [(&str, Operator); 15] = [
    ("conv3x3", |t| conv2d(&t[0], &t[1], &t[2], Window::same(3))),
    ("conv3x3_wide", |t| conv2d(&t[0], &t[1], &t[2], Window::same(3))),
    ("conv1x1", |t| conv2d(&t[0], &t[1], &t[2], Window::same(1))),
    ("conv3x3_stride2", |t| conv2d(&t[0], &t[1], &t[2], HALVE)),
    ("conv3x3_stride2_wide", |t| conv2d(&t[0], &t[1], &t[2], HALVE)),
    ("conv3x3_grouped", |t| {
        grouped_conv2d(&t[0], &t[1], &t[2], Window::same(3), 2)
    }),
    ("conv3x3_depthwise", |t| {
        grouped_conv2d(&t[0], &t[1], &t[2], Window::same(3), 5)
    }),
    ("group_norm", |t| group_norm(&t[0], &t[1], &t[2], 3, false)),
    ("group_norm_silu", |t| group_norm(&t[0], &t[1], &t[2], 3, true)),
    ("layer_norm", |t| layer_norm(&t[0], &t[1], &t[2])),
    ("linear", |t| linear(&t[0], &t[1], &t[2])),
    ("attention", |t| attention(&t[0], 2)),
    ("channel_attention", |t| channel_attention(&t[0], &t[1])),
    ("gelu_gate", |t| gelu_gate(&t[0])),
    ("upsample_nearest", |t| upsample_nearest(&t[0])),
];

fn golden() -> HashMap<String, Tensor> {
    let bytes = include_bytes!("golden/operators.safetensors");
    safetensors::load_buffer(bytes, &Device::Cpu).unwrap()
}

fn off(got: &Tensor, exact: &Tensor) -> f64 {
    assert_eq!(got.dims(), exact.dims());
    let list = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, exact) = (list(got), list(exact));
    let scale = exact.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let worst = got
        .iter()
        .zip(&exact)
        .fold(0f64, |m, (a, b)| m.max(f64::from((a - b).abs())));
    worst / f64::from(scale)
}

/// Deviations of the output and of each gradient of `operator` from the values of `case`.
fn deviations(golden: &HashMap<String, Tensor>, case: &str, operator: Operator) -> Vec<f64> {
    let of = |name: &str| golden.get(&format!("{case}.{name}"));
    let inputs: Vec<Var> = (0..)
        .map_while(|i| of(&format!("in{i}")))
        .map(|t| Var::from_tensor(t).unwrap())
        .collect();
    let tensors: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let (y, tape) = record(|| operator(&tensors));
    let y = y.unwrap();
    let mut found = vec![off(&y, of("y").unwrap())];
    let loss = (y * of("r").unwrap()).unwrap().sum_all().unwrap();
    let gradients = tape.backward(&loss).unwrap();
    for (i, input) in inputs.iter().enumerate() {
        let exact = of(&format!("grad{i}")).unwrap();
        found.push(off(gradients.get(input).unwrap(), exact));
    }
    found
}

#[test]
fn outputs_and_gradients_are_those_of_pytorch() {
    let golden = golden();
    let stored: BTreeSet<&str> = golden.keys().filter_map(|k| Some(k.split_once('.')?.0)).collect();
    assert_eq!(stored, OPERATORS.iter().map(|(case, _)| *case).collect());
    for (case, operator) in OPERATORS {
        let found = deviations(&golden, case, operator);
        println!("{case}: {found:?}");
        assert!(found.iter().all(|d| *d < ALLOWED), "{case}: {found:?}");
    }
}

/// The controls: operators that are wrong by little fail, in the output or in a gradient alone.
#[test]
fn wrong_operators_are_noticed() {
    let golden = golden();
    let broken: [(&str, Operator); 5] = [
        ("conv3x3", |t| {
            conv2d(&t[0], &(&t[1] * 1.00002)?, &t[2], Window::same(3))
        }),
        // A gradient that goes by the weights: the output is right, the input's gradient is not.
        ("conv3x3_stride2", |t| {
            let y = conv2d(&t[0].detach(), &t[1], &t[2], HALVE)?;
            y + (t[0].sum_all()? - t[0].sum_all()?.detach())?.broadcast_as((2, 6, 5, 4))?
        }),
        ("group_norm_silu", |t| group_norm(&t[0], &t[1], &t[2], 3, false)),
        ("attention", |t| attention(&t[0], 1)),
        ("gelu_gate", |t| {
            let (a, b) = (t[0].narrow(1, 0, 3)?, t[0].narrow(1, 3, 3)?);
            a.gelu()? * b
        }),
    ];
    for (case, operator) in broken {
        let found = deviations(&golden, case, operator);
        assert!(found.iter().any(|d| *d > ALLOWED), "{case}: {found:?}");
    }
}
