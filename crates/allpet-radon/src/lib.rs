//! Parallel-beam Radon projector with its exact adjoint, closed-form projections and filtered back-projection.
//!
//! Images are `[.., row, col]`, sinograms `[.., view, radial]`; see `allpet-core` for the conventions. Everything
//! takes leading batch axes.

pub mod analytic;
mod arc_correction;
pub mod check;
mod error;
mod fbp;
mod filter;
mod joseph;
mod kernel;
#[cfg(target_arch = "x86_64")]
mod kernel_x86;
mod operator;
mod projector;

pub use arc_correction::arc_correct;
pub use error::{Error, Result};
pub use fbp::Fbp;
pub use filter::Filter;
pub use operator::{LinearOperator, batch_of, exchange_tail};
pub use projector::Projector;
