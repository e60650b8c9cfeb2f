//! Windowed moments of a pair of images and the SSIM maps made from them, averaged.
//!
//! SSIM = [(2μxμy + C1)(2σxy + C2)] / [(μx² + μy² + C1)(σx² + σy² + C2)] (Wang, Bovik, Sheikh and Simoncelli,
//! IEEE TIP 13(4):600-612, 2004, eq. 13). The variances enter as their sum only, so four moments are filtered, not
//! five: x, y, x² + y² and xy, all less a constant near the pixels, so that an image far from 0 keeps the digits of
//! its variances. Every output pixel is one separable weighted sum over its own window, so it does not
//! depend on how the image is cut into tiles.

use crate::input::Real;
use crate::simd::{Kernel, widest};
use rayon::prelude::*;

/// Columns of a tile: the filtered rows that a window needs then lie in the first-level cache.
const WIDTH: usize = 64;
/// Output rows of a tile.
const BAND: usize = 256;
/// Partial sums of a row of the map, which fix the order of addition.
const LANES: usize = 8;
/// Most taps of a window.
const MAX_TAPS: usize = 11;
const MOMENTS: usize = 4;

type Row = [f64; WIDTH];
type Line = [f64; WIDTH + MAX_TAPS - 1];

/// What the window sees beyond the edge of the image.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Border {
    /// Nothing: only windows that lie inside the image count.
    Interior,
    /// The image mirrored about its edge pixels, which are not repeated.
    Reflect,
}

/// A separable symmetric window with unit sum of taps, and the constants of SSIM.
#[derive(Clone, Copy)]
pub(super) struct Window<const N: usize> {
    pub(super) taps: [f64; N],
    pub(super) border: Border,
    /// Factor on (co)variances: 1 for the population, n/(n-1) for the sample.
    pub(super) covariance: f64,
    pub(super) c1: f64,
    pub(super) c2: f64,
}

/// Means over an image of the full SSIM map and of its contrast-structure factor.
#[derive(Clone, Copy)]
pub(super) struct Means {
    pub(super) ssim: f64,
    pub(super) contrast_structure: f64,
}

/// Eleven taps of a Gaussian with σ = 1.5, their sum 1.
pub(super) fn gaussian_taps() -> [f64; 11] {
    let mut taps: [f64; 11] = std::array::from_fn(|k| {
        let x = k as f64 - 5.0;
        (-x * x / (2.0 * 1.5 * 1.5)).exp()
    });
    let sum: f64 = taps.iter().sum();
    for tap in &mut taps {
        *tap /= sum;
    }
    taps
}

impl<const N: usize> Window<N> {
    /// Means over one pair of images of `rows × cols`, both at least as large as the border needs.
    pub(super) fn means<T: Real>(&self, x: &[T], y: &[T], rows: usize, cols: usize) -> Means {
        let lost = match self.border {
            Border::Interior => N - 1,
            Border::Reflect => 0,
        };
        let (out_rows, out_cols) = (rows - lost, cols - lost);
        let across = out_cols.div_ceil(WIDTH);
        let down = out_rows.div_ceil(BAND);
        let level = y.first().map_or(0.0, |&v| v.into());
        let sums: Vec<[f64; 2]> = (0..across * down)
            .into_par_iter()
            .map(|task| {
                let (row, col) = (task / across * BAND, task % across * WIDTH);
                widest(Tile {
                    window: self,
                    x,
                    y,
                    level,
                    rows,
                    cols,
                    first_row: row,
                    last_row: (row + BAND).min(out_rows),
                    first_col: col,
                    width: WIDTH.min(out_cols - col),
                })
            })
            .collect();
        let area = (out_rows * out_cols) as f64;
        let mean = |which: usize| sums.iter().map(|sum| sum[which]).sum::<f64>() / area;
        Means {
            ssim: mean(0),
            contrast_structure: mean(1),
        }
    }
}

/// A tile of the output, in the output's rows and columns.
struct Tile<'a, T, const N: usize> {
    window: &'a Window<N>,
    x: &'a [T],
    y: &'a [T],
    /// Taken from every pixel before it is squared.
    level: f64,
    rows: usize,
    cols: usize,
    first_row: usize,
    last_row: usize,
    first_col: usize,
    width: usize,
}

/// Index in `0..length` of a position in the padded axis, for a window reaching `reach` beyond the edge.
#[inline(always)]
fn reflected(position: usize, reach: usize, length: usize) -> usize {
    let from_start = position.abs_diff(reach);
    // Beyond the far edge the distance to it is walked back.
    if from_start < length {
        from_start
    } else {
        2 * (length - 1) - from_start
    }
}

/// `out[i] = Σ_k taps[k]·at(k, i)`, outer pairs of taps added first.
#[inline(always)]
fn weigh<const N: usize>(taps: &[f64; N], out: &mut Row, at: impl Fn(usize, usize) -> f64) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = taps[N / 2] * at(N / 2, i);
        for (k, tap) in taps.iter().enumerate().take(N / 2) {
            sum += tap * (at(k, i) + at(N - 1 - k, i));
        }
        *out = sum;
    }
}

impl<T: Real, const N: usize> Tile<'_, T, N> {
    /// Columns of one input row that the tile's windows see; columns past the tile's width are 0.
    #[inline(always)]
    fn load(&self, image: &[T], row: usize, line: &mut Line) {
        let needed = self.width + N - 1;
        let (line, rest) = line.split_at_mut(needed);
        rest.fill(0.0);
        let (row, first) = match self.window.border {
            Border::Interior => (row, Some(self.first_col)),
            Border::Reflect => (
                reflected(row, N / 2, self.rows),
                self.first_col.checked_sub(N / 2),
            ),
        };
        let image = &image[row * self.cols..(row + 1) * self.cols];
        if let Some(inside) = first.and_then(|first| image.get(first..first + needed)) {
            for (out, &v) in line.iter_mut().zip(inside) {
                *out = v.into() - self.level;
            }
        } else {
            for (i, out) in line.iter_mut().enumerate() {
                *out = image[reflected(self.first_col + i, N / 2, self.cols)].into() - self.level;
            }
        }
    }

    /// The four moments of one input row, filtered along the row.
    #[inline(always)]
    fn filter_row(&self, row: usize, lines: &mut [Line; MOMENTS], out: &mut [Row; MOMENTS]) {
        let [x, y, squares, products] = lines;
        self.load(self.x, row, x);
        self.load(self.y, row, y);
        for (((x, y), s), p) in x.iter().zip(y.iter()).zip(squares).zip(products) {
            *s = x * x + y * y;
            *p = x * y;
        }
        for (line, out) in lines.iter().zip(out) {
            weigh(&self.window.taps, out, |k, i| line[i + k]);
        }
    }
}

impl<T: Real, const N: usize> Kernel for Tile<'_, T, N> {
    type Output = [f64; 2];

    #[inline(always)]
    fn run(self) -> [f64; 2] {
        let Window {
            taps,
            covariance,
            c1,
            c2,
            ..
        } = *self.window;
        let mut lines = [[0.0; WIDTH + MAX_TAPS - 1]; MOMENTS];
        let mut ring = [[[0.0; WIDTH]; MOMENTS]; N];
        for row in self.first_row..self.first_row + N - 1 {
            self.filter_row(row, &mut lines, &mut ring[row % N]);
        }
        let mut moments = [[0.0; WIDTH]; MOMENTS];
        let mut maps = [[0.0; WIDTH]; 2];
        let mut sums = [[0.0f64; LANES]; 2];
        for row in self.first_row..self.last_row {
            let newest = row + N - 1;
            self.filter_row(newest, &mut lines, &mut ring[newest % N]);
            let window: [&[Row; MOMENTS]; N] = std::array::from_fn(|k| &ring[(row + k) % N]);
            for (m, moment) in moments.iter_mut().enumerate() {
                weigh(&taps, moment, |k, i| window[k][m][i]);
            }
            let [x, y, squares, products] = &moments;
            for i in 0..WIDTH {
                // Rounding can leave the variance of a constant window below 0.
                let variances = covariance * (squares[i] - (x[i] * x[i] + y[i] * y[i])).max(0.0);
                let product = covariance * (products[i] - x[i] * y[i]);
                let structure = (2.0 * product + c2) / (variances + c2);
                let (x, y) = (x[i] + self.level, y[i] + self.level);
                maps[0][i] = (2.0 * (x * y) + c1) / (x * x + y * y + c1) * structure;
                maps[1][i] = structure;
            }
            for (map, sums) in maps.iter_mut().zip(&mut sums) {
                map[self.width..].fill(0.0);
                for chunk in map.chunks_exact(LANES) {
                    for (sum, value) in sums.iter_mut().zip(chunk) {
                        *sum += value;
                    }
                }
            }
        }
        sums.map(|lanes| lanes.iter().sum())
    }
}
