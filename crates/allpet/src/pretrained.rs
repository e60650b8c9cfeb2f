//! The models that ship with the crate.

use allpet_foundation::Foundation;
use allpet_tasks::{PairSynthesizer, Restorer};
use candle_core::Device;

/// The preset `small`: 128 views × 128 bins of 4 mm.
#[cfg(feature = "pretrained")]
static SMALL: Option<&[u8]> = Some(include_bytes!("../weights/small.safetensors"));
#[cfg(not(feature = "pretrained"))]
static SMALL: Option<&[u8]> = None;

/// The five tasks, of the same geometry.
#[cfg(feature = "pretrained")]
static TASKS: Option<&[u8]> = Some(include_bytes!("../weights/tasks.safetensors"));
#[cfg(not(feature = "pretrained"))]
static TASKS: Option<&[u8]> = None;

/// Pairs of the five tasks, drawn.
#[cfg(feature = "pretrained")]
static PAIRS: Option<&[u8]> = Some(include_bytes!("../weights/pairs.safetensors"));
#[cfg(not(feature = "pretrained"))]
static PAIRS: Option<&[u8]> = None;

/// What can be wrong with a shipped model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The feature `pretrained` is off.
    #[error("this build holds no weights; expected a model file, or a build with the feature `pretrained`")]
    NoWeights,
    /// The model does not load.
    #[error(transparent)]
    Foundation(#[from] allpet_foundation::Error),
    /// The model of the tasks, or that of their pairs, does not load.
    #[error(transparent)]
    Tasks(#[from] allpet_tasks::Error),
}

/// The shipped model: sinograms of simulated brains and trunks, 128 views × 128 bins of 4 mm.
///
/// # Errors
/// [`Error::NoWeights`] without the feature `pretrained`; the model does not fit on the device.
pub fn pretrained(device: &Device) -> Result<Foundation, Error> {
    let bytes = pretrained_bytes().ok_or(Error::NoWeights)?;
    Ok(Foundation::from_bytes("the shipped model", bytes, device)?)
}

/// The shipped model's file, if the feature `pretrained` is on.
pub fn pretrained_bytes() -> Option<&'static [u8]> {
    SMALL
}

/// The shipped model of the five tasks: low dose, attenuation correction, delayed frame (60 to 120 min), conversion of 18F-FDG
/// to 68Ga-PSMA, separation of the two; 128 views × 128 bins of 4 mm.
///
/// # Errors
/// [`Error::NoWeights`] without the feature `pretrained`; the model does not fit on the device.
pub fn pretrained_tasks(device: &Device) -> Result<Restorer, Error> {
    let bytes = pretrained_tasks_bytes().ok_or(Error::NoWeights)?;
    Ok(Restorer::from_bytes(
        "the shipped model of the tasks",
        bytes,
        device,
    )?)
}

/// Its file, if the feature `pretrained` is on.
pub fn pretrained_tasks_bytes() -> Option<&'static [u8]> {
    TASKS
}

/// The shipped model that draws pairs of the five tasks, input and target, with the settings of [`pretrained_tasks`]; 128 views ×
/// 128 bins of 4 mm.
///
/// # Errors
/// [`Error::NoWeights`] without the feature `pretrained`; the model does not fit on the device.
pub fn pretrained_pairs(device: &Device) -> Result<PairSynthesizer, Error> {
    let bytes = pretrained_pairs_bytes().ok_or(Error::NoWeights)?;
    Ok(PairSynthesizer::from_bytes(
        "the shipped model of pairs",
        bytes,
        device,
    )?)
}

/// Its file, if the feature `pretrained` is on.
pub fn pretrained_pairs_bytes() -> Option<&'static [u8]> {
    PAIRS
}
