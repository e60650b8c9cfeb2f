//! Layers and fused operators for candle whose gradients are right and whose CPU kernels are fast.

mod error;
mod params;

pub use error::{Error, Result};
pub use params::{Init, Params};
