//! The error of the core: every variant says what was given and what was expected.

use std::path::PathBuf;

/// What can be wrong with the things every crate agrees on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value that is not a finite number, where only numbers may enter.
    #[error("{what} holds {value} at index {index:?}; every value must be finite")]
    NotFinite {
        /// Name of the array.
        what: String,
        /// Multi-dimensional index of the first offender.
        index: Vec<usize>,
        /// The offending value.
        value: f64,
    },
    /// Shapes that do not fit together.
    #[error("{what} has shape {got:?}; expected {expected}")]
    Shape {
        /// Name of the array.
        what: String,
        /// What was expected, in words or numbers.
        expected: String,
        /// The shape found.
        got: Vec<usize>,
    },
    /// One or more settings outside their range; all faults at once.
    #[error("invalid {what}: {}", faults.join("; "))]
    Invalid {
        /// What is being described, for example `geometry`.
        what: String,
        /// Every fault found, each saying what was expected.
        faults: Vec<String>,
    },
    /// A word outside the vocabulary.
    #[error("unknown {what} `{word}`; known: {known}")]
    UnknownWord {
        /// The kind of word, for example `tracer`.
        what: &'static str,
        /// What was given.
        word: String,
        /// The words that are known.
        known: String,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted, for example `write`.
        action: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The operating system's word on it.
        source: std::io::Error,
    },
}

/// Result with the core's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// `Ok` when no faults were found, otherwise one [`Error::Invalid`] that lists them all.
pub(crate) fn all_faults(what: &str, faults: Vec<String>) -> Result<()> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid {
            what: what.to_owned(),
            faults,
        })
    }
}
