//! Every operator against a naive f64 reference: values, and gradients by central differences of that reference.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{fill_normal, stream};
use allpet_nn::{
    Window, attention, concat_channels, conv2d, depth_to_space, group_norm, linear, space_to_depth,
    upsample_nearest,
};
use candle_core::{Device, Result, Tensor, Var};

fn draw(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(11, name, 0), &mut values);
    values
}

type Reference<'a> = &'a dyn Fn(&[Vec<f64>]) -> Vec<f64>;
type Operator<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// Largest deviation of values and of gradients of `Σ r·y`, each relative to the largest entry.
fn deviations(shapes: &[&[usize]], reference: Reference, operator: Operator) -> (f64, f64) {
    let inputs: Vec<Vec<f32>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| draw(&format!("x{i}"), s))
        .collect();
    let vars: Vec<Var> = inputs
        .iter()
        .zip(shapes)
        .map(|(v, s)| Var::from_tensor(&Tensor::from_slice(v, *s, &Device::Cpu).unwrap()).unwrap())
        .collect();
    let tensors: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = operator(&tensors).unwrap();
    let exact = reference(
        &inputs
            .iter()
            .map(|v| v.iter().map(|x| f64::from(*x)).collect())
            .collect::<Vec<_>>(),
    );
    let got = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let values = worst(&got, &exact);

    let r = draw("weights", &[exact.len()]);
    let loss = (y * Tensor::from_slice(&r, y_shape(&exact, &tensors, operator), &Device::Cpu).unwrap())
        .unwrap()
        .sum_all()
        .unwrap();
    let grads = loss.backward().unwrap();
    let mut gradients = 0f64;
    for (i, var) in vars.iter().enumerate() {
        let got = grads
            .get(var)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let mut points: Vec<Vec<f64>> = inputs
            .iter()
            .map(|v| v.iter().map(|x| f64::from(*x)).collect())
            .collect();
        let numeric: Vec<f64> = (0..got.len())
            .map(|j| {
                let h = 1e-5;
                let at = points[i][j];
                let mut value = |x: f64| -> f64 {
                    points[i][j] = x;
                    reference(&points)
                        .iter()
                        .zip(&r)
                        .map(|(y, r)| y * f64::from(*r))
                        .sum()
                };
                let slope = (value(at + h) - value(at - h)) / (2.0 * h);
                value(at);
                slope
            })
            .collect();
        gradients = gradients.max(worst(&got, &numeric));
    }
    (values, gradients)
}

fn y_shape(_: &[f64], inputs: &[Tensor], operator: Operator) -> Vec<usize> {
    operator(inputs).unwrap().dims().to_vec()
}

fn worst(got: &[f32], exact: &[f64]) -> f64 {
    assert_eq!(got.len(), exact.len());
    let scale = exact.iter().fold(1e-12f64, |m, v| m.max(v.abs()));
    got.iter()
        .zip(exact)
        .map(|(g, e)| (f64::from(*g) - e).abs())
        .fold(0.0, f64::max)
        / scale
}

fn close(name: &str, found: (f64, f64)) {
    println!("{name}: values {:.1e}, gradients {:.1e}", found.0, found.1);
    assert!(found.0 < 3e-6 && found.1 < 2e-5, "{name}: {found:?}");
}

/// `(b, c_in, c_out, h, w, k)`.
type ConvCase = (usize, usize, usize, usize, usize, usize);

fn naive_conv(v: &[Vec<f64>], (b, ci, co, h, w, k): ConvCase, window: Window) -> Vec<f64> {
    let out = |n: usize| (n + 2 * window.padding - k) / window.stride + 1;
    let (oh, ow) = (out(h), out(w));
    let mut y = vec![0f64; b * co * oh * ow];
    for n in 0..b {
        for o in 0..co {
            for r in 0..oh {
                for c in 0..ow {
                    let mut sum = v[2][o];
                    for i in 0..ci {
                        for a in 0..k {
                            for e in 0..k {
                                let (row, col) = (r * window.stride + a, c * window.stride + e);
                                if row < window.padding || col < window.padding {
                                    continue;
                                }
                                let (row, col) = (row - window.padding, col - window.padding);
                                if row < h && col < w {
                                    sum += v[0][((n * ci + i) * h + row) * w + col]
                                        * v[1][((o * ci + i) * k + a) * k + e];
                                }
                            }
                        }
                    }
                    y[((n * co + o) * oh + r) * ow + c] = sum;
                }
            }
        }
    }
    y
}

#[test]
fn convolutions() {
    let cases: &[(ConvCase, usize, usize)] = &[
        ((2, 3, 5, 6, 7, 3), 1, 1),
        ((1, 9, 10, 5, 33, 3), 1, 1),
        ((3, 4, 6, 8, 8, 1), 1, 0),
        ((1, 3, 4, 8, 8, 3), 2, 1),
        ((2, 2, 3, 7, 9, 3), 2, 1),
        ((1, 2, 3, 8, 9, 3), 2, 1),
        ((1, 2, 2, 6, 6, 3), 1, 0),
        ((1, 2, 2, 8, 6, 2), 2, 0),
    ];
    for (case, stride, padding) in cases {
        let (b, ci, co, h, w, k) = *case;
        let window = Window {
            stride: *stride,
            padding: *padding,
        };
        let found = deviations(
            &[&[b, ci, h, w], &[co, ci, k, k], &[co]],
            &|v| naive_conv(v, *case, window),
            &|t| conv2d(&t[0], &t[1], &t[2], window),
        );
        close(&format!("conv {case:?} {window:?}"), found);
    }
}

fn naive_norm(v: &[Vec<f64>], (b, c, n): (usize, usize, usize), groups: usize, silu: bool) -> Vec<f64> {
    let per = c / groups;
    let mut y = vec![0f64; b * c * n];
    for s in 0..b {
        for g in 0..groups {
            let range = (s * c + g * per) * n..(s * c + (g + 1) * per) * n;
            let x = &v[0][range.clone()];
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64;
            for (i, x) in range.zip(x) {
                let channel = i / n;
                let u = v[1][channel] * (x - mean) / (var + 1e-5).sqrt() + v[2][channel];
                y[i] = if silu { u / (1.0 + (-u).exp()) } else { u };
            }
        }
    }
    y
}

#[test]
fn group_norms() {
    for (b, c, h, w, groups) in [(2, 6, 3, 5, 2), (1, 4, 6, 6, 4), (2, 8, 4, 4, 1)] {
        for silu in [false, true] {
            let found = deviations(
                &[&[b, c, h, w], &[b, c], &[b, c]],
                &|v| naive_norm(v, (b, c, h * w), groups, silu),
                &|t| group_norm(&t[0], &t[1], &t[2], groups, silu),
            );
            close(&format!("group norm {b}x{c}x{h}x{w}/{groups} silu {silu}"), found);
        }
    }
}

#[test]
fn attentions() {
    for (b, c, h, w, heads) in [(2, 4, 3, 5, 2), (1, 6, 6, 6, 1), (1, 12, 4, 2, 3)] {
        let (n, d) = (h * w, c / heads);
        let found = deviations(
            &[&[b, 3 * c, h, w]],
            &|v| {
                let mut y = vec![0f64; b * c * n];
                for s in 0..b {
                    for head in 0..heads {
                        let at = |part: usize, e: usize, i: usize| {
                            v[0][((s * 3 + part) * c + head * d + e) * n + i]
                        };
                        for i in 0..n {
                            let score = |j: usize| {
                                (0..d).map(|e| at(0, e, i) * at(1, e, j)).sum::<f64>() / (d as f64).sqrt()
                            };
                            let p: Vec<f64> = (0..n).map(|j| score(j).exp()).collect();
                            let total: f64 = p.iter().sum();
                            for e in 0..d {
                                y[(s * c + head * d + e) * n + i] =
                                    (0..n).map(|j| p[j] / total * at(2, e, j)).sum::<f64>();
                            }
                        }
                    }
                }
                y
            },
            &|t| attention(&t[0], heads),
        );
        close(&format!("attention {b}x{c}x{h}x{w}/{heads}"), found);
    }
}

#[test]
fn linears() {
    for (b, i, o) in [(3, 5, 7), (35, 8, 9), (1, 1, 1)] {
        let found = deviations(
            &[&[b, i], &[o, i], &[o]],
            &|v| {
                (0..b * o)
                    .map(|k| {
                        v[2][k % o]
                            + (0..i)
                                .map(|j| v[0][k / o * i + j] * v[1][k % o * i + j])
                                .sum::<f64>()
                    })
                    .collect()
            },
            &|t| linear(&t[0], &t[1], &t[2]),
        );
        close(&format!("linear {b}x{i} to {o}"), found);
    }
}

#[test]
fn resolutions() {
    let found = deviations(
        &[&[2, 3, 2, 4]],
        &|v| {
            (0..2 * 3 * 4 * 8)
                .map(|k| v[0][k / 32 * 8 + (k % 32) / 8 / 2 * 4 + k % 8 / 2])
                .collect()
        },
        &|t| upsample_nearest(&t[0]),
    );
    close("upsampling", found);
    let found = deviations(
        &[&[2, 1, 2, 2], &[2, 2, 2, 2]],
        &|v| {
            let joined = |s: usize| v[0][4 * s..4 * s + 4].iter().chain(&v[1][8 * s..8 * s + 8]);
            joined(0).chain(joined(1)).copied().collect()
        },
        &|t| concat_channels(&t[0], &t[1]),
    );
    close("concatenation", found);
    // A branch beside the upsampling must keep its own part of the gradient (stock candle overwrites it).
    let found = deviations(
        &[&[1, 1, 2, 2]],
        &|v| {
            (0..16)
                .map(|k| v[0][k / 4 / 2 * 2 + k % 4 / 2] + v[0][0])
                .collect()
        },
        &|t| {
            let corner = t[0].narrow(2, 0, 1)?.narrow(3, 0, 1)?;
            upsample_nearest(&t[0])?.broadcast_add(&corner)
        },
    );
    close("upsampling beside another branch", found);
}

#[test]
fn space_to_depth_is_lossless_and_orders_channels_by_block_position() {
    let x = Tensor::arange(0f32, 2. * 3. * 4. * 6., &Device::Cpu)
        .unwrap()
        .reshape((2, 3, 4, 6))
        .unwrap();
    let deep = space_to_depth(&x, 2).unwrap();
    assert_eq!(deep.dims(), [2, 12, 2, 3]);
    let pixel = |t: &Tensor, i: [usize; 4]| {
        t.get(i[0])
            .unwrap()
            .get(i[1])
            .unwrap()
            .get(i[2])
            .unwrap()
            .get(i[3])
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    assert_eq!(pixel(&deep, [1, 2 * 4 + 3, 1, 2]), pixel(&x, [1, 2, 3, 5]));
    let back = depth_to_space(&deep, 2).unwrap();
    assert_eq!(
        back.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    );
}

#[test]
fn a_broken_gradient_is_noticed() {
    // The negative control: the same check with a reference whose padding is off must fail.
    let case = (1, 2, 2, 5, 5, 3);
    let right = Window {
        stride: 1,
        padding: 1,
    };
    let found = deviations(
        &[&[1, 2, 5, 5], &[2, 2, 3, 3], &[2]],
        &|v| {
            naive_conv(v, case, right)
                .into_iter()
                .map(|y| y * 1.001)
                .collect()
        },
        &|t| conv2d(&t[0], &t[1], &t[2], right),
    );
    assert!(found.0 > 5e-4 && found.1 > 5e-4, "{found:?}");
}

#[test]
fn bytes_do_not_depend_on_batch_or_threads() {
    let x = Tensor::from_vec(draw("x", &[5, 6, 9, 7]), (5, 6, 9, 7), &Device::Cpu).unwrap();
    let w = Tensor::from_vec(draw("w", &[12, 6, 3, 3]), (12, 6, 3, 3), &Device::Cpu).unwrap();
    let bias = Tensor::from_vec(draw("b", &[12]), 12, &Device::Cpu).unwrap();
    let (gain, offset) = (
        Tensor::ones((5, 12), candle_core::DType::F32, &Device::Cpu).unwrap(),
        draw("o", &[5, 12]),
    );
    let offset = Tensor::from_vec(offset, (5, 12), &Device::Cpu).unwrap();
    let lw = Tensor::from_vec(draw("lw", &[9, 252]), (9, 252), &Device::Cpu).unwrap();
    let lb = Tensor::from_vec(draw("lb", &[9]), 9, &Device::Cpu).unwrap();
    let run = |from: usize, count: usize| -> Vec<f32> {
        let y = conv2d(&x.narrow(0, from, count).unwrap(), &w, &bias, Window::same(3)).unwrap();
        let part = |t: &Tensor| t.narrow(0, from, count).unwrap();
        let y = group_norm(&y, &part(&gain), &part(&offset), 3, true).unwrap();
        let y = attention(&y, 2).unwrap();
        let y = linear(&y.reshape((count, ())).unwrap(), &lw, &lb).unwrap();
        y.flatten_all().unwrap().to_vec1().unwrap()
    };
    let whole = run(0, 5);
    let single: Vec<f32> = (0..5).flat_map(|i| run(i, 1)).collect();
    assert_eq!(whole, single);
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        assert_eq!(pool.install(|| run(0, 5)), whole);
    }
}

#[test]
fn misfits_name_both_shapes() {
    let t = |s: &[usize]| Tensor::zeros(s, candle_core::DType::F32, &Device::Cpu).unwrap();
    let text = conv2d(&t(&[1, 3, 4, 4]), &t(&[2, 5, 3, 3]), &t(&[2]), Window::same(3))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("[1, 3, 4, 4]") && text.contains("[2, 5, 3, 3]"),
        "{text}"
    );
    let text = group_norm(&t(&[1, 6, 2, 2]), &t(&[1, 6]), &t(&[1, 6]), 4, false)
        .unwrap_err()
        .to_string();
    assert!(text.contains("4 groups") && text.contains("6 channels"), "{text}");
    assert!(attention(&t(&[1, 10, 2, 2]), 2).is_err());
    assert!(linear(&t(&[1, 3]), &t(&[2, 4]), &t(&[2])).is_err());
}
