//! Vector lanes and the register-tile kernel under every convolution, its gradients and the linear layer.
//!
//! One kernel text serves AVX-512, AVX2 and portable code: [`tile`] is generic over [`Lane`] and inlined into
//! one function per instruction set. All `unsafe` of the crate lives in this folder, but for the calls of
//! [`filled`], each with its reason.
#![allow(unsafe_code)]

mod output;
mod transpose;

pub(crate) use output::{Aligned, Slot, filled};
pub(crate) use transpose::{flipped, transpose};

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

/// The sum that a tile computes: `C[m][n] = start + Σ_{h<planes} Σ_{i<rows} Σ_{j<cols} A[h,i,j][m] · B[h,i,j][n]`.
///
/// `A[h,i,j]` is a short contiguous vector at `h·a.0 + i·a.1 + j·a.2` floats from its start, and so is `B[h,i,j]`, whose
/// second register lies `b_second` floats behind its first. The three levels walk channels and taps of windows read in
/// place, or samples, rows and columns for a weight gradient; a packed panel needs the last one only.
#[derive(Clone, Copy)]
pub(crate) struct Sum {
    pub(crate) planes: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) a: (usize, usize, usize),
    pub(crate) b: (usize, usize, usize),
    pub(crate) b_second: usize,
}

impl Sum {
    /// Over `depth` vectors, `a` and `b` floats apart.
    pub(crate) fn line(depth: usize, a: usize, b: usize) -> Self {
        Self {
            planes: 1,
            rows: 1,
            cols: depth,
            a: (0, 0, a),
            b: (0, 0, b),
            b_second: Kernel::get().lanes,
        }
    }

    /// Index of the last float that vectors of `width` reach, plus one.
    fn reach(&self, step: (usize, usize, usize), width: usize) -> usize {
        if self.planes == 0 || self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.planes - 1) * step.0 + (self.rows - 1) * step.1 + (self.cols - 1) * step.2 + width
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

    /// Computes one tile of C: `m` rows by `columns` of `sum`, rows `c_row` floats apart; all of it is written.
    ///
    /// With [`Start::C`] the tile must have been written before.
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
        c: &mut [Slot],
        c_row: usize,
    ) {
        if m == 0 || columns == 0 {
            return;
        }
        let wide = columns > self.lanes;
        let n = if wide { 2 * self.lanes } else { self.lanes };
        assert!(m <= self.most && columns <= n, "a tile of {m} x {columns}");
        assert!(a.len() >= sum.reach(sum.a, m), "A too short for its tile");
        let width = if wide {
            sum.b_second + self.lanes
        } else {
            self.lanes
        };
        assert!(b.len() >= sum.reach(sum.b, width), "B too short for its tile");
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
            unsafe { self.run(sum, m, wide, a, b, rows, c.as_mut_ptr().cast(), c_row, add) }
            return;
        }
        let mut whole = [0f32; LARGEST];
        if add {
            for (to, from) in whole.chunks_mut(n).zip(c.chunks(c_row)).take(m) {
                for (to, from) in to.iter_mut().zip(&from[..columns]) {
                    // SAFETY: with `Start::C` the tile has been written.
                    *to = unsafe { from.0.assume_init() };
                }
            }
        }
        // SAFETY: as above; `whole` holds the largest tile.
        unsafe { self.run(sum, m, wide, a, b, rows, whole.as_mut_ptr(), n, add) }
        for (to, from) in c.chunks_mut(c_row).zip(whole.chunks(n)).take(m) {
            to[..columns].iter_mut().zip(from).for_each(|(to, v)| to.set(*v));
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
                    $(($m, true) if (s.rows, s.cols) == (3, 3) => {
                          tile::<$lane, $m, 2, 3>(s, a, b, start, c, c_row, add)
                      }
                      ($m, true) => tile::<$lane, $m, 2, 0>(s, a, b, start, c, c_row, add),
                      ($m, false) => tile::<$lane, $m, 1, 0>(s, a, b, start, c, c_row, add),)*
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

/// `M` rows by `N` registers of lanes held in registers over the whole sum; `TAPS` is the number of rows and columns of
/// the sum where it is known when compiling, so that they are written out, and 0 elsewhere.
#[inline(always)]
unsafe fn tile<L: Lane, const M: usize, const N: usize, const TAPS: usize>(
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
        // The last step of a walk may leave the allocation by less than one stride; `wrapping_add` never reads there.
        let (mut a_plane, mut b_plane) = (a, b);
        let (rows, cols) = if TAPS > 0 { (TAPS, TAPS) } else { (s.rows, s.cols) };
        for _ in 0..s.planes {
            let (mut a_row, mut b_row) = (a_plane, b_plane);
            for _ in 0..rows {
                let (mut a, mut b) = (a_row, b_row);
                for _ in 0..cols {
                    let mut lanes = [L::splat(0.0); N];
                    for (n, lane) in lanes.iter_mut().enumerate() {
                        *lane = L::load(b.add(n * s.b_second));
                    }
                    for (m, row) in sums.iter_mut().enumerate() {
                        let weight = L::splat(*a.add(m));
                        for (sum, lane) in row.iter_mut().zip(lanes) {
                            *sum = sum.multiply_add(weight, lane);
                        }
                    }
                    a = a.wrapping_add(s.a.2);
                    b = b.wrapping_add(s.b.2);
                }
                a_row = a_row.wrapping_add(s.a.1);
                b_row = b_row.wrapping_add(s.b.1);
            }
            a_plane = a_plane.wrapping_add(s.a.0);
            b_plane = b_plane.wrapping_add(s.b.0);
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
        // Two planes of three rows of five, the second register right behind the first, and then 2n behind it.
        for second in [kernel.lanes, 2 * n] {
            let sum = Sum {
                planes: 2,
                rows: 3,
                cols: 5,
                a: (16 * m, 5 * m, m),
                b: (23 * n, 7 * n, n),
                b_second: second,
            };
            sums(kernel, sum, m, columns);
        }
    }

    fn sums(kernel: Kernel, sum: Sum, m: usize, columns: usize) {
        let n = kernel.n();
        let a: Vec<f32> = (0..32 * m).map(|i| ((i * 7) % 11) as f32 - 5.0).collect();
        let b: Vec<f32> = (0..48 * n).map(|i| ((i * 5) % 13) as f32 - 6.0).collect();
        let rows: Vec<f32> = (0..m).map(|i| i as f32).collect();
        for (start, first) in [(Start::Zero, 0.0), (Start::C, 1.0), (Start::Rows(&rows), 0.0)] {
            let mut c = vec![1f32; m * n];
            kernel.tile(sum, (m, columns), &a, &b, start, Slot::of(&mut c), n);
            for i in 0..m {
                for j in 0..n {
                    let lane = match j < kernel.lanes {
                        true => j,
                        false => sum.b_second + j - kernel.lanes,
                    };
                    let mut exact = 0.0;
                    for (h, r, q) in (0..30).map(|k| (k / 15, k / 5 % 3, k % 5)) {
                        exact += a[h * sum.a.0 + r * sum.a.1 + q * sum.a.2 + i]
                            * b[h * sum.b.0 + r * sum.b.1 + q * sum.b.2 + lane];
                    }
                    let begun = if matches!(start, Start::Rows(_)) {
                        rows[i]
                    } else {
                        first
                    };
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
