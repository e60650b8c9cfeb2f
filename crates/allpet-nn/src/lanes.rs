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

/// The register kernel of the running machine: up to `most` rows of C (broadcast from A) by two registers of lanes of B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// Rows of C in a tile, at most: as many as leave registers for the lanes of B.
    pub(crate) most: usize,
    /// Floats in a register.
    pub(crate) lanes: usize,
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
const LARGEST: usize = 14 * 32;

/// Where a tile's sum begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// At zero.
    Zero,
    /// At one value a row.
    Rows(&'a [f32]),
    /// At what C holds.
    C,
}

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
                    most: 14,
                    lanes: 16,
                    set: InstructionSet::Avx512,
                });
            }
            if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
                found.push(Self {
                    most: 6,
                    lanes: 8,
                    set: InstructionSet::Avx2,
                });
            }
        }
        found.push(Self {
            most: 4,
            lanes: 4,
            set: InstructionSet::Portable,
        });
        found
    }

    /// Columns of a whole tile.
    pub(crate) fn n(self) -> usize {
        2 * self.lanes
    }

    /// `rows` cut into as few tiles as possible, of sizes that differ by at most one: first row and number of rows.
    pub(crate) fn blocks(self, rows: usize) -> impl Iterator<Item = (usize, usize)> + Clone {
        let count = rows.div_ceil(self.most).max(1);
        (0..count).map(move |i| {
            let (top, end) = (i * rows / count, (i + 1) * rows / count);
            (top, end - top)
        })
    }

    /// Computes one tile of C: `m` rows by `columns` of `sum`, rows `c_row` floats apart.
    ///
    /// B must reach a whole register beyond the columns asked for: [`Kernel::n`] floats, or `lanes` where those suffice.
    ///
    /// # Panics
    /// When a slice is too short for what `sum` reaches: a fault of the caller inside this crate.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn tile(
        self,
        sum: Sum,
        (m, columns): (usize, usize),
        a: &[f32],
        b: &[f32],
        start: Start<'_>,
        c: &mut [f32],
        c_row: usize,
    ) {
        if m == 0 || columns == 0 {
            return;
        }
        let wide = columns > self.lanes;
        let n = if wide { 2 * self.lanes } else { self.lanes };
        assert!(m <= self.most && columns <= n, "a tile of {m} x {columns}");
        assert!(
            a.len() >= Sum::reach(sum.rows, sum.cols, sum.a_row, sum.a_col, m),
            "A too short for its tile"
        );
        assert!(
            b.len() >= Sum::reach(sum.rows, sum.cols, sum.b_row, sum.b_col, n),
            "B too short for its tile"
        );
        assert!(c.len() >= (m - 1) * c_row + columns, "C too short for its tile");
        let (rows, add) = match start {
            Start::Rows(values) => {
                assert!(values.len() >= m, "one start value a row");
                (values.as_ptr(), false)
            }
            Start::Zero => (std::ptr::null(), false),
            Start::C => (std::ptr::null(), true),
        };
        let (a, b) = (a.as_ptr(), b.as_ptr());
        if columns == n {
            // SAFETY: the lengths were checked above, and `set` was chosen by detection.
            unsafe { self.run(sum, m, wide, a, b, rows, c.as_mut_ptr(), c_row, add) }
            return;
        }
        let mut whole = [0f32; LARGEST];
        if add {
            for (to, from) in whole.chunks_mut(n).zip(c.chunks(c_row)).take(m) {
                to[..columns].copy_from_slice(&from[..columns]);
            }
        }
        // SAFETY: as above; `whole` holds the largest tile.
        unsafe { self.run(sum, m, wide, a, b, rows, whole.as_mut_ptr(), n, add) }
        for (to, from) in c.chunks_mut(c_row).zip(whole.chunks(n)).take(m) {
            to[..columns].copy_from_slice(&from[..columns]);
        }
    }

    #[allow(clippy::too_many_arguments)]
    unsafe fn run(
        self,
        s: Sum,
        m: usize,
        wide: bool,
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
                InstructionSet::Avx512 => tile_avx512(s, m, wide, a, b, start, c, c_row, add),
                #[cfg(target_arch = "x86_64")]
                InstructionSet::Avx2 => tile_avx2(s, m, wide, a, b, start, c, c_row, add),
                InstructionSet::Portable => tile_portable(s, m, wide, a, b, start, c, c_row, add),
            }
        }
    }
}

/// One function an instruction set, which picks the text compiled for the tile's size.
macro_rules! tiles {
    ($name:ident, $lane:ty, [$($m:literal)*] $(, $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        #[allow(clippy::too_many_arguments)]
        unsafe fn $name(
            s: Sum,
            m: usize,
            wide: bool,
            a: *const f32,
            b: *const f32,
            start: *const f32,
            c: *mut f32,
            c_row: usize,
            add: bool,
        ) {
            // SAFETY: the caller's promise, passed on.
            unsafe {
                match (m, wide) {
                    $(($m, true) => tile::<$lane, $m, 2>(s, a, b, start, c, c_row, add),
                      ($m, false) => tile::<$lane, $m, 1>(s, a, b, start, c, c_row, add),)*
                    _ => unreachable!("no tile has {m} rows"),
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
tiles!(tile_avx512, std::arch::x86_64::__m512, [1 2 3 4 5 6 7 8 9 10 11 12 13 14], "avx512f");
#[cfg(target_arch = "x86_64")]
tiles!(tile_avx2, std::arch::x86_64::__m256, [1 2 3 4 5 6], "avx2,fma");
tiles!(tile_portable, [f32; 4], [1 2 3 4]);

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
    // SAFETY: `Kernel::tile` checked that A, B, start (unless null) and C reach as far as the sum does.
    unsafe {
        let mut sums = [[L::splat(0.0); N]; M];
        if accumulate {
            for (m, row) in sums.iter_mut().enumerate() {
                for (n, sum) in row.iter_mut().enumerate() {
                    *sum = L::load(c.add(m * c_row + n * L::WIDTH));
                }
            }
        } else if !start.is_null() {
            for (m, row) in sums.iter_mut().enumerate() {
                *row = [L::splat(*start.add(m)); N];
            }
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
        for (m, row) in sums.iter().enumerate() {
            for (n, sum) in row.iter().enumerate() {
                sum.store(c.add(m * c_row + n * L::WIDTH));
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
            for m in 1..=kernel.most {
                for columns in [1, kernel.lanes - 1, kernel.lanes, kernel.lanes + 3, kernel.n()] {
                    one_tile(kernel, m, columns);
                }
            }
        }
    }

    fn one_tile(kernel: Kernel, m: usize, columns: usize) {
        let n = kernel.n();
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
        let rows: Vec<f32> = (0..m).map(|i| i as f32).collect();
        for (start, first) in [(Start::Zero, 0.0), (Start::C, 1.0), (Start::Rows(&rows), 0.0)] {
            let mut c = vec![1f32; m * n];
            kernel.tile(sum, (m, columns), &a, &b, start, &mut c, n);
            for i in 0..m {
                for j in 0..n {
                    let exact: f32 = (0..3)
                        .flat_map(|r| (0..5).map(move |q| (r, q)))
                        .map(|(r, q)| a[r * 5 * m + q * m + i] * b[r * 7 * n + q * n + j])
                        .sum();
                    let begun = if matches!(start, Start::Rows(_)) { rows[i] } else { first };
                    let expected = if j < columns { begun + exact } else { 1.0 };
                    assert_eq!(c[i * n + j], expected, "{kernel:?} {m} x {columns} at {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn blocks_cover_the_rows_once() {
        let kernel = Kernel::get();
        for rows in 1..200 {
            let mut next = 0;
            for (top, m) in kernel.blocks(rows) {
                assert_eq!(top, next);
                assert!(m >= 1 && m <= kernel.most);
                next += m;
            }
            assert_eq!(next, rows);
        }
    }
}
