//! Geometry, vocabulary, datasets, keyed random streams and whole-or-nothing files: what every other crate of
//! ALL-PET in Rust stands on.
//!
//! Conventions (the same in every crate, in files and on the command line):
//! - image `[.., row, col]`, row 0 at the top (+y), col 0 at the left (-x), square pixels of `pixel_mm`;
//! - sinogram `[.., view, radial]`, view `k` at `θ = start + k·arc/views`, bin `j` at
//!   `s = (j - (R-1)/2 - offset_bins)·bin_mm`; the ray of `(k, j)` is `x cosθ + y sinθ = s` (ALL-PET eq. 1);
//! - lengths in mm, angles in radians, activity in kBq/mL, attenuation in mm⁻¹ (cm⁻¹ in files).
//!
//! No candle here, and nothing that computes: only what the crates have to agree on.

mod atomic;
mod dataset;
mod error;
mod finite;
mod geometry;
mod prompt;
mod random;
mod scanner;

pub use atomic::{AtomicFile, write_atomically, write_bytes_atomically};
pub use dataset::Dataset;
pub use error::{Error, Result};
pub use finite::check_finite;
pub use geometry::{ImageGrid, ParallelGeometry};
pub use prompt::{Modality, Prompt, Region, Task, Tracer};
pub use random::{Stream, fill_normal, stream};
pub use scanner::CylindricalScanner;
