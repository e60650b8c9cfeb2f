//! Convolution of every channel with a kernel of its own, at stride 1: rows times taps, no product of matrices.

use super::Sizes;
use super::product::Planes;
use crate::elementwise::lane_sum;
use crate::lanes::vectorised;
use rayon::prelude::*;

/// `out [B, C, H', W']` from `x [B, C, H, W]`, `w [C, k, k]` and `bias [C]`.
pub(super) fn forward(s: &Sizes, x: &[f32], w: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    let pad = s.window.padding;
    let planes = (s.height, s.width);
    correlate(s, x, planes, pad, w, bias, out, (s.out_height, s.out_width));
}

/// `dX [B, C, H, W]` from the gradient `g [B, C, H', W']`: the same with the taps in reverse.
pub(super) fn input_gradient(s: &Sizes, g: &[f32], w: &[f32], out: &mut [f32]) {
    let flipped: Vec<f32> = w
        .chunks_exact(s.taps())
        .flat_map(|taps| taps.iter().rev().copied())
        .collect();
    let pad = s.kernel - 1 - s.window.padding;
    let planes = (s.out_height, s.out_width);
    correlate(s, g, planes, pad, &flipped, None, out, (s.height, s.width));
}

#[allow(clippy::too_many_arguments)]
fn correlate(
    s: &Sizes,
    x: &[f32],
    (height, width): (usize, usize),
    pad: usize,
    w: &[f32],
    bias: Option<&[f32]>,
    out: &mut [f32],
    (out_height, out_width): (usize, usize),
) {
    let kernel = s.kernel;
    out.par_chunks_mut(out_height * out_width)
        .zip(x.par_chunks(height * width))
        .enumerate()
        .for_each_init(Planes::default, |planes, (index, (out, x))| {
            let channel = index % s.groups;
            planes.pad(x, 1, (height, width), 1, pad, (pad, pad));
            let taps = &w[channel * kernel * kernel..][..kernel * kernel];
            let start = bias.map_or(0.0, |b| b[channel]);
            vectorised(
                #[inline(always)]
                || {
                    for (row, out) in out.chunks_exact_mut(out_width).enumerate() {
                        let lines = planes.lines(row);
                        if kernel == 3 {
                            three(lines, planes.width(), taps, start, out);
                        } else {
                            out.fill(start);
                            for (tap, weight) in taps.iter().enumerate() {
                                let line = &lines[tap / kernel * planes.width() + tap % kernel..];
                                out.iter_mut()
                                    .zip(line)
                                    .for_each(|(to, from)| *to += weight * from);
                            }
                        }
                    }
                },
            );
        });
}

/// One row of a 3 × 3 kernel, all nine taps in one pass.
#[inline(always)]
fn three(lines: &[f32], width: usize, w: &[f32], start: f32, out: &mut [f32]) {
    let reach = out.len() + 2;
    let (a, b, c) = (
        &lines[..reach],
        &lines[width..][..reach],
        &lines[2 * width..][..reach],
    );
    for (i, to) in out.iter_mut().enumerate() {
        let first = w[0] * a[i] + w[1] * a[i + 1] + w[2] * a[i + 2];
        let second = w[3] * b[i] + w[4] * b[i + 1] + w[5] * b[i + 2];
        let third = w[6] * c[i] + w[7] * c[i + 1] + w[8] * c[i + 2];
        *to = start + first + (second + third);
    }
}

/// `dW [C, 1, k, k]`: rows of the gradient times shifted rows of the input, samples added in order.
pub(super) fn weight_gradient(s: &Sizes, x: &[f32], g: &[f32]) -> Vec<f32> {
    let (kernel, pad) = (s.kernel, s.window.padding);
    let mut out = vec![0f32; s.groups * s.taps()];
    out.par_chunks_mut(s.taps())
        .enumerate()
        .for_each_init(Planes::default, |planes, (channel, out)| {
            let mut sums = vec![0f64; out.len()];
            for sample in 0..s.batch {
                let plane = sample * s.groups + channel;
                planes.pad(
                    &x[plane * s.pixels()..][..s.pixels()],
                    1,
                    (s.height, s.width),
                    1,
                    pad,
                    (pad, pad),
                );
                let g = &g[plane * s.out_pixels()..][..s.out_pixels()];
                vectorised(
                    #[inline(always)]
                    || {
                        for (row, g) in g.chunks_exact(s.out_width).enumerate() {
                            let lines = planes.lines(row);
                            for tap_row in 0..kernel {
                                let line = &lines[tap_row * planes.width()..][..s.out_width + kernel - 1];
                                let sums = &mut sums[tap_row * kernel..][..kernel];
                                if let [a, b, c] = sums {
                                    let [p, q, r] = lane_sum(s.out_width, |i| {
                                        [g[i] * line[i], g[i] * line[i + 1], g[i] * line[i + 2]]
                                    });
                                    (*a, *b, *c) = (*a + p, *b + q, *c + r);
                                } else {
                                    for (tap, sum) in sums.iter_mut().enumerate() {
                                        *sum += lane_sum(s.out_width, |i| [g[i] * line[i + tap]])[0];
                                    }
                                }
                            }
                        }
                    },
                );
            }
            out.iter_mut().zip(sums).for_each(|(to, sum)| *to = sum as f32);
        });
    out
}
