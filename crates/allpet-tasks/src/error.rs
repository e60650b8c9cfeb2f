//! The error of the tasks.

/// What can be wrong with a task's data, its model or a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Settings outside their range; all faults at once.
    #[error("invalid {what}: {}", faults.join("; "))]
    Invalid {
        /// What is being described.
        what: String,
        /// Every fault found, each saying what was expected.
        faults: Vec<String>,
    },
    /// Data or a file that hold something else than was asked for.
    #[error("{what}: {got}; expected {expected}")]
    Mismatch {
        /// The file, the array or the part of it.
        what: String,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// Stopped by the caller before the end.
    #[error("stopped after {done} of {total} samples")]
    Stopped {
        /// Samples finished.
        done: usize,
        /// Samples asked for.
        total: usize,
    },
    /// From the core.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// From the masks and transparent attention.
    #[error(transparent)]
    Mask(#[from] allpet_mask::Error),
    /// From the projector.
    #[error(transparent)]
    Radon(#[from] allpet_radon::Error),
    /// From the metrics.
    #[error(transparent)]
    Metrics(#[from] allpet_metrics::Error),
    /// From the layers.
    #[error(transparent)]
    Nn(#[from] allpet_nn::Error),
    /// From the autoencoder.
    #[error(transparent)]
    Autoencoder(#[from] allpet_autoencoder::Error),
    /// From the diffusion.
    #[error(transparent)]
    Diffusion(#[from] allpet_diffusion::Error),
    /// From the foundation model.
    #[error(transparent)]
    Foundation(#[from] allpet_foundation::Error),
    /// From the training stack.
    #[error(transparent)]
    Train(#[from] allpet_train::Error),
    /// From candle.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
