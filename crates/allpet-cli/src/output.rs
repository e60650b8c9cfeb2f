//! Where results go: checked before anything is computed, so that a long run does not end in a typing error.

use crate::fault::{Fault, Result, given};
use allpet::io::Format;
use std::path::{Path, PathBuf};

/// A file that can be written as one of the formats, by its extension.
pub(crate) fn file(path: &Path, formats: &[Format]) -> Result<()> {
    file_of("--out", path, formats)
}

/// The same for another option than `--out`.
pub(crate) fn file_of(option: &str, path: &Path, formats: &[Format]) -> Result<()> {
    let fits = Format::from_extension(path).is_some_and(|f| formats.contains(&f));
    let known: Vec<&str> = formats.iter().map(|f| extension(*f)).collect();
    writable(option, path, fits, &known)
}

/// A file that is none of the formats, by the end of its name in small or large letters.
pub(crate) fn named(option: &str, path: &Path, ends: &[&str]) -> Result<()> {
    let name = path.to_string_lossy().to_lowercase();
    writable(option, path, ends.iter().any(|end| name.ends_with(end)), ends)
}

fn writable(option: &str, path: &Path, fits: bool, known: &[&str]) -> Result<()> {
    parent(option, path)?;
    if path.is_dir() {
        return given(format!(
            "{option} {}: is a folder; expected the name of a file",
            path.display()
        ));
    }
    if !fits {
        return given(format!(
            "{option} {}: expected a name ending in {}",
            path.display(),
            known.join(" or ")
        ));
    }
    Ok(())
}

/// A folder that exists or can be made.
pub(crate) fn folder(path: &Path) -> Result<()> {
    parent("--out", path)?;
    if path.exists() && !path.is_dir() {
        return given(format!("--out {}: is a file; expected a folder", path.display()));
    }
    Ok(())
}

/// Makes the folder if it is not there.
pub(crate) fn make(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).map_err(|e| Fault::Other(format!("cannot make {}: {e}", path.display())))
}

fn parent(option: &str, path: &Path) -> Result<()> {
    if path.as_os_str().is_empty() {
        return given(format!("{option}: the name is empty; expected a path"));
    }
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    if parent.is_dir() {
        return Ok(());
    }
    given(format!(
        "{option} {}: the folder {} does not exist; expected one that does",
        path.display(),
        shown(parent)
    ))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn extension(format: Format) -> &'static str {
    match format {
        Format::Npy => ".npy",
        Format::Npz => ".npz",
        Format::Safetensors => ".safetensors",
        Format::Interfile => ".hdr",
        Format::ListMode => ".l",
        Format::Png => ".png",
    }
}

/// Array files.
pub(crate) const ARRAYS: &[Format] = &[Format::Npy, Format::Npz];

/// `[360, 367]` as `360 x 367`.
pub(crate) fn by(shape: &[usize]) -> String {
    shape
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" x ")
}

/// The files of a folder, as one list.
pub(crate) fn names(paths: &[PathBuf]) -> Vec<String> {
    paths.iter().map(|p| p.display().to_string()).collect()
}

/// A number without the last digits' rounding: 13, not 12.999999999999998.
pub(crate) fn tidy(value: f64) -> f64 {
    let near = (value * 1e9).round() / 1e9;
    if (near - value).abs() <= 1e-14 * value.abs().max(1.0) {
        near
    } else {
        value
    }
}
