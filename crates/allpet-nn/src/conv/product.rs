//! The product under a convolution and its input gradient: weights times windows, without the matrix of windows.
//!
//! Where an image row fills the registers, windows are read in place. Elsewhere the windows of a tile of pixels are
//! packed for a few channels at a time into a panel that stays in the first-level cache while every block of output
//! channels passes over it.

use crate::lanes::{Kernel, Slot, Start, Sum};
use rayon::prelude::*;

/// Rows of the panel: at two registers of 64 bytes a row, half of a first-level cache of 32 KiB.
const DEPTH: usize = 128;

/// Weights `[rows][depth]` packed for the kernel: block by block of rows, depth outermost inside.
pub(super) struct Packed {
    values: Vec<f32>,
    rows: usize,
    depth: usize,
}

impl Packed {
    /// Of `rows` over `channels` of `taps` each; `weight(row, channel, tap)` is asked for every value once.
    pub(super) fn new(
        rows: usize,
        (channels, taps): (usize, usize),
        weight: impl Fn(usize, usize, usize) -> f32 + Sync,
    ) -> Self {
        let depth = channels * taps;
        let mut values = vec![0f32; rows * depth];
        let mut rest = values.as_mut_slice();
        let mut blocks = Vec::new();
        for (top, m) in Kernel::get().blocks(rows) {
            let (block, behind) = rest.split_at_mut(m * depth);
            blocks.push((top, m, block));
            rest = behind;
        }
        let pack = |(top, m, block): (usize, usize, &mut [f32])| {
            for (channel, to) in block.chunks_exact_mut(m * taps).enumerate() {
                for (tap, to) in to.chunks_exact_mut(m).enumerate() {
                    for (row, to) in to.iter_mut().enumerate() {
                        *to = weight(top + row, channel, tap);
                    }
                }
            }
        };
        if rows * depth < 1 << 12 {
            blocks.into_iter().for_each(pack);
        } else {
            blocks.into_par_iter().for_each(pack);
        }
        Self { values, rows, depth }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }
}

/// A zero-padded copy of one sample's planes, from which windows are read without bounds.
#[derive(Default)]
pub(super) struct Planes {
    data: Vec<f32>,
    height: usize,
    width: usize,
}

impl Planes {
    /// Planes `[c, h, w]` spread out by `spread` (zeros between), with `before` zeros in front and `after` behind.
    pub(super) fn pad(
        &mut self,
        x: &[f32],
        channels: usize,
        (h, w): (usize, usize),
        spread: usize,
        before: usize,
        after: (usize, usize),
    ) {
        let height = before + (h - 1) * spread + 1 + after.0;
        let width = before + (w - 1) * spread + 1 + after.1;
        if (self.height, self.width, self.data.len()) != (height, width, channels * height * width) {
            self.data.clear();
            self.data.resize(channels * height * width, 0.0);
            (self.height, self.width) = (height, width);
        }
        for (plane, from) in self.data.chunks_mut(height * width).zip(x.chunks(h * w)) {
            for (row, from) in from.chunks(w).enumerate() {
                let to = &mut plane[(before + row * spread) * width + before..];
                if spread == 1 {
                    copy_run(&mut to[..w], from, 1);
                } else {
                    for (col, value) in from.iter().enumerate() {
                        to[col * spread] = *value;
                    }
                }
            }
        }
    }
}

impl Planes {
    /// The first plane from a row on.
    pub(super) fn lines(&self, row: usize) -> &[f32] {
        &self.data[row * self.width..]
    }

    /// Floats in a padded row.
    pub(super) fn width(&self) -> usize {
        self.width
    }
}

/// What the windows are: side of the kernel, step between windows, size of the output.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    pub(super) taps: usize,
    pub(super) stride: usize,
    pub(super) height: usize,
    pub(super) width: usize,
}

/// `out [rows, pixels] = start + weights · windows(planes)`, the rows cut into `parts` that cores may share.
pub(super) fn windows_product(
    packed: &Packed,
    planes: &Planes,
    windows: Windows,
    start: Option<&[f32]>,
    out: &mut [Slot],
    parts: usize,
) {
    let kernel = Kernel::get();
    let mut blocks = Vec::new();
    let mut rest = out;
    for (top, m) in kernel.blocks(packed.rows) {
        let (block, behind) = rest.split_at_mut(m * windows.height * windows.width);
        blocks.push((top, m, block));
        rest = behind;
    }
    let each = blocks.len().div_ceil(parts.max(1)).max(1);
    if each >= blocks.len() {
        blocks_product(kernel, packed, planes, windows, start, &mut blocks);
    } else {
        blocks
            .par_chunks_mut(each)
            .for_each(|blocks| blocks_product(kernel, packed, planes, windows, start, blocks));
    }
}

/// A block of rows: the first, how many, and their output.
type Block<'a> = (usize, usize, &'a mut [Slot]);

fn blocks_product(
    kernel: Kernel,
    packed: &Packed,
    planes: &Planes,
    windows: Windows,
    start: Option<&[f32]>,
    blocks: &mut [Block<'_>],
) {
    // Windows that lie in a register as they lie in the image are read where they are.
    let whole =
        windows.width.is_multiple_of(kernel.n()) || windows.width == kernel.lanes && windows.height % 2 == 0;
    if windows.stride == 1 && whole {
        in_place(kernel, packed, planes, windows, start, blocks);
    } else {
        by_panels(kernel, packed, planes, windows, start, blocks);
    }
}

fn in_place(
    kernel: Kernel,
    packed: &Packed,
    planes: &Planes,
    windows: Windows,
    start: Option<&[f32]>,
    blocks: &mut [Block<'_>],
) {
    let (taps, pixels, n) = (windows.taps, windows.height * windows.width, kernel.n());
    let channels = packed.depth / (taps * taps);
    for first in (0..pixels).step_by(n) {
        let (row, col) = (first / windows.width, first % windows.width);
        let from = &planes.data[row * planes.width + col..];
        for (top, m, out) in &mut *blocks {
            let sum = Sum {
                planes: channels,
                rows: taps,
                cols: taps,
                a: (taps * taps * *m, taps * *m, *m),
                b: (planes.height * planes.width, planes.width, 1),
                b_second: match windows.width == kernel.lanes {
                    true => planes.width,
                    false => kernel.lanes,
                },
            };
            let start = start.map_or(Start::Zero, |start| Start::Rows(&start[*top..]));
            let weights = &packed.values[*top * packed.depth..];
            kernel.tile(sum, (*m, n), weights, from, start, &mut out[first..], pixels);
        }
    }
}

fn by_panels(
    kernel: Kernel,
    packed: &Packed,
    planes: &Planes,
    windows: Windows,
    start: Option<&[f32]>,
    blocks: &mut [Block<'_>],
) {
    let (taps, pixels, n) = (
        windows.taps * windows.taps,
        windows.height * windows.width,
        kernel.n(),
    );
    let channels = packed.depth / taps;
    let step = channels.div_ceil(channels.div_ceil((DEPTH / taps).max(1)));
    let mut panel = vec![0f32; step * taps * n];
    for first in (0..pixels).step_by(n) {
        let count = n.min(pixels - first);
        for channel in (0..channels).step_by(step) {
            let some = step.min(channels - channel);
            pack(&mut panel, n, planes, windows, (channel, some), (first, count));
            for (top, m, out) in &mut *blocks {
                let start = match (channel, start) {
                    (0, Some(start)) => Start::Rows(&start[*top..]),
                    (0, None) => Start::Zero,
                    _ => Start::C,
                };
                let weights = &packed.values[*top * packed.depth + channel * taps * *m..];
                let sum = Sum::line(some * taps, *m, n);
                kernel.tile(
                    sum,
                    (*m, count),
                    weights,
                    &panel,
                    start,
                    &mut out[first..],
                    pixels,
                );
            }
        }
    }
}

/// Packs the windows of `count` pixels from `first` on, for `some` channels from `channel` on: `[channel, tap][n]`.
fn pack(
    panel: &mut [f32],
    n: usize,
    planes: &Planes,
    windows: Windows,
    (channel, some): (usize, usize),
    (first, count): (usize, usize),
) {
    let plane = planes.height * planes.width;
    // Runs of pixels that stay in one image row: offset in the panel, start in the plane, length.
    let mut at = 0;
    while at < count {
        let (row, col) = ((first + at) / windows.width, (first + at) % windows.width);
        let run = (windows.width - col).min(count - at);
        let from = row * windows.stride * planes.width + col * windows.stride;
        let mut k = 0;
        for plane in planes.data.chunks_exact(plane).skip(channel).take(some) {
            for tap_row in 0..windows.taps {
                let line = &plane[from + tap_row * planes.width..];
                for tap_col in 0..windows.taps {
                    copy_run(
                        &mut panel[k * n + at..k * n + at + run],
                        &line[tap_col..],
                        windows.stride,
                    );
                    k += 1;
                }
            }
        }
        at += run;
    }
}

/// Copies a run of pixels; the common lengths are fixed copies, which the compiler turns into register moves.
#[inline(always)]
fn copy_run(to: &mut [f32], from: &[f32], stride: usize) {
    if stride != 1 {
        for (to, from) in to.iter_mut().zip(from.iter().step_by(stride)) {
            *to = *from;
        }
        return;
    }
    match to.len() {
        64 => to.copy_from_slice(&from[..64]),
        32 => to.copy_from_slice(&from[..32]),
        16 => to.copy_from_slice(&from[..16]),
        8 => to.copy_from_slice(&from[..8]),
        length => to.copy_from_slice(&from[..length]),
    }
}
