//! Seeded random convolutional features: what a distribution distance can stand on where no trained weights are at
//! hand. Random filters already tell textures apart (Jarrett et al. 2009; Saxe et al. 2011), but the figures mean
//! something only beside other figures of the same recipe and seed.
//!
//! Recipe: pixels over the data range; four scales, each the last averaged over 2×2 pixels (an odd last row or column
//! is left out); at each scale sixteen 5×5 filters of normal taps with variance 2/25 from stream
//! `("random-features", 16·scale + filter)`, every second filter less its own mean; edges repeated; ReLU; mean and
//! standard deviation over each of the four quadrants. Feature order: scale, filter, quadrant (top left, top right,
//! bottom left, bottom right), mean then deviation.

use super::features::in_range;
use crate::error::{Error, Result};
use allpet_core::{fill_normal, stream};
use ndarray::{Array2, ArrayView2, ArrayView3, Axis};
use rayon::prelude::*;

const SCALES: usize = 4;
const FILTERS: usize = 16;
const SIDE: usize = 5;
const QUADRANTS: usize = 4;

/// A bank of random filters, fixed by its seed.
#[derive(Debug, Clone)]
pub struct RandomFeatures {
    taps: Vec<[f32; SIDE * SIDE]>,
}

impl RandomFeatures {
    /// What must stand beside every figure computed on these features.
    pub const LABEL: &'static str = "random features, not comparable with published FID";
    /// Features per image.
    pub const COUNT: usize = SCALES * FILTERS * QUADRANTS * 2;
    /// Fewest rows and columns: two at the coarsest scale, one per quadrant.
    pub const SMALLEST_SIDE: usize = 1 << SCALES;

    /// The filters of `seed`.
    pub fn new(seed: u64) -> Self {
        let taps = (0..SCALES * FILTERS)
            .map(|index| {
                let mut taps = [0.0; SIDE * SIDE];
                fill_normal(&mut stream(seed, "random-features", index as u64), &mut taps);
                let count = (SIDE * SIDE) as f32;
                let mean = if index % 2 == 1 {
                    taps.iter().sum::<f32>() / count
                } else {
                    0.0
                };
                taps.map(|tap| (tap - mean) * (2.0 / count).sqrt())
            })
            .collect();
        Self { taps }
    }

    /// Features `[n, 512]` of images or sinograms `[n, row, col]`, divided by `data_range` first.
    ///
    /// # Errors
    /// A range that is not positive and finite, fewer than 16 rows or columns, values that are not finite,
    /// or not after the division.
    pub fn extract(&self, images: ArrayView3<'_, f32>, data_range: f64) -> Result<Array2<f64>> {
        if !(data_range > 0.0 && data_range.is_finite()) {
            return Err(Error::Setting {
                what: "data range",
                expected: "positive and finite",
                got: data_range,
            });
        }
        let (count, rows, columns) = images.dim();
        if rows.min(columns) < Self::SMALLEST_SIDE {
            return Err(Error::TooFew {
                what: "random features",
                needed: Self::SMALLEST_SIDE,
                of: "rows and columns",
                got: rows.min(columns),
            });
        }
        allpet_core::check_finite("images", images)?;
        let lines = (0..count)
            .into_par_iter()
            .map(|n| self.features(images.index_axis(Axis(0), n), data_range))
            .collect::<Result<Vec<Vec<f64>>>>()?;
        let values = lines.into_iter().flatten().collect();
        Array2::from_shape_vec((count, Self::COUNT), values).map_err(|_| {
            Error::Core(allpet_core::Error::Shape {
                what: "images".to_owned(),
                expected: "[n, row, col]".to_owned(),
                got: vec![count, rows, columns],
            })
        })
    }

    fn features(&self, image: ArrayView2<'_, f32>, data_range: f64) -> Result<Vec<f64>> {
        let mut plane = Plane {
            values: image
                .iter()
                .map(|&v| (f64::from(v) / data_range) as f32)
                .collect(),
            rows: image.nrows(),
            columns: image.ncols(),
        };
        // Checked here: rectification would turn the NaN of an overflow into 0.
        let largest = plane.values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        in_range("a pixel over the data range", f64::from(largest * largest))?;
        let mut features = Vec::with_capacity(Self::COUNT);
        for scale in 0..SCALES {
            if scale > 0 {
                plane = plane.halved();
            }
            let padded = plane.padded(SIDE / 2);
            for taps in &self.taps[scale * FILTERS..(scale + 1) * FILTERS] {
                pool(&plane, &padded, taps, &mut features);
            }
        }
        Ok(features)
    }
}

struct Plane {
    values: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Plane {
    fn line(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..(row + 1) * self.columns]
    }

    fn halved(&self) -> Self {
        let (rows, columns) = (self.rows / 2, self.columns / 2);
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            let pairs = self.line(2 * row).chunks_exact(2);
            let below = self.line(2 * row + 1).chunks_exact(2);
            values.extend(pairs.zip(below).map(|(a, b)| 0.25 * (a[0] + a[1] + b[0] + b[1])));
        }
        Self {
            values,
            rows,
            columns,
        }
    }

    fn padded(&self, edge: usize) -> Self {
        let (rows, columns) = (self.rows + 2 * edge, self.columns + 2 * edge);
        let mut values = Vec::with_capacity(rows * columns);
        for row in 0..rows {
            let line = self.line(row.saturating_sub(edge).min(self.rows - 1));
            values.extend((0..columns).map(|c| line[c.saturating_sub(edge).min(self.columns - 1)]));
        }
        Self {
            values,
            rows,
            columns,
        }
    }
}

/// Correlates with one filter, rectifies, and appends mean and deviation of each quadrant.
fn pool(plane: &Plane, padded: &Plane, taps: &[f32; SIDE * SIDE], features: &mut Vec<f64>) {
    let mut sums = [[0.0_f64; 2]; QUADRANTS];
    let (middle_row, middle_column) = (plane.rows / 2, plane.columns / 2);
    let mut response = vec![0.0_f32; plane.columns];
    for row in 0..plane.rows {
        response.fill(0.0);
        for (dy, line) in taps.chunks_exact(SIDE).enumerate() {
            let source = padded.line(row + dy);
            for (dx, tap) in line.iter().enumerate() {
                for (out, value) in response.iter_mut().zip(&source[dx..]) {
                    *out += tap * value;
                }
            }
        }
        let half = 2 * usize::from(row >= middle_row);
        let (left, right) = response.split_at(middle_column);
        for (quadrant, part) in [(half, left), (half + 1, right)] {
            for value in part {
                let value = f64::from(value.max(0.0));
                sums[quadrant][0] += value;
                sums[quadrant][1] += value * value;
            }
        }
    }
    let heights = [middle_row, plane.rows - middle_row];
    let widths = [middle_column, plane.columns - middle_column];
    for (quadrant, [sum, squares]) in sums.into_iter().enumerate() {
        let count = (heights[quadrant / 2] * widths[quadrant % 2]) as f64;
        let mean = sum / count;
        features.push(mean);
        features.push((squares / count - mean * mean).max(0.0).sqrt());
    }
}
