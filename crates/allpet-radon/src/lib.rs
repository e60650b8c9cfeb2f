//! Parallel-beam Radon projector with its exact adjoint, closed-form projections and filtered back-projection.
//!
//! Images are `[.., row, col]`, sinograms `[.., view, radial]`; see `allpet-core` for the conventions. Everything
//! takes leading batch axes.
//!
//! ```
//! use allpet_core::{ImageGrid, ParallelGeometry};
//! use allpet_radon::{Fbp, Filter, LinearOperator, Projector};
//!
//! let grid = ImageGrid::square(64, 2.0)?;
//! let geometry = ParallelGeometry::new(96, 97, 2.0)?;
//! let mut image = ndarray::Array2::<f32>::zeros(grid.shape());
//! image.slice_mut(ndarray::s![24..40, 20..36]).fill(1.0);
//! let sinogram = Projector::new(grid, geometry)?.apply(image.view().into_dyn())?;
//! let again = Fbp::new(grid, geometry, Filter::Hann, 1.0)?.reconstruct(sinogram.view())?;
//! assert!((again[[32, 28]] - 1.0).abs() < 0.02);
//! # Ok::<(), allpet_radon::Error>(())
//! ```
//!
//! Feature `candle` adds `tensor`: the operators as differentiable operations on tensors. Feature `cuda` adds projector
//! and filtered back-projection on tensors of CUDA devices.

pub mod analytic;
mod arc_correction;
pub mod check;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod efficiencies;
mod entry;
mod error;
mod fbp;
mod filter;
mod forward;
mod gather;
mod joseph;
mod operator;
pub mod operators;
mod osem;
mod pool;
mod precorrection;
mod projector;
mod simd;
mod slices;
#[cfg(feature = "candle")]
pub mod tensor;
mod tent;
mod view_rebinning;

pub use arc_correction::{arc_correct, arc_correct_efficiencies, ring_counts};
pub use efficiencies::{Blocks, CrystalPairs, Efficiencies, estimate_efficiencies};
pub use error::{Error, Result};
pub use fbp::Fbp;
pub use filter::Filter;
pub use operator::{LinearOperator, batch_of, exchange_tail};
pub use osem::{Osem, OsemConfig, OsemObserver, OsemStep};
pub use precorrection::{GapFilling, precorrect, regrid_counts};
pub use projector::Projector;
pub use simd::Instructions;
pub use view_rebinning::rebin_views;
