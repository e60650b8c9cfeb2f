//! The one place that decides what a file is: by its first bytes, and by its extension where they do not tell.

use crate::archive::{npz_names, read_npz, write_npz};
use crate::array::{NPY_MAGIC, read_full, read_npy, write_npy};
use crate::error::{Error, Result, io, listed};
use crate::listmode::{HistogramOptions, ListMode};
use ndarray::{Array1, ArrayD, ArrayViewD, Ix1};
use std::fs::File;
use std::path::Path;

/// A sinogram `[.., view, radial]`, the positions of its radial bins in mm where they are not equally spaced, and
/// notes for the user.
pub type NotedSinogram = (ArrayD<f32>, Option<Array1<f32>>, Vec<String>);

const KNOWN: &str =
    "NumPy .npy and .npz, .safetensors, Interfile .hdr, list-mode .l with a header beside it, .png";

/// A file format known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A NumPy array.
    Npy,
    /// A zip of NumPy arrays.
    Npz,
    /// Named tensors with metadata: datasets and models.
    Safetensors,
    /// An Interfile header.
    Interfile,
    /// List-mode data, which tell nothing about themselves; known by extension only.
    ListMode,
    /// A picture.
    Png,
}

impl Format {
    /// The format an extension stands for (`.l.hdr` is an Interfile header).
    pub fn from_extension(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "npy" => Self::Npy,
            "npz" => Self::Npz,
            "safetensors" => Self::Safetensors,
            "hdr" => Self::Interfile,
            "l" => Self::ListMode,
            "png" => Self::Png,
            _ => return None,
        })
    }

    /// The word for people.
    pub fn label(self) -> &'static str {
        match self {
            Self::Npy => "NumPy .npy",
            Self::Npz => "NumPy .npz",
            Self::Safetensors => "safetensors",
            Self::Interfile => "Interfile header",
            Self::ListMode => "list-mode data",
            Self::Png => "PNG picture",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

/// Decides the format of a file by content; the extension speaks only where the content does not.
///
/// # Errors
/// A missing file; a file of no known format, the message listing those known.
pub fn detect(path: &Path) -> Result<Format> {
    let mut file = File::open(path).map_err(io("read", path))?;
    let length = file.metadata().map_err(io("read", path))?.len();
    let mut head = [0u8; 64];
    let filled = read_full(&mut file, &mut head).map_err(io("read", path))?;
    let head = &head[..filled];
    let text = String::from_utf8_lossy(head)
        .trim_start_matches('\u{feff}')
        .trim_start()
        .to_lowercase();
    if head.starts_with(NPY_MAGIC) {
        return Ok(Format::Npy);
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Ok(Format::Npz);
    }
    if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Ok(Format::Png);
    }
    if text.trim_start_matches('!').trim_start().starts_with("interfile") {
        return Ok(Format::Interfile);
    }
    if let (Some(size), Some(b'{')) = (head.first_chunk::<8>(), head.get(8))
        && u64::from_le_bytes(*size) <= length.saturating_sub(8)
    {
        return Ok(Format::Safetensors);
    }
    let found = match head {
        [] => "nothing (it is empty)".to_owned(),
        bytes => format!("`{}`", bytes[..bytes.len().min(8)].escape_ascii()),
    };
    Format::from_extension(path).ok_or_else(|| Error::UnknownFormat {
        path: path.to_owned(),
        found,
        known: KNOWN,
    })
}

/// Reads an array from `.npy`, or from `.npz`: `sinograms`, else `prompts` minus `delayeds` (if there), else the
/// only array inside.
///
/// # Errors
/// Another format; several arrays none of which is meant (the message lists them); those of [`read_npy`].
pub fn read_array(path: &Path) -> Result<ArrayD<f32>> {
    Ok(read_array_noted(path)?.0)
}

/// Reads a sinogram `[.., view, radial]` as [`read_array`] does, or an Interfile list-mode acquisition as a whole
/// (prompts minus delayeds, summed over planes), with the positions of its radial bins in mm where the file knows
/// them and what a user should know about it.
///
/// # Errors
/// Those of [`read_array`] and [`ListMode::histogram`]; fewer than two axes, an empty axis, as many positions as
/// there are not bins.
pub fn read_sinogram(path: &Path) -> Result<NotedSinogram> {
    let format = detect(path)?;
    if matches!(format, Format::Interfile | Format::ListMode) {
        let histogram = ListMode::open(path, None)?.histogram(&HistogramOptions::default())?;
        let mut notes = histogram.warnings.clone();
        notes.push("prompts minus delayeds, summed over planes".to_owned());
        return Ok((histogram.net(), Some(histogram.radial_mm), notes));
    }
    let (sinogram, notes) = read_array_noted(path)?;
    let shape = |got: &[usize], expected: String| Error::Shape {
        place: path.display().to_string(),
        got: got.to_vec(),
        expected,
    };
    let bins = match sinogram.shape() {
        [.., views, bins] if *views > 0 && *bins > 0 && !sinogram.is_empty() => *bins,
        other => {
            return Err(shape(
                other,
                "a sinogram [.., view, radial] with at least 1 view and 1 bin".to_owned(),
            ));
        }
    };
    let mut radial_mm = None;
    if format == Format::Npz && npz_names(path)?.iter().any(|n| n == "radial_mm") {
        let positions = read_npz(path, &["radial_mm"])?.remove(0);
        let got = positions.shape().to_vec();
        let positions = positions
            .into_dimensionality::<Ix1>()
            .ok()
            .filter(|p| p.len() == bins);
        radial_mm =
            Some(positions.ok_or_else(|| shape(&got, format!("`radial_mm` of [{bins}], one for each bin")))?);
    }
    Ok((sinogram, radial_mm, notes))
}

/// Writes an array as `.npy`, or as the `.npz` entry `name`, by the path's extension.
///
/// # Errors
/// Another extension; the file system's.
pub fn write_array(path: &Path, name: &str, array: ArrayViewD<'_, f32>) -> Result<()> {
    match Format::from_extension(path) {
        Some(Format::Npy) => write_npy(path, array),
        Some(Format::Npz) => write_npz(path, &[(name, array)], true),
        other => Err(Error::WrongFormat {
            path: path.to_owned(),
            got: other.map_or("a name without a known extension".to_owned(), |f| {
                format!("a name for {f}")
            }),
            expected: "a name ending in .npy or .npz".to_owned(),
        }),
    }
}

fn read_array_noted(path: &Path) -> Result<(ArrayD<f32>, Vec<String>)> {
    match detect(path)? {
        Format::Npy => Ok((read_npy(path)?, Vec::new())),
        Format::Npz => {
            let names = npz_names(path)?;
            let has = |name: &str| names.iter().any(|n| n == name);
            let one = |name: &str| Ok::<_, Error>(read_npz(path, &[name])?.remove(0));
            if has("sinograms") {
                return Ok((one("sinograms")?, Vec::new()));
            }
            if has("prompts") && has("delayeds") {
                let (prompts, delayeds) = (one("prompts")?, one("delayeds")?);
                if prompts.shape() != delayeds.shape() {
                    return Err(Error::Shape {
                        place: format!("`delayeds` of {}", path.display()),
                        got: delayeds.shape().to_vec(),
                        expected: format!("{:?}, the shape of `prompts`", prompts.shape()),
                    });
                }
                return Ok((prompts - delayeds, vec!["prompts minus delayeds".to_owned()]));
            }
            if has("prompts") {
                return Ok((one("prompts")?, Vec::new()));
            }
            match names.as_slice() {
                [only] => Ok((
                    one(only)?,
                    vec![format!("reading `{only}`, the only array inside")],
                )),
                several => Err(Error::Missing {
                    path: path.to_owned(),
                    expected: "`sinograms`, no `prompts` and not just one array".to_owned(),
                    got: listed(several),
                }),
            }
        }
        other => Err(Error::WrongFormat {
            path: path.to_owned(),
            got: other.label().to_owned(),
            expected: "an array, .npy or .npz".to_owned(),
        }),
    }
}
