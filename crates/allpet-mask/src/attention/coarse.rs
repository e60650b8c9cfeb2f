//! The coarse image `X` of eq. 10: a fast reconstruction on few pixels.

use crate::error::Result;
use allpet_core::{Error, ImageGrid, ParallelGeometry, check_finite};
use allpet_radon::{Fbp, Filter, Osem, OsemConfig};
use ndarray::{Array2, ArrayView2, Ix2};
use serde::{Deserialize, Serialize};

/// How the coarse image is reconstructed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CoarseMethod {
    /// Filtered back-projection, in the image's own values.
    Fbp {
        /// Window on the ramp, by its name (`hann`).
        #[serde(with = "filter_name")]
        filter: Filter,
        /// Cut-off as a fraction of the Nyquist frequency of the bins, above 0 to 1.
        cutoff: f64,
    },
    /// Ordered-subsets expectation maximisation; the sinogram must not be negative.
    Osem {
        /// Passes over all views.
        iterations: usize,
        /// Subsets of the views.
        subsets: usize,
    },
}

/// A coarse reconstruction on a square grid that covers the field of the sinogram.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoarseConfig {
    /// Rows and columns; a pixel measures `bins · bin_mm / size`.
    pub size: usize,
    /// FBP or OSEM.
    pub method: CoarseMethod,
}

impl Default for CoarseConfig {
    /// FBP with a Hann window on 128 × 128 pixels.
    fn default() -> Self {
        Self {
            size: 128,
            method: CoarseMethod::Fbp {
                filter: Filter::Hann,
                cutoff: 1.0,
            },
        }
    }
}

impl CoarseConfig {
    /// The grid of the image for sinograms of this geometry.
    ///
    /// # Errors
    /// No pixels, or a geometry outside its range.
    pub fn grid(&self, geometry: &ParallelGeometry) -> Result<ImageGrid> {
        geometry.validate()?;
        let field_mm = geometry.bins as f64 * geometry.bin_mm;
        // Without pixels the core's own sentence about the size is the fault to report.
        Ok(ImageGrid::square(self.size, field_mm / self.size.max(1) as f64)?)
    }

    /// Reconstructs a sinogram `[view, radial]` to `[row, col]` on [`CoarseConfig::grid`].
    ///
    /// # Errors
    /// A sinogram of another shape than the geometry or with values that are not finite (negative, for OSEM);
    /// settings that FBP or OSEM refuse.
    pub fn reconstruct(
        &self,
        sinogram: ArrayView2<'_, f32>,
        geometry: &ParallelGeometry,
    ) -> Result<Array2<f32>> {
        let grid = self.grid(geometry)?;
        check_finite("sinogram", sinogram.view())?;
        let sinogram = sinogram.into_dyn();
        let image = match self.method {
            CoarseMethod::Fbp { filter, cutoff } => {
                Fbp::new(grid, *geometry, filter, cutoff)?.reconstruct(sinogram)?
            }
            CoarseMethod::Osem { iterations, subsets } => {
                Osem::new(grid, *geometry, OsemConfig { iterations, subsets })?.reconstruct(sinogram)?
            }
        };
        let got = image.shape().to_vec();
        image.into_dimensionality::<Ix2>().map_err(|_| {
            Error::Shape {
                what: "coarse image".to_owned(),
                expected: format!("{:?}", grid.shape()),
                got,
            }
            .into()
        })
    }
}

mod filter_name {
    use super::Filter;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(filter: &Filter, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(filter.id())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Filter, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}
