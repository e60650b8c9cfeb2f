//! Image, PET and distribution metrics in named conventions, and the PAC-Bayes bound.

mod error;
pub mod distribution;
pub mod image;
pub mod pac_bayes;
pub mod pet;
pub mod sinogram;

pub use error::{Error, Result};
