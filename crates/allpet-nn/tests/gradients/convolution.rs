//! Convolutions, plain and in groups, against loops in f64.

use super::{close, deviations};
use allpet_nn::{Window, conv2d, grouped_conv2d};

/// `(b, c_in, c_out, h, w, k)`.
pub(super) type ConvCase = (usize, usize, usize, usize, usize, usize);

pub(super) fn naive_conv(v: &[Vec<f64>], (b, ci, co, h, w, k): ConvCase, window: Window) -> Vec<f64> {
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
        // Rows that fill one register and two, with more channels than pass over them at once.
        ((1, 20, 3, 2, 16, 3), 1, 1),
        ((1, 17, 15, 1, 32, 3), 1, 1),
        ((9, 2, 3, 4, 2, 3), 1, 1),
        // Phases of the input that fill registers; that are empty; that have no taps; that need no zeros before them.
        ((1, 3, 4, 4, 64, 3), 2, 1),
        ((1, 3, 4, 4, 32, 3), 2, 1),
        ((2, 3, 4, 5, 6, 1), 2, 0),
        ((1, 2, 3, 2, 7, 2), 3, 0),
        ((1, 2, 3, 9, 8, 5), 3, 2),
        ((1, 2, 3, 5, 6, 4), 2, 3),
        ((1, 2, 3, 1, 1, 3), 2, 1),
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

/// Group by group, each a convolution of its own channels.
fn naive_grouped(v: &[Vec<f64>], case: ConvCase, window: Window, groups: usize) -> Vec<f64> {
    let (b, ci, co, h, w, k) = case;
    let (gi, go) = (ci / groups, co / groups);
    let parts: Vec<Vec<f64>> = (0..groups)
        .map(|g| {
            let x = (0..b).flat_map(|n| v[0][(n * ci + g * gi) * h * w..][..gi * h * w].to_vec());
            let part = [
                x.collect(),
                v[1][g * go * gi * k * k..][..go * gi * k * k].to_vec(),
                v[2][g * go..][..go].to_vec(),
            ];
            naive_conv(&part, (b, gi, go, h, w, k), window)
        })
        .collect();
    let plane = parts[0].len() / b / go;
    (0..b * co * plane)
        .map(|i| {
            let (n, o, p) = (i / plane / co, i / plane % co, i % plane);
            parts[o / go][(n * go + o % go) * plane + p]
        })
        .collect()
}

#[test]
fn grouped_convolutions() {
    let cases: &[(ConvCase, usize, usize, usize)] = &[
        ((2, 4, 6, 5, 6, 3), 1, 1, 2),
        ((2, 4, 4, 5, 19, 3), 1, 1, 4),
        ((3, 2, 2, 6, 7, 5), 1, 2, 2),
        ((1, 3, 3, 6, 6, 3), 1, 0, 3),
        ((2, 3, 3, 6, 7, 3), 2, 1, 3),
        ((1, 2, 4, 4, 4, 3), 1, 1, 2),
    ];
    for (case, stride, padding, groups) in cases {
        let (b, ci, co, h, w, k) = *case;
        let window = Window {
            stride: *stride,
            padding: *padding,
        };
        let found = deviations(
            &[&[b, ci, h, w], &[co, ci / groups, k, k], &[co]],
            &|v| naive_grouped(v, *case, window, *groups),
            &|t| grouped_conv2d(&t[0], &t[1], &t[2], window, *groups),
        );
        close(&format!("conv {case:?} in {groups} groups {window:?}"), found);
    }
}
