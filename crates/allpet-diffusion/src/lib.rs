//! Diffusion schedules, forward processes and samplers behind one object-safe trait.
//!
//! Everything is written in one convention: time runs from `t = 0`, clean, to `t = T`, and
//! `x_t = a·x_T + b·x_0 + c·ε` ([`Marginal`]). `a = 0` is a Gaussian process (ALL-PET eqs. 15-16), `a > 0` a bridge
//! (eqs. 22-25). A [`Denoiser`] predicts `x_0`; a [`Sampler`] walks from one time to an earlier one. Samplers hold
//! no state: what a run needs lives in its [`Run`], so two runs never meet, and every sample draws its own noise
//! ([`SampleNoise`]), so it is the same in any batch. This crate knows no network and no projector.
//!
//! Synthesis, a [`GaussianProcess`]: [`Ddpm`], [`Ddim`], [`DpmSolver`], [`UniPc`], [`Heun`]. Restoration, a
//! [`BridgeProcess`] from the degraded `x_T`: [`Dbim`], [`I2sb`], [`DdbmHeun`]. [`samplers_for`] lists what fits.
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
//!
//! A bridge starts at its terminal state:
//!
//! ```
//! use allpet_diffusion::{
//!     BridgeConfig, BridgeSpacing, Conditioning, ForwardProcess, Preconditioned, Run, SampleNoise, sample, sampler_for,
//! };
//! use candle_core::{DType, Device, Tensor};
//! use std::ops::ControlFlow;
//!
//! let config = BridgeConfig::default();
//! let bridge = config.build()?;
//! let network = |x: &Tensor, _noise: &Tensor, c: &Conditioning| Ok((x + c.terminal.as_ref().unwrap())?.tanh()?);
//! let denoiser = Preconditioned::new(&bridge, config.preconditioning, network)?;
//! let terminal = Tensor::zeros((4, 1, 8, 8), DType::F32, &Device::Cpu)?;
//! let conditioning = Conditioning { terminal: Some(terminal), ..Conditioning::default() };
//! let mut run = Run::new(&bridge, &denoiser, conditioning, SampleNoise::consecutive(7, 0, 4));
//! let times = BridgeSpacing::suited_to("dbim2", &bridge).times(&bridge, 10)?;
//! let x = run.start(times[0], &[1, 8, 8], DType::F32, &Device::Cpu)?;
//! let sampler = sampler_for(&bridge, "dbim2", 0.0)?;
//! let restored = sample(sampler.as_ref(), &mut run, &times, x, &mut |_, _| ControlFlow::Continue(()))?;
//! assert_eq!((restored.dims(), run.evaluations()), (&[4, 1, 8, 8][..], 10));
//! # Ok::<(), allpet_diffusion::Error>(())
//! ```

mod bridge;
mod coefficients;
mod consistent;
mod dbim;
mod ddbm;
mod ddim;
mod ddpm;
mod denoiser;
mod dpm_solver;
mod error;
mod guidance;
mod heun;
mod i2sb;
mod karras;
mod noise;
mod precondition;
mod prediction;
mod process;
mod regression;
mod run;
mod sampler;
mod schedule;
mod spacing;
mod unipc;

pub mod check;
pub mod training;

pub use bridge::{BridgeConfig, BridgeProcess, BridgeSchedule};
pub use consistent::Consistent;
pub use dbim::Dbim;
pub use ddbm::DdbmHeun;
pub use ddim::Ddim;
pub use ddpm::Ddpm;
pub use denoiser::{Conditioning, Denoiser, Predictor};
pub use dpm_solver::DpmSolver;
pub use error::{Error, Result};
pub use guidance::Guided;
pub use heun::Heun;
pub use i2sb::I2sb;
pub use karras::karras_times;
pub use noise::SampleNoise;
pub use precondition::{Preconditioned, Preconditioning, Scales};
pub use prediction::Prediction;
pub use process::{ForwardProcess, GaussianProcess, Marginal, ProcessConfig, ProcessKind, Sde};
pub use regression::{BatchMoments, EndMoments, JointScales, JointlyPreconditioned, MomentSums};
pub use run::{Evaluation, Run, sample};
pub use sampler::{
    BRIDGE_SAMPLER, SAMPLERS, Sampler, built_in_samplers, sampler_by_name, sampler_for, samplers_for,
};
pub use schedule::{NoiseSchedule, Schedule};
pub use spacing::{BridgeSpacing, Spacing};
pub use unipc::UniPc;
