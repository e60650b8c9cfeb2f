//! Sixteen lanes of `f32` and `i32` in AVX-512, AVX2 and portable code; the only unsafe code of the crate.
//!
//! The kernels are written once, over [`Simd`]. A token such as `Avx512` exists only where the processor has its
//! instructions ([`Level`] finds out), memory is reached through slices and checked places, and a permutation cannot leave the
//! 32 elements it is given: so every method is safe to call. What remains unsafe is the call of an intrinsic inside
//! a method (sound because the token proves the instructions) and the call of a function compiled for them.

use crate::error::{Error, Result};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;
/// Elements that [`Simd::neighbours`] chooses from.
pub(crate) const WINDOW: usize = 2 * LANES;
/// Bits of a fixed-point position that are its fraction: as many as an `f32` between 1 and 2 has.
pub(crate) const FRACTION_BITS: u32 = 23;
/// 1 in fixed point.
pub(crate) const ONE: i32 = 1 << FRACTION_BITS;

const MASK: i32 = ONE - 1;
const EXPONENT: i32 = 0x3f80_0000;

/// A position in fixed point, rounded to nearest; for positions below 2²⁸.
///
/// Adding 1.5·2⁵²⁻²³ leaves the wanted bits at the low end of the sum's mantissa: `f64` to integer without the
/// saturation that a cast has to check for, and so for many positions at once.
#[inline(always)]
pub(crate) fn fixed(position: f64) -> i64 {
    const MAGIC: f64 = 1.5 * (1u64 << (52 - FRACTION_BITS)) as f64;
    (position + MAGIC).to_bits() as i64 - MAGIC.to_bits() as i64
}

/// Whole and fractional part of [`fixed`].
#[inline(always)]
pub(crate) fn split(position: f64) -> (i32, i32) {
    let fixed = fixed(position);
    ((fixed >> FRACTION_BITS) as i32, fixed as i32 & MASK)
}

/// Elements of which any `N` neighbours can be had with one check.
#[derive(Clone, Copy)]
pub(crate) struct Windows<'a, T, const N: usize> {
    elements: &'a [T],
    /// Places where a window may start.
    starts: usize,
}

impl<'a, T, const N: usize> Windows<'a, T, N> {
    pub(crate) fn new(elements: &'a [T]) -> Self {
        let starts = (elements.len() + 1).saturating_sub(N);
        Self { elements, starts }
    }

    /// Elements `start` to `start + N`; a panic where they do not exist.
    #[inline(always)]
    pub(crate) fn at(&self, start: usize) -> &'a [T; N] {
        assert!(start < self.starts, "a window outside the line");
        // SAFETY: start + N is at most the number of elements, and an array has the layout of a slice.
        unsafe { &*self.elements.as_ptr().add(start).cast() }
    }
}

/// Pairs of neighbours among elements of sixteen slices: for each of `R` rows sixteen places, checked together when they are
/// set and not again when they are read.
pub(crate) struct Pairs<'a, const R: usize> {
    elements: &'a [[f32; LANES]],
    /// Where pairs begin, counted in `f32`: an address without a shift. Each is below `(elements.len() - 1)·LANES`.
    places: [[i32; LANES]; R],
}

impl<'a, const R: usize> Pairs<'a, R> {
    /// At least two elements, and no more than 32 bits can count; else a panic.
    pub(crate) fn new(elements: &'a [[f32; LANES]]) -> Self {
        let countable = i32::try_from(elements.len() * LANES).is_ok();
        assert!(elements.len() >= 2 && countable, "too few or too many elements");
        let places = [[0; LANES]; R];
        Self { elements, places }
    }

    /// Sets the elements that the pairs of row `r` begin with; a panic where one of them has no next.
    #[inline(always)]
    pub(crate) fn set<S: Simd>(&mut self, s: S, r: usize, places: S::I) {
        let pairs = (self.elements.len() - 1) as i32;
        assert!(s.all_below(places, pairs), "a pair outside the lines");
        s.store_i(s.times_lanes(places), &mut self.places[r]);
    }

    /// The pair at place `k` of row `r`.
    #[inline(always)]
    pub(crate) fn at(&self, r: usize, k: usize) -> [&'a [f32; LANES]; 2] {
        let place = self.places[r][k] as u32 as usize;
        // SAFETY: `new` and `set` let only places pass that have a next one.
        unsafe {
            let first = self.elements.as_ptr().cast::<f32>().add(place);
            [&*first.cast(), &*first.add(LANES).cast()]
        }
    }

    /// The element that the pair at place `k` of row `r` begins with.
    #[inline(always)]
    pub(crate) fn place(&self, r: usize, k: usize) -> usize {
        self.places[r][k] as usize / LANES
    }
}

/// Sixteen lanes.
pub(crate) trait Simd: Copy {
    /// Sixteen `f32`.
    type F: Copy;
    /// Sixteen `i32`.
    type I: Copy;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, from: &[f32; LANES]) -> Self::F;
    fn store(self, value: Self::F, to: &mut [f32; LANES]);
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a·b + c`; rounded once where the instructions do so.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    fn max(self, a: Self::F, b: Self::F) -> Self::F;

    fn splat_i(self, value: i32) -> Self::I;
    fn load_i(self, from: &[i32; LANES]) -> Self::I;
    fn store_i(self, value: Self::I, to: &mut [i32; LANES]);
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    fn clamp_i(self, a: Self::I, lo: i32, hi: i32) -> Self::I;
    /// Every lane times [`LANES`].
    fn times_lanes(self, a: Self::I) -> Self::I;
    /// Whether all lanes lie in `0..count`.
    fn all_below(self, a: Self::I, count: i32) -> bool;
    /// The whole part of fixed-point positions.
    fn whole(self, position: Self::I) -> Self::I;
    /// Fixed-point positions without their whole part.
    fn part(self, position: Self::I) -> Self::I;
    /// The fractional part of fixed-point positions, 0 to 1.
    fn fraction(self, position: Self::I) -> Self::F;
    /// Elements `i` and `i + 1` of a window, for `i` from 0 to 30.
    fn neighbours(self, window: &[f32; WINDOW], i: Self::I) -> (Self::F, Self::F);
    /// `line[i]`; the caller clamps, an index outside is a panic.
    fn gather(self, line: &[f32], i: Self::I) -> Self::F;
    /// Lane `k` of vector `r` becomes lane `r` of vector `k`.
    #[inline(always)]
    fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
        let mut block = [[0.0; LANES]; LANES];
        for (to, row) in block.iter_mut().zip(rows) {
            self.store(row, to);
        }
        std::array::from_fn(|k| self.load(&block.map(|row| row[k])))
    }
}

/// A computation to be compiled for each set of instructions.
///
/// `run`, and every function and closure in it that uses [`Simd`], must be `#[inline(always)]` and be called directly:
/// compiled apart, they would lack the instructions and call each intrinsic as a function.
pub(crate) trait Kernel {
    fn run<S: Simd>(self, simd: S);
}

/// Sets of instructions that the kernels are compiled for.
///
/// The results of two sets differ by rounding (multiply and add rounded once or twice). `Portable` gives the same bytes
/// on every processor that runs the same program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Instructions {
    /// AVX-512F (x86-64).
    Avx512,
    /// AVX2 and FMA (x86-64).
    Avx2,
    /// What every processor has.
    Portable,
}

impl Instructions {
    /// Those of this processor, the fastest first. Projectors and reconstructions use the first.
    pub fn available() -> Vec<Self> {
        Level::available()
            .iter()
            .map(|(instructions, _)| *instructions)
            .collect()
    }
}

/// Proof that the processor has the instructions it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    #[cfg(target_arch = "x86_64")]
    Avx512(x86::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx2(x86::Avx2),
    Portable,
}

impl Level {
    fn available() -> Vec<(Instructions, Self)> {
        let mut levels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            levels.extend(x86::Avx512::detect().map(|t| (Instructions::Avx512, Self::Avx512(t))));
            levels.extend(x86::Avx2::detect().map(|t| (Instructions::Avx2, Self::Avx2(t))));
        }
        levels.push((Instructions::Portable, Self::Portable));
        levels
    }

    /// The fastest that this processor has.
    pub(crate) fn best() -> Self {
        Self::available()[0].1
    }

    /// The level of these instructions, if this processor has them.
    pub(crate) fn of(instructions: Instructions) -> Result<Self> {
        let available = Self::available();
        match available.iter().find(|(name, _)| *name == instructions) {
            Some((_, level)) => Ok(*level),
            None => Err(Error::Instructions {
                got: instructions,
                available: available.iter().map(|(name, _)| *name).collect(),
            }),
        }
    }

    /// Runs a kernel with these instructions.
    #[inline]
    pub(crate) fn run(self, kernel: impl Kernel) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the token proves that the processor has the instructions.
            Self::Avx512(token) => unsafe { x86::run_avx512(token, kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2(token) => unsafe { x86::run_avx2(token, kernel) },
            Self::Portable => kernel.run(Portable),
        }
    }
}

/// Plain arrays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn each<T: Copy, R>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> R) -> [R; LANES] {
    std::array::from_fn(|k| f(a[k], b[k]))
}

impl Simd for Portable {
    type F = [f32; LANES];
    type I = [i32; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self::F {
        *from
    }
    #[inline(always)]
    fn store(self, value: Self::F, to: &mut [f32; LANES]) {
        *to = value;
    }
    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        std::array::from_fn(|k| a[k] * b[k] + c[k])
    }
    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        each(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn splat_i(self, value: i32) -> Self::I {
        [value; LANES]
    }
    #[inline(always)]
    fn load_i(self, from: &[i32; LANES]) -> Self::I {
        *from
    }
    #[inline(always)]
    fn store_i(self, value: Self::I, to: &mut [i32; LANES]) {
        *to = value;
    }
    #[inline(always)]
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
        each(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn clamp_i(self, a: Self::I, lo: i32, hi: i32) -> Self::I {
        a.map(|a| a.max(lo).min(hi))
    }
    #[inline(always)]
    fn times_lanes(self, a: Self::I) -> Self::I {
        a.map(|a| a << LANES.ilog2())
    }
    #[inline(always)]
    fn all_below(self, a: Self::I, count: i32) -> bool {
        a.iter().all(|a| (0..count).contains(a))
    }
    #[inline(always)]
    fn whole(self, position: Self::I) -> Self::I {
        position.map(|p| p >> FRACTION_BITS)
    }
    #[inline(always)]
    fn part(self, position: Self::I) -> Self::I {
        position.map(|p| p & MASK)
    }
    #[inline(always)]
    fn fraction(self, position: Self::I) -> Self::F {
        position.map(|p| f32::from_bits((p & MASK | EXPONENT) as u32) - 1.0)
    }
    #[inline(always)]
    fn neighbours(self, window: &[f32; WINDOW], i: Self::I) -> (Self::F, Self::F) {
        let at = |i: i32| window[i as usize % WINDOW];
        (i.map(at), i.map(|i| at(i + 1)))
    }
    #[inline(always)]
    fn gather(self, line: &[f32], i: Self::I) -> Self::F {
        i.map(|i| line[i as usize])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{EXPONENT, FRACTION_BITS, Kernel, LANES, MASK, Simd, WINDOW};
    use std::arch::x86_64::*;

    const SHIFT: u32 = FRACTION_BITS;

    /// Proof that the processor has AVX-512F.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Avx512(());

    /// Proof that the processor has AVX2 and FMA.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Avx2(());

    impl Avx512 {
        pub(super) fn detect() -> Option<Self> {
            is_x86_feature_detected!("avx512f").then_some(Self(()))
        }
    }

    impl Avx2 {
        pub(super) fn detect() -> Option<Self> {
            (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
        }
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn run_avx512(token: Avx512, kernel: impl Kernel) {
        kernel.run(token);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(super) fn run_avx2(token: Avx2, kernel: impl Kernel) {
        kernel.run(token);
    }

    // SAFETY, for every block below: the token proves the instructions, and each pointer comes from an array or a
    // slice of the length that is read or written.
    impl Simd for Avx512 {
        type F = __m512;
        type I = __m512i;

        #[inline(always)]
        fn splat(self, value: f32) -> Self::F {
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::F {
            unsafe { _mm512_loadu_ps(from.as_ptr()) }
        }
        #[inline(always)]
        fn store(self, value: Self::F, to: &mut [f32; LANES]) {
            unsafe { _mm512_storeu_ps(to.as_mut_ptr(), value) }
        }
        #[inline(always)]
        fn add(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        fn sub(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        fn max(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        fn splat_i(self, value: i32) -> Self::I {
            unsafe { _mm512_set1_epi32(value) }
        }
        #[inline(always)]
        fn load_i(self, from: &[i32; LANES]) -> Self::I {
            unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
        }
        #[inline(always)]
        fn store_i(self, value: Self::I, to: &mut [i32; LANES]) {
            unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), value) }
        }
        #[inline(always)]
        fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
            unsafe { _mm512_add_epi32(a, b) }
        }
        #[inline(always)]
        fn clamp_i(self, a: Self::I, lo: i32, hi: i32) -> Self::I {
            unsafe { _mm512_min_epi32(_mm512_max_epi32(a, _mm512_set1_epi32(lo)), _mm512_set1_epi32(hi)) }
        }
        #[inline(always)]
        fn times_lanes(self, a: Self::I) -> Self::I {
            unsafe { _mm512_slli_epi32::<{ LANES.ilog2() }>(a) }
        }
        #[inline(always)]
        fn all_below(self, a: Self::I, count: i32) -> bool {
            // Unsigned: a negative lane is too large as well.
            unsafe { _mm512_cmplt_epu32_mask(a, _mm512_set1_epi32(count)) == u16::MAX }
        }
        #[inline(always)]
        fn whole(self, position: Self::I) -> Self::I {
            unsafe { _mm512_srai_epi32::<SHIFT>(position) }
        }
        #[inline(always)]
        fn part(self, position: Self::I) -> Self::I {
            unsafe { _mm512_and_si512(position, _mm512_set1_epi32(MASK)) }
        }
        #[inline(always)]
        fn fraction(self, position: Self::I) -> Self::F {
            unsafe {
                let (mask, one) = (_mm512_set1_epi32(MASK), _mm512_set1_epi32(EXPONENT));
                // (position & mask) | one: a float between 1 and 2.
                let bits = _mm512_ternarylogic_epi32::<0xea>(position, mask, one);
                _mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(1.0))
            }
        }
        #[inline(always)]
        fn neighbours(self, window: &[f32; WINDOW], i: Self::I) -> (Self::F, Self::F) {
            let window = window.as_ptr();
            unsafe {
                let (low, high) = (_mm512_loadu_ps(window), _mm512_loadu_ps(window.add(LANES)));
                let next = _mm512_add_epi32(i, _mm512_set1_epi32(1));
                (
                    _mm512_permutex2var_ps(low, i, high),
                    _mm512_permutex2var_ps(low, next, high),
                )
            }
        }
        #[inline(always)]
        fn gather(self, line: &[f32], i: Self::I) -> Self::F {
            let length = i32::try_from(line.len()).unwrap_or(i32::MAX);
            assert!(self.all_below(i, length), "index outside the line");
            unsafe { _mm512_i32gather_ps::<4>(i, line.as_ptr()) }
        }
        #[inline(always)]
        fn transpose(self, rows: [Self::F; LANES]) -> [Self::F; LANES] {
            // Pairs of lanes, then fours within each quarter of a vector, then the quarters themselves.
            let mut pairs = rows;
            let mut fours = rows;
            let mut columns = rows;
            unsafe {
                for r in (0..LANES).step_by(2) {
                    pairs[r] = _mm512_unpacklo_ps(rows[r], rows[r + 1]);
                    pairs[r + 1] = _mm512_unpackhi_ps(rows[r], rows[r + 1]);
                }
                for r in (0..LANES).step_by(4) {
                    let p: [__m512d; 4] = std::array::from_fn(|k| _mm512_castps_pd(pairs[r + k]));
                    fours[r] = _mm512_castpd_ps(_mm512_unpacklo_pd(p[0], p[2]));
                    fours[r + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p[0], p[2]));
                    fours[r + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(p[1], p[3]));
                    fours[r + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(p[1], p[3]));
                }
                for k in 0..4 {
                    let [a, b, c, d] = [fours[k], fours[k + 4], fours[k + 8], fours[k + 12]];
                    let (ab, cd) = (
                        _mm512_shuffle_f32x4::<0x88>(a, b),
                        _mm512_shuffle_f32x4::<0x88>(c, d),
                    );
                    columns[k] = _mm512_shuffle_f32x4::<0x88>(ab, cd);
                    columns[k + 8] = _mm512_shuffle_f32x4::<0xdd>(ab, cd);
                    let (ab, cd) = (
                        _mm512_shuffle_f32x4::<0xdd>(a, b),
                        _mm512_shuffle_f32x4::<0xdd>(c, d),
                    );
                    columns[k + 4] = _mm512_shuffle_f32x4::<0x88>(ab, cd);
                    columns[k + 12] = _mm512_shuffle_f32x4::<0xdd>(ab, cd);
                }
            }
            columns
        }
    }

    // SAFETY: as above.
    impl Simd for Avx2 {
        type F = [__m256; 2];
        type I = [__m256i; 2];

        #[inline(always)]
        fn splat(self, value: f32) -> Self::F {
            unsafe { [_mm256_set1_ps(value); 2] }
        }
        #[inline(always)]
        fn load(self, from: &[f32; LANES]) -> Self::F {
            unsafe {
                [
                    _mm256_loadu_ps(from.as_ptr()),
                    _mm256_loadu_ps(from.as_ptr().add(LANES / 2)),
                ]
            }
        }
        #[inline(always)]
        fn store(self, value: Self::F, to: &mut [f32; LANES]) {
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), value[0]);
                _mm256_storeu_ps(to.as_mut_ptr().add(LANES / 2), value[1]);
            }
        }
        #[inline(always)]
        fn add(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn sub(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
            unsafe {
                [
                    _mm256_fmadd_ps(a[0], b[0], c[0]),
                    _mm256_fmadd_ps(a[1], b[1], c[1]),
                ]
            }
        }
        #[inline(always)]
        fn max(self, a: Self::F, b: Self::F) -> Self::F {
            unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
        }
        #[inline(always)]
        fn splat_i(self, value: i32) -> Self::I {
            unsafe { [_mm256_set1_epi32(value); 2] }
        }
        #[inline(always)]
        fn load_i(self, from: &[i32; LANES]) -> Self::I {
            unsafe {
                [
                    _mm256_loadu_si256(from.as_ptr().cast()),
                    _mm256_loadu_si256(from.as_ptr().add(LANES / 2).cast()),
                ]
            }
        }
        #[inline(always)]
        fn store_i(self, value: Self::I, to: &mut [i32; LANES]) {
            unsafe {
                _mm256_storeu_si256(to.as_mut_ptr().cast(), value[0]);
                _mm256_storeu_si256(to.as_mut_ptr().add(LANES / 2).cast(), value[1]);
            }
        }
        #[inline(always)]
        fn add_i(self, a: Self::I, b: Self::I) -> Self::I {
            unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
        }
        #[inline(always)]
        fn clamp_i(self, a: Self::I, lo: i32, hi: i32) -> Self::I {
            unsafe {
                let (lo, hi) = (_mm256_set1_epi32(lo), _mm256_set1_epi32(hi));
                [
                    _mm256_min_epi32(_mm256_max_epi32(a[0], lo), hi),
                    _mm256_min_epi32(_mm256_max_epi32(a[1], lo), hi),
                ]
            }
        }
        #[inline(always)]
        fn times_lanes(self, a: Self::I) -> Self::I {
            const TIMES: i32 = LANES.ilog2() as i32;
            unsafe { [_mm256_slli_epi32::<TIMES>(a[0]), _mm256_slli_epi32::<TIMES>(a[1])] }
        }
        #[inline(always)]
        fn all_below(self, a: Self::I, count: i32) -> bool {
            unsafe {
                let (count, below) = (_mm256_set1_epi32(count), _mm256_set1_epi32(-1));
                a.into_iter().all(|a| {
                    let inside = _mm256_and_si256(_mm256_cmpgt_epi32(count, a), _mm256_cmpgt_epi32(a, below));
                    _mm256_movemask_epi8(inside) == -1
                })
            }
        }
        #[inline(always)]
        fn whole(self, position: Self::I) -> Self::I {
            unsafe {
                [
                    _mm256_srai_epi32::<{ SHIFT as i32 }>(position[0]),
                    _mm256_srai_epi32::<{ SHIFT as i32 }>(position[1]),
                ]
            }
        }
        #[inline(always)]
        fn part(self, position: Self::I) -> Self::I {
            unsafe {
                let mask = _mm256_set1_epi32(MASK);
                [
                    _mm256_and_si256(position[0], mask),
                    _mm256_and_si256(position[1], mask),
                ]
            }
        }
        #[inline(always)]
        fn fraction(self, position: Self::I) -> Self::F {
            unsafe {
                let (mask, one) = (_mm256_set1_epi32(MASK), _mm256_set1_epi32(EXPONENT));
                let bits = [
                    _mm256_or_si256(_mm256_and_si256(position[0], mask), one),
                    _mm256_or_si256(_mm256_and_si256(position[1], mask), one),
                ];
                [
                    _mm256_sub_ps(_mm256_castsi256_ps(bits[0]), _mm256_set1_ps(1.0)),
                    _mm256_sub_ps(_mm256_castsi256_ps(bits[1]), _mm256_set1_ps(1.0)),
                ]
            }
        }
        #[inline(always)]
        fn neighbours(self, window: &[f32; WINDOW], i: Self::I) -> (Self::F, Self::F) {
            let window = window.as_ptr();
            unsafe {
                // Kept inside the window whatever the caller gives.
                let inside = _mm256_set1_epi32(WINDOW as i32 - 1);
                let one = _mm256_set1_epi32(1);
                let i = [_mm256_and_si256(i[0], inside), _mm256_and_si256(i[1], inside)];
                let next = [
                    _mm256_and_si256(_mm256_add_epi32(i[0], one), inside),
                    _mm256_and_si256(_mm256_add_epi32(i[1], one), inside),
                ];
                (
                    [
                        _mm256_i32gather_ps::<4>(window, i[0]),
                        _mm256_i32gather_ps::<4>(window, i[1]),
                    ],
                    [
                        _mm256_i32gather_ps::<4>(window, next[0]),
                        _mm256_i32gather_ps::<4>(window, next[1]),
                    ],
                )
            }
        }
        #[inline(always)]
        fn gather(self, line: &[f32], i: Self::I) -> Self::F {
            let length = i32::try_from(line.len()).unwrap_or(i32::MAX);
            assert!(self.all_below(i, length), "index outside the line");
            unsafe {
                [
                    _mm256_i32gather_ps::<4>(line.as_ptr(), i[0]),
                    _mm256_i32gather_ps::<4>(line.as_ptr(), i[1]),
                ]
            }
        }
    }
}
