//! Convolution of every channel with a kernel of its own, at stride 1: rows times taps, no product of matrices.

use super::Sizes;
use super::product::Planes;
use crate::elementwise::lane_sum;
use crate::lanes::{Slot, filled, vectorised};
use rayon::prelude::*;

/// `out [B, C, H', W']` from `x [B, C, H, W]`, `w [C, k, k]` and `bias [C]`.
pub(super) fn forward(s: &Sizes, x: &[f32], w: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let pad = s.window.padding;
    let planes = (s.height, s.width);
    correlate(s, x, planes, pad, w, bias, (s.out_height, s.out_width))
}

/// `dX [B, C, H, W]` from the gradient `g [B, C, H', W']`: the same with the taps in reverse.
pub(super) fn input_gradient(s: &Sizes, g: &[f32], w: &[f32]) -> Vec<f32> {
    let flipped: Vec<f32> = w
        .chunks_exact(s.taps())
        .flat_map(|taps| taps.iter().rev().copied())
        .collect();
    let pad = s.kernel - 1 - s.window.padding;
    let planes = (s.out_height, s.out_width);
    correlate(s, g, planes, pad, &flipped, None, (s.height, s.width))
}

fn correlate(
    s: &Sizes,
    x: &[f32],
    (height, width): (usize, usize),
    pad: usize,
    w: &[f32],
    bias: Option<&[f32]>,
    (out_height, out_width): (usize, usize),
) -> Vec<f32> {
    let kernel = s.kernel;
    let plane = |planes: &mut Planes, row_of: &mut Vec<f32>, index: usize, out: &mut [Slot], x: &[f32]| {
        let channel = index % s.groups;
        planes.pad(x, 1, (height, width), pad, (pad, pad));
        let taps = &w[channel * kernel * kernel..][..kernel * kernel];
        let start = bias.map_or(0.0, |b| b[channel]);
        row_of.resize(out_width, 0.0);
        vectorised(
            #[inline(always)]
            || {
                for (row, out) in out.chunks_exact_mut(out_width).enumerate() {
                    let lines = planes.lines(row);
                    if kernel == 3 {
                        three(lines, planes.width(), taps, start, out);
                        continue;
                    }
                    row_of.fill(start);
                    for (tap, weight) in taps.iter().enumerate() {
                        let line = &lines[tap / kernel * planes.width() + tap % kernel..];
                        row_of
                            .iter_mut()
                            .zip(line)
                            .for_each(|(to, from)| *to += weight * from);
                    }
                    Slot::copy(out, row_of);
                }
            },
        );
    };
    let fill = |out: &mut [Slot]| {
        out.par_chunks_mut(out_height * out_width)
            .zip(x.par_chunks(height * width))
            .enumerate()
            .for_each_init(
                || (Planes::default(), Vec::new()),
                |(planes, row), (index, (out, x))| plane(planes, row, index, out, x),
            );
    };
    // SAFETY: every plane of the input writes every row of a plane of the output.
    unsafe { filled(x.len() / (height * width) * out_height * out_width, fill) }
}

/// One row of a 3 × 3 kernel, all nine taps in one pass.
#[inline(always)]
fn three(lines: &[f32], width: usize, w: &[f32], start: f32, out: &mut [Slot]) {
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
        to.set(start + first + (second + third));
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
                    pad,
                    (pad, pad),
                );
                let g = &g[plane * s.out_pixels()..][..s.out_pixels()];
                vectorised(
                    #[inline(always)]
                    || {
                        for (tap, sums) in sums.chunks_exact_mut(kernel).enumerate() {
                            let lines = |row| &planes.lines(row + tap)[..s.out_width + kernel - 1];
                            let rows = || g.chunks_exact(s.out_width).enumerate();
                            if let [a, b, c] = sums {
                                let [p, q, r] = three_sums(rows().map(|(row, g)| (g, lines(row))));
                                (*a, *b, *c) = (*a + p, *b + q, *c + r);
                            } else {
                                for (shift, sum) in sums.iter_mut().enumerate() {
                                    for (row, g) in rows() {
                                        let line = &lines(row)[shift..];
                                        *sum += lane_sum([g, &line[..g.len()]], |[g, x]| [g * x])[0];
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

/// Sums of `g[i]·line[i + shift]` for three shifts over pairs of rows, the lanes kept side by side to the end.
#[inline(always)]
fn three_sums<'a>(rows: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> [f64; 3] {
    const LANES: usize = 16;
    let mut lanes = [[0f32; LANES]; 3];
    let mut total = [0f64; 3];
    for (g, line) in rows {
        let whole = g.len() - g.len() % LANES;
        for first in (0..whole).step_by(LANES) {
            let (g, line) = (&g[first..first + LANES], &line[first..first + LANES + 2]);
            for (shift, lanes) in lanes.iter_mut().enumerate() {
                for (i, lane) in lanes.iter_mut().enumerate() {
                    *lane += g[i] * line[i + shift];
                }
            }
        }
        for i in whole..g.len() {
            for (shift, total) in total.iter_mut().enumerate() {
                *total += f64::from(g[i] * line[i + shift]);
            }
        }
    }
    for (total, lanes) in total.iter_mut().zip(lanes) {
        *total += lanes.iter().map(|v| f64::from(*v)).sum::<f64>();
    }
    total
}
