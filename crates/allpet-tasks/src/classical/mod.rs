//! Classical answers to compare with: what needs no learning, sinograms in and sinograms out.

mod attenuation;
mod low_dose;

pub use attenuation::UniformWater;
pub use low_dose::OsemFiltered;

use crate::error::{Error, Result};
use allpet_core::{ImageGrid, ParallelGeometry, check_finite};
use ndarray::{Array3, ArrayD, ArrayView3, Axis, Ix3};

/// Checks where data enter: `[n, view, radial]` of the geometry, at least one sample, finite, not negative, and something
/// counted in every sample.
fn checked(sinograms: ArrayView3<'_, f32>, geometry: &ParallelGeometry) -> Result<()> {
    geometry.validate()?;
    let [views, bins] = geometry.shape();
    if sinograms.shape()[1..] != [views, bins] {
        return Err(Error::Mismatch {
            what: "sinograms".to_owned(),
            expected: format!("[n, {views}, {bins}]"),
            got: format!("{:?}", sinograms.shape()),
        });
    }
    if sinograms.is_empty() {
        return Err(Error::Mismatch {
            what: "sinograms".to_owned(),
            expected: "at least one".to_owned(),
            got: "none".to_owned(),
        });
    }
    check_finite("sinograms", sinograms)?;
    for (i, sinogram) in sinograms.axis_iter(Axis(0)).enumerate() {
        let fault = |got: String, expected: &str| Error::Mismatch {
            what: format!("sinogram {i}"),
            expected: expected.to_owned(),
            got,
        };
        let negative = sinogram.indexed_iter().find(|(_, v)| **v < 0.0);
        if let Some(((view, bin), value)) = negative {
            return Err(fault(format!("{value} in view {view}, bin {bin}"), "0 or more"));
        }
        if sinogram.iter().all(|v| *v == 0.0) {
            return Err(fault("0 in every bin".to_owned(), "some counts"));
        }
    }
    Ok(())
}

/// A square grid of `size` pixels across the field of the sinogram.
pub(crate) fn field_grid(size: usize, geometry: &ParallelGeometry) -> Result<ImageGrid> {
    let field_mm = geometry.bins as f64 * geometry.bin_mm;
    Ok(ImageGrid::square(size, field_mm / size as f64)?)
}

pub(crate) fn three_axes(array: ArrayD<f32>) -> Result<Array3<f32>> {
    let got = array.shape().to_vec();
    array.into_dimensionality::<Ix3>().map_err(|_| Error::Mismatch {
        what: "result".to_owned(),
        expected: "three axes".to_owned(),
        got: format!("{got:?}"),
    })
}
