//! Diffusion schedules, forward processes and samplers behind one object-safe trait.
//!
//! Everything is written in one convention: time runs from `t = 0`, clean, to `t = T`, and
//! `x_t = a·x_T + b·x_0 + c·ε` ([`Marginal`]). `a = 0` is a Gaussian process (ALL-PET eqs. 15-16), `a > 0` a bridge
//! (eqs. 22-25). A [`Denoiser`] predicts `x_0`; a [`Sampler`] walks from one time to an earlier one. Samplers hold
//! no state: what a run needs lives in its [`Run`], so two runs never meet, and every sample draws its own noise
//! ([`SampleNoise`]), so it is the same in any batch. This crate knows no network and no projector.
//!
//! ```
//! use allpet_diffusion::{Conditioning, ProcessConfig, Run, SampleNoise, Spacing, check, sample, sampler_by_name};
//! use candle_core::{DType, Device};
//! use std::ops::ControlFlow;
//!
//! let process = ProcessConfig::default().build()?;
//! let denoiser = check::GaussianDenoiser { process: &process, sd: 1.0 };
//! let noise = SampleNoise::consecutive(7, 0, 4);
//! let mut run = Run::new(&process, &denoiser, Conditioning::default(), noise);
//! let times = Spacing::Trailing.times(1000, 10)?;
//! let x = run.start(times[0], &[1, 8, 8], DType::F32, &Device::Cpu)?;
//! let sampler = sampler_by_name("ddim", 0.0)?;
//! let samples = sample(sampler.as_ref(), &mut run, &times, x, &mut |_, _| ControlFlow::Continue(()))?;
//! assert_eq!(samples.dims(), [4, 1, 8, 8]);
//! # Ok::<(), allpet_diffusion::Error>(())
//! ```

mod coefficients;
mod ddim;
mod ddpm;
mod denoiser;
mod error;
mod guidance;
mod noise;
mod prediction;
mod process;
mod run;
mod sampler;
mod schedule;
mod spacing;

pub mod check;
pub mod training;

pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use denoiser::{Conditioning, Denoiser, Predictor};
pub use error::{Error, Result};
pub use guidance::Guided;
pub use noise::SampleNoise;
pub use prediction::Prediction;
pub use process::{ForwardProcess, GaussianProcess, Marginal, ProcessConfig};
pub use run::{Evaluation, Run, sample};
pub use sampler::{SAMPLERS, Sampler, built_in_samplers, sampler_by_name};
pub use schedule::{NoiseSchedule, Schedule};
pub use spacing::Spacing;
