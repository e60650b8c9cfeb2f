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
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let fail = |source| Error::Io { action: "write", path: path.to_owned(), source };
    let beside = temporary_name(path).map_err(fail)?;
    let written = File::create(&beside).and_then(|file| {
        let mut buffered = BufWriter::with_capacity(1 << 18, file);
        write(&mut buffered)?;
        buffered.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
    });
    if let Err(source) = written.and_then(|()| std::fs::rename(&beside, path)) {
        // The first failure is the one to report; a leftover that cannot be removed changes nothing.
        let _ = std::fs::remove_file(&beside);
        return Err(fail(source));
    }
    #[cfg(unix)]
    if let Some(folder) = beside.parent() {
        // The rename itself reaches the disk with the folder; some file systems cannot sync one, and that is no fault.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// [`write_atomically`] of bytes that are already at hand.
pub fn write_bytes_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomically(path, |file| file.write_all(bytes))
}

fn temporary_name(path: &Path) -> std::io::Result<PathBuf> {
    let name = path
        .file_name()
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::InvalidInput, "the path names no file"))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(folder.join(hidden))
}
