//! The product under a convolution and its input gradient: weights times windows, without the matrix of windows.
//!
//! Where an image row fills the registers, windows are read in place. Elsewhere the windows of a tile of pixels are
//! packed for a few channels at a time into a panel that stays in the first-level cache while every block of output
//! channels passes over it.

use crate::lanes::{Aligned, Kernel, Slot, Start, Sum};
use rayon::prelude::*;

/// Calls a function of a constant run length for the common lengths; 0 stands for all others.
macro_rules! with_run {
    ($run:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $run {
            8 => $function::<8>($($argument),*),
            16 => $function::<16>($($argument),*),
            32 => $function::<32>($($argument),*),
            _ => $function::<0>($($argument),*),
        }
    };
}

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
    /// Planes `[c, h, w]` with `before` zeros in front and `after` behind.
    pub(super) fn pad(
        &mut self,
        x: &[f32],
        channels: usize,
        (h, w): (usize, usize),
        before: usize,
        after: (usize, usize),
    ) {
        let height = before + h + after.0;
        let width = before + w + after.1;
        if (self.height, self.width, self.data.len()) != (height, width, channels * height * width) {
            self.data.clear();
            self.data.resize(channels * height * width, 0.0);
            (self.height, self.width) = (height, width);
        }
        with_run!(w, place(&mut self.data, (height, width), x, (h, w), before));
    }
}

/// Rows of `x` into the middle of larger planes.
fn place<const RUN: usize>(
    data: &mut [f32],
    (height, width): (usize, usize),
    x: &[f32],
    (h, w): (usize, usize),
    before: usize,
) {
    for (plane, from) in data.chunks_exact_mut(height * width).zip(x.chunks_exact(h * w)) {
        for (row, from) in from.chunks_exact(w).enumerate() {
            let to = &mut plane[(before + row) * width + before..];
            copy_run::<RUN>(&mut to[..w], from);
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

/// What the windows are: rows and columns of the kernel, where the first one begins, step between windows, size of the output.
#[derive(Clone, Copy)]
pub(super) struct Windows {
    pub(super) taps: (usize, usize),
    pub(super) origin: (usize, usize),
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
    let whole = windows.width.is_multiple_of(kernel.n())
        || windows.width == kernel.lanes && windows.height.is_multiple_of(2);
    if windows.stride == 1 && whole {
        in_place(kernel, packed, planes, windows, start, blocks);
    } else {
        by_panels(kernel, packed, planes, windows, start, blocks);
    }
}

/// Sums of a tile of pixels on their way, row by row: the rows of the output lie a power of two apart, and would push one
/// another out of the first-level cache if every few channels passed over them.
struct Sums {
    values: Aligned,
    n: usize,
    /// Row of the first block.
    top: usize,
}

impl Sums {
    fn new(blocks: &[Block<'_>], n: usize) -> Self {
        let rows: usize = blocks.iter().map(|(_, m, _)| m).sum();
        Self {
            values: Aligned::zeros(rows * n),
            n,
            top: blocks.first().map_or(0, |(top, ..)| *top),
        }
    }

    fn of(&mut self, top: usize) -> &mut [f32] {
        &mut self.values[(top - self.top) * self.n..]
    }

    /// Writes `count` pixels from `first` on.
    fn write(&self, blocks: &mut [Block<'_>], pixels: usize, (first, count): (usize, usize)) {
        let rows = self.values.chunks_exact(self.n);
        let outputs = blocks
            .iter_mut()
            .flat_map(|(_, _, out)| out.chunks_exact_mut(pixels));
        for (row, out) in rows.zip(outputs) {
            Slot::copy(&mut out[first..first + count], &row[..count]);
        }
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
    let ((rows, cols), pixels, n) = (windows.taps, windows.height * windows.width, kernel.n());
    let taps = rows * cols;
    let channels = packed.depth / taps;
    // As many channels as a panel would hold, or a few more.
    let most = (DEPTH / taps + 2).max(1);
    let step = channels.div_ceil(channels.div_ceil(most));
    let mut sums = (step < channels).then(|| Sums::new(blocks, n));
    for first in (0..pixels).step_by(n) {
        let row = windows.origin.0 + first / windows.width;
        let col = windows.origin.1 + first % windows.width;
        for channel in (0..channels).step_by(step) {
            let from = (channel * planes.height + row) * planes.width + col;
            for (top, m, out) in &mut *blocks {
                let sum = Sum {
                    planes: step.min(channels - channel),
                    rows,
                    cols,
                    a: (taps * *m, cols * *m, *m),
                    b: (planes.height * planes.width, planes.width, 1),
                    b_second: match windows.width == kernel.lanes {
                        true => planes.width,
                        false => kernel.lanes,
                    },
                };
                let weights = &packed.values[*top * packed.depth + channel * taps * *m..];
                let begun = begin(channel, start, *top);
                let (to, to_row) = match &mut sums {
                    Some(sums) => (Slot::of(sums.of(*top)), n),
                    None => (&mut out[first..], pixels),
                };
                kernel.tile(sum, (*m, n), weights, &planes.data[from..], begun, to, to_row);
            }
        }
        if let Some(sums) = &sums {
            sums.write(blocks, pixels, (first, n));
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
        windows.taps.0 * windows.taps.1,
        windows.height * windows.width,
        kernel.n(),
    );
    let channels = packed.depth / taps;
    let step = channels.div_ceil(channels.div_ceil((DEPTH / taps).max(1)));
    let mut panel = Aligned::zeros(step * taps * n);
    let mut sums = Sums::new(blocks, n);
    for first in (0..pixels).step_by(n) {
        let count = n.min(pixels - first);
        for channel in (0..channels).step_by(step) {
            let some = step.min(channels - channel);
            pack(&mut panel, n, planes, windows, (channel, some), (first, count));
            for (top, m, _) in &*blocks {
                let weights = &packed.values[*top * packed.depth + channel * taps * *m..];
                let begun = begin(channel, start, *top);
                let to = Slot::of(sums.of(*top));
                kernel.tile(
                    Sum::line(some * taps, *m, n),
                    (*m, n),
                    weights,
                    &panel,
                    begun,
                    to,
                    n,
                );
            }
        }
        sums.write(blocks, pixels, (first, count));
    }
}

/// Where the sums of the channels from `channel` on begin, for the rows from `top` on.
fn begin(channel: usize, start: Option<&[f32]>, top: usize) -> Start<'_> {
    match (channel, start) {
        (0, Some(start)) => Start::Rows(&start[top..]),
        (0, None) => Start::Zero,
        _ => Start::C,
    }
}

/// Packs the windows of `count` pixels from `first` on, for `some` channels from `channel` on: `[channel, tap][n]`.
fn pack(
    panel: &mut [f32],
    n: usize,
    planes: &Planes,
    windows: Windows,
    channels: (usize, usize),
    (first, count): (usize, usize),
) {
    // Runs of pixels that stay in one image row: offset in the panel, where the window is, length.
    let mut at = 0;
    while at < count {
        let (row, col) = ((first + at) / windows.width, (first + at) % windows.width);
        let run = (windows.width - col).min(count - at);
        let from = (windows.origin.0 + row * windows.stride) * planes.width
            + windows.origin.1
            + col * windows.stride;
        let fixed = if windows.stride == 1 { run } else { 0 };
        with_run!(
            fixed,
            pack_run(panel, n, planes, windows, channels, from, at, run)
        );
        at += run;
    }
}

#[allow(clippy::too_many_arguments)]
fn pack_run<const RUN: usize>(
    panel: &mut [f32],
    n: usize,
    planes: &Planes,
    windows: Windows,
    (channel, some): (usize, usize),
    from: usize,
    at: usize,
    run: usize,
) {
    let size = planes.height * planes.width;
    let (rows, cols) = windows.taps;
    let planes_of = planes.data.chunks_exact(size).skip(channel).take(some);
    for (plane, panel) in planes_of.zip(panel.chunks_exact_mut(rows * cols * n)) {
        for (tap_row, panel) in panel.chunks_exact_mut(cols * n).enumerate() {
            let line = &plane[from + tap_row * planes.width..];
            for (tap_col, panel) in panel.chunks_exact_mut(n).enumerate() {
                let (to, from) = (&mut panel[at..at + run], &line[tap_col..]);
                if windows.stride == 1 {
                    copy_run::<RUN>(to, from);
                } else {
                    for (to, from) in to.iter_mut().zip(from.iter().step_by(windows.stride)) {
                        *to = *from;
                    }
                }
            }
        }
    }
}

/// Copies `RUN` floats where that is known when compiling (then register moves, not a call), else as many as there are.
#[inline(always)]
fn copy_run<const RUN: usize>(to: &mut [f32], from: &[f32]) {
    match (to.first_chunk_mut::<RUN>(), from.first_chunk::<RUN>()) {
        (Some(to), Some(from)) if RUN > 0 => *to = *from,
        _ => to.copy_from_slice(&from[..to.len()]),
    }
}
