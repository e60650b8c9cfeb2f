//! The error of diffusion: every variant says what was given and what was expected.

/// What can be wrong with a schedule, a sampler or a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One or more settings outside their range; all faults at once.
    #[error("invalid {what}: {}", faults.join("; "))]
    Invalid {
        /// What is being described, for example `schedule`.
        what: &'static str,
        /// Every fault found, each saying what was expected.
        faults: Vec<String>,
    },
    /// A name the registry does not hold.
    #[error("unknown {what} `{name}`; known: {known}")]
    UnknownName {
        /// The kind of name, for example `sampler`.
        what: &'static str,
        /// What was given.
        name: String,
        /// The names that are known.
        known: String,
    },
    /// Tensors whose shapes do not fit together.
    #[error("{what} has shape {got:?}; expected {expected}")]
    Shape {
        /// Name of the tensor.
        what: &'static str,
        /// What was expected, in words or numbers.
        expected: String,
        /// The shape found.
        got: Vec<usize>,
    },
    /// ε-prediction on a schedule whose last `ᾱ` is zero: there `x_T = ε` says nothing of `x_0`.
    #[error(
        "prediction `epsilon` cannot give x_0 where alpha_bar = 0 (zero terminal SNR); expected `v` or `x0`"
    )]
    EpsilonAtZeroSnr,
    /// A sampler of the one kind on a process of the other.
    #[error(
        "sampler `{sampler}` is made for {made_for}, but the process is {kind} (`{process}`); samplers for it: {known}"
    )]
    Unfit {
        /// Name of the sampler.
        sampler: &'static str,
        /// The kind of process it is made for.
        made_for: crate::ProcessKind,
        /// Name of the process.
        process: &'static str,
        /// The kind it is.
        kind: crate::ProcessKind,
        /// Names of the built-in samplers for that kind.
        known: String,
    },
    /// A step that the process does not allow.
    #[error("sampler `{sampler}` cannot step from t = {from} to {to}: {reason}")]
    Step {
        /// Name of the sampler.
        sampler: &'static str,
        /// Time the step starts at.
        from: f64,
        /// Time the step should reach.
        to: f64,
        /// What was expected.
        reason: String,
    },
    /// A bridge without the state it starts from.
    #[error("the process is a bridge; expected its terminal state x_T in the conditioning, got none")]
    NoTerminal,
    /// The caller asked to stop.
    #[error("sampling was stopped after {done} of {total} steps")]
    Stopped {
        /// Steps done.
        done: usize,
        /// Steps asked for.
        total: usize,
    },
    /// A sampler that breaks the contract of [`crate::Sampler`].
    #[error("sampler `{sampler}` breaks `{property}`: {detail}")]
    Conformance {
        /// Name of the sampler.
        sampler: &'static str,
        /// The property broken.
        property: &'static str,
        /// What was seen.
        detail: String,
    },
    /// The network behind a denoiser failed; see [`Error::network`].
    #[error(transparent)]
    Network(Box<dyn std::error::Error + Send + Sync>),
    /// The core refused.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// candle refused.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl Error {
    /// Wraps the error of a network's own crate, for use in [`crate::Denoiser`] implementations.
    pub fn network(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self::Network(Box::new(source))
    }
}

/// Result with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
