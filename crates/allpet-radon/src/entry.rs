//! The check that stands where counts and weights enter.

use crate::error::{Error, Result};
use ndarray::{ArrayViewD, Dimension};

/// Refuses negative values, NaN and infinities; the error names the first.
pub(crate) fn non_negative(what: &'static str, values: ArrayViewD<'_, f32>) -> Result<()> {
    let good = |v: f32| v >= 0.0 && v.is_finite();
    if values.iter().all(|&v| good(v)) {
        return Ok(());
    }
    let (index, value) = values
        .indexed_iter()
        .find(|&(_, &v)| !good(v))
        .map_or((Vec::new(), f32::NAN), |(index, &v)| (index.slice().to_vec(), v));
    Err(Error::Negative {
        what,
        index,
        value: f64::from(value),
    })
}
