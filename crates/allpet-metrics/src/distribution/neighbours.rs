//! Distance to the nearest training sample, the usual test for memorisation: samples that copy the training set lie
//! much nearer to it than held-out data do, so the same figures of a held-out set belong beside them.

use super::distances::fold_rows;
use super::features::{check_pair, mean};
use crate::Real;
use crate::error::Result;
use ndarray::ArrayView2;

/// The training sample nearest to a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Row of the training matrix; the first of equally near ones.
    pub index: usize,
    /// Euclidean distance.
    pub distance: f64,
    /// Distance over the training sample's own norm (over the sample's where the training sample is zero); 0 for a copy.
    pub relative: f64,
}

/// For every row of `samples`, its nearest row of `training`; both `[samples, features]`, where features may be the
/// pixels themselves.
///
/// # Errors
/// Widths that differ, an empty set, values that are not finite or whose squares overflow.
pub fn nearest_neighbours<T: Real, U: Real>(
    samples: ArrayView2<'_, T>,
    training: ArrayView2<'_, U>,
) -> Result<Vec<Neighbour>> {
    check_pair("nearest neighbours", samples, training, 1)?;
    let nearest = fold_rows(
        samples,
        training,
        &mean(training),
        |_| (usize::MAX, f64::INFINITY),
        |(index, best), _, first, squared| {
            for (column, &d) in squared.iter().enumerate() {
                if d < *best {
                    (*index, *best) = (first + column, d);
                }
            }
        },
    )?;
    Ok(nearest
        .into_iter()
        .enumerate()
        .map(|(row, (index, squared))| {
            let distance = squared.sqrt();
            let norm = match norm(training, index) {
                0.0 => norm(samples, row),
                norm => norm,
            };
            Neighbour {
                index,
                distance,
                relative: if distance > 0.0 { distance / norm } else { 0.0 },
            }
        })
        .collect())
}

fn norm<T: Real>(values: ArrayView2<'_, T>, row: usize) -> f64 {
    let squares = values.row(row).into_iter().map(|&v| v.into().powi(2));
    squares.sum::<f64>().sqrt()
}
