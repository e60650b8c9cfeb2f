//! The error of the autoencoder.

/// What can be wrong with the autoencoder, its data or its settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings outside their range; all faults at once.
    #[error("invalid {what}: {}", faults.join("; "))]
    Invalid {
        /// What is being described.
        what: &'static str,
        /// Every fault found, each saying what was expected.
        faults: Vec<String>,
    },
    /// Data that do not fit the model.
    #[error("{what}: {got}; the model expects {expected}")]
    Mismatch {
        /// What does not fit.
        what: String,
        /// What the model has.
        expected: String,
        /// What was given.
        got: String,
    },
    /// From the core.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// From the masks.
    #[error(transparent)]
    Mask(#[from] allpet_mask::Error),
    /// From the layers.
    #[error(transparent)]
    Nn(#[from] allpet_nn::Error),
    /// From candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub(crate) fn all_faults(what: &'static str, faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid { what, faults })
    }
}
