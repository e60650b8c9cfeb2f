//! The error of the layers.

/// What can be wrong with a layer, its parameters or its input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter of another shape.
    #[error("parameter `{name}` has shape {got}; the model expects {expected}")]
    Parameter {
        /// Dotted name.
        name: String,
        /// Shape the model has.
        expected: String,
        /// Shape that was given.
        got: String,
    },
    /// A set of tensors that belongs to another model.
    #[error("these weights belong to another model: {} missing{}, {} foreign{}", missing.len(), example(missing), foreign.len(), example(foreign))]
    Names {
        /// Names the model has and the file lacks.
        missing: Vec<String>,
        /// Names the file has and the model lacks.
        foreign: Vec<String>,
    },
    /// A setting that cannot work.
    #[error("{what}: {got}; expected {expected}")]
    Setting {
        /// The layer and the setting.
        what: String,
        /// What was expected.
        expected: String,
        /// What was given.
        got: String,
    },
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

fn example(names: &[String]) -> String {
    names
        .first()
        .map(|n| format!(" (for example `{n}`)"))
        .unwrap_or_default()
}
