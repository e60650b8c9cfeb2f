//! The check that stands where data enter.

use crate::error::{Error, Result};
use ndarray::{ArrayView, Dimension};

/// Refuses NaN and infinities; the error names the first offending index.
pub fn check_finite<D: Dimension>(what: &str, values: ArrayView<'_, f32, D>) -> Result<()> {
    let finite = match values.as_slice() {
        Some(slice) => slice.iter().all(|v| v.is_finite()),
        None => values.iter().all(|v| v.is_finite()),
    };
    if finite {
        return Ok(());
    }
    let shape = values.shape().to_vec();
    let (flat, value) = values
        .iter()
        .copied()
        .enumerate()
        .find(|(_, v)| !v.is_finite())
        .unwrap_or((0, f32::NAN));
    let mut rest = flat;
    let mut index = vec![0; shape.len()];
    for (axis, &length) in shape.iter().enumerate().rev() {
        index[axis] = rest % length.max(1);
        rest /= length.max(1);
    }
    Err(Error::NotFinite {
        what: what.to_owned(),
        index,
        value: f64::from(value),
    })
}
