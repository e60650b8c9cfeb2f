//! `.npz` archives: a zip of `.npy` entries (numpy.savez, numpy.savez_compressed).
//!
//! Names in use: `sinograms`, `reconstructions`, `prompts`, `delayeds`, `radial_mm`.

use crate::array::{NpyHeader, read_header, read_npy_from, write_npy_to};
use crate::error::{Error, Result, io, listed};
use allpet_core::write_atomically;
use ndarray::{ArrayD, ArrayViewD};
use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

type Archive = ZipArchive<BufReader<File>>;

/// The names inside an `.npz`, in the order of the file, without `.npy`.
///
/// # Errors
/// A missing file, or one that is not a zip archive.
pub fn npz_names(path: &Path) -> Result<Vec<String>> {
    Ok(names(&open(path)?))
}

/// Reads the named arrays of an `.npz`, in the order asked for; element types and checks as [`crate::read_npy`].
///
/// # Errors
/// A name that is not there (the message lists those that are), and those of [`crate::read_npy`].
pub fn read_npz(path: &Path, wanted: &[&str]) -> Result<Vec<ArrayD<f32>>> {
    let mut archive = open(path)?;
    let known = names(&archive);
    wanted
        .iter()
        .map(|&name| {
            let index = known
                .iter()
                .position(|k| k == name)
                .ok_or_else(|| Error::Missing {
                    path: path.to_owned(),
                    expected: format!("array `{name}`"),
                    got: listed(&known),
                })?;
            let place = format!("`{name}` of {}", path.display());
            let mut entry = archive.by_index(index).map_err(|e| malformed(path, &e))?;
            let length = entry.size();
            read_npy_from(&mut entry, Some(length), &place)
        })
        .collect()
}

/// Reads every array of an `.npz`, in the order of the file; errors as [`read_npz`].
pub fn read_npz_all(path: &Path) -> Result<Vec<(String, ArrayD<f32>)>> {
    let names = npz_names(path)?;
    let arrays = read_npz(path, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    Ok(names.into_iter().zip(arrays).collect())
}

/// Reads the headers of an `.npz` and none of its data.
///
/// # Errors
/// A missing file, or one that is not a zip archive of arrays.
pub fn read_npz_headers(path: &Path) -> Result<Vec<(String, NpyHeader)>> {
    let mut archive = open(path)?;
    let known = names(&archive);
    let mut headers = Vec::with_capacity(known.len());
    for (index, name) in known.into_iter().enumerate() {
        let mut entry = archive.by_index(index).map_err(|e| malformed(path, &e))?;
        let header = read_header(&mut entry, &format!("`{name}` of {}", path.display()))?.0;
        headers.push((name, header));
    }
    Ok(headers)
}

/// Writes an `.npz` of `<f4` arrays in C order, whole or not at all; `compress` deflates.
///
/// The same arrays give the same bytes: entries carry no time.
///
/// # Errors
/// The file system's, naming `path`; a name given twice.
pub fn write_npz(path: &Path, arrays: &[(&str, ArrayViewD<'_, f32>)], compress: bool) -> Result<()> {
    let method = if compress {
        CompressionMethod::Deflated
    } else {
        CompressionMethod::Stored
    };
    let options = SimpleFileOptions::default()
        .compression_method(method)
        .last_modified_time(DateTime::default());
    let written = write_atomically(path, |file| {
        let mut fault = None;
        let mut zip = ZipWriter::new_stream(FirstFault {
            file,
            fault: &mut fault,
        });
        for (name, array) in arrays {
            // Zip needs to know beforehand whether 32 bits hold the length, deflated or not.
            let large = array.len() as u64 * 4 > (1 << 31);
            zip.start_file(format!("{name}.npy"), options.large_file(large))?;
            let mut entry = BufWriter::with_capacity(1 << 16, &mut zip);
            write_npy_to(&mut entry, array.shape(), array.view())?;
            entry.flush()?;
        }
        zip.finish()?;
        fault.map_or(Ok(()), Err)
    });
    Ok(written?)
}

/// Keeps the first fault for the caller and swallows what comes after it: a `ZipWriter` that is dropped over a
/// full disk would print on standard error, which is not a library's to write on.
struct FirstFault<'a> {
    file: &'a mut dyn Write,
    fault: &'a mut Option<std::io::Error>,
}

impl Write for FirstFault<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.fault.is_none()
            && let Err(e) = self.file.write_all(bytes)
        {
            *self.fault = Some(e);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn open(path: &Path) -> Result<Archive> {
    let file = File::open(path).map_err(io("read", path))?;
    ZipArchive::new(BufReader::new(file)).map_err(|e| malformed(path, &e))
}

fn names(archive: &Archive) -> Vec<String> {
    let name = |i| {
        archive
            .name_for_index(i)
            .and_then(|name| name.ok())
            .unwrap_or_default()
    };
    (0..archive.len())
        .map(name)
        .map(|n| n.strip_suffix(".npy").unwrap_or(&n).to_owned())
        .collect()
}

fn malformed(path: &Path, error: &zip::result::ZipError) -> Error {
    Error::Malformed {
        place: path.display().to_string(),
        format: "npz",
        fault: error.to_string(),
    }
}
