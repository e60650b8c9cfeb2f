//! The scale of an input: a quantile that noise does not move.
//!
//! The autoencoder's own scale is a quantile of single bins ([`allpet_autoencoder::Intensity`]). At a hundredth of the dose
//! a bin holds a count or none, and its quantile is that of the noise; so inputs are averaged over blocks of neighbouring
//! bins first. What the target's scale is in units of it is learnt from the training pairs ([`crate::ScaleRatio`]).

use crate::error::{Error, Result};
use allpet_autoencoder::Intensity;
use allpet_core::ParallelGeometry;

/// Views and bins either side over which an input is averaged.
const REACH: usize = 4;

/// The scale of an input sinogram `[V, R]` without negative values.
///
/// # Errors
/// A sinogram that shows nothing.
pub fn input_scale(sinogram: &[f32], geometry: &ParallelGeometry, intensity: Intensity) -> Result<f32> {
    let [views, bins] = geometry.shape();
    let mut rows = vec![0f32; sinogram.len()];
    for (row, out) in sinogram.chunks_exact(bins).zip(rows.chunks_exact_mut(bins)) {
        average(row, 1, out);
    }
    let mut smooth = vec![0f32; sinogram.len()];
    let mut column = vec![0f32; views];
    for bin in 0..bins {
        average(&rows[bin..], bins, &mut column);
        for (view, value) in column.iter().enumerate() {
            smooth[view * bins + bin] = *value;
        }
    }
    intensity.scale(&smooth).map_err(|_| Error::Invalid {
        what: "sinogram".into(),
        faults: vec!["it holds no counts; expected a measured sinogram".into()],
    })
}

/// Mean over the values within reach, of every `stride`-th value.
fn average(values: &[f32], stride: usize, out: &mut [f32]) {
    let n = out.len();
    for (i, out) in out.iter_mut().enumerate() {
        let (first, last) = (i.saturating_sub(REACH), (i + REACH).min(n - 1));
        let sum: f64 = (first..=last).map(|j| f64::from(values[j * stride])).sum();
        *out = (sum / (last - first + 1) as f64) as f32;
    }
}
