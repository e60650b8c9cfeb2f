//! Procedural PET phantoms, tracers and acquisition physics: simulated sinograms split by subject.
//!
//! - [`anatomy`]: people drawn from a seed, their heads, chests and abdomens as functions of position;
//! - [`tracer`]: what 18F-FDG, 18F-DOPA and 68Ga-PSMA make of the tissues;
//! - [`raster`]: sections rendered onto pixels;
//! - [`footprint`]: strip integrals of pixels, a projector of the simulator's own;
//! - [`acquisition`]: attenuation, resolution, scatter, randoms, counting noise, and the correction for them;
//! - [`nuclide`], [`kinetics`]: decay, positron range; FDG in time;
//! - [`dataset`]: whole datasets for synthesis, the same bytes for any number of threads;
//! - [`tasks`]: the same for the five paired tasks, each pair with the truth behind it.
#![warn(rustdoc::broken_intra_doc_links)]

pub mod acquisition;
pub mod anatomy;
pub mod dataset;
mod error;
pub mod footprint;
pub mod kinetics;
pub mod nuclide;
pub mod positivity;
pub mod raster;
pub mod tasks;
pub mod tracer;

pub use acquisition::{Acquisition, Measurement};
pub use anatomy::{Part, Section, Subject, Tissue};
pub use dataset::{Split, SynthesisConfig, simulate_synthesis};
pub use error::{Error, Result};
pub use tasks::{PairedTask, TaskConfig, simulate_task};
pub use tracer::Uptake;
