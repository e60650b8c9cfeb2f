//! The configuration of the model and its presets.

use crate::error::{Error, Result};
use crate::unet::DenoiserConfig;
use allpet_autoencoder::{Augmentation, AutoencoderConfig, Intensity};
use allpet_core::ParallelGeometry;
use allpet_diffusion::{Prediction, ProcessConfig, Schedule};
use serde::{Deserialize, Serialize};

/// Names of the presets.
pub const PRESETS: [&str; 4] = ["tiny", "small", "base", "paper"];

/// Everything that decides what the model is; it travels with the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Geometry of the sinograms it was made for.
    pub geometry: ParallelGeometry,
    /// How counts become network values.
    pub intensity: Intensity,
    /// How training samples are varied.
    pub augmentation: Augmentation,
    /// The autoencoder.
    pub autoencoder: AutoencoderConfig,
    /// The denoiser.
    pub denoiser: DenoiserConfig,
    /// The forward process and what the denoiser predicts.
    pub process: ProcessConfig,
    /// Fraction of training prompts in which a choice (tracer, region, or both) is left open.
    pub prompt_dropout: f64,
    /// Fraction of chests and abdomens that are called `trunk` in training.
    pub trunk_fraction: f64,
}

impl ModelConfig {
    /// A preset by name: `tiny` (tests), `small` (128 views × 128 bins of 4 mm), `base` (256²), `paper` (512²).
    ///
    /// # Errors
    /// An unknown name, listing those known.
    pub fn preset(name: &str) -> Result<Self> {
        let fast = ProcessConfig {
            schedule: Schedule::Cosine { offset: 0.008 },
            prediction: Prediction::V,
            ..ProcessConfig::default()
        };
        let (side, bin_mm, arc, autoencoder, denoiser, process) = match name {
            "tiny" => (
                32,
                16.0,
                180.0,
                AutoencoderConfig::tiny(),
                DenoiserConfig::tiny(),
                fast,
            ),
            "small" => (
                128,
                4.0,
                180.0,
                AutoencoderConfig::small(),
                DenoiserConfig::small(),
                fast,
            ),
            "base" => (
                256,
                2.0,
                180.0,
                AutoencoderConfig::base(),
                DenoiserConfig::base(),
                fast,
            ),
            // Latent-diffusion lineage: linear in √β, ε-prediction; 512 views over the full turn.
            "paper" => {
                let process = ProcessConfig {
                    schedule: Schedule::ScaledLinear {
                        first: 0.0015,
                        last: 0.0195,
                    },
                    ..ProcessConfig::default()
                };
                (
                    512,
                    1.0,
                    360.0,
                    AutoencoderConfig::paper(),
                    DenoiserConfig::paper(),
                    process,
                )
            }
            other => {
                return Err(Error::Core(allpet_core::Error::UnknownWord {
                    what: "preset",
                    word: other.to_owned(),
                    known: PRESETS.join(", "),
                }));
            }
        };
        let geometry = ParallelGeometry::new(side, side, bin_mm)?.with_arc_deg(arc);
        Ok(Self {
            geometry,
            intensity: Intensity::default(),
            augmentation: Augmentation::for_geometry(&geometry),
            autoencoder,
            denoiser,
            process,
            prompt_dropout: 0.1,
            trunk_fraction: 0.25,
        })
    }

    /// The same for sinograms of another geometry; the masks' image follows the field of view.
    pub fn with_geometry(mut self, geometry: ParallelGeometry) -> Self {
        if geometry != self.geometry {
            self.geometry = geometry;
            self.augmentation.masks = Augmentation::for_geometry(&geometry).masks;
        }
        self
    }

    /// `[channels, views / f, bins / f]` of a latent.
    pub fn latent_shape(&self) -> [usize; 3] {
        let f = self.autoencoder.factor();
        [
            self.autoencoder.latent,
            self.geometry.views / f,
            self.geometry.bins / f,
        ]
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        let mut note = |checked: Result<()>| {
            if let Err(e) = checked {
                faults.push(e.to_string());
            }
        };
        note(self.geometry.validate().map_err(Error::from));
        note(self.intensity.validate().map_err(Error::from));
        note(self.augmentation.validate().map_err(Error::from));
        note(self.autoencoder.validate().map_err(Error::from));
        note(self.denoiser.validate());
        note(self.process.validate().map_err(Error::from));
        if faults.is_empty() {
            let needed = self.autoencoder.factor() * self.denoiser.factor();
            let [views, bins] = self.geometry.shape();
            if views % needed != 0 || bins % needed != 0 {
                faults.push(format!("{views} views x {bins} bins; expected multiples of {needed} for this autoencoder and denoiser"));
            }
        }
        if self.denoiser.images > 0 && self.geometry.arc_rad < std::f64::consts::PI * (1.0 - 1e-9) {
            faults.push(format!(
                "a denoiser that draws images with an arc of {:.2}°; expected 180 to 360",
                self.geometry.arc_rad.to_degrees()
            ));
        }
        for (name, value) in [
            ("prompt_dropout", self.prompt_dropout),
            ("trunk_fraction", self.trunk_fraction),
        ] {
            if !(0.0..=1.0).contains(&value) {
                faults.push(format!("{name} is {value}; expected 0 to 1"));
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "model".into(),
                faults,
            })
        }
    }
}
