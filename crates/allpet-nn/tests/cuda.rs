//! The operators on a CUDA device against the CPU: values and gradients, f32 to 1e-4, 16-bit floats to their own digits.
//! Without a device each test says that it was skipped; the kernels' text is also tested without one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{fill_normal, stream};
use allpet_nn::{
    Window, add, attention, channel_attention, concat_channels, conv2d, depth_to_space, gelu_gate,
    group_norm, grouped_conv2d, layer_norm, linear, mean_squared_error, recomputed, record, space_to_depth,
    upsample_nearest,
};
use candle_core::{DType, Device, Result, Tensor, Var};

/// The first device, or word that there is none.
fn device() -> Option<Device> {
    match Device::new_cuda(0) {
        Ok(device) => Some(device),
        Err(e) => {
            println!("SKIPPED: no CUDA device ({e})");
            None
        }
    }
}

/// Normal numbers that 16-bit floats hold exactly.
fn draw(name: &str, shape: &[usize]) -> Tensor {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(7, name, 0), &mut values);
    let values = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    let round = |t: &Tensor, dtype| t.to_dtype(dtype).unwrap().to_dtype(DType::F32).unwrap();
    round(&round(&values, DType::BF16), DType::F16)
}

fn list(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_device(&Device::Cpu).unwrap().to_dtype(DType::F32);
    tensor.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest deviation, relative to the largest entry.
fn worst(got: &Tensor, expected: &Tensor) -> f32 {
    assert_eq!(got.dims(), expected.dims());
    let (got, expected) = (list(got), list(expected));
    let scale = expected.iter().fold(1e-12f32, |m, v| m.max(v.abs()));
    let far = got.iter().zip(&expected).map(|(g, e)| match (g - e).abs() {
        far if far.is_nan() => f32::INFINITY,
        far => far,
    });
    far.fold(0.0, f32::max) / scale
}

type Operator<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// The result and the gradients of all inputs, by candle's graph or by the tape.
fn all_of(
    inputs: &[(Tensor, bool)],
    operator: Operator,
    device: &Device,
    dtype: DType,
    taped: bool,
) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|(t, parameter)| {
            let t = if *parameter {
                t.clone()
            } else {
                t.to_dtype(dtype).unwrap()
            };
            Var::from_tensor(&t.to_device(device).unwrap()).unwrap()
        })
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let loss = |y: &Tensor| {
        let dy = draw("dy", y.dims()).to_dtype(y.dtype()).unwrap();
        (y * dy.to_device(device).unwrap()).unwrap().sum_all().unwrap()
    };
    let (y, store) = if taped {
        let (y, tape) = record(|| operator(&tensors));
        let y = y.unwrap();
        let store = tape.backward(&loss(&y)).unwrap();
        (y, store)
    } else {
        let y = operator(&tensors).unwrap();
        let store = loss(&y).backward().unwrap();
        (y, store)
    };
    let mut all = vec![y];
    all.extend(vars.iter().map(|v| store.get(v).unwrap().clone()));
    all
}

/// Inputs by shape, and whether each is a parameter (f32 whatever the activations are).
fn check(device: &Device, name: &str, shapes: &[(&[usize], bool)], operator: Operator) {
    let inputs: Vec<(Tensor, bool)> = shapes
        .iter()
        .enumerate()
        .map(|(i, (shape, parameter))| (draw(&format!("x{i}"), shape), *parameter))
        .collect();
    let expected = all_of(&inputs, operator, &Device::Cpu, DType::F32, false);
    for (dtype, bound) in [(DType::F32, 1e-4), (DType::F16, 1e-2), (DType::BF16, 5e-2)] {
        let got = all_of(&inputs, operator, device, dtype, false);
        assert_eq!(got[0].dtype(), dtype, "{name}");
        for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let far = worst(got, expected);
            println!("{name}, {dtype:?}, tensor {i}: {far:.1e}");
            assert!(far < bound, "{name}, {dtype:?}, tensor {i}: {far:.1e}");
        }
        // Twice the same bytes, and the tape's gradients are the graph's.
        for taped in [false, true] {
            let again = all_of(&inputs, operator, device, dtype, taped);
            for (a, b) in again.iter().zip(&got) {
                assert_eq!(list(a), list(b), "{name}, {dtype:?}, taped: {taped}");
            }
        }
    }
}

#[test]
fn operators_give_what_the_cpu_gives() {
    let Some(device) = device() else { return };
    let on =
        |name: &str, shapes: &[(&[usize], bool)], operator: Operator| check(&device, name, shapes, operator);
    for (shape, groups, silu) in [
        ([2, 6, 5, 7], 3, true),
        ([3, 7, 64, 130], 1, false),
        ([4, 64, 16, 16], 8, true),
    ] {
        let (b, c) = (shape[0], shape[1]);
        on(
            "group norm",
            &[(&shape, false), (&[c], true), (&[c], true)],
            &|t| group_norm(&t[0], &t[1], &t[2], groups, silu),
        );
        on(
            "group norm of samples",
            &[(&shape, false), (&[b, c], true), (&[b, c], true)],
            &|t| group_norm(&t[0], &t[1], &t[2], groups, silu),
        );
    }
    for shape in [[3, 5], [9, 64], [3000, 48]] {
        on(
            "layer norm",
            &[(&shape, false), (&shape[1..], true), (&shape[1..], true)],
            &|t| layer_norm(&t[0], &t[1], &t[2]),
        );
    }
    for (x, w, stride, padding, groups) in [
        ([2, 3, 6, 7], [5, 3, 3, 3], 1, 1, 1),
        ([2, 64, 64, 64], [64, 64, 3, 3], 1, 1, 1),
        ([2, 32, 33, 31], [48, 32, 3, 3], 2, 1, 1),
        ([3, 24, 16, 16], [40, 24, 1, 1], 1, 0, 1),
        ([2, 8, 9, 10], [12, 4, 3, 3], 1, 1, 2),
        ([2, 48, 32, 32], [48, 1, 3, 3], 1, 1, 48),
        ([2, 5, 9, 7], [5, 1, 5, 5], 2, 2, 5),
    ] {
        let window = Window { stride, padding };
        on("convolution", &[(&x, false), (&w, true), (&w[..1], true)], &|t| {
            grouped_conv2d(&t[0], &t[1], &t[2], window, groups)
        });
    }
    for (shape, heads) in [([2, 45, 3, 7], 3), ([1, 192, 32, 32], 4), ([5, 24, 9, 1], 1)] {
        on("attention", &[(&shape, false)], &|t| attention(&t[0], heads));
    }
    for (shape, heads) in [([2, 18, 3, 5], 2), ([2, 144, 32, 32], 1)] {
        on("channel attention", &[(&shape, false), (&[heads], true)], &|t| {
            channel_attention(&t[0], &t[1])
        });
    }
    let image: &[usize] = &[2, 12, 10, 6];
    on("upsampling", &[(image, false)], &|t| upsample_nearest(&t[0]));
    on("space to depth", &[(image, false)], &|t| space_to_depth(&t[0], 2));
    on("depth to space", &[(image, false)], &|t| depth_to_space(&t[0], 2));
    on("gate", &[(image, false)], &|t| gelu_gate(&t[0]));
    on("sum", &[(image, false), (image, false)], &|t| add(&t[0], &t[1]));
    on(
        "concatenation",
        &[(image, false), (&[2, 5, 10, 6], false)],
        &|t| concat_channels(&t[0], &t[1]),
    );
    on(
        "linear",
        &[(&[7, 33], false), (&[20, 33], true), (&[20], true)],
        &|t| linear(&t[0], &t[1], &t[2]),
    );
}

/// A network with a part that is computed again, and candle's operators in between.
#[test]
fn a_training_step_has_the_gradients_of_the_cpu() {
    let Some(device) = device() else { return };
    let step = |device: &Device| -> (f32, Vec<Tensor>) {
        let var = |name: &str, shape: &[usize]| {
            let scaled = (draw(name, shape) * 0.3).unwrap();
            Var::from_tensor(&scaled.to_device(device).unwrap()).unwrap()
        };
        let vars = [
            var("w", &[8, 8, 3, 3]),
            var("b", &[8]),
            var("scale", &[8]),
            var("shift", &[8]),
            var("qkv", &[24, 8, 1, 1]),
            var("zero", &[24]),
        ];
        let x = draw("x", &[2, 8, 8, 12]).to_device(device).unwrap();
        let t: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
        let (loss, tape) = record(|| -> Result<Tensor> {
            let first = conv2d(&x, &t[0], &t[1], Window::same(3))?;
            let p = t.clone();
            let block = move |inputs: &[Tensor]| -> Result<Tensor> {
                let y = group_norm(&inputs[0], &p[2], &p[3], 4, true)?;
                let y = attention(&conv2d(&y, &p[4], &p[5], Window::same(1))?, 2)?;
                add(&inputs[0], &y)
            };
            let second = recomputed(&[&first], block)?.tanh()?;
            mean_squared_error(&second, &x)
        });
        let loss = loss.unwrap();
        let store = tape.backward(&loss).unwrap();
        let gradients = vars.iter().map(|v| store.get(v).unwrap().clone());
        (loss.to_scalar().unwrap(), gradients.collect())
    };
    let (expected, gradients) = step(&Device::Cpu);
    let (loss, got) = step(&device);
    assert!((loss - expected).abs() < 1e-5 * expected.abs());
    for (got, expected) in got.iter().zip(&gradients) {
        assert!(worst(got, expected) < 1e-4);
    }
}
