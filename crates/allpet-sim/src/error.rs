//! The error of the simulator.

/// What can be wrong with a simulation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One or more settings outside their range; all faults at once.
    #[error("invalid {what}: {}", faults.join("; "))]
    Invalid {
        /// What is being described, for example `synthesis simulation`.
        what: &'static str,
        /// Every fault found, each saying what was expected.
        faults: Vec<String>,
    },
    /// A fault of the core: geometry, dataset, vocabulary.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
}

/// Result with the simulator's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
