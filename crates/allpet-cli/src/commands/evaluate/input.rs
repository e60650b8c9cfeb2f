//! The two files: arrays and datasets as stacks of images.

use crate::fault::{Fault, Result, given};
use crate::report::note;
use allpet::io::{Format, detect, read_array, read_dataset};
use ndarray::{ArrayD, ArrayViewD, CowArray, Ix3};
use std::path::Path;

/// An array of at least one image.
pub(super) fn read(path: &Path) -> Result<ArrayD<f32>> {
    let array = match detect(path)? {
        Format::Npy | Format::Npz => read_array(path)?,
        Format::Safetensors => {
            let mut dataset = read_dataset(path)?;
            match dataset.arrays.remove("target") {
                Some(target) => target,
                None => {
                    let there: Vec<&String> = dataset.arrays.keys().collect();
                    return given(format!(
                        "{}: holds no `target`, only {there:?}; expected a dataset of sinograms",
                        path.display()
                    ));
                }
            }
        }
        other => {
            return given(format!(
                "{}: is {other}; expected .npy, .npz or a dataset .safetensors",
                path.display()
            ));
        }
    };
    if array.ndim() < 2 || array.is_empty() {
        return given(format!(
            "{}: has shape {:?}; expected [.., row, col] with at least 1 element",
            path.display(),
            array.shape()
        ));
    }
    Ok(array)
}

/// Says when the data range cannot be that of the reference: figures would look better or worse than they are.
pub(super) fn warn_of_range(path: &Path, reference: &ArrayD<f32>, range: f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = reference.iter().fold(start, |(low, high), &v| {
        let v = f64::from(v);
        (low.min(v), high.max(v))
    });
    // Room for the rounding of values and of the range itself to float32.
    if high - low > range * (1.0 + 1e-6) {
        note(&format!(
            "{}: values from {low} to {high} span more than --data-range {range}",
            path.display()
        ));
    }
}

/// Rows and columns.
pub(super) fn size(array: ArrayViewD<'_, f32>) -> Vec<usize> {
    array.shape()[array.ndim().saturating_sub(2)..].to_vec()
}

/// Images in `[.., row, col]`.
pub(super) fn count(array: ArrayViewD<'_, f32>) -> usize {
    array.len() / size(array.view()).iter().product::<usize>().max(1)
}

/// `[.., row, col]` as `[n, row, col]`.
pub(super) fn stack(array: ArrayViewD<'_, f32>) -> Result<CowArray<'_, f32, Ix3>> {
    let (n, size) = (count(array.view()), size(array.view()));
    CowArray::from(array)
        .into_shape_with_order((n, size[0], size[1]))
        .map_err(|e| Fault::Other(e.to_string()))
}
