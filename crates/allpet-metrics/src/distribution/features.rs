//! The checks every feature matrix `[samples, features]` passes where it enters.

use crate::Real;
use crate::error::{Error, Result};
use crate::linalg::Rows;
use ndarray::ArrayView2;

/// Refuses NaN and infinities; the error names the first offending index.
pub(crate) fn check_finite<T: Real>(what: &str, values: ArrayView2<'_, T>) -> Result<()> {
    for (row, line) in values.rows().into_iter().enumerate() {
        if let Some(column) = line.iter().position(|&v| !v.into().is_finite()) {
            return Err(Error::Core(allpet_core::Error::NotFinite {
                what: what.to_owned(),
                index: vec![row, column],
                value: line[column].into(),
            }));
        }
    }
    Ok(())
}

/// Two finite feature matrices of one width, each with at least `needed` samples.
pub(crate) fn check_pair<T: Real, U: Real>(
    what: &'static str,
    candidate: ArrayView2<'_, T>,
    reference: ArrayView2<'_, U>,
    needed: usize,
) -> Result<()> {
    if candidate.ncols() != reference.ncols() || candidate.ncols() == 0 {
        return Err(Error::Core(allpet_core::Error::Shape {
            what: format!("{what}: candidate features"),
            expected: match reference.ncols() {
                0 => "[samples, features] with at least one feature".to_owned(),
                width => format!("[samples, {width}], the reference's features"),
            },
            got: candidate.shape().to_vec(),
        }));
    }
    for got in [candidate.nrows(), reference.nrows()] {
        check_samples(what, needed, got)?;
    }
    check_finite("candidate features", candidate)?;
    check_finite("reference features", reference)
}

pub(crate) fn check_samples(what: &'static str, needed: usize, got: usize) -> Result<()> {
    if got < needed {
        return Err(Error::TooFew {
            what,
            needed,
            of: "samples",
            got,
        });
    }
    Ok(())
}

/// A figure that left the range of f64 on the way is an error, not an infinity or a NaN.
pub(crate) fn in_range(what: &'static str, value: f64) -> Result<f64> {
    if value.is_finite() {
        return Ok(value);
    }
    Err(Error::Setting {
        what,
        expected: "finite: features so large that their products overflow f64 must be scaled first",
        got: value,
    })
}

/// The mean of each feature.
pub(crate) fn mean<T: Real>(values: ArrayView2<'_, T>) -> Vec<f64> {
    let mut mean = vec![0.0; values.ncols()];
    for line in values.rows() {
        for (sum, &value) in mean.iter_mut().zip(line) {
            *sum += value.into();
        }
    }
    let samples = values.nrows().max(1) as f64;
    for sum in &mut mean {
        *sum /= samples;
    }
    mean
}

/// The values less `centre`, times `scale`, as f64.
pub(crate) fn centred<T: Real>(values: ArrayView2<'_, T>, centre: &[f64], scale: f64) -> Rows {
    let mut out = Vec::with_capacity(values.len());
    for line in values.rows() {
        out.extend(line.iter().zip(centre).map(|(&v, c)| (v.into() - c) * scale));
    }
    Rows {
        values: out,
        rows: values.nrows(),
        columns: values.ncols(),
    }
}

/// Columns `from..to` of the chosen rows less `centre` (none: zero), row-major into `out`.
pub(crate) fn gather<T: Real>(
    values: ArrayView2<'_, T>,
    rows: impl Iterator<Item = usize>,
    columns: std::ops::Range<usize>,
    centre: Option<&[f64]>,
    out: &mut Vec<f64>,
) {
    out.clear();
    for row in rows {
        let line = values.row(row);
        let line = line.slice(ndarray::s![columns.clone()]);
        match centre {
            Some(centre) => {
                out.extend(
                    line.iter()
                        .zip(&centre[columns.clone()])
                        .map(|(&v, c)| v.into() - c),
                );
            }
            None => out.extend(line.iter().map(|&v| v.into())),
        }
    }
}
