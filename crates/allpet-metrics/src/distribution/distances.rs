//! Squared Euclidean distances between all rows of two feature matrices, in blocks: `‖a‖² + ‖b‖² - 2 a·b` about a
//! common centre, taken again from the differences where that form has lost its digits.

use super::features::{gather, in_range};
use crate::Real;
use crate::error::Result;
use crate::linalg::add_product_transposed;
use ndarray::ArrayView2;
use rayon::prelude::*;

/// Rows one task owns, columns and features it holds at a time.
const ROWS: usize = 128;
const COLUMNS: usize = 512;
const PANEL: usize = 256;

/// Below this share of `‖a‖² + ‖b‖²` the short form keeps fewer than about eight digits.
const CANCELLED: f64 = 1e-7;

/// For every row of `a`, a state folded over the squared distances to the rows of `b`, which arrive in order:
/// `fold(state, row of a, first row of b, squared distances)`. Distances that are to be compared share their `centre`,
/// so that equal ones come out equal.
pub(crate) fn fold_rows<T: Real, U: Real, S: Send>(
    a: ArrayView2<'_, T>,
    b: ArrayView2<'_, U>,
    centre: &[f64],
    start: impl Fn(usize) -> S + Sync,
    fold: impl Fn(&mut S, usize, usize, &[f64]) + Sync,
) -> Result<Vec<S>> {
    let norms_a = squared_norms(a, centre)?;
    let norms_b = squared_norms(b, centre)?;
    let features = a.ncols();
    let blocks = (0..a.nrows().div_ceil(ROWS))
        .into_par_iter()
        .map(|block| {
            let rows = block * ROWS..((block + 1) * ROWS).min(a.nrows());
            let mut states: Vec<S> = rows.clone().map(&start).collect();
            let (mut left, mut right, mut products) = (Vec::new(), Vec::new(), Vec::new());
            for first in (0..b.nrows()).step_by(COLUMNS) {
                let columns = first..(first + COLUMNS).min(b.nrows());
                products.clear();
                products.resize(rows.len() * columns.len(), 0.0);
                for from in (0..features).step_by(PANEL) {
                    let panel = from..(from + PANEL).min(features);
                    gather(a, rows.clone(), panel.clone(), Some(centre), &mut left);
                    gather(b, columns.clone(), panel.clone(), Some(centre), &mut right);
                    let shape = [rows.len(), columns.len(), panel.len()];
                    add_product_transposed(&mut products, &left, &right, shape);
                }
                let lines = products.chunks_mut(columns.len()).zip(rows.clone());
                for ((line, row), state) in lines.zip(&mut states) {
                    for (value, column) in line.iter_mut().zip(columns.clone()) {
                        let scale = norms_a[row] + norms_b[column];
                        *value = scale - 2.0 * *value;
                        if *value <= CANCELLED * scale {
                            *value = by_difference(a, row, b, column);
                        }
                    }
                    fold(state, row, first, line);
                }
            }
            states
        })
        .collect::<Vec<Vec<S>>>();
    Ok(blocks.into_iter().flatten().collect())
}

fn squared_norms<T: Real>(values: ArrayView2<'_, T>, centre: &[f64]) -> Result<Vec<f64>> {
    values
        .rows()
        .into_iter()
        .map(|line| {
            let sum = line
                .iter()
                .zip(centre)
                .map(|(&v, c)| (v.into() - c).powi(2))
                .sum();
            in_range("squared norm of a sample", sum)
        })
        .collect()
}

fn by_difference<T: Real, U: Real>(
    a: ArrayView2<'_, T>,
    row: usize,
    b: ArrayView2<'_, U>,
    column: usize,
) -> f64 {
    let pairs = a.row(row).into_iter().zip(b.row(column));
    pairs.map(|(&x, &y)| (x.into() - y.into()).powi(2)).sum()
}
