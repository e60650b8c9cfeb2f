//! The gathering kernel: lines of pixels, each the sum over views of samples under a triangle.
//!
//! Pixel `i` of line `l` lies at bin `v = first + l·per_line + i·step` of a view, and takes
//! `Σ_j y_j · max(0, 1 - slope·|j - v|)`.
//! - The transpose of the forward kernel: `step = 1/d`, `slope = d` with `d` pixels per bin, since
//!   `1 - |i - (b + j·d)| = 1 - d·|j - (i - b)/d|`; end pixels take their own weights (see `joseph`).
//! - Back-projection of filtered views: `slope = 1`, linear interpolation.
//!
//! Positions are held as in `forward`; the lanes are pixels, or slices when these lie innermost. Views are added in
//! their order, so that nothing depends on threads or on the company of a slice.

use crate::forward::{WINDOW_STEP, multiples, spread};
use crate::simd::{FRACTION_BITS, Kernel, LANES, Pairs, Simd, WINDOW, Windows, fixed, split};
use std::convert::identity;

/// Views that are added together.
pub(crate) const VIEWS: usize = 16;
/// Lines that one call may have.
pub(crate) const LINES: usize = 16;

/// How one view meets the lines of the image.
#[derive(Debug, Clone)]
pub(crate) struct Ray {
    /// Row of the source.
    pub(crate) source: usize,
    pub(crate) first: f64,
    pub(crate) per_line: f64,
    pub(crate) step: f64,
    pub(crate) slope: f64,
    /// For the weights of end pixels.
    pub(crate) inverse_slope: f64,
}

/// Up to [`VIEWS`] views, as the kernel reads them.
#[derive(Debug, Clone)]
struct Bundle {
    rays: Vec<Ray>,
    first: [f64; VIEWS],
    per_line: [f64; VIEWS],
    step: [f64; VIEWS],
    /// `slope`, `-slope` and `1 - slope`.
    rise: [f32; VIEWS],
    fall: [f32; VIEWS],
    rest: [f32; VIEWS],
    source: [usize; VIEWS],
    parts: [[i32; LANES]; VIEWS],
    wholes: [[i32; LANES]; VIEWS],
}

/// All views that share an orientation.
#[derive(Debug, Clone)]
pub(crate) struct Tents {
    bundles: Vec<Bundle>,
    bins: usize,
    taps: usize,
    windowed: bool,
    /// Zeros before, between and after the rows of the source.
    pad: usize,
    /// Whether the first and the last pixel of a line take the weights of Joseph's ends.
    ends: bool,
}

/// Lines of the image and what surrounds them.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    pub(crate) first_line: usize,
    pub(crate) pixels: usize,
}

impl Tents {
    /// For views whose slopes are at least `gentlest`; `ends` gives end pixels the weights of Joseph's ends.
    pub(crate) fn new(rays: &[Ray], bins: usize, gentlest: f64, ends: bool) -> Self {
        let taps = (1.0 / gentlest).ceil().max(1.0) as usize;
        let windowed = taps == 1 && rays.iter().all(|r| r.step.abs() <= WINDOW_STEP);
        let bundles = rays
            .chunks(VIEWS)
            .map(|rays| Bundle::new(rays, windowed))
            .collect();
        Self {
            bundles,
            bins,
            taps,
            windowed,
            pad: spread(bins + (2 * taps + 4).max(48)) - bins,
            ends,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }

    /// From one row of the source to the next.
    pub(crate) fn stride(&self) -> usize {
        self.bins + self.pad
    }

    /// Zeros before a row of the source.
    pub(crate) fn pad(&self) -> usize {
        self.pad
    }

    /// Elements of a source of `rows` rows: zeros, then each row and zeros.
    pub(crate) fn source_len(&self, rows: usize) -> usize {
        self.pad + rows * self.stride()
    }

    /// Whole and fractional bin of the lowest of sixteen pixels, view by view; fractions in fixed point.
    #[inline(always)]
    fn positions(&self, bundle: &Bundle, line: usize, block: usize) -> ([i32; VIEWS], [i32; VIEWS]) {
        let (mut wholes, mut parts) = ([0; VIEWS], [0; VIEWS]);
        // Farther out there are only zeros, as far as sixteen pixels reach.
        let (lo, hi) = if self.windowed {
            (8.0 - self.pad as f64, self.bins as f64 + 4.0)
        } else {
            (-1e8, 1e8)
        };
        let (line, pixel) = (line as f64, (block * LANES) as f64);
        for s in 0..VIEWS {
            let at = bundle.first[s] + line * bundle.per_line[s] + pixel * bundle.step[s];
            (wholes[s], parts[s]) = split(at.max(lo).min(hi));
        }
        (wholes, parts)
    }

    /// Index of lane positions relative to a row's first bin, clamped to the zeros around it.
    #[inline(always)]
    fn wide<S: Simd>(&self, s: S, bundle: &Bundle, ray: usize, whole: i32, position: S::I) -> S::I {
        let i = s.add_i(s.whole(position), s.load_i(&bundle.wholes[ray]));
        let (lo, hi) = (-1 - self.taps as i32, (self.bins + self.taps) as i32);
        s.clamp_i(s.add_i(i, s.splat_i(whole)), lo, hi)
    }

    /// What the end pixels of a line take from a bundle's views: bins and weights of both ends, tap by tap.
    #[inline(always)]
    fn at_end(
        &self,
        bundle: &Bundle,
        target: Target,
        line: usize,
        end: usize,
        mut take: impl FnMut(usize, f32),
    ) {
        let last = target.pixels - 1;
        for ray in &bundle.rays {
            let at = ray.first + line as f64 * ray.per_line + end as f64 * ray.step;
            let at = at
                .max(-1.0 - self.taps as f64)
                .min((self.bins + self.taps) as f64);
            let whole = fixed(at) >> FRACTION_BITS;
            let row = (self.pad + ray.source * self.stride()) as i64 + whole;
            let whole = whole as f64;
            let beyond = |outside: f64| ((0.5 - outside) * ray.inverse_slope + 0.5).clamp(0.0, 1.0);
            let tent = |distance: f64| (1.0 - distance).max(0.0);
            for tap in 0..self.taps {
                let below = ray.slope * (at - whole + tap as f64);
                let above = ray.slope * (whole + 1.0 + tap as f64 - at);
                // Bins below a pixel cross the line before its centre.
                let w = if end == 0 { beyond(below) } else { tent(below) };
                let v = if end == last { beyond(above) } else { tent(above) };
                take((row - tap as i64) as usize, w as f32);
                take((row + 1 + tap as i64) as usize, v as f32);
            }
        }
    }
}

impl Bundle {
    fn new(rays: &[Ray], windowed: bool) -> Self {
        let mut bundle = Self {
            rays: rays.to_vec(),
            first: [0.0; VIEWS],
            per_line: [0.0; VIEWS],
            step: [0.0; VIEWS],
            rise: [0.0; VIEWS],
            fall: [0.0; VIEWS],
            rest: [0.0; VIEWS],
            source: [0; VIEWS],
            parts: [[0; LANES]; VIEWS],
            wholes: [[0; LANES]; VIEWS],
        };
        for (s, ray) in rays.iter().enumerate() {
            // A falling position starts from lane 15, so that lanes count upward within the window.
            let lowest = if ray.step < 0.0 { (LANES - 1) as f64 } else { 0.0 };
            bundle.first[s] = ray.first + lowest * ray.step;
            bundle.per_line[s] = ray.per_line;
            bundle.step[s] = ray.step;
            bundle.rise[s] = ray.slope as f32;
            bundle.fall[s] = -ray.slope as f32;
            bundle.rest[s] = (1.0 - ray.slope) as f32;
            bundle.source[s] = ray.source;
            (bundle.parts[s], bundle.wholes[s]) = multiples(ray.step, -lowest, windowed);
        }
        bundle
    }
}

/// The weights of the elements next below and next above a position.
#[inline(always)]
fn near<S: Simd>(s: S, bundle: &Bundle, r: usize, fraction: S::F) -> (S::F, S::F) {
    let zero = s.splat(0.0);
    (
        s.max(zero, s.fma(s.splat(bundle.fall[r]), fraction, s.splat(1.0))),
        s.max(
            zero,
            s.fma(s.splat(bundle.rise[r]), fraction, s.splat(bundle.rest[r])),
        ),
    )
}

/// The weights of the elements `tap` farther away.
#[inline(always)]
fn far<S: Simd>(s: S, bundle: &Bundle, r: usize, fraction: S::F, tap: usize) -> (S::F, S::F) {
    let (away, zero) = (bundle.rise[r] * tap as f32, s.splat(0.0));
    let (below, above) = (s.splat(1.0 - away), s.splat(bundle.rest[r] - away));
    (
        s.max(zero, s.fma(s.splat(bundle.fall[r]), fraction, below)),
        s.max(zero, s.fma(s.splat(bundle.rise[r]), fraction, above)),
    )
}

/// Adds all views to lines of one image, each line in whole blocks of pixels.
pub(crate) struct GatherLines<'a> {
    pub(crate) tents: &'a Tents,
    pub(crate) target: Target,
    pub(crate) source: &'a [f32],
    /// `[line][block][lane]`, `blocks` blocks a line.
    pub(crate) lines: &'a mut [[f32; LANES]],
    pub(crate) blocks: usize,
}

impl Kernel for GatherLines<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (tents, target, source) = (self.tents, self.target, self.source);
        let (pad, stride) = (tents.pad, tents.stride());
        let windows = Windows::<_, WINDOW>::new(source);
        let mut ends = [[0.0f32; 2]; LINES];
        let count_of_lines = self.lines.len() / self.blocks;
        for bundle in &tents.bundles {
            let count = bundle.rays.len();
            for block in 0..self.blocks {
                for (l, line) in self.lines.chunks_exact_mut(self.blocks).enumerate() {
                    let (wholes, parts) = tents.positions(bundle, target.first_line + l, block);
                    let (mut below, mut above) = (s.load(&line[block]), s.splat(0.0));
                    let near_view = identity(
                        #[inline(always)]
                        |r: usize, below: S::F, above: S::F| {
                            let position = s.add_i(s.splat_i(parts[r]), s.load_i(&bundle.parts[r]));
                            let start = pad + bundle.source[r] * stride;
                            let window = windows.at(start.wrapping_add_signed(wholes[r] as isize));
                            let (a, b) = s.neighbours(window, s.whole(position));
                            let (w, v) = near(s, bundle, r, s.fraction(position));
                            (s.fma(w, a, below), s.fma(v, b, above))
                        },
                    );
                    // A count known beforehand lets the loop be unrolled.
                    if tents.windowed && count == VIEWS {
                        for r in 0..VIEWS {
                            (below, above) = near_view(r, below, above);
                        }
                    } else if tents.windowed {
                        for r in 0..count {
                            (below, above) = near_view(r, below, above);
                        }
                    } else {
                        for r in 0..count {
                            let position = s.add_i(s.splat_i(parts[r]), s.load_i(&bundle.parts[r]));
                            let fraction = s.fraction(position);
                            let i = tents.wide(s, bundle, r, wholes[r], position);
                            let row = &source[bundle.source[r] * stride..][..tents.bins + 2 * pad];
                            for tap in 0..tents.taps {
                                let a = s.gather(row, s.add_i(i, s.splat_i((pad - tap) as i32)));
                                let b = s.gather(row, s.add_i(i, s.splat_i((pad + 1 + tap) as i32)));
                                let (w, v) = far(s, bundle, r, fraction, tap);
                                below = s.fma(w, a, below);
                                above = s.fma(v, b, above);
                            }
                        }
                    }
                    s.store(s.add(below, above), &mut line[block]);
                }
            }
            if tents.ends {
                for (l, sums) in ends.iter_mut().enumerate().take(count_of_lines) {
                    for (end, sum) in [0, target.pixels - 1].into_iter().zip(sums) {
                        tents.at_end(bundle, target, target.first_line + l, end, |i, weight| {
                            *sum += weight * source[i];
                        });
                    }
                }
            }
        }
        if tents.ends {
            let last = target.pixels - 1;
            for (line, [first, end]) in self.lines.chunks_exact_mut(self.blocks).zip(ends) {
                line[0][0] = first;
                line[last / LANES][last % LANES] = end;
            }
        }
    }
}

/// The same for sixteen slices, innermost in source and lines.
pub(crate) struct GatherSlices<'a> {
    pub(crate) tents: &'a Tents,
    pub(crate) target: Target,
    pub(crate) source: &'a [[f32; LANES]],
    /// `[line][pixel][slice]`.
    pub(crate) lines: &'a mut [[f32; LANES]],
}

impl Kernel for GatherSlices<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (tents, target, source) = (self.tents, self.target, self.source);
        let (pad, stride, pixels) = (tents.pad, tents.stride(), target.pixels);
        let (last, mut pairs) = (pixels - 1, Pairs::<VIEWS>::new(source));
        let zero = s.splat(0.0);
        let mut ends = [[zero; 2]; LINES];
        let count_of_lines = self.lines.len() / pixels;
        let (mut lower, mut upper) = ([[0.0; LANES]; VIEWS], [[0.0; LANES]; VIEWS]);
        for bundle in &tents.bundles {
            let count = bundle.rays.len();
            // Blocks outermost: sixteen views of some twenty bins stay in the first cache for all lines.
            for block in 0..pixels.div_ceil(LANES) {
                let of_block = block * LANES..pixels.min((block + 1) * LANES);
                for (l, line) in self.lines.chunks_exact_mut(pixels).enumerate() {
                    let (wholes, parts) = tents.positions(bundle, target.first_line + l, block);
                    let mut fractions = [s.splat(0.0); VIEWS];
                    for r in 0..count {
                        let position = s.add_i(s.splat_i(parts[r]), s.load_i(&bundle.parts[r]));
                        let row = (pad + bundle.source[r] * stride) as i32;
                        let i = if tents.windowed {
                            s.add_i(s.whole(position), s.splat_i(wholes[r]))
                        } else {
                            tents.wide(s, bundle, r, wholes[r], position)
                        };
                        pairs.set(s, r, s.add_i(i, s.splat_i(row)));
                        fractions[r] = s.fraction(position);
                    }
                    let line = &mut line[of_block.clone()];
                    if tents.taps == 1 {
                        for r in 0..count {
                            let (w, v) = near(s, bundle, r, fractions[r]);
                            s.store(w, &mut lower[r]);
                            s.store(v, &mut upper[r]);
                        }
                        for k in 0..LANES.min(line.len()) {
                            let pixel = &mut line[k];
                            let (mut below, mut above) = (s.load(pixel), s.splat(0.0));
                            let view = identity(
                                #[inline(always)]
                                |r: usize, below: S::F, above: S::F| {
                                    let [a, b] = pairs.at(r, k);
                                    (
                                        s.fma(s.splat(lower[r][k]), s.load(a), below),
                                        s.fma(s.splat(upper[r][k]), s.load(b), above),
                                    )
                                },
                            );
                            if count == VIEWS {
                                for r in 0..VIEWS {
                                    (below, above) = view(r, below, above);
                                }
                            } else {
                                for r in 0..count {
                                    (below, above) = view(r, below, above);
                                }
                            }
                            s.store(s.add(below, above), pixel);
                        }
                    } else {
                        let mut sums = [(s.splat(0.0), s.splat(0.0)); LANES];
                        for (sum, pixel) in sums.iter_mut().zip(line.iter()) {
                            sum.0 = s.load(pixel);
                        }
                        for r in 0..count {
                            for tap in 0..tents.taps {
                                let (w, v) = far(s, bundle, r, fractions[r], tap);
                                s.store(w, &mut lower[r]);
                                s.store(v, &mut upper[r]);
                                for (k, (below, above)) in sums.iter_mut().enumerate() {
                                    let i = pairs.place(r, k);
                                    let (a, b) = (&source[i - tap], &source[i + 1 + tap]);
                                    *below = s.fma(s.splat(lower[r][k]), s.load(a), *below);
                                    *above = s.fma(s.splat(upper[r][k]), s.load(b), *above);
                                }
                            }
                        }
                        for ((below, above), pixel) in sums.into_iter().zip(line) {
                            s.store(s.add(below, above), pixel);
                        }
                    }
                }
            }
            if tents.ends {
                for (l, sums) in ends.iter_mut().enumerate().take(count_of_lines) {
                    for (end, sum) in [0, last].into_iter().zip(sums) {
                        let add = identity(
                            #[inline(always)]
                            |i: usize, weight: f32| {
                                // Rounded after the product as well: one slice alone is summed by plain code.
                                let product = s.fma(s.splat(weight), s.load(&source[i]), zero);
                                *sum = s.add(*sum, product);
                            },
                        );
                        tents.at_end(bundle, target, target.first_line + l, end, add);
                    }
                }
            }
        }
        if tents.ends {
            for (line, [first, end]) in self.lines.chunks_exact_mut(pixels).zip(ends) {
                s.store(first, &mut line[0]);
                s.store(end, &mut line[last]);
            }
        }
    }
}
