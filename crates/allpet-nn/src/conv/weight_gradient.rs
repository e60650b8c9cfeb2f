//! The weight gradient of a convolution: `dW[tap] = Σ dY ⊗ X(shifted by tap)` over samples and pixels.
//!
//! The input is brought channels innermost, so that every shifted window is a strided view, and the gradient is packed
//! as the kernel's rows. Some pixels at a time, of one sample or of several small ones, pass through all taps while they
//! are in the first-level cache.

use super::Sizes;
use crate::lanes::{Aligned, Kernel, Slot, Start, Sum, transpose};
use rayon::prelude::*;

/// Sums of samples that are kept apart: fixed, so that threads never change the order of a sum.
const SUMS: usize = 4;

/// Pixels that pass through all taps together, at least.
const PIXELS: usize = 128;

/// `[C_out, C_in / groups, k, k]` from `x [B, C_in, H, W]` and the gradient `g [B, C_out, H', W']`.
pub(super) fn weight_gradient(s: &Sizes, x: &[f32], g: &[f32]) -> Vec<f32> {
    let mut out = vec![0f32; s.groups * s.c_out * s.c_in * s.taps()];
    if s.batch > 0 {
        for (group, out) in out.chunks_exact_mut(s.c_out * s.c_in * s.taps()).enumerate() {
            of_group(s, group, x, g, out);
        }
    }
    out
}

fn of_group(s: &Sizes, group: usize, x: &[f32], g: &[f32], out: &mut [f32]) {
    let kernel = Kernel::get();
    let per_sum = s.batch.div_ceil(SUMS);
    let inner = Inner::new(s, group, x, kernel.lanes);
    let g_size = s.groups * s.c_out * s.out_pixels();
    let g = &g[group * s.c_out * s.out_pixels()..];
    let tasks: Vec<(usize, usize, usize)> = (0..s.batch)
        .step_by(per_sum)
        .flat_map(|first| kernel.blocks(s.c_out).map(move |(top, m)| (first, top, m)))
        .collect();
    let sums: Vec<Vec<f32>> = tasks
        .par_iter()
        .map(|&(first, top, m)| {
            let samples = first..s.batch.min(first + per_sum);
            let rows: Vec<&[f32]> = samples
                .map(|sample| &g[sample * g_size + top * s.out_pixels()..][..m * s.out_pixels()])
                .collect();
            of_block(s, &rows, first, m, &inner)
        })
        .collect();
    // From [block][tap][row][in] to [out][in][tap].
    let blocks = kernel.blocks(s.c_out).count();
    let taps = s.taps();
    out.par_chunks_mut(s.c_in * taps)
        .zip(
            kernel
                .blocks(s.c_out)
                .enumerate()
                .flat_map(rows_of)
                .collect::<Vec<_>>(),
        )
        .for_each(|(to, (block, row, m))| {
            for tap in 0..taps {
                let from = (tap * m + row) * s.c_in;
                for (inner, to) in to.iter_mut().skip(tap).step_by(taps).enumerate() {
                    *to = sums[block..]
                        .iter()
                        .step_by(blocks)
                        .map(|sum| sum[from + inner])
                        .sum();
                }
            }
        });
}

/// Every row of a block with the block's number and size.
fn rows_of((block, (_, m)): (usize, (usize, usize))) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..m).map(move |row| (block, row, m))
}

/// `[sample, H + 2·pad, W + 2·pad, step]`: zero-padded, channels innermost, filled up to whole registers.
struct Inner {
    data: Aligned,
    width: usize,
    plane: usize,
    step: usize,
}

impl Inner {
    fn new(s: &Sizes, group: usize, x: &[f32], lanes: usize) -> Self {
        let pad = s.window.padding;
        let step = s.c_in.div_ceil(lanes) * lanes;
        let width = s.width + 2 * pad;
        let plane = (s.height + 2 * pad) * width * step;
        let mut data = Aligned::zeros(s.batch * plane);
        data.par_chunks_mut(plane)
            .zip(x.par_chunks(s.groups * s.c_in * s.pixels()))
            .for_each(|(to, x)| {
                let x = &x[group * s.c_in * s.pixels()..];
                for row in 0..s.height {
                    let to = &mut to[((row + pad) * width + pad) * step..];
                    transpose(&x[row * s.width..], s.pixels(), (s.c_in, s.width), to, step);
                }
            });
        Self {
            data,
            width,
            plane,
            step,
        }
    }
}

/// `[tap][row][in]` of `m` rows, summed over samples from `first` on; `g` holds each sample's rows, `[m, pixels]`.
fn of_block(s: &Sizes, g: &[&[f32]], first: usize, m: usize, inner: &Inner) -> Vec<f32> {
    let kernel = Kernel::get();
    let (n, pixels, stride) = (kernel.n(), s.out_pixels(), s.window.stride);
    let some_samples = (2 * PIXELS / pixels).clamp(1, g.len());
    let some_rows = (PIXELS / s.out_width).clamp(1, s.out_height);
    let mut a = vec![0f32; some_samples * pixels * m];
    let mut total = vec![0f32; s.taps() * m * s.c_in];
    for (chunk, g) in g.chunks(some_samples).enumerate() {
        for (a, g) in a.chunks_exact_mut(pixels * m).zip(g) {
            transpose(g, pixels, (m, pixels), a, m);
        }
        let samples = &inner.data[(first + chunk * some_samples) * inner.plane..];
        for row in (0..s.out_height).step_by(some_rows) {
            let sum = Sum {
                planes: g.len(),
                rows: some_rows.min(s.out_height - row),
                cols: s.out_width,
                a: (pixels * m, s.out_width * m, m),
                b: (
                    inner.plane,
                    stride * inner.width * inner.step,
                    stride * inner.step,
                ),
                b_second: kernel.lanes,
            };
            let a = &a[row * s.out_width * m..];
            for left in (0..s.c_in).step_by(n) {
                let columns = n.min(s.c_in - left);
                for tap in 0..s.taps() {
                    let corner = (row * stride + tap / s.kernel) * inner.width + tap % s.kernel;
                    let b = &samples[corner * inner.step + left..];
                    let c = Slot::of(&mut total[tap * m * s.c_in + left..]);
                    kernel.tile(sum, (m, columns), a, b, Start::C, c, s.c_in);
                }
            }
        }
    }
    total
}
