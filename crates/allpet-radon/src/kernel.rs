//! The one inner loop of the crate: triangular weights along a line.
//!
//! `acc[k] += Σ_i line[i] · max(0, 1 - slope·|i - u_k|)` at equally spaced positions `u_k = base + k·step`.
//! - Joseph forward: line = image row, `slope = 1` (linear interpolation), `step` = bins measured in pixels;
//! - its transpose: line = sinogram row, `slope = d`, `step = 1/d`: the same weights, since
//!   `1 - |i - (b + j·d)| = 1 - d·|j - (i - b)/d|`;
//! - back-projection: line = filtered view, `slope = 1`.
//!
//! Positions are split into whole and fractional parts in `f64` before they meet in `f32`, so that weights keep
//! `f32` precision however long the line is.

/// Positions handled together; also the padding granularity.
pub(crate) const BLOCK: usize = 16;

/// Positions `k·step` within a block, split into whole and fractional parts, and the width of the triangle.
#[derive(Debug, Clone)]
pub(crate) struct Tent {
    whole: [i32; BLOCK],
    part: [f32; BLOCK],
    step: f64,
    slope: f32,
    /// Neighbours on each side that the triangle can reach.
    taps: usize,
}

impl Tent {
    /// Linear interpolation at positions `step` apart.
    pub(crate) fn interpolation(step: f64) -> Self {
        Self::new(step, 1.0)
    }

    /// Triangle of half-width `1/slope` at positions `step` apart.
    pub(crate) fn new(step: f64, slope: f64) -> Self {
        let mut whole = [0; BLOCK];
        let mut part = [0.0; BLOCK];
        for k in 0..BLOCK {
            let u = k as f64 * step;
            whole[k] = u.floor() as i32;
            part[k] = (u - u.floor()) as f32;
        }
        Self {
            whole,
            part,
            step,
            slope: slope as f32,
            taps: (1.0 / slope).ceil().max(1.0) as usize,
        }
    }

    /// Elements that must exist before the first and after the last index reached.
    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// Adds the weighted line to `acc`; index 0 of the line is `line[origin]`.
    ///
    /// The caller pads the line by `taps + 1` elements beyond the whole parts of the first and the last position.
    pub(crate) fn add(&self, acc: &mut [f32], line: &[f32], origin: usize, base: f64) {
        for (block, acc) in acc.chunks_mut(BLOCK).enumerate() {
            let u = base + (block * BLOCK) as f64 * self.step;
            let start = u.floor();
            let (first, offset) = (start as i64 + origin as i64, (u - start) as f32);
            for (k, acc) in acc.iter_mut().enumerate() {
                let sum = offset + self.part[k];
                let carry = i64::from(sum >= 1.0);
                let fraction = sum - carry as f32;
                let index = (first + i64::from(self.whole[k]) + carry) as usize;
                let mut value = 0.0;
                for p in 0..self.taps {
                    let below = (1.0 - self.slope * (fraction + p as f32)).max(0.0);
                    let above = (1.0 - self.slope * (1.0 - fraction + p as f32)).max(0.0);
                    value += below * line[index - p] + above * line[index + 1 + p];
                }
                *acc += value;
            }
        }
    }
}

/// The indices `k < count` with `lo <= base + k·step <= hi`, for `step` of either sign.
pub(crate) fn indices_within(base: f64, step: f64, count: usize, lo: f64, hi: f64) -> std::ops::Range<usize> {
    // Mirrored, a falling sequence rises.
    let (base, step, lo, hi) = if step < 0.0 {
        (-base, -step, -hi, -lo)
    } else {
        (base, step, lo, hi)
    };
    let at = |k: usize| base + k as f64 * step;
    let clamp = |k: f64| k.clamp(0.0, count as f64) as usize;
    if step == 0.0 {
        return if lo <= base && base <= hi { 0..count } else { 0..0 };
    }
    let mut start = clamp(((lo - base) / step).ceil());
    while start > 0 && at(start - 1) >= lo {
        start -= 1;
    }
    while start < count && at(start) < lo {
        start += 1;
    }
    let mut end = clamp(((hi - base) / step).floor() + 1.0);
    while end < count && at(end) <= hi {
        end += 1;
    }
    while end > 0 && at(end - 1) > hi {
        end -= 1;
    }
    start..end.max(start)
}
