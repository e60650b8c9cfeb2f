//! Features and logits of Inception v3 in its FID form, from a user's file of weights: what published FID, KID,
//! inception scores, precision and recall stand on.
//!
//! Images `[n, row, col]` are divided by the data range and clipped to 0..=1, their one channel is repeated three
//! times, and they are resized to 299×299 by a named convention ([`Resize`]). The features are the 2,048 means of the
//! last block; the logits are the 1,008 of the last layer *without* its bias, as the inception score takes them.
//!
//! # Weights
//! Published by the author of pytorch-fid as `pt_inception-2015-12-05-6726825d.pth` (the same as torch-fidelity's
//! `weights-inception-2015-12-05-6726825d.pth`). Two lines of Python turn it into the file that is read here:
//!
//! ```python
//! import torch; from safetensors.torch import save_file
//! save_file({k: v.contiguous() for k, v in torch.load("pt_inception-2015-12-05-6726825d.pth", map_location="cpu").items()}, "inception.safetensors")
//! ```

mod network;
mod resize;
mod weights;

pub use resize::Resize;

use super::features::check_finite;
use crate::error::{Error, Result};
use crate::input::positive;
use ndarray::{Array2, ArrayView1, ArrayView3, Axis};
use network::Network;
use sha2::{Digest, Sha256};
use std::fmt;
use std::path::Path;
use weights::Weights;

/// Inception v3 in its FID form, with weights from a file.
///
/// ```no_run
/// use allpet_metrics::distribution::{Inception, InceptionScoreSettings, Resize, frechet_distance_of, inception_score};
/// # let (candidate, reference) = (ndarray::Array3::<f32>::zeros((20, 64, 64)), ndarray::Array3::<f32>::ones((20, 64, 64)));
/// let network = Inception::load("inception.safetensors".as_ref())?.with_resize(Resize::PytorchFid);
/// let x = network.extract(candidate.view(), 3.0)?;
/// let y = network.extract(reference.view(), 3.0)?;
/// let fid = frechet_distance_of(x.features.view(), y.features.view())?;
/// let score = inception_score(x.logits.view(), &InceptionScoreSettings::default())?;
/// # Ok::<(), allpet_metrics::Error>(())
/// ```
pub struct Inception {
    network: Network,
    resize: Resize,
    sha256: String,
}

/// What the network says of a set of images.
#[derive(Debug, Clone, PartialEq)]
pub struct InceptionFeatures {
    /// Features `[n, 2048]`, at least 0.
    pub features: Array2<f32>,
    /// Logits `[n, 1008]` without the bias of the last layer.
    pub logits: Array2<f32>,
    /// Share of the pixels below 0 or above the data range, which were clipped: the network knows pictures only. A
    /// share that is not small means that the range does not fit the images.
    pub clipped: f64,
}

impl Inception {
    /// Features per image.
    pub const FEATURES: usize = network::FEATURES;
    /// Logits per image.
    pub const LOGITS: usize = network::LOGITS;

    /// Reads the weights, with the resize of pytorch-fid. Tensors that the network does not use (`fc.bias`,
    /// `AuxLogits.*`, `num_batches_tracked`) are let be.
    ///
    /// # Errors
    /// A file that cannot be read or is not safetensors; the first tensor that lacks, has another shape or type than
    /// f32, or holds a value that is not finite or a negative variance.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| allpet_core::Error::Io {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            network: Network::new(&Weights::new(path, &bytes)?)?,
            resize: Resize::default(),
            sha256: Sha256::digest(&bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect(),
        })
    }

    /// The same network with another resize.
    #[must_use]
    pub fn with_resize(self, resize: Resize) -> Self {
        Self { resize, ..self }
    }

    /// How images are resized.
    pub fn resize(&self) -> Resize {
        self.resize
    }

    /// SHA-256 of the file of weights, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// What must stand beside every figure computed on these features.
    pub fn label(&self) -> String {
        format!(
            "Inception v3 (FID), resize {}, weights sha256 {}",
            self.resize, self.sha256
        )
    }

    /// Features and logits of images or sinograms `[n, row, col]`, divided by `data_range` first and clipped to
    /// 0..=1. One image after the other, so that neither the set nor the number of threads changes a byte.
    ///
    /// # Errors
    /// A range that is not positive and finite, images without rows or columns, values that are not finite, weights
    /// so large that the activations overflow f32.
    pub fn extract(&self, images: ArrayView3<'_, f32>, data_range: f64) -> Result<InceptionFeatures> {
        let data_range = positive("data range", data_range)?;
        let (count, rows, columns) = images.dim();
        if rows.min(columns) == 0 {
            return Err(Error::TooFew {
                what: "Inception features",
                needed: 1,
                of: "rows and columns",
                got: rows.min(columns),
            });
        }
        allpet_core::check_finite("images", images)?;
        let mut features = Array2::zeros((count, Self::FEATURES));
        let mut logits = Array2::zeros((count, Self::LOGITS));
        for (n, image) in images.axis_iter(Axis(0)).enumerate() {
            let (f, l) = self.network.forward(self.resize.apply(image, data_range))?;
            features.row_mut(n).assign(&ArrayView1::from(&f));
            logits.row_mut(n).assign(&ArrayView1::from(&l));
        }
        // Features come from checked activations; the last layer could still overflow.
        check_finite("Inception logits", logits.view())?;
        let outside = |v: &&f32| !(0.0..=data_range).contains(&f64::from(**v));
        let clipped = images.iter().filter(outside).count() as f64 / images.len().max(1) as f64;
        Ok(InceptionFeatures {
            features,
            logits,
            clipped,
        })
    }
}

impl fmt::Debug for Inception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.label())
    }
}
