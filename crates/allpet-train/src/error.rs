//! The error of training.

use std::path::PathBuf;

/// What a source, an objective or an observer may fail with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong in a training run and with its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings outside their range, all at once.
    #[error("invalid {what}: {}", faults.join("; "))]
    Invalid {
        /// What is being described, for example `training configuration`.
        what: &'static str,
        /// Every fault, each saying what was expected.
        faults: Vec<String>,
    },
    /// A file of tensors that is cut short or was changed after it was written.
    #[error("{} is damaged: {reason}{}", path.display(), advice.as_deref().unwrap_or_default())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
        /// What to do about it, where something can be done.
        advice: Option<String>,
    },
    /// A checkpoint of another model, configuration or data set.
    #[error("cannot resume from {}: {what} is {got} there and {expected} in this run", path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// The first setting that differs.
        what: String,
        /// Its value in this run.
        expected: String,
        /// Its value in the checkpoint.
        got: String,
    },
    /// A run folder that already holds a checkpoint.
    #[error("{} exists; resume that run or choose another folder", path.display())]
    Exists {
        /// The checkpoint found.
        path: PathBuf,
    },
    /// The loss or the gradient left the finite numbers.
    #[error(
        "{what} is {value} at step {step}; no parameter was changed by this step, a smaller rate or clipping may help"
    )]
    NotFinite {
        /// `the loss` or `the gradient norm`.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step, counted from 0.
        step: u64,
    },
    /// No parameter has a gradient: the loss does not depend on the model.
    #[error(
        "none of the {parameters} parameters has a gradient at step {step}; the loss does not depend on them"
    )]
    NoGradient {
        /// Number of parameters asked for.
        parameters: usize,
        /// The step, counted from 0.
        step: u64,
    },
    /// A step was given fewer batches than it adds up.
    #[error("the batches ended at step {step}; expected one for every gradient that is added up")]
    NoBatch {
        /// The step, counted from 0.
        step: u64,
    },
    /// A tensor of another shape or type.
    #[error("{what} is {got}; expected {expected}")]
    Tensor {
        /// The tensor.
        what: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The source of batches failed.
    #[error("the batch of step {step}: {source}")]
    Source {
        /// The step, counted from 0.
        step: u64,
        /// What the source said.
        source: BoxError,
    },
    /// The objective failed.
    #[error("the loss of step {step}: {source}")]
    Objective {
        /// The step, counted from 0.
        step: u64,
        /// What the objective said.
        source: BoxError,
    },
    /// An observer failed.
    #[error("an observer of the run at step {step}: {source}")]
    Observer {
        /// Steps done when it failed.
        step: u64,
        /// What the observer said.
        source: BoxError,
    },
    /// Reading or writing a file.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// The parameters.
    #[error(transparent)]
    Nn(#[from] allpet_nn::Error),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
