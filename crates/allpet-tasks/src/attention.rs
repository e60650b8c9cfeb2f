//! Attention of an input (TMA): lesions found on its own coarse image, or a region given, projected over the sinogram.

use crate::error::Result;
use allpet_core::ParallelGeometry;
use allpet_mask::attention::{AttentionConfig, Body, CoarseConfig, Roi, RoiConfig, Threshold, find_lesions};
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

/// How lesions are looked for on an input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// The coarse image (eq. 10); without it there is no attention.
    pub coarse: CoarseConfig,
    /// What is a lesion on it.
    pub lesions: RoiConfig,
}

impl Attention {
    /// For sinograms of `geometry`: FBP on pixels as wide as a bin, smoothed by 8 mm; hot spots of 60 to 4,000 mm² above
    /// three times the mean of the body.
    pub fn for_geometry(geometry: &ParallelGeometry) -> Self {
        Self {
            coarse: CoarseConfig {
                size: geometry.bins,
                ..CoarseConfig::default()
            },
            lesions: RoiConfig {
                hot: Some(Threshold::OfMean { fraction: 3.0 }),
                body: Some(Body::default()),
                smooth_mm: 8.0,
                least_area_mm2: 60.0,
                greatest_area_mm2: Some(4000.0),
                ..RoiConfig::default()
            },
        }
    }

    /// `M` (eq. 11), `[view, radial]`, 0 to 1, of what is found on the input's own coarse image; all 0 where nothing is.
    ///
    /// # Errors
    /// A sinogram of another geometry, or one from which nothing can be reconstructed.
    pub fn find(&self, sinogram: ArrayView2<'_, f32>, geometry: &ParallelGeometry) -> Result<Array2<f32>> {
        let grid = self.coarse.grid(geometry)?;
        let image = self.coarse.reconstruct(sinogram, geometry)?;
        let roi = find_lesions(image.view(), &grid, &self.lesions)?.roi()?;
        project(&roi, geometry)
    }
}

/// `M` (eq. 11), `[view, radial]`, 0 to 1, of a region given by the user.
///
/// # Errors
/// A geometry outside its range.
pub fn project(roi: &Roi, geometry: &ParallelGeometry) -> Result<Array2<f32>> {
    Ok(roi.attention(geometry, &AttentionConfig::default())?)
}
