//! The forward kernel: a tile of image lines added to the bins of a view, sixteen bins or sixteen slices at a time.
//!
//! Bin `j` crosses line `l` at `u = first + l·per_line + j·per_bin` (see `joseph`). Sixteen bins share a start, split
//! in `f64` into whole pixels and a 23-bit fraction; the lanes' own offsets are a table. Where sixteen bins and their
//! upper neighbours span less than 32 pixels, two loads and two permutations replace two gathers.
//!
//! With slices innermost the lanes are slices: positions and weights are worked out once for all of them, in the
//! same arithmetic and the same order of sums, so that a slice's bytes do not depend on its company.

use crate::joseph::View;
use crate::simd::{FRACTION_BITS, Kernel, LANES, ONE, Pairs, Simd, WINDOW, Windows, split};
use std::convert::identity;

/// Image lines that are walked together: few enough to stay in the first (one slice) or second cache (sixteen).
pub(crate) const TILE: usize = 16;
/// Copies of the end pixels on each side of a line.
pub(crate) const PAD: usize = 2;
/// Elements before the first and after the last line: a block of bins may hang over a line's end by so many.
pub(crate) const SLACK: usize = 80;

/// Elements of an image of `lines` lines, padded for the kernel.
pub(crate) fn padded_len(lines: usize, pixels: usize) -> usize {
    2 * SLACK + lines * stride(pixels)
}

/// From one padded line to the next.
pub(crate) fn stride(pixels: usize) -> usize {
    spread(pixels + 2 * PAD)
}

/// At least `length`, and such that sixteen lines one after another begin in different places of a cache: with slices innermost
/// an element is a cache line, and lines apart by a multiple of 64 of them would all fall into the same few sets. An odd multiple of
/// 4 spreads them evenly.
pub(crate) fn spread(length: usize) -> usize {
    length + (12 - length % 8) % 8
}

/// Where lines `first..first + count` of the tile meet sixteen bins.
struct Crossings {
    /// Index of the pixel that lane 0 of the first line lies beyond.
    origin: usize,
    /// The same for each line, less `origin` and the lines before it.
    whole: [i32; TILE],
    /// Fraction beyond it, fixed point.
    part: [i32; TILE],
    /// Whether some lane lies beyond the centre of an end pixel.
    edge: bool,
}

/// Lines of one tile.
#[derive(Clone, Copy)]
pub(crate) struct Lines {
    pub(crate) first: usize,
    pub(crate) count: usize,
}

enum Meeting {
    Before,
    Inside(Crossings),
    Beyond,
}

#[inline(always)]
fn crossings<S: Simd>(s: S, view: &View, lines: Lines, block: usize) -> Meeting {
    let last = view.pixels as f64 - 1.0;
    let base = view.base(lines.first) + (block * LANES) as f64 * view.per_bin;
    let sweep = (lines.count - 1) as f64 * view.per_line;
    let lo = base + sweep.min(0.0);
    let hi = base + sweep.max(0.0) + (LANES - 1) as f64 * view.per_bin;
    if hi <= -1.0 {
        return Meeting::Before;
    }
    if lo >= last + 1.0 {
        return Meeting::Beyond;
    }
    let (from, beyond) = split(base);
    let position = s.add_i(s.splat_i(beyond), s.load_i(&view.line_steps));
    let (mut whole, mut part) = ([0; TILE], [0; TILE]);
    s.store_i(s.whole(position), &mut whole);
    s.store_i(s.part(position), &mut part);
    let line = SLACK + lines.first * stride(view.pixels) + PAD;
    Meeting::Inside(Crossings {
        origin: (line as i64 + i64::from(from)) as usize,
        whole,
        part,
        edge: lo < 0.0 || hi > last,
    })
}

impl Crossings {
    /// Index of the pixel that lane 0 lies beyond, on line `r` of the tile.
    #[inline(always)]
    fn start(&self, r: usize, stride: usize) -> usize {
        (self.origin + r * stride).wrapping_add_signed(self.whole[r] as isize)
    }
}

/// Part of each crossing that lies inside the image; 1 between the centres of the end pixels.
#[inline(always)]
fn coverage(view: &View, line: usize, block: usize) -> [f32; LANES] {
    let half = view.pixels as f64 / 2.0;
    let base = view.base(line) + (block * LANES) as f64 * view.per_bin + 0.5 - half;
    let mut weights = [0.0; LANES];
    for (k, weight) in weights.iter_mut().enumerate() {
        let inside = half - (base + k as f64 * view.per_bin).abs();
        *weight = (inside * view.inverse_slope + 0.5).clamp(0.0, 1.0) as f32;
    }
    weights
}

/// Indices into a padded image, one for each lane, where the window is too narrow for the spacing.
#[inline(always)]
fn wide<S: Simd>(s: S, view: &View, lines: Lines, r: usize, start: usize, position: S::I) -> S::I {
    let line = SLACK + (lines.first + r) * stride(view.pixels) + PAD;
    let from = start as i64 - line as i64;
    let i = s.add_i(s.whole(position), s.load_i(&view.bin_wholes));
    let i = s.clamp_i(
        s.add_i(i, s.splat_i(from as i32)),
        -(PAD as i32),
        (view.pixels + PAD) as i32 - 2,
    );
    s.add_i(i, s.splat_i(line as i32))
}

/// `sum` and what every line of a tile adds to it, four at a time: sums that wait for each other in turn would take longer
/// than the additions themselves. A count known beforehand lets the loop be unrolled.
#[inline(always)]
fn add_lines<S: Simd>(s: S, sum: S::F, count: usize, line: impl Fn(usize) -> S::F) -> S::F {
    let mut sum = sum;
    let four = identity(
        #[inline(always)]
        |sum: S::F, r: usize| {
            let low = s.add(line(r), line(r + 1));
            let high = s.add(line(r + 2), line(r + 3));
            s.add(sum, s.add(low, high))
        },
    );
    if count == TILE {
        for r in (0..TILE).step_by(4) {
            sum = four(sum, r);
        }
    } else {
        for r in 0..count {
            sum = s.add(sum, line(r));
        }
    }
    sum
}

/// Adds `lines` of a padded image to a view's bins.
pub(crate) struct ProjectTile<'a> {
    pub(crate) view: &'a View,
    pub(crate) image: &'a [f32],
    pub(crate) lines: Lines,
    /// Bins in whole blocks.
    pub(crate) bins: &'a mut [[f32; LANES]],
}

impl Kernel for ProjectTile<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (view, lines) = (self.view, self.lines);
        let steps = s.load_i(&view.bin_steps);
        let (stride, windows) = (stride(view.pixels), Windows::<_, WINDOW>::new(self.image));
        for (block, bins) in self.bins.iter_mut().enumerate() {
            let at = match crossings(s, view, lines, block) {
                Meeting::Before => continue,
                Meeting::Beyond => break,
                Meeting::Inside(at) => at,
            };
            let mut sum = s.load(bins);
            if view.windowed && !at.edge {
                let line = identity(
                    #[inline(always)]
                    |r: usize| {
                        let position = s.add_i(s.splat_i(at.part[r]), steps);
                        let window = windows.at(at.start(r, stride));
                        let (a, b) = s.neighbours(window, s.whole(position));
                        s.fma(s.fraction(position), s.sub(b, a), a)
                    },
                );
                sum = add_lines(s, sum, lines.count, line);
            } else {
                let line = identity(
                    #[inline(always)]
                    |r: usize| {
                        let position = s.add_i(s.splat_i(at.part[r]), steps);
                        let start = at.start(r, stride);
                        let (a, b) = if view.windowed {
                            s.neighbours(windows.at(start), s.whole(position))
                        } else {
                            let i = wide(s, view, lines, r, start, position);
                            let next = s.add_i(i, s.splat_i(1));
                            (s.gather(self.image, i), s.gather(self.image, next))
                        };
                        s.fma(s.fraction(position), s.sub(b, a), a)
                    },
                );
                let covered = identity(
                    #[inline(always)]
                    |r: usize| {
                        let weight = s.load(&coverage(view, lines.first + r, block));
                        s.fma(weight, line(r), s.splat(0.0))
                    },
                );
                sum = if at.edge {
                    add_lines(s, sum, lines.count, covered)
                } else {
                    add_lines(s, sum, lines.count, line)
                };
            }
            s.store(sum, bins);
        }
    }
}

/// The same for sixteen slices, innermost in image and bins, and for several views.
///
/// Views of one direction see much the same pixels of a tile through sixteen bins: these stay in the first cache.
pub(crate) struct ProjectSlices<'a> {
    pub(crate) views: &'a [View],
    pub(crate) image: &'a [[f32; LANES]],
    pub(crate) lines: Lines,
    /// `[view][bin][slice]`.
    pub(crate) bins: &'a mut [[f32; LANES]],
}

impl Kernel for ProjectSlices<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let lines = self.lines;
        // Of every line: sixteen pixels and their upper neighbours, sixteen fractions, sixteen weights.
        let mut pixels = Pairs::<TILE>::new(self.image);
        let mut fraction = [[0.0; LANES]; TILE];
        let mut weight = [[0.0; LANES]; TILE];
        let count = self.bins.len() / self.views.len();
        for block in 0..count.div_ceil(LANES) {
            for (view, bins) in self.views.iter().zip(self.bins.chunks_exact_mut(count)) {
                let Meeting::Inside(at) = crossings(s, view, lines, block) else {
                    continue;
                };
                let stride = stride(view.pixels);
                let steps = s.load_i(&view.bin_steps);
                for r in 0..lines.count {
                    let position = s.add_i(s.splat_i(at.part[r]), steps);
                    let start = at.start(r, stride);
                    let i = if view.windowed {
                        s.add_i(s.whole(position), s.splat_i(start as i32))
                    } else {
                        wide(s, view, lines, r, start, position)
                    };
                    pixels.set(s, r, i);
                    s.store(s.fraction(position), &mut fraction[r]);
                    if at.edge {
                        weight[r] = coverage(view, lines.first + r, block);
                    }
                }
                let bins = &mut bins[block * LANES..];
                for k in 0..LANES.min(bins.len()) {
                    let bin = &mut bins[k];
                    let sum = s.load(bin);
                    let value = identity(
                        #[inline(always)]
                        |r: usize| {
                            let [a, b] = pixels.at(r, k);
                            let (a, b) = (s.load(a), s.load(b));
                            s.fma(s.splat(fraction[r][k]), s.sub(b, a), a)
                        },
                    );
                    let covered = identity(
                        #[inline(always)]
                        |r: usize| s.fma(s.splat(weight[r][k]), value(r), s.splat(0.0)),
                    );
                    let sum = if at.edge {
                        add_lines(s, sum, lines.count, covered)
                    } else {
                        add_lines(s, sum, lines.count, value)
                    };
                    s.store(sum, bin);
                }
            }
        }
    }
}

/// Sixteen multiples of a step in fixed point: without their whole parts where sixteen of them do not fit, and these.
pub(crate) fn multiples(step: f64, from: f64, windowed: bool) -> ([i32; LANES], [i32; LANES]) {
    let (mut parts, mut wholes) = ([0; LANES], [0; LANES]);
    for k in 0..LANES {
        let u = (k as f64 + from) * step;
        let whole = if windowed { 0.0 } else { u.floor() };
        parts[k] = ((u - whole) * f64::from(ONE)).round() as i32;
        wholes[k] = whole as i32;
    }
    (parts, wholes)
}

/// Largest spacing at which sixteen positions and their upper neighbours lie within 32 elements.
pub(crate) const WINDOW_STEP: f64 = 29.0 / 15.0;

const _: () = assert!(
    FRACTION_BITS + 8 < 32,
    "positions within a window need 8 bits before the point"
);
