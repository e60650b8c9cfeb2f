//! The shape of the autoencoder.

use crate::error::{Result, all_faults};
use serde::{Deserialize, Serialize};

/// What stands between encoder and decoder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Bottleneck {
    /// A diagonal Gaussian, drawn toward the standard normal by its Kullback-Leibler divergence (Kingma & Welling 2014).
    Kl {
        /// Weight of the divergence.
        weight: f64,
    },
    /// The nearest of a table of codes, gradients passed straight through (van den Oord et al. 2017).
    Vq {
        /// Number of codes.
        codes: usize,
        /// Weight of the commitment term.
        commitment: f64,
    },
}

/// The shape of the autoencoder; it shortens both axes by `patch · 2^(widths - 1)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoencoderConfig {
    /// Side of the pixel blocks moved into channels before the first convolution (lossless).
    pub patch: usize,
    /// Channels of each level, finest first; resolution halves from level to level.
    pub widths: Vec<usize>,
    /// Residual blocks a level.
    pub blocks: usize,
    /// Channels of the latent.
    pub latent: usize,
    /// Groups of the normalisations.
    pub groups: usize,
    /// What stands between encoder and decoder.
    pub bottleneck: Bottleneck,
    /// Weight of the positive/negative loss (eq. 9) on the decoded channels.
    pub consistency_weight: f64,
}

impl AutoencoderConfig {
    /// For tests: seconds.
    pub fn tiny() -> Self {
        Self {
            patch: 2,
            widths: vec![8, 16],
            blocks: 1,
            latent: 4,
            groups: 4,
            bottleneck: Bottleneck::Kl { weight: 1e-6 },
            consistency_weight: 0.1,
        }
    }

    /// For 128 views × 128 bins on a laptop.
    pub fn small() -> Self {
        Self {
            widths: vec![16, 48],
            latent: 16,
            groups: 8,
            ..Self::tiny()
        }
    }

    /// For 256 views × 256 bins.
    pub fn base() -> Self {
        Self {
            widths: vec![64, 128],
            blocks: 2,
            latent: 16,
            groups: 16,
            ..Self::tiny()
        }
    }

    /// The paper's reading: f = 4 from 3×512×512 to 3×128×128, 128 channels, multipliers 1, 2, 4, two blocks.
    pub fn paper() -> Self {
        Self {
            patch: 1,
            widths: vec![128, 256, 512],
            blocks: 2,
            latent: 3,
            groups: 32,
            ..Self::tiny()
        }
    }

    /// How much shorter the latent's axes are.
    pub fn factor(&self) -> usize {
        self.patch << (self.widths.len().max(1) - 1)
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        for (name, value) in [
            ("patch", self.patch),
            ("blocks", self.blocks),
            ("latent", self.latent),
            ("groups", self.groups),
            ("widths", self.widths.len()),
        ] {
            if value == 0 {
                faults.push(format!("{name} is 0 or empty; expected at least 1"));
            }
        }
        for width in &self.widths {
            if self.groups > 0 && (*width == 0 || width % self.groups != 0) {
                faults.push(format!("{} groups do not divide a width of {width}", self.groups));
            }
        }
        match self.bottleneck {
            Bottleneck::Kl { weight } if !(weight >= 0.0 && weight.is_finite()) => {
                faults.push(format!("KL weight {weight}; expected 0 or more"));
            }
            Bottleneck::Vq { codes, commitment }
                if codes < 2 || !(commitment >= 0.0 && commitment.is_finite()) =>
            {
                faults.push(format!("{codes} codes, commitment {commitment}; expected at least 2 codes and a weight of 0 or more"));
            }
            _ => {}
        }
        if !(self.consistency_weight >= 0.0 && self.consistency_weight.is_finite()) {
            faults.push(format!(
                "consistency weight {}; expected 0 or more",
                self.consistency_weight
            ));
        }
        all_faults("autoencoder", faults)
    }
}
