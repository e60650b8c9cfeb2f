//! The error of the exchange formats: every message names the file, what was found and what was expected.

use std::path::{Path, PathBuf};

/// What can be wrong with a file that is read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The core's word: the file system, a value that is not finite, an invalid setting.
    #[error(transparent)]
    Core(#[from] allpet_core::Error),
    /// What a file describes is not valid.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        source: allpet_core::Error,
    },
    /// No format known here.
    #[error("{}: begins with {found}; expected one of: {known}", path.display())]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes, made printable.
        found: String,
        /// The formats known.
        known: &'static str,
    },
    /// A known format that cannot do what was asked.
    #[error("{}: is {got}; expected {expected}", path.display())]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// The format found.
        got: String,
        /// The formats that would do.
        expected: String,
    },
    /// The file breaks the rules of its format.
    #[error("{place}: not a readable {format} file: {fault}")]
    Malformed {
        /// The file, or the array inside it.
        place: String,
        /// The format it should have.
        format: &'static str,
        /// What is wrong.
        fault: String,
    },
    /// An array of another element type.
    #[error("{place}: element type {got}; expected {expected}")]
    Dtype {
        /// The file, or the array inside it.
        place: String,
        /// The type found.
        got: String,
        /// The types that would do.
        expected: &'static str,
    },
    /// An array of another rank or shape.
    #[error("{place}: shape {got:?}; expected {expected}")]
    Shape {
        /// The file, or the array inside it.
        place: String,
        /// The shape found.
        got: Vec<usize>,
        /// What was expected, in words or numbers.
        expected: String,
    },
    /// A header that announces another amount of data than there is.
    #[error("{place}: expected {expected} bytes of data by its header, found {got}")]
    Size {
        /// The file, or the array inside it.
        place: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes found.
        got: u64,
    },
    /// An array or entry that is not there.
    #[error("{}: holds no {expected}; it holds {got}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: String,
        /// The names that are there.
        got: String,
    },
    /// A list-mode word that cannot be.
    #[error("{}: word {word}: {fault}", path.display())]
    Word {
        /// The data file.
        path: PathBuf,
        /// Number of the word, from 0.
        word: u64,
        /// What is wrong with it and what was expected.
        fault: String,
    },
}

/// Result with the [`enum@Error`] of the exchange formats.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// For `map_err`: the core's I/O error with the path in it.
pub(crate) fn io(action: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |source| {
        Error::Core(allpet_core::Error::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }
}

/// An option outside its range.
pub(crate) fn invalid(what: &str, fault: String) -> Error {
    Error::Core(allpet_core::Error::Invalid {
        what: what.to_owned(),
        faults: vec![fault],
    })
}

/// `a, b, c`, or `nothing`; a model's hundreds of names are cut short.
pub(crate) fn listed<S: AsRef<str>>(names: &[S]) -> String {
    const SHOWN: usize = 12;
    let shown = names
        .iter()
        .take(SHOWN)
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join(", ");
    match names.len() {
        0 => "nothing".to_owned(),
        n if n > SHOWN => format!("{shown} and {} more", n - SHOWN),
        _ => shown,
    }
}
