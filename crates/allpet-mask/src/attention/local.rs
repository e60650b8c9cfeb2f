//! Means and standard deviations in a square window around every pixel, over the pixels of a region only.
//!
//! By summed-area tables (F. C. Crow, SIGGRAPH 1984): cost independent of the window. Pixels outside the image or the
//! region take no part, so the air around a body does not pull the means at its border down.

use ndarray::{Array2, ArrayView2};

/// Mean and population standard deviation in windows of `2 half + 1` pixels; both 0 where a window meets no region.
pub(crate) fn window_statistics(
    image: ArrayView2<'_, f32>,
    region: ArrayView2<'_, bool>,
    half: usize,
) -> (Array2<f64>, Array2<f64>) {
    let (rows, cols) = image.dim();
    // Around the mean of the whole, so that small variances survive beside large means.
    let (mut sum, mut count) = (0.0, 0.0);
    for (&value, &inside) in image.iter().zip(region) {
        if inside {
            sum += f64::from(value);
            count += 1.0;
        }
    }
    let origin = if count > 0.0 { sum / count } else { 0.0 };
    // Row 0 and column 0 of the tables are 0.
    let mut tables = Array2::<[f64; 3]>::from_elem((rows + 1, cols + 1), [0.0; 3]);
    for row in 0..rows {
        let mut line = [0.0; 3];
        for col in 0..cols {
            if region[[row, col]] {
                let value = f64::from(image[[row, col]]) - origin;
                line = [line[0] + 1.0, line[1] + value, line[2] + value * value];
            }
            let above = tables[[row, col + 1]];
            tables[[row + 1, col + 1]] = [0, 1, 2].map(|i| above[i] + line[i]);
        }
    }
    let mut mean = Array2::zeros((rows, cols));
    let mut deviation = Array2::zeros((rows, cols));
    for ((row, col), mean) in mean.indexed_iter_mut() {
        let (top, bottom) = (row.saturating_sub(half), (row + half + 1).min(rows));
        let (left, right) = (col.saturating_sub(half), (col + half + 1).min(cols));
        let corners = [
            tables[[bottom, right]],
            tables[[top, right]],
            tables[[bottom, left]],
            tables[[top, left]],
        ];
        let [n, s, q] = [0, 1, 2].map(|i| corners[0][i] - corners[1][i] - corners[2][i] + corners[3][i]);
        if n > 0.0 {
            *mean = origin + s / n;
            deviation[[row, col]] = (q / n - (s / n) * (s / n)).max(0.0).sqrt();
        }
    }
    (mean, deviation)
}
