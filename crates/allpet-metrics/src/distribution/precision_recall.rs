//! Improved precision and recall (Kynkäänniemi et al. 2019, eqs. 1-2), density and coverage (Naeem et al. 2020).
//!
//! A set's manifold is the union of balls about its samples, each reaching to the sample's k-th nearest other sample.
//! Precision: the share of candidates within the reference's manifold; recall: the share of references within the
//! candidates'. Balls are closed: a distance equal to the radius is within.

use super::distances::fold_rows;
use super::features::{check_pair, mean};
use crate::Real;
use crate::error::{Error, Result};
use ndarray::ArrayView2;

/// Precision and recall, density and coverage, with one number of neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PrecisionRecall {
    /// Share of candidates within the reference's manifold: fidelity.
    pub precision: f64,
    /// Share of references within the candidates' manifold: diversity.
    pub recall: f64,
    /// Mean number of reference balls about a candidate, over k; can exceed 1.
    pub density: f64,
    /// Share of reference balls that hold a candidate.
    pub coverage: f64,
    /// Neighbours that set a ball's radius (k; published: 3 for precision and recall, 5 for density and coverage).
    pub neighbours: usize,
}

/// Precision, recall, density and coverage of two feature matrices `[samples, features]`.
///
/// # Errors
/// Widths that differ, no neighbours, no more samples than neighbours in a set, values that are not finite or whose
/// squares overflow.
pub fn precision_recall<T: Real, U: Real>(
    candidate: ArrayView2<'_, T>,
    reference: ArrayView2<'_, U>,
    neighbours: usize,
) -> Result<PrecisionRecall> {
    if neighbours == 0 {
        return Err(Error::Setting {
            what: "number of neighbours",
            expected: "at least 1",
            got: 0.0,
        });
    }
    check_pair(
        "precision and recall",
        candidate,
        reference,
        neighbours.saturating_add(1),
    )?;
    let centre = mean(reference);
    let candidate_radii = radii(candidate, &centre, neighbours)?;
    let reference_radii = radii(reference, &centre, neighbours)?;
    let balls_about_candidates = fold_rows(
        candidate,
        reference,
        &centre,
        |_| 0_usize,
        |count, _, first, squared| {
            let within = squared.iter().zip(&reference_radii[first..]);
            *count += within.filter(|(d, r)| d <= r).count();
        },
    )?;
    let about_references = fold_rows(
        reference,
        candidate,
        &centre,
        |_| (false, false),
        |(recalled, covered), row, first, squared| {
            let mut within = squared.iter().zip(&candidate_radii[first..]);
            *recalled |= within.any(|(d, r)| d <= r);
            *covered |= squared.iter().any(|d| *d <= reference_radii[row]);
        },
    )?;
    let (m, n) = (candidate.nrows() as f64, reference.nrows() as f64);
    let share = |count: usize, of: f64| count as f64 / of;
    Ok(PrecisionRecall {
        precision: share(balls_about_candidates.iter().filter(|c| **c > 0).count(), m),
        recall: share(about_references.iter().filter(|s| s.0).count(), n),
        density: balls_about_candidates.iter().sum::<usize>() as f64 / (neighbours as f64 * m),
        coverage: share(about_references.iter().filter(|s| s.1).count(), n),
        neighbours,
    })
}

/// Squared distance of each sample to its k-th nearest other sample.
fn radii<T: Real>(values: ArrayView2<'_, T>, centre: &[f64], k: usize) -> Result<Vec<f64>> {
    let nearest = fold_rows(
        values,
        values,
        centre,
        |_| Vec::with_capacity(k + 1),
        |nearest: &mut Vec<f64>, row, first, squared| {
            for (column, &d) in squared.iter().enumerate() {
                let full = nearest.len() == k;
                if first + column == row || (full && nearest.last().is_some_and(|last| d >= *last)) {
                    continue;
                }
                let place = nearest.partition_point(|other| *other <= d);
                nearest.insert(place, d);
                nearest.truncate(k);
            }
        },
    )?;
    Ok(nearest
        .iter()
        .map(|sorted| sorted.last().copied().unwrap_or(0.0))
        .collect())
}
