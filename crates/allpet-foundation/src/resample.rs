//! Sinograms on another grid of views and bins: linear interpolation, averaged over the new bin where it is wider.

use crate::error::{Error, Result};
use allpet_core::ParallelGeometry;
use ndarray::{Array2, ArrayView2};
use std::f64::consts::PI;

/// A sinogram of `from` as `to` would sample it. Values are line integrals, so they are interpolated, not rescaled.
///
/// Angles beyond the measured arc are found through `p(θ + π, s) = p(θ, -s)`; bins beyond the field of view are 0.
///
/// # Errors
/// A sinogram that is not of `from`, or a measured arc of less than 180°.
pub fn resample(
    sinogram: ArrayView2<'_, f32>,
    from: &ParallelGeometry,
    to: &ParallelGeometry,
) -> Result<Array2<f32>> {
    from.validate()?;
    to.validate()?;
    if sinogram.dim() != (from.views, from.bins) {
        return Err(Error::File {
            what: "sinogram".into(),
            expected: format!("{} views x {} bins", from.views, from.bins),
            got: format!("{:?}", sinogram.shape()),
        });
    }
    if from == to {
        return Ok(sinogram.to_owned());
    }
    if from.arc_rad < PI * (1.0 - 1e-9) {
        return Err(Error::Invalid {
            what: "resampling".into(),
            faults: vec![format!(
                "an arc of {}°; expected 180° or more",
                from.arc_rad.to_degrees()
            )],
        });
    }
    // One period: half a turn for 180°, a whole turn from 360°. Between them the surplus views are not used.
    let period = if from.arc_rad >= 2.0 * PI * (1.0 - 1e-9) {
        2.0 * PI
    } else {
        PI
    };
    let step = from.arc_rad / from.views as f64;
    let in_period = (period / step).round().max(1.0) as i64;
    let value = |view: i64, s_mm: f64| -> f64 {
        let turns = view.div_euclid(in_period);
        let flip = period < 1.5 * PI && turns.rem_euclid(2) == 1;
        let row = view.rem_euclid(in_period).min(from.views as i64 - 1) as usize;
        let at = if flip { -s_mm } else { s_mm } / from.bin_mm + from.centre_bin();
        let low = at.floor();
        let bin = |j: f64| match j >= 0.0 && j < from.bins as f64 {
            true => f64::from(sinogram[[row, j as usize]]),
            false => 0.0,
        };
        bin(low) * (1.0 - (at - low)) + bin(low + 1.0) * (at - low)
    };
    let width = (to.bin_mm / from.bin_mm).max(1.0);
    let samples = (4.0 * width).ceil() as usize;
    let spread = if width > 1.0 { to.bin_mm } else { 0.0 };
    Ok(Array2::from_shape_fn((to.views, to.bins), |(view, bin)| {
        let at = (to.angle(view) - from.start_rad) / step;
        let (low, part) = (at.floor() as i64, at - at.floor());
        let centre = to.s_mm(bin as f64);
        let count = if spread > 0.0 { samples } else { 1 };
        let sum: f64 = (0..count)
            .map(|i| centre + ((i as f64 + 0.5) / count as f64 - 0.5) * spread)
            .map(|s| value(low, s) * (1.0 - part) + value(low + 1, s) * part)
            .sum();
        (sum / count as f64) as f32
    }))
}
