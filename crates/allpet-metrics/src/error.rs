//! The error of the metrics crate.

/// What can be wrong with the arrays and the settings of a metric.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an array that the shared vocabulary already has a sentence for.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// Two arrays that should have one shape.
    #[error("{what}: candidate {candidate:?}, reference {reference:?}; expected the same shape")]
    Shapes {
        /// The metric that compares them.
        what: &'static str,
        /// Shape of the candidate.
        candidate: Vec<usize>,
        /// Shape of the reference.
        reference: Vec<usize>,
    },
    /// A setting out of its range.
    #[error("{what} is {got}; expected {expected}")]
    Setting {
        /// Which setting.
        what: &'static str,
        /// What it may be.
        expected: &'static str,
        /// What it was.
        got: f64,
    },
    /// Too little data for what was asked.
    #[error("{what} needs at least {needed} {of}; got {got}")]
    TooFew {
        /// The metric.
        what: &'static str,
        /// Least number.
        needed: usize,
        /// Of what: samples, pixels, views.
        of: &'static str,
        /// How many there were.
        got: usize,
    },
    /// A figure that is not defined for these numbers.
    #[error("{what} is undefined: {why}")]
    Undefined {
        /// The metric.
        what: &'static str,
        /// Why there is no value.
        why: &'static str,
    },
    /// A metric that is not defined for one of the images.
    #[error("{what} of image {image} is undefined: {why}")]
    UndefinedImage {
        /// The metric.
        what: &'static str,
        /// Number of the image, in C order of the leading axes.
        image: usize,
        /// Why there is no value.
        why: &'static str,
    },
    /// An iterative decomposition that did not settle.
    #[error("{what} did not converge; expected a finite, well-scaled matrix")]
    NoConvergence {
        /// What was being computed.
        what: &'static str,
    },
    /// A file of weights that does not hold the network.
    #[cfg(feature = "candle")]
    #[error("{}: {what}", path.display())]
    Weights {
        /// The file.
        path: std::path::PathBuf,
        /// What lacks or differs, and what was expected.
        what: String,
    },
    /// The tensor library refused.
    #[cfg(feature = "candle")]
    #[error("Inception network: {0}")]
    Candle(#[from] candle_core::Error),
}

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
