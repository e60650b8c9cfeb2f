//! Vector lanes and the register-tile kernel under every convolution, its gradients and the linear layer.
//!
//! One kernel text serves AVX-512, AVX2 and portable code: [`tile`] is generic over [`Lane`] and inlined into
//! one function per instruction set. All `unsafe` of the crate lives in this file.
#![allow(unsafe_code)]

use std::sync::OnceLock;

/// A register of `f32` lanes.
///
/// # Safety
/// Implementors must load and store exactly `WIDTH` floats; the methods may only run where the instruction set exists.
unsafe trait Lane: Copy {
    const WIDTH: usize;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lane;
    use std::arch::x86_64::*;

    // SAFETY: the loads and stores touch 16 floats; only reached through functions with `avx512f` enabled.
    unsafe impl Lane for __m512 {
        const WIDTH: usize = 16;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm512_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm512_add_ps(self, other) }
        }
    }

    // SAFETY: the loads and stores touch 8 floats; only reached through functions with `avx2` and `fma` enabled.
    unsafe impl Lane for __m256 {
        const WIDTH: usize = 8;
        #[inline(always)]
        unsafe fn splat(value: f32) -> Self {
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self) }
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            unsafe { _mm256_add_ps(self, other) }
        }
    }
}

// SAFETY: plain array code; loads and stores touch 4 floats.
unsafe impl Lane for [f32; 4] {
    const WIDTH: usize = 4;
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self) }
    }
    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|i| self[i] + a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] + other[i])
    }
}

/// The sum that a tile computes: `C[m][n] = start[m] (+ C[m][n]) + Σ_{i<rows} Σ_{j<cols} A[i,j][m] · B[i,j][n]`.
///
/// `A[i,j]` and `B[i,j]` are short contiguous vectors at `i·row + j·col` floats from their starts; the two-level
/// sum walks an image's rows and columns for a weight gradient, and a packed panel (`rows = 1`) otherwise.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) a_row: usize,
    pub(crate) a_col: usize,
    pub(crate) b_row: usize,
    pub(crate) b_col: usize,
}

impl Sum {
    /// Index of the last float that a vector of `width` starts reaching, plus one.
    fn reach(rows: usize, cols: usize, row: usize, col: usize, width: usize) -> usize {
        if rows == 0 || cols == 0 {
            0
        } else {
            (rows - 1) * row + (cols - 1) * col + width
        }
    }
}

/// The tile sizes of the running machine: `m` rows of C (broadcast from A) by `n` columns (lanes of B).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) m: usize,
    pub(crate) n: usize,
    set: InstructionSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Largest tile over all instruction sets, for buffers on the stack.
const LARGEST: usize = 8 * 32;

impl Kernel {
    /// The best kernel this machine runs.
    pub(crate) fn get() -> Self {
        static CHOSEN: OnceLock<Kernel> = OnceLock::new();
        *CHOSEN.get_or_init(|| Self::all()[0])
    }

    /// Every kernel this machine runs, best first; the tests compare them.
    pub(crate) fn all() -> Vec<Self> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if std::arch::is_x86_feature_detected!("avx512f") {
                found.push(Self {
                    m: 8,
                    n: 32,
                    set: InstructionSet::Avx512,
                });
            }
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                found.push(Self {
                    m: 4,
                    n: 16,
                    set: InstructionSet::Avx2,
                });
            }
        }
        found.push(Self {
            m: 4,
            n: 8,
            set: InstructionSet::Portable,
        });
        found
    }

    /// Computes one tile: `m × n` of `sum`, of which the first `valid` rows and columns are written to `c`.
    ///
    /// # Panics
    /// When a slice is too short for what `sum` reaches: a fault of the caller inside this crate.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn tile(
        self,
        sum: Sum,
        a: &[f32],
        b: &[f32],
        start: &[f32],
        c: &mut [f32],
        c_row: usize,
        valid: (usize, usize),
        accumulate: bool,
    ) {
        assert!(
            a.len() >= Sum::reach(sum.rows, sum.cols, sum.a_row, sum.a_col, self.m),
            "A too short for its tile"
        );
        assert!(
            b.len() >= Sum::reach(sum.rows, sum.cols, sum.b_row, sum.b_col, self.n),
            "B too short for its tile"
        );
        assert!(start.len() >= self.m, "one start value a row");
        let (rows, cols) = (valid.0.min(self.m), valid.1.min(self.n));
        if rows == 0 || cols == 0 {
            return;
        }
        assert!(c.len() >= (rows - 1) * c_row + cols, "C too short for its tile");
        if (rows, cols) == (self.m, self.n) {
            // SAFETY: the lengths were checked above, and `set` was chosen by detection.
            unsafe {
                self.run(
                    sum,
                    a.as_ptr(),
                    b.as_ptr(),
                    start.as_ptr(),
                    c.as_mut_ptr(),
                    c_row,
                    accumulate,
                )
            }
        } else {
            let mut whole = [0f32; LARGEST];
            // SAFETY: as above; `whole` holds the largest tile.
            unsafe {
                self.run(
                    sum,
                    a.as_ptr(),
                    b.as_ptr(),
                    start.as_ptr(),
                    whole.as_mut_ptr(),
                    self.n,
                    false,
                )
            }
            for (to, from) in c.chunks_mut(c_row).zip(whole.chunks(self.n)).take(rows) {
                for (to, from) in to.iter_mut().zip(from).take(cols) {
                    *to = if accumulate { *to + from } else { *from };
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    unsafe fn run(
        self,
        s: Sum,
        a: *const f32,
        b: *const f32,
        start: *const f32,
        c: *mut f32,
        c_row: usize,
        add: bool,
    ) {
        // SAFETY: the caller's promise, passed on.
        unsafe {
            match self.set {
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx512 => tile_avx512(s, a, b, start, c, c_row, add),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => tile_avx2(s, a, b, start, c, c_row, add),
                InstructionSet::Portable => tile::<[f32; 4], 4, 2>(s, a, b, start, c, c_row, add),
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn tile_avx512(
    s: Sum,
    a: *const f32,
    b: *const f32,
    start: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's promise, passed on.
    unsafe { tile::<std::arch::x86_64::__m512, 8, 2>(s, a, b, start, c, c_row, add) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tile_avx2(
    s: Sum,
    a: *const f32,
    b: *const f32,
    start: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
) {
    // SAFETY: the caller's promise, passed on.
    unsafe { tile::<std::arch::x86_64::__m256, 4, 2>(s, a, b, start, c, c_row, add) }
}

/// `M` rows by `N` registers of lanes held in registers over the whole sum.
#[inline(always)]
unsafe fn tile<L: Lane, const M: usize, const N: usize>(
    s: Sum,
    a: *const f32,
    b: *const f32,
    start: *const f32,
    c: *mut f32,
    c_row: usize,
    accumulate: bool,
) {
    // SAFETY: `Kernel::tile` checked that A, B, start and C reach as far as the sum does.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; M];
        for (m, row) in sums.iter_mut().enumerate() {
            *row = [L::splat(*start.add(m)); N];
        }
        for i in 0..s.rows {
            let (mut a, mut b) = (a.add(i * s.a_row), b.add(i * s.b_row));
            for _ in 0..s.cols {
                let mut lanes = [L::splat(0.0); N];
                for (n, lane) in lanes.iter_mut().enumerate() {
                    *lane = L::load(b.add(n * L::WIDTH));
                }
                for (m, row) in sums.iter_mut().enumerate() {
                    let weight = L::splat(*a.add(m));
                    for (sum, lane) in row.iter_mut().zip(lanes) {
                        *sum = sum.multiply_add(weight, lane);
                    }
                }
                // The last step may leave the allocation by less than one stride; `wrapping_add` never reads there.
                a = a.wrapping_add(s.a_col);
                b = b.wrapping_add(s.b_col);
            }
        }
        for (m, row) in sums.into_iter().enumerate() {
            for (n, mut sum) in row.into_iter().enumerate() {
                let to = c.add(m * c_row + n * L::WIDTH);
                if accumulate {
                    sum = sum.add(L::load(to));
                }
                sum.store(to);
            }
        }
    }
}

/// Runs `body` compiled for the widest instruction set of this machine.
///
/// For plain slice loops that the compiler vectorises; `body` must be `#[inline(always)]` to profit.
#[inline(always)]
pub(crate) fn vectorised<R>(body: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        unsafe fn wide<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn middle<R>(body: impl FnOnce() -> R) -> R {
            body()
        }
        static LEVEL: OnceLock<u8> = OnceLock::new();
        let level = *LEVEL.get_or_init(|| {
            let has = |yes: bool, level: u8| if yes { level } else { 0 };
            let wide = std::arch::is_x86_feature_detected!("avx512f")
                && std::arch::is_x86_feature_detected!("avx512vl")
                && std::arch::is_x86_feature_detected!("avx512dq")
                && std::arch::is_x86_feature_detected!("avx512bw");
            let middle =
                std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
            has(wide && middle, 2).max(has(middle, 1))
        });
        match level {
            // SAFETY: the instruction set was detected just above.
            2 => return unsafe { wide(body) },
            // SAFETY: as above.
            1 => return unsafe { middle(body) },
            _ => {}
        }
    }
    body()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instruction_set_computes_the_sum() {
        for kernel in Kernel::all() {
            let (m, n) = (kernel.m, kernel.n);
            let sum = Sum {
                rows: 3,
                cols: 5,
                a_row: 5 * m,
                a_col: m,
                b_row: 7 * n,
                b_col: n,
            };
            let a: Vec<f32> = (0..15 * m).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
            let b: Vec<f32> = (0..21 * n).map(|i| ((i * 5) % 13) as f32 - 6.0).collect();
            let start: Vec<f32> = (0..m).map(|i| i as f32).collect();
            for valid in [(m, n), (m - 1, n - 3), (1, 1)] {
                let mut c = vec![1f32; m * n];
                kernel.tile(sum, &a, &b, &start, &mut c, n, valid, true);
                for i in 0..m {
                    for j in 0..n {
                        let inside = i < valid.0 && j < valid.1;
                        let exact: f32 = (0..3)
                            .flat_map(|r| (0..5).map(move |q| (r, q)))
                            .map(|(r, q)| a[r * 5 * m + q * m + i] * b[r * 7 * n + q * n + j])
                            .sum();
                        let expected = if inside { 1.0 + start[i] + exact } else { 1.0 };
                        assert_eq!(c[i * n + j], expected, "{kernel:?} at {i}, {j}");
                    }
                }
            }
        }
    }
}
