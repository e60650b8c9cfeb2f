//! The sinogram geometry of a feature map: every cell stands for a patch of views and bins of the sinogram.
//!
//! A cell that stands for views k to k + n - 1 has their mean angle, `(n - 1)/2` views after the first, and so its own
//! start; its bins share the field. Resizing a fine attention map, or projecting with the old start angle, puts the
//! region off its sinusoid by up to half a cell.

use crate::error::Result;
use allpet_core::ParallelGeometry;

/// The geometry of `views × bins` cells over the same arc and field as `geometry`.
///
/// Cell `k` stands for the views from `k·V/views` on; with `views` and `bins` dividing those of `geometry` its chords,
/// averaged by [`AttentionConfig::for_cells`](super::AttentionConfig::for_cells), are the means of the fine chords.
///
/// # Errors
/// No views or bins; a geometry outside its range.
pub fn feature_geometry(geometry: &ParallelGeometry, views: usize, bins: usize) -> Result<ParallelGeometry> {
    geometry.validate()?;
    let (per_view, per_bin) = (
        geometry.views as f64 / views.max(1) as f64,
        geometry.bins as f64 / bins.max(1) as f64,
    );
    let step = geometry.arc_rad / geometry.views as f64;
    let features = ParallelGeometry {
        views,
        bins,
        bin_mm: geometry.bin_mm * per_bin,
        arc_rad: geometry.arc_rad,
        start_rad: geometry.start_rad + (per_view - 1.0) / 2.0 * step,
        offset_bins: geometry.offset_bins / per_bin,
    };
    features.validate()?;
    Ok(features)
}

/// Angle `index` of `count` within the arc a view stands for; one angle is the view's own.
pub(crate) fn cell_angle(geometry: &ParallelGeometry, view: usize, index: usize, count: usize) -> f64 {
    let within = (index as f64 + 0.5) / count as f64 - 0.5;
    geometry.angle(view) + within * geometry.arc_rad / geometry.views as f64
}
