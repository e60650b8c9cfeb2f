//! The weight gradient of a convolution: `dW[tap] = Σ dY ⊗ X(shifted by tap)` over samples and pixels.
//!
//! The gradient is packed as the kernel's rows and the input with its channels innermost, so that every shifted window
//! is a strided view. A few image rows at a time pass through all taps while they are in the first-level cache.

use super::Sizes;
use crate::lanes::{Kernel, Start, Sum};
use rayon::prelude::*;

/// Sums of samples whose weight gradients are summed apart: fixed, so that threads never change the order of a sum.
const SUMS: usize = 8;

/// Pixels that pass through all taps together.
const PIXELS: usize = 128;

/// `[C_out, C_in / groups, k, k]` from `x [B, C_in, H, W]` and the gradient `g [B, C_out, H', W']`.
pub(super) fn weight_gradient(s: &Sizes, x: &[f32], g: &[f32]) -> Vec<f32> {
    let x_size = s.groups * s.c_in * s.pixels();
    let g_size = s.groups * s.c_out * s.out_pixels();
    let taps = s.taps();
    let per_sum = s.batch.div_ceil(SUMS).max(1);
    let mut out = vec![0f32; s.groups * s.c_out * s.c_in * taps];
    for (group, out) in out.chunks_exact_mut(s.c_out * s.c_in * taps).enumerate() {
        let mut sums: Vec<Vec<f32>> = Vec::new();
        x.par_chunks(per_sum * x_size)
            .zip(g.par_chunks(per_sum * g_size))
            .map(|(x, g)| {
                let x = x.chunks(x_size).map(|x| &x[group * s.c_in * s.pixels()..]);
                let g = g.chunks(g_size).map(|g| &g[group * s.c_out * s.out_pixels()..]);
                of_samples(s, x.zip(g))
            })
            .collect_into_vec(&mut sums);
        // From [tap][out][in] to [out][in][tap].
        out.par_chunks_mut(s.c_in * taps)
            .enumerate()
            .for_each(|(outer, row)| {
                for tap in 0..taps {
                    let from = (tap * s.c_out + outer) * s.c_in;
                    for (inner, to) in row.iter_mut().skip(tap).step_by(taps).enumerate() {
                        *to = sums.iter().map(|sum| sum[from + inner]).sum();
                    }
                }
            });
    }
    out
}

/// `[tap][out][in]` summed over samples, each given from the group's first channel on.
fn of_samples<'a>(s: &Sizes, samples: impl Iterator<Item = (&'a [f32], &'a [f32])>) -> Vec<f32> {
    let kernel = Kernel::get();
    let (n, pixels) = (kernel.n(), s.out_pixels());
    let b_step = s.c_in.div_ceil(kernel.lanes) * kernel.lanes;
    let (pad, stride) = (s.window.padding, s.window.stride);
    let padded_w = s.width + 2 * pad;
    let mut a = vec![0f32; pixels * s.c_out];
    let mut b = vec![0f32; (s.height + 2 * pad) * padded_w * b_step];
    let mut total = vec![0f32; s.taps() * s.c_out * s.c_in];
    let some_rows = (PIXELS / s.out_width).max(1);
    for (x, g) in samples {
        for (top, m) in kernel.blocks(s.c_out) {
            let block = &mut a[top * pixels..][..m * pixels];
            innermost(&g[top * pixels..], m, (s.out_height, s.out_width), block, m, (0, s.out_width));
        }
        innermost(x, s.c_in, (s.height, s.width), &mut b, b_step, (pad, padded_w));
        for row in (0..s.out_height).step_by(some_rows) {
            let rows = some_rows.min(s.out_height - row);
            for inner in (0..s.c_in).step_by(n) {
                let columns = n.min(s.c_in - inner);
                for tap in 0..s.taps() {
                    let corner = (row * stride + tap / s.kernel) * padded_w + tap % s.kernel;
                    let b = &b[corner * b_step + inner..];
                    let plane = &mut total[tap * s.c_out * s.c_in..][..s.c_out * s.c_in];
                    for (top, m) in kernel.blocks(s.c_out) {
                        let sum = Sum {
                            rows,
                            cols: s.out_width,
                            a_row: s.out_width * m,
                            a_col: m,
                            b_row: stride * padded_w * b_step,
                            b_col: stride * b_step,
                        };
                        let a = &a[top * pixels + row * s.out_width * m..];
                        let c = &mut plane[top * s.c_in + inner..];
                        kernel.tile(sum, (m, columns), a, b, Start::C, c, s.c_in);
                    }
                }
            }
        }
    }
    total
}

/// `[c, h, w]` → `[h + pad, w + pad, step]` with channels innermost; the border and the channels beyond `c` stay zero.
fn innermost(
    x: &[f32],
    channels: usize,
    (height, width): (usize, usize),
    out: &mut [f32],
    step: usize,
    (pad, out_width): (usize, usize),
) {
    const BLOCK: usize = 8;
    for row in 0..height {
        let line = ((row + pad) * out_width + pad) * step;
        for first in (0..channels).step_by(BLOCK) {
            let last = (first + BLOCK).min(channels);
            for col in 0..width {
                let to = &mut out[line + col * step + first..line + col * step + last];
                for (channel, to) in (first..last).zip(to) {
                    *to = x[(channel * height + row) * width + col];
                }
            }
        }
    }
}
