//! The error of this crate.

/// What can be wrong with a projector, its arrays or a reconstruction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A fault found by `allpet-core`: an invalid grid, geometry or scanner.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// An array whose shape does not fit the operator.
    #[error("{what} has shape {got:?}; expected {expected}")]
    Shape {
        /// Name of the array.
        what: &'static str,
        /// What was expected.
        expected: String,
        /// The shape found.
        got: Vec<usize>,
    },
    /// A setting outside its range.
    #[error("{what} is {got}; expected {expected}")]
    Setting {
        /// Name of the setting.
        what: &'static str,
        /// What was expected.
        expected: &'static str,
        /// What was given.
        got: f64,
    },
    /// Instructions that this processor does not have.
    #[error("this processor has no {got:?}; it has {available:?}")]
    Instructions {
        /// What was asked for.
        got: crate::Instructions,
        /// What there is, the fastest first.
        available: Vec<crate::Instructions>,
    },
    /// A count or weight that is negative or not a finite number.
    #[error("{what} holds {value} at index {index:?}; every value must be finite and not negative")]
    Negative {
        /// Name of the array.
        what: &'static str,
        /// Multi-dimensional index of the first offender.
        index: Vec<usize>,
        /// The offending value.
        value: f64,
    },
    /// Counts in a bin that a gap between detector blocks leaves empty.
    #[error(
        "view {view}, bin {bin} counted {value}; expected 0, as one of its crystals is a gap between blocks"
    )]
    GapCounts {
        /// View of the bin.
        view: usize,
        /// Radial bin.
        bin: usize,
        /// What it counted.
        value: f64,
    },
    /// A filter that does not exist.
    #[error("unknown filter `{word}`; known: {known}")]
    UnknownFilter {
        /// What was given.
        word: String,
        /// The filters there are.
        known: String,
    },
    /// The Fourier transform refused its buffers.
    #[error("Fourier transform: {0}")]
    Fourier(#[from] realfft::FftError),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
