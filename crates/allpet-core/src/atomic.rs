//! Files that appear whole or not at all.

use crate::error::{Error, Result};
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Writes through a temporary file beside `path`, syncs it to the disk, then renames it into place.
///
/// If anything fails, or the program dies, `path` is what it was before; a leftover ends in `.tmp`.
///
/// # Errors
/// [`Error::Io`] naming `path`.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    write(&mut file).map_err(|source| failed(path, source))?;
    file.commit()
}

/// [`write_atomically`] of bytes that are already at hand.
pub fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |file| file.write_all(bytes))
}

/// The same promise for a file written piece by piece: nothing appears at the path before [`AtomicFile::commit`],
/// and nothing is left behind when the value is dropped instead.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // `None` for a device or pipe, which is written as it is: renaming over it would replace it by a file.
    beside: Option<PathBuf>,
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Opens the temporary file beside `path`.
    ///
    /// # Errors
    /// [`Error::Io`] naming `path`.
    pub fn create(path: &Path) -> Result<Self> {
        let special = std::fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir());
        let beside = if special {
            None
        } else {
            Some(temporary_name(path).map_err(|e| failed(path, e))?)
        };
        let opened = match &beside {
            Some(beside) => File::create(beside),
            None => File::options().write(true).open(path),
        };
        let file = BufWriter::with_capacity(1 << 18, opened.map_err(|e| failed(path, e))?);
        Ok(Self {
            path: path.to_owned(),
            beside,
            file: Some(file),
        })
    }

    /// Syncs what was written to the disk and renames it into place.
    ///
    /// # Errors
    /// [`Error::Io`] naming the path; nothing has appeared there then.
    pub fn commit(mut self) -> Result<()> {
        let Some(buffered) = self.file.take() else {
            return Ok(());
        };
        let file = buffered
            .into_inner()
            .map_err(|e| failed(&self.path, e.into_error()))?;
        let Some(beside) = &self.beside else { return Ok(()) };
        file.sync_all()
            .and_then(|()| std::fs::rename(beside, &self.path))
            .map_err(|e| failed(&self.path, e))?;
        #[cfg(unix)]
        if let Some(folder) = beside.parent() {
            // The rename itself reaches the disk with the folder; some file systems cannot sync one, and that is no fault.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        self.beside = None;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            // Taken apart unwritten, so that a full disk is not tried once more on the way out.
            if let Some(buffered) = self.file.take() {
                let _ = buffered.into_parts();
            }
            // The first failure is the one to report; a leftover that cannot be removed changes nothing.
            let _ = std::fs::remove_file(beside);
        }
    }
}

fn failed(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        action: "write",
        path: path.to_owned(),
        source,
    }
}

fn temporary_name(path: &Path) -> std::io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(
        ".{}-{}.tmp",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ));
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    Ok(folder.join(hidden))
}
