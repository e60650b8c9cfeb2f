//! Sinogram autoencoder on C_all = [C_pos, S_full, C_neg] (ALL-PET eqs. 13-14), and the batches it is trained on.
//!
//! [`SinogramSource`] draws a Radon mask for every sample of every step (RMAS, DMM), splits the sinogram by it
//! (eqs. 7-8) and codes the intensities; [`Autoencoder`] compresses the three channels by a factor of 4 (KL or VQ);
//! [`AutoencoderObjective`] trains it, with eq. 9 on the decoded channels.

mod config;
mod consistency;
mod error;
mod intensity;
mod model;
mod objective;
pub mod sample;
mod shortcut;
mod source;

pub use config::{AutoencoderConfig, Bottleneck};
pub use error::{Error, Result};
pub use intensity::Intensity;
pub use model::{Autoencoder, CHANNELS, Latent};
pub use objective::AutoencoderObjective;
pub use source::{Augmentation, CAllBatch, SinogramSource};
