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
/// Elements that must follow a line, so that a block can be read as two whole vectors.
pub(crate) const BEYOND: usize = 2 * BLOCK + 2;

/// Positions `k·step` within a block, split into whole and fractional parts, and the width of the triangle.
#[derive(Debug, Clone)]
pub(crate) struct Tent {
    pub(crate) whole: [i32; BLOCK],
    pub(crate) part: [f32; BLOCK],
    pub(crate) step: f64,
    pub(crate) slope: f32,
    /// Neighbours on each side that the triangle can reach.
    pub(crate) taps: usize,
    /// Slope 1: the two weights are `1 - f` and `f`.
    pub(crate) linear: bool,
    path: Path,
}

/// The instructions a kernel may use, found when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Path {
    /// Every path that this processor can take, the fastest first.
    pub(crate) fn available() -> Vec<Self> {
        let mut paths = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                paths.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                paths.push(Self::Avx2);
            }
        }
        paths.push(Self::Portable);
        paths
    }
}

impl Tent {
    /// Linear interpolation at positions `step` apart.
    pub(crate) fn interpolation(step: f64) -> Self {
        Self::new(step, 1.0)
    }

    /// Triangle of half-width `1/slope` at positions `step` apart.
    pub(crate) fn new(step: f64, slope: f64) -> Self {
        Self::with_path(step, slope, Path::available()[0])
    }

    fn with_path(step: f64, slope: f64, path: Path) -> Self {
        let mut whole = [0; BLOCK];
        let mut part = [0.0; BLOCK];
        for k in 0..BLOCK {
            let u = k as f64 * step;
            whole[k] = u.floor() as i32;
            part[k] = (u - u.floor()) as f32;
        }
        let taps = (1.0 / slope).ceil().max(1.0) as usize;
        Self {
            whole,
            part,
            step,
            slope: slope as f32,
            taps,
            linear: slope == 1.0,
            path,
        }
    }

    /// Elements that must exist before the first and after the last index reached.
    pub(crate) fn taps(&self) -> usize {
        self.taps
    }

    /// Adds the weighted line to `acc`; index 0 of the line is `line[origin]`.
    ///
    /// The caller pads the line by `taps + 1` elements beyond the whole parts of the first and the last position,
    /// and by [`BEYOND`] elements after its end.
    #[inline]
    pub(crate) fn add(&self, acc: &mut [f32], line: &[f32], origin: usize, base: f64) {
        match self.path {
            #[cfg(target_arch = "x86_64")]
            Path::Avx512 => {
                self.assert_inside(acc.len(), line.len(), origin, base);
                // SAFETY: the path was chosen because the processor has these instructions; bounds were just checked.
                unsafe { crate::kernel_x86::add_avx512(self, acc, line, origin, base) }
            }
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => {
                self.assert_inside(acc.len(), line.len(), origin, base);
                // SAFETY: as above.
                unsafe { crate::kernel_x86::add_avx2(self, acc, line, origin, base) }
            }
            Path::Portable => self.add_portable(acc, line, origin, base),
        }
    }

    /// Every index that `count` positions from `base` can reach lies in the line; a whole block may be read.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    fn assert_inside(&self, count: usize, length: usize, origin: usize, base: f64) {
        let end = base + count.saturating_sub(1) as f64 * self.step;
        let margin = self.taps as f64 + 1.0;
        let lo = base.min(end) - margin + origin as f64;
        // Split sums may round to the next whole number; a block is read as two vectors from its first index.
        let hi = base.max(end) + margin.max(BEYOND as f64) + origin as f64;
        assert!(
            lo >= 0.0 && hi < length as f64 && length < i32::MAX as usize,
            "line is padded too little"
        );
    }

    #[inline]
    pub(crate) fn add_portable(&self, acc: &mut [f32], line: &[f32], origin: usize, base: f64) {
        for (block, acc) in acc.chunks_mut(BLOCK).enumerate() {
            let (first, offset) = self.start(block, base);
            let first = first + origin as i64;
            for (k, acc) in acc.iter_mut().enumerate() {
                let sum = offset + self.part[k];
                let carry = sum >= 1.0;
                let fraction = if carry { sum - 1.0 } else { sum };
                let index = (first + i64::from(self.whole[k]) + i64::from(carry)) as usize;
                if self.linear {
                    let (a, b) = (line[index], line[index + 1]);
                    *acc += a + fraction * (b - a);
                    continue;
                }
                for p in 0..self.taps {
                    let below = (1.0 - self.slope * (fraction + p as f32)).max(0.0);
                    let above = (1.0 - self.slope * (1.0 - fraction + p as f32)).max(0.0);
                    *acc += below * line[index - p] + above * line[index + 1 + p];
                }
            }
        }
    }

    /// Whole and fractional part of the first position of a block.
    #[inline(always)]
    pub(crate) fn start(&self, block: usize, base: f64) -> (i64, f32) {
        let u = base + (block * BLOCK) as f64 * self.step;
        let whole = floor(u);
        (whole, (u - whole as f64) as f32)
    }
}

/// Largest whole number that is not above `u`, without the library call that `f64::floor` is on plain x86-64.
#[inline(always)]
fn floor(u: f64) -> i64 {
    let whole = u as i64;
    whole - i64::from(whole as f64 > u)
}

/// The indices `k < count` with `lo <= base + k·step <= hi`, for `step` of either sign.
#[inline]
pub(crate) fn indices_within(base: f64, step: f64, count: usize, lo: f64, hi: f64) -> std::ops::Range<usize> {
    // Mirrored, a falling sequence rises.
    let (base, step, lo, hi) = if step < 0.0 {
        (-base, -step, -hi, -lo)
    } else {
        (base, step, lo, hi)
    };
    if step == 0.0 {
        return if lo <= base && base <= hi { 0..count } else { 0..0 };
    }
    let at = |k: usize| base + k as f64 * step;
    let inverse = 1.0 / step;
    // A float to integer cast saturates: below zero gives zero. The loops mend what rounding spoilt.
    let mut start = (((lo - base) * inverse) as usize).min(count);
    while start > 0 && at(start - 1) >= lo {
        start -= 1;
    }
    while start < count && at(start) < lo {
        start += 1;
    }
    let mut end = (((hi - base) * inverse) as usize).min(count).max(start);
    while end < count && at(end) <= hi {
        end += 1;
    }
    while end > start && at(end - 1) > hi {
        end -= 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;
    use allpet_core::{fill_normal, stream};

    /// Every path against the formula at the head of the file, in `f64`.
    #[test]
    fn every_path_agrees_with_the_formula() {
        let (origin, length) = (60, 700);
        let mut line = vec![0.0; length];
        fill_normal(&mut stream(3, "kernel", 0), &mut line);
        for path in Path::available() {
            for (step, slope) in [
                (1.0, 1.0),
                (1.37, 1.0),
                (-0.71, 1.0),
                (2.6, 1.0),
                (0.0, 1.0),
                (0.8, 1.25),
                (0.31, 3.2),
                (2.9, 0.345),
            ] {
                for count in [1, 5, 16, 33, 160] {
                    let base = if step < 0.0 { 300.217 } else { 3.81 };
                    let tent = Tent::with_path(step, slope, path);
                    let mut acc = vec![0.5; count];
                    tent.add(&mut acc, &line, origin, base);
                    for (k, &got) in acc.iter().enumerate() {
                        let u = base + k as f64 * step;
                        let expected: f64 = 0.5
                            + (0..length)
                                .map(|i| {
                                    let distance = (i as f64 - origin as f64 - u).abs();
                                    f64::from(line[i]) * (1.0 - slope * distance).max(0.0)
                                })
                                .sum::<f64>();
                        assert!(
                            (f64::from(got) - expected).abs() < 2e-6,
                            "{path:?}, step {step}, slope {slope}, position {k} of {count}: {got} for {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn indices_within_finds_exactly_those() {
        for (base, step, count, lo, hi) in [
            (-3.0, 1.0, 10, 0.0, 4.0),
            (-3.2, 0.7, 40, 0.0, 4.0),
            (9.1, -0.7, 40, 0.0, 4.0),
            (1.0, 0.0, 4, 0.0, 4.0),
            (5.0, 0.0, 4, 0.0, 4.0),
            (-1e18, 1.0, 9, 0.0, 5.0),
            (100.0, 1.0, 9, 0.0, 5.0),
        ] {
            let expected: Vec<usize> = (0..count)
                .filter(|&k| (lo..=hi).contains(&(base + k as f64 * step)))
                .collect();
            assert_eq!(
                indices_within(base, step, count, lo, hi).collect::<Vec<_>>(),
                expected
            );
        }
    }
}
