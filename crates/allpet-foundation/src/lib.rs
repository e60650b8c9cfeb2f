//! The prompted latent diffusion model of sinograms: presets, autoencoder, denoiser, training source, synthesis.
//!
//! A [`Foundation`] turns noise and a prompt ("brain with 18F-FDG") into sinograms: a U-Net denoises latents of
//! `C_all = [C_pos, S, C_neg]` under the prompt and a Radon mask, and the autoencoder decodes them
//! (ALL-PET, "Unified Diffusion Integration"). It knows no simulator: training data are any sinograms.

mod config;
mod dual;
mod error;
mod model;
mod objective;
mod prompt;
mod resample;
mod statistics;
mod synthesis;
mod training;
mod unet;

pub use config::{ModelConfig, PRESETS};
pub use dual::DualDomain;
pub use error::{Error, Result};
pub use model::{Denoiser, Description, Foundation, Network, describe, save, save_with};
pub use objective::FoundationObjective;
pub use prompt::{PromptEncoder, PromptTable};
pub use resample::resample;
pub use statistics::{ScaleOf, Statistics};
pub use synthesis::{Synthesis, SynthesisRequest};
pub use training::{
    Ended, MODEL_FILE, Place, RunConfig, fingerprint, train_autoencoder, train_foundation, training_words,
};
pub use unet::{DenoiserConfig, POSITION, UNet, position};
