//! The sampler trait and the registry of those built in.

use crate::{
    Dbim, DdbmHeun, Ddim, Ddpm, DpmSolver, Error, ForwardProcess, Heun, I2sb, ProcessKind, Result, Run, UniPc,
};
use candle_core::Tensor;

/// A rule that moves a sample from one time to an earlier one. Object-safe and without state: whatever must be
/// remembered from step to step is kept by the [`Run`]. [`crate::check::check_sampler`] tests the contract.
pub trait Sampler: Send + Sync {
    /// The name the registry knows it by.
    fn name(&self) -> &'static str;

    /// Whether it is made for this kind of process; by default for both. On the other kind [`Sampler::step`] gives
    /// [`Error::Unfit`].
    fn fits(&self, kind: ProcessKind) -> bool {
        let _ = kind;
        true
    }

    /// Moves `x [B, ..]` from time `from` to the earlier time `to`, with noise from the run alone.
    ///
    /// # Errors
    /// [`Error::Unfit`] on the other kind of process, [`Error::Step`] when the times do not suit, and what the
    /// denoiser raises.
    fn step(&self, run: &mut Run<'_>, from: f64, to: f64, x: &Tensor) -> Result<Tensor>;

    /// Calls of the denoiser that a grid of `steps` steps takes, when it ends at the clean time.
    fn evaluations(&self, steps: usize) -> usize;

    /// Calls of the denoiser on this very grid, which may end before the clean time.
    fn evaluations_on(&self, process: &dyn ForwardProcess, times: &[f64]) -> usize {
        let _ = process;
        self.evaluations(times.len().saturating_sub(1))
    }
}

/// Names of all built-in samplers.
pub const SAMPLERS: &[&str] = &[
    "ddpm", "ddim", "dpm++", "unipc", "heun", "dbim1", "dbim2", "i2sb", "ddbm",
];

/// The sampler of restoration tasks where none is named.
pub const BRIDGE_SAMPLER: &str = "dbim2";

/// Names of the built-in samplers for this kind of process, in the order of [`SAMPLERS`].
pub fn samplers_for(kind: ProcessKind) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = built_in_samplers()
        .iter()
        .filter(|sampler| sampler.fits(kind))
        .map(|sampler| sampler.name())
        .collect();
    names.dedup();
    names
}

/// The built-in sampler of this name. `eta` is the noise of `ddim` and `dbim1` in `[0, 1]`; `ddpm`, `i2sb` and `ddbm`
/// have noise of their own and do not use it, the others have none and expect 0.
///
/// # Errors
/// [`Error::UnknownName`] lists the known names; [`Error::Invalid`] for an `eta` that the sampler cannot have.
pub fn sampler_by_name(name: &str, eta: f64) -> Result<Box<dyn Sampler>> {
    let still = |what: &'static str, sampler: Box<dyn Sampler>| {
        if eta == 0.0 {
            Ok(sampler)
        } else {
            Err(Error::Invalid {
                what,
                faults: vec![format!("eta is {eta}, expected 0, since it adds no noise")],
            })
        }
    };
    match name {
        "ddpm" => Ok(Box::new(Ddpm)),
        "ddim" => Ok(Box::new(Ddim::new(eta)?)),
        "dpm++" => still("dpm++", Box::new(DpmSolver)),
        "unipc" => still("unipc", Box::new(UniPc)),
        "heun" => still("heun", Box::new(Heun)),
        "dbim1" => Ok(Box::new(Dbim::first_order(eta)?)),
        "dbim2" => still("dbim2", Box::new(Dbim::second_order())),
        "i2sb" => Ok(Box::new(I2sb)),
        "ddbm" => Ok(Box::new(DdbmHeun::default())),
        _ => Err(Error::UnknownName {
            what: "sampler",
            name: name.to_owned(),
            known: SAMPLERS.join(", "),
        }),
    }
}

/// [`sampler_by_name`] for a process of this kind, so that a wrong choice is known before anything is computed.
///
/// # Errors
/// Those of [`sampler_by_name`], and [`Error::Unfit`].
pub fn sampler_for(process: &dyn ForwardProcess, name: &str, eta: f64) -> Result<Box<dyn Sampler>> {
    let sampler = sampler_by_name(name, eta)?;
    let made_for = match process.kind() {
        kind if sampler.fits(kind) => return Ok(sampler),
        ProcessKind::Gaussian => ProcessKind::Bridge,
        ProcessKind::Bridge => ProcessKind::Gaussian,
    };
    Err(unfit(sampler.name(), made_for, process))
}

/// One of every built-in sampler, those with settings in several; what the conformance checks run over.
pub fn built_in_samplers() -> Vec<Box<dyn Sampler>> {
    let mut samplers: Vec<Box<dyn Sampler>> = vec![Box::new(Ddpm)];
    samplers.extend([0.0, 0.5, 1.0].map(|eta| Box::new(Ddim { eta }) as Box<dyn Sampler>));
    samplers.extend([
        Box::new(DpmSolver) as Box<dyn Sampler>,
        Box::new(UniPc),
        Box::new(Heun),
    ]);
    let first_order = [0.0, 0.5, 1.0]
        .into_iter()
        .filter_map(|eta| Dbim::first_order(eta).ok());
    samplers.extend(first_order.map(|dbim| Box::new(dbim) as Box<dyn Sampler>));
    samplers.extend([
        Box::new(Dbim::second_order()) as Box<dyn Sampler>,
        Box::new(I2sb),
        Box::new(DdbmHeun::default()),
    ]);
    samplers
}

/// Refuses a process of the other kind.
pub(crate) fn expect_kind(
    sampler: &'static str,
    made_for: ProcessKind,
    process: &dyn ForwardProcess,
) -> Result<()> {
    if process.kind() == made_for {
        Ok(())
    } else {
        Err(unfit(sampler, made_for, process))
    }
}

fn unfit(sampler: &'static str, made_for: ProcessKind, process: &dyn ForwardProcess) -> Error {
    let kind = process.kind();
    Error::Unfit {
        sampler,
        made_for,
        process: process.name(),
        kind,
        known: samplers_for(kind).join(", "),
    }
}
