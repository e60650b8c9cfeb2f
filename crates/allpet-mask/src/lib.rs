//! Radon mask augmentation (RMAS), dynamic multi-masks (DMM), the positive/negative decomposition of sinograms and
//! transparent medical attention (TMA).
//!
//! ALL-PET's augmentation in the projection domain: K non-overlapping blocks of a mask image are projected to the
//! sinogram ([`Projection`], eqs. 1 to 3), normalised ([`Normalisation`], eqs. 4 and 5), and split a sinogram into the
//! part they keep and the part they remove ([`decompose`], eqs. 7, 8 and 13), which [`consistency`] compares with what
//! a network decoded (eq. 9). [`MaskGenerator`] draws masks from a seed and a number; [`BlockBank`] counts the
//! positions of one block.
//!
//! Where the paper's equations need a reading:
//! - eq. 2 lacks the area of a pixel; here it stands, and chords are lengths in pixels;
//! - eq. 4 divides by zero for an empty mask, which stays 0 here;
//! - eq. 5 clips at one pixel: of a block of n × n all but 1/(2n) of the support becomes 1;
//! - eq. 6 (additivity) holds before normalisation only;
//! - eqs. 7 to 9 mean the normalised mask, and eq. 9 is identically zero unless its channels were decoded.
//!
//! Module [`attention`] has TMA (eqs. 10 to 12): lesions of a coarse image or a user's region, projected to the
//! sinogram, as weights on features.
//!
//! Feature `candle`: the channels, the loss and the gates on tensors (module `tensor`).

pub mod attention;
mod bank;
mod block;
mod config;
mod decomposition;
mod error;
mod generator;
mod kernel;
mod layout;
mod normalise;
mod projection;
#[cfg(feature = "candle")]
pub mod tensor;
mod trapezoid;

pub use bank::BlockBank;
pub use block::{Block, mask_image};
pub use config::{MAX_BLOCKS, MaskConfig};
pub use decomposition::{Consistency, consistency, consistency_with, decompose, decompose_into};
pub use error::{Error, Result};
pub use generator::MaskGenerator;
pub use normalise::Normalisation;
pub use projection::{Projection, project_blocks, project_blocks_into};
