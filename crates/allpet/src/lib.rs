//! ALL-PET in Rust: a low-resource foundation model for PET in the projection domain.
//!
//! This crate gathers the others under one name, each in its own module:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`core`] | geometry, prompts, datasets, keyed random streams, whole-or-nothing files |
//! | [`radon`] | projector with its exact adjoint, filtered back-projection, MLEM and OSEM, operators, closed forms |
//! | [`mask`] | Radon mask augmentation, dynamic multi-masks, positive/negative decomposition |
//! | [`sim`] | phantoms, tracers, acquisition physics, simulated datasets |
//! | [`metrics`] | image, PET and distribution metrics in named conventions, the PAC-Bayes bound |
//! | [`io`] | NumPy, safetensors, Interfile list-mode, pictures |
//! | [`nn`], [`train`] | layers and training runs that resume to the same bytes |
//! | [`autoencoder`], [`diffusion`], [`foundation`] | the prompted latent diffusion model of sinograms |
//! | [`tasks`] | low dose, attenuation correction, delayed frame, tracer conversion, dual-tracer separation |
//!
//! A project that needs one of them only can depend on that crate alone (`allpet-radon` and others build without
//! candle). Conventions (axes, units, seeds) stand in [`core`].
//!
//! ```
//! use allpet::prelude::*;
//!
//! // A disc of 1 kBq/mL, projected and reconstructed.
//! let grid = ImageGrid::square(64, 2.0)?;
//! let geometry = ParallelGeometry::new(90, 95, 2.0)?;
//! let disc = ndarray::Array2::from_shape_fn((64, 64), |(row, col)| {
//!     f32::from(grid.x_mm(col as f64).hypot(grid.y_mm(row as f64)) < 40.0)
//! });
//! let sinogram = Projector::new(grid, geometry)?.apply(disc.view().into_dyn())?;
//! let image = Fbp::new(grid, geometry, Filter::Hann, 1.0)?.reconstruct(sinogram.view())?;
//! assert!((image[[32, 32]] - 1.0).abs() < 0.02);
//!
//! // A Radon mask for the same sinograms: mask 12 of seed 7, whatever is drawn beside it.
//! let settings = MaskConfig { size: 64, pixel_mm: 2.0, block: (8, 16), ..MaskConfig::default() };
//! let mask = MaskGenerator::new(settings, geometry)?.mask(7, 12);
//! assert_eq!(mask.dim(), (90, 95));
//!
//! // What a model would be asked for.
//! let prompts = Prompt::parse("brain with 18F-FDG")?;
//! assert_eq!(prompts, [Prompt::pet(Tracer::Fdg, Region::Brain)]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! With a model, [`foundation::Foundation::synthesise`] turns prompts into sinograms, and [`tasks::Restorer::restore`] restores
//! sinograms; [`pretrained()`], [`pretrained_tasks()`] and [`pretrained_pairs()`] are the models that ship with the crate (feature `pretrained`).

pub use allpet_autoencoder as autoencoder;
pub use allpet_core as core;
pub use allpet_diffusion as diffusion;
pub use allpet_foundation as foundation;
pub use allpet_io as io;
pub use allpet_mask as mask;
pub use allpet_metrics as metrics;
pub use allpet_nn as nn;
pub use allpet_radon as radon;
pub use allpet_sim as sim;
pub use allpet_tasks as tasks;
pub use allpet_train as train;
/// The tensor library, of exactly the release that the models are built on.
pub use candle_core as candle;

mod pretrained;

pub use pretrained::{
    Error, pretrained, pretrained_bytes, pretrained_pairs, pretrained_pairs_bytes, pretrained_tasks,
    pretrained_tasks_bytes,
};

/// What most programs need.
pub mod prelude {
    pub use crate::candle::Device;
    pub use crate::core::{
        CylindricalScanner, Dataset, ImageGrid, Modality, ParallelGeometry, Prompt, Region, Task, Tracer,
        stream,
    };
    pub use crate::foundation::{Foundation, ModelConfig, Synthesis, SynthesisRequest};
    pub use crate::mask::{MaskConfig, MaskGenerator};
    pub use crate::pretrained;
    pub use crate::pretrained_pairs;
    pub use crate::pretrained_tasks;
    pub use crate::radon::{Fbp, Filter, LinearOperator, Osem, OsemConfig, Projector};
    pub use crate::sim::{Split, SynthesisConfig, TaskConfig, simulate_synthesis, simulate_task};
    pub use crate::tasks::{
        Downstream, PairSynthesizer, RestoreRequest, Restored, Restorer, SynthesisOfPairs,
    };
    pub use crate::train::{Observer, StepInfo, TrainConfig};
}
