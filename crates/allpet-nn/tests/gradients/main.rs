//! Every operator against a naive f64 reference: values, and gradients by central differences of that reference.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod bytes;
mod convolution;

use allpet_core::{fill_normal, stream};
use allpet_nn::{
    Window, add, attention, channel_attention, concat_channels, conv2d, depth_to_space, gelu_gate,
    group_norm, grouped_conv2d, layer_norm, linear, mean_squared_error, recomputed, record, space_to_depth,
    upsample_nearest, without_gradients,
};
use candle_core::{Device, Result, Tensor, Var};
use convolution::naive_conv;

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
    let r_tensor = Tensor::from_slice(&r, y.dims(), &Device::Cpu).unwrap();
    let in_graph = (y * &r_tensor).unwrap().sum_all().unwrap().backward().unwrap();
    let (recorded, tape) = record(|| operator(&tensors));
    let loss = (recorded.unwrap() * &r_tensor).unwrap().sum_all().unwrap();
    let grads = tape.backward(&loss).unwrap();
    let mut gradients = 0f64;
    for (i, var) in vars.iter().enumerate() {
        let got = grads
            .get(var)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap();
        let by_candle = in_graph.get(var).unwrap().flatten_all().unwrap();
        let by_candle: Vec<f64> = by_candle
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .map(|v| f64::from(*v))
            .collect();
        gradients = gradients.max(worst(&got, &by_candle));
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

#[test]
fn layer_norms() {
    for (rows, c) in [(3, 5), (7, 64), (1, 1), (300, 3)] {
        let found = deviations(
            &[&[rows, c], &[c], &[c]],
            &|v| {
                let row = |x: &[f64]| -> Vec<f64> {
                    let mean = x.iter().sum::<f64>() / c as f64;
                    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
                    let hat = |i: usize| (x[i] - mean) / (variance + 1e-5).sqrt();
                    (0..c).map(|i| v[1][i] * hat(i) + v[2][i]).collect()
                };
                v[0].chunks(c).flat_map(row).collect()
            },
            &|t| layer_norm(&t[0], &t[1], &t[2]),
        );
        close(&format!("layer norm {rows} x {c}"), found);
    }
}

#[test]
fn gates() {
    // Φ by its series, which converges everywhere: Φ(x) = ½ + φ(x)·Σ x^(2k+1)/(1·3·…·(2k+1)).
    let below = |x: f64| {
        let (mut term, mut sum) = (x, x);
        for k in 1..200 {
            term *= x * x / (2 * k + 1) as f64;
            sum += term;
        }
        0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
    };
    let found = deviations(
        &[&[2, 6, 3, 7]],
        &|v| {
            let half = 3 * 21;
            let sample =
                |x: &[f64]| -> Vec<f64> { (0..half).map(|i| x[i] * below(x[i]) * x[half + i]).collect() };
            v[0].chunks(2 * half).flat_map(sample).collect()
        },
        &|t| gelu_gate(&t[0]),
    );
    close("gelu gate", found);
}

#[test]
fn channel_attentions() {
    for (b, c, n, heads) in [(2, 4, 15, 2), (1, 6, 40, 1), (1, 20, 33, 1)] {
        let d = c / heads;
        let found = deviations(
            &[&[b, 3 * c, n, 1], &[heads]],
            &|v| {
                let mut y = vec![0f64; b * c * n];
                for (s, head) in (0..b * heads).map(|i| (i / heads, i % heads)) {
                    let row = |part: usize, e: usize| &v[0][((s * 3 + part) * c + head * d + e) * n..][..n];
                    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                    for i in 0..d {
                        let score = |j: usize| {
                            let (q, k) = (row(0, i), row(1, j));
                            (v[1][head] * dot(q, k) / (dot(q, q) * dot(k, k)).sqrt()).exp()
                        };
                        let weights: Vec<f64> = (0..d).map(score).collect();
                        let total: f64 = weights.iter().sum();
                        for p in 0..n {
                            y[(s * c + head * d + i) * n + p] =
                                (0..d).map(|j| weights[j] / total * row(2, j)[p]).sum();
                        }
                    }
                }
                y
            },
            &|t| channel_attention(&t[0], &t[1]),
        );
        close(&format!("channel attention {b}x{c}x{n}/{heads}"), found);
    }
}

#[test]
fn sums_and_errors() {
    let found = deviations(
        &[&[2, 3, 5], &[2, 3, 5]],
        &|v| v[0].iter().zip(&v[1]).map(|(a, b)| a + b).collect(),
        &|t| add(&t[0], &t[1]),
    );
    close("sum", found);
    let found = deviations(
        &[&[4, 33], &[4, 33]],
        &|v| vec![v[0].iter().zip(&v[1]).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / 132.0],
        &|t| mean_squared_error(&t[0], &t[1])?.reshape(1),
    );
    close("mean squared error", found);
    for f in [2, 3] {
        let found = deviations(
            &[&[2, 1, 2 * f, 3 * f]],
            &|v| {
                let one = |s: usize, block: usize, p: usize| {
                    let (row, col) = (p / 3 * f + block / f, p % 3 * f + block % f);
                    v[0][(s * 2 * f + row) * 3 * f + col]
                };
                (0..2 * f * f * 6)
                    .map(|i| one(i / 6 / (f * f), i / 6 % (f * f), i % 6))
                    .collect()
            },
            &|t| space_to_depth(&t[0], f),
        );
        close("space to depth", found);
    }
}

/// candle's operators between ours, a tensor used twice, a branch that ends nowhere, and a constant: the tape and
/// candle's own graph give the same gradients.
#[test]
fn a_record_mixes_with_the_graph() {
    let var = |name: &str, shape: &[usize]| {
        Var::from_tensor(&Tensor::from_vec(draw(name, shape), shape, &Device::Cpu).unwrap()).unwrap()
    };
    let (x, w, b) = (var("x", &[2, 3, 4, 5]), var("w", &[3, 3, 3, 3]), var("b", &[3]));
    let constant = Tensor::from_vec(draw("c", &[2, 3, 4, 5]), (2, 3, 4, 5), &Device::Cpu).unwrap();
    let forward = || -> Result<Tensor> {
        let first = conv2d(x.as_tensor(), w.as_tensor(), b.as_tensor(), Window::same(3))?;
        let squashed = (first.tanh()? * 1.5)?;
        let again = conv2d(&squashed, w.as_tensor(), b.as_tensor(), Window::same(3))?;
        let _unused = upsample_nearest(&again)?;
        let silent = without_gradients(|| conv2d(&constant, w.as_tensor(), b.as_tensor(), Window::same(3)))?;
        let twice = add(&again, &again)?;
        let joined = add(&add(&twice, &first)?, &(silent.detach() * squashed)?)?;
        mean_squared_error(&joined, &constant)? + first.sqr()?.mean_all()?
    };
    let by_candle = forward().unwrap().backward().unwrap();
    let (loss, tape) = record(forward);
    let ours = tape.backward(&loss.unwrap()).unwrap();
    for v in [&x, &w, &b] {
        let list = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let (got, exact) = (list(ours.get(v).unwrap()), list(by_candle.get(v).unwrap()));
        let exact: Vec<f64> = exact.iter().map(|v| f64::from(*v)).collect();
        assert!(worst(&got, &exact) < 1e-6);
    }
    // The mode ends with the record, also where it ends in a panic.
    let fell = std::panic::catch_unwind(|| record(|| panic!("on purpose")));
    assert!(fell.is_err());
    assert!(forward().unwrap().backward().unwrap().get(&x).is_some());
}

/// A part that is computed again has the gradients of one that was kept: of its input (ours and candle's), of a second
/// input, of parameters used inside and outside; and it is computed twice.
#[test]
fn a_part_computed_again_has_the_same_gradients() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let var = |name: &str, shape: &[usize]| {
        Var::from_tensor(&Tensor::from_vec(draw(name, shape), shape, &Device::Cpu).unwrap()).unwrap()
    };
    let (x, w, b, gain) = (
        var("x", &[2, 4, 4, 5]),
        var("w", &[4, 4, 3, 3]),
        var("b", &[4]),
        var("g", &[4]),
    );
    let forward = |again: bool| -> Result<Tensor> {
        let first = conv2d(x.as_tensor(), w.as_tensor(), b.as_tensor(), Window::same(3))?;
        let by_candle = (first.tanh()? * 2.0)?;
        let (w, b, gain) = (
            w.as_tensor().clone(),
            b.as_tensor().clone(),
            gain.as_tensor().clone(),
        );
        let part = move |t: &[Tensor]| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            let y = conv2d(&t[0], &w, &b, Window::same(3))?;
            let y = group_norm(&y, &(&gain * 1.5)?, &b, 2, true)?;
            add(&y, &t[1])
        };
        let inputs = [&by_candle, &first];
        let y = match again {
            true => recomputed(&inputs, part.clone())?,
            false => part(&[by_candle.clone(), first.clone()])?,
        };
        let z = match again {
            true => recomputed(&[&y, &y], part)?,
            false => part(&[y.clone(), y.clone()])?,
        };
        add(&z, &y)?.sqr()?.mean_all()
    };
    let gradients = |again: bool| {
        let (loss, tape) = record(|| forward(again));
        let mut store = tape.backward(&loss.unwrap()).unwrap();
        [&x, &w, &b, &gain].map(|v| {
            let gradient = store.remove(v).unwrap();
            gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        })
    };
    let kept = gradients(false);
    assert_eq!(CALLS.swap(0, Ordering::Relaxed), 2);
    let again = gradients(true);
    assert_eq!(CALLS.load(Ordering::Relaxed), 4);
    for (again, kept) in again.iter().zip(&kept) {
        let kept: Vec<f64> = kept.iter().map(|v| f64::from(*v)).collect();
        assert!(worst(again, &kept) < 1e-6);
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
            let found = deviations(
                &[&[b, c, h, w], &[c], &[c]],
                &|v| {
                    let each = |i: usize| v[i].iter().copied().cycle().take(b * c).collect();
                    naive_norm(&[v[0].clone(), each(1), each(2)], (b, c, h * w), groups, silu)
                },
                &|t| group_norm(&t[0], &t[1], &t[2], groups, silu),
            );
            close(&format!("group norm {b}x{c}x{h}x{w}/{groups}, one scale"), found);
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
    let text = grouped_conv2d(&t(&[1, 6, 4, 4]), &t(&[4, 3, 3, 3]), &t(&[4]), Window::same(3), 4)
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("4 groups") && text.contains("6 to 4 channels"),
        "{text}"
    );
    let text = layer_norm(&t(&[2, 3]), &t(&[4]), &t(&[3]))
        .unwrap_err()
        .to_string();
    assert!(text.contains("[2, 3]") && text.contains("[4]"), "{text}");
    let text = add(&t(&[2, 3]), &t(&[3, 2])).unwrap_err().to_string();
    assert!(text.contains("[2, 3]") && text.contains("[3, 2]"), "{text}");
    assert!(gelu_gate(&t(&[1, 3, 2, 2])).is_err());
    assert!(channel_attention(&t(&[1, 10, 2, 2]), &t(&[2])).is_err());
    assert!(mean_squared_error(&t(&[2]), &t(&[3])).is_err());
    assert!(attention(&t(&[1, 10, 2, 2]), 2).is_err());
    assert!(linear(&t(&[1, 3]), &t(&[2, 4]), &t(&[2])).is_err());
}
