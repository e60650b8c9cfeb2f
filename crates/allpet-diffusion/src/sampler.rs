//! The sampler trait and the registry of those built in.

use crate::{Ddim, Ddpm, Error, Result, Run};
use candle_core::Tensor;

/// A rule that moves a sample from one time to an earlier one. Object-safe and without state: whatever must be
/// remembered from step to step is kept by the [`Run`]. [`crate::check::check_sampler`] tests the contract.
pub trait Sampler: Send + Sync {
    /// The name the registry knows it by.
    fn name(&self) -> &'static str;

    /// Moves `x [B, ..]` from time `from` to the earlier time `to`, with noise from the run alone.
    ///
    /// # Errors
    /// [`Error::Step`] when the process does not suit, and what the denoiser raises.
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor>;

    /// Calls of the denoiser that a grid of `steps` steps takes.
    fn evaluations(&self, steps: usize) -> usize;
}

/// Names of the built-in samplers.
pub const SAMPLERS: &[&str] = &["ddpm", "ddim"];

/// The built-in sampler of this name; `eta` is the noise of DDIM in `[0, 1]`, which DDPM does not use.
///
/// # Errors
/// [`Error::UnknownName`] lists the known names; [`Error::Invalid`] for `eta` outside `[0, 1]`.
pub fn sampler_by_name(name: &str, eta: f64) -> Result<Box<dyn Sampler>> {
    match name {
        "ddpm" => Ok(Box::new(Ddpm)),
        "ddim" => Ok(Box::new(Ddim::new(eta)?)),
        _ => Err(Error::UnknownName {
            what: "sampler",
            name: name.to_owned(),
            known: SAMPLERS.join(", "),
        }),
    }
}

/// One of every built-in sampler, those with settings in several; what the conformance checks run over.
pub fn built_in_samplers() -> Vec<Box<dyn Sampler>> {
    vec![
        Box::new(Ddpm),
        Box::new(Ddim { eta: 0.0 }),
        Box::new(Ddim { eta: 0.5 }),
        Box::new(Ddim { eta: 1.0 }),
    ]
}
