//! The input gradient of a convolution with a stride, in phases (polyphase decomposition; Vaidyanathan 1990, Proc. IEEE
//! 78, 56): no zero is multiplied.
//!
//! Along an axis, with stride `s` and padding `p`, the pixel `y` of the input took part in a window through the taps `t` for
//! which `s` divides `y + p - t`. The pixels `y = s·a + f` of one phase `f` share their taps: with `f + p = s·q + r` these are
//! `r, r + s, …`, and
//!
//! `dX[s·a + f] = Σ_j W[r + s·j] · dY[a + q - j]`,
//!
//! a product of stride one over `dY` as it is. The `s²` phases have `k²` taps together, where the gradient spread out by zeros
//! would take all `k²` at every one of `s²` times as many pixels.

use super::Sizes;
use super::product::{Packed, Planes, Windows, windows_product};
use crate::lanes::{Slot, filled};
use rayon::prelude::*;

/// The pixels `s·a + first` of an axis.
#[derive(Clone, Copy)]
struct Phase {
    first: usize,
    /// How many pixels there are.
    count: usize,
    /// The first tap, and how many.
    tap: usize,
    taps: usize,
    /// By how far `dY` is shifted against the phase, the letter q above.
    shift: usize,
}

fn phases(s: &Sizes, size: usize) -> Vec<Phase> {
    let (stride, at) = (s.window.stride, s.window.padding);
    let phase = |first: usize| {
        let tap = (first + at) % stride;
        Phase {
            first,
            count: size.saturating_sub(first).div_ceil(stride),
            tap,
            taps: s.kernel.saturating_sub(tap).div_ceil(stride),
            shift: (first + at) / stride,
        }
    };
    (0..stride).map(phase).collect()
}

/// Zeros that all phases need in front of `dY`.
fn before(phases: &[Phase]) -> usize {
    let needed = phases.iter().map(|p| p.taps.saturating_sub(1 + p.shift));
    needed.max().unwrap_or(0)
}

/// Zeros that all phases need behind `out` values of `dY`.
fn behind(phases: &[Phase], out: usize) -> usize {
    let needed = phases.iter().map(|p| (p.count + p.shift).saturating_sub(out));
    needed.max().unwrap_or(0)
}

/// A phase of rows and one of columns, with the weights of every group; none where the pixels lie between all windows.
struct Pair {
    packed: Option<Vec<Packed>>,
    windows: Windows,
}

/// `dX [B, C_in, H, W]` from the gradient `g [B, C_out, H', W']` and `w [C_out, C_in / groups, k, k]`.
pub(super) fn input_gradient(s: &Sizes, g: &[f32], w: &[f32]) -> Vec<f32> {
    let stride = s.window.stride;
    let (rows, cols) = (phases(s, s.height), phases(s, s.width));
    let front = before(&rows);
    let after = (behind(&rows, s.out_height), behind(&cols, s.out_width));
    let pair = |row: &Phase, col: &Phase| {
        let (row, col, kernel) = (*row, *col, s.kernel);
        // Row = input channel, k = (output channel, tap), the phase's taps from its last to its first.
        let of_group = |w: &[f32]| {
            Packed::new(s.c_in, (s.c_out, row.taps * col.taps), |input, output, tap| {
                let down = row.tap + stride * (row.taps - 1 - tap / col.taps);
                let across = col.tap + stride * (col.taps - 1 - tap % col.taps);
                w[((output * s.c_in + input) * kernel + down) * kernel + across]
            })
        };
        Pair {
            packed: (row.taps * col.taps > 0).then(|| {
                w.chunks_exact((s.c_out * s.c_in * s.taps()).max(1))
                    .map(of_group)
                    .collect()
            }),
            windows: Windows {
                taps: (row.taps, col.taps),
                origin: (front + row.shift + 1 - row.taps, front + col.shift + 1 - col.taps),
                stride: 1,
                height: row.count,
                width: col.count,
            },
        }
    };
    let pairs: Vec<Vec<Pair>> = rows
        .iter()
        .map(|row| cols.iter().map(|col| pair(row, col)).collect())
        .collect();
    let (inputs, outputs) = (s.c_out * s.out_pixels(), s.c_in * s.pixels());
    let tasks = s.batch * s.groups;
    let parts = (2 * rayon::current_num_threads()).div_ceil(tasks.max(1));
    let one = |planes: &mut Planes, apart: &mut [Vec<f32>], index: usize, out: &mut [Slot], g: &[f32]| {
        planes.pad(g, s.c_out, (s.out_height, s.out_width), front, after);
        for (row, pairs) in rows.iter().zip(&pairs) {
            for (apart, pair) in apart.iter_mut().zip(pairs) {
                apart.resize(s.c_in * pair.windows.height * pair.windows.width, 0.0);
                match &pair.packed {
                    Some(packed) => {
                        let (packed, to) = (&packed[index % s.groups], Slot::of(apart));
                        windows_product(packed, planes, pair.windows, None, to, parts);
                    }
                    None => apart.fill(0.0),
                }
            }
            for (channel, out) in out.chunks_exact_mut(s.pixels()).enumerate() {
                let lines = out.chunks_exact_mut(s.width).skip(row.first).step_by(stride);
                for (a, line) in lines.enumerate() {
                    let from = |x: usize| {
                        let width = cols[x].count;
                        &apart[x][(channel * row.count + a) * width..][..width]
                    };
                    interleave(line, stride, from);
                }
            }
        }
    };
    // SAFETY: the phases cover every row, and `interleave` every pixel of a row, of each sample and group.
    unsafe {
        filled(tasks * outputs, |out| {
            out.par_chunks_mut(outputs)
                .zip(g.par_chunks(inputs))
                .enumerate()
                .for_each_init(
                    || (Planes::default(), vec![Vec::new(); stride]),
                    |(planes, apart), (index, (out, g))| one(planes, apart, index, out, g),
                );
        })
    }
}

/// `line[stride·b + x] = from(x)[b]`.
fn interleave<'a>(line: &mut [Slot], stride: usize, from: impl Fn(usize) -> &'a [f32]) {
    if stride == 2 && line.len().is_multiple_of(2) {
        // The usual case, of which the compiler makes register moves.
        for (to, (even, odd)) in line.chunks_exact_mut(2).zip(from(0).iter().zip(from(1))) {
            to[0].set(*even);
            to[1].set(*odd);
        }
        return;
    }
    for x in 0..stride.min(line.len()) {
        for (to, value) in line[x..].iter_mut().step_by(stride).zip(from(x)) {
            to.set(*value);
        }
    }
}
