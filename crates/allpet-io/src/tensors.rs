//! The safetensors container: the length of a JSON header, the header, then the bare elements
//! (<https://github.com/huggingface/safetensors>, "Format").
//!
//! Written here rather than by the `safetensors` crate, whose metadata come in the order of a hash map: the same
//! content must give the same bytes. Reading checks the header through that crate and loads tensors one by one.

use crate::array::{read_full, write_elements};
use crate::error::{Error, Result, io, listed};
use allpet_core::write_atomically;
use ndarray::{ArrayViewD, IxDyn};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

// The limit of the format itself.
const MAX_HEADER: u64 = 100_000_000;

/// Tensors by name: shape and elements in C order.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Name, element type and shape of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name.
    pub name: String,
    /// Its element type in the format's notation, for example `F32`.
    pub dtype: String,
    /// Its shape, outermost axis first.
    pub shape: Vec<usize>,
}

/// What the header of a safetensors file says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TensorsHeader {
    /// The tensors, sorted by name.
    pub tensors: Vec<TensorInfo>,
    /// The metadata, sorted by key.
    pub metadata: BTreeMap<String, String>,
}

/// Reads only the header of a safetensors file: names, element types, shapes and metadata.
///
/// # Errors
/// A missing file, a damaged header, or one that announces other than the bytes there are.
pub fn read_metadata(path: &Path) -> Result<TensorsHeader> {
    Ok(TensorsFile::open(path)?.header())
}

/// Reads every tensor of a safetensors file, which must all be f32, and its metadata.
///
/// # Errors
/// Those of [`read_metadata`]; another element type. Values are not checked.
pub fn read_tensors(path: &Path) -> Result<(Tensors, BTreeMap<String, String>)> {
    let mut file = TensorsFile::open(path)?;
    let header = file.header();
    let mut tensors = BTreeMap::new();
    for info in header.tensors {
        let values = file.read_f32(&info.name)?;
        tensors.insert(info.name, (info.shape, values));
    }
    Ok((tensors, header.metadata))
}

/// Writes f32 tensors and metadata as safetensors, whole or not at all; the same content gives the same bytes.
///
/// # Errors
/// A shape that does not fit its elements; the file system's.
pub fn write_tensors(path: &Path, tensors: &Tensors, metadata: &BTreeMap<String, String>) -> Result<()> {
    let mut parts = BTreeMap::new();
    for (name, (shape, values)) in tensors {
        let array = ArrayViewD::from_shape(IxDyn(shape), values).map_err(|_| Error::Shape {
            place: format!("`{name}` for {}", path.display()),
            got: shape.clone(),
            expected: format!("a shape of {} elements", values.len()),
        })?;
        parts.insert(name.as_str(), Part::F32(array));
    }
    write_parts(path, &parts, metadata)
}

/// A tensor to be written.
pub(crate) enum Part<'a> {
    F32(ArrayViewD<'a, f32>),
    U32(Vec<usize>, Vec<u32>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a BTreeMap<String, String>),
    Tensor {
        dtype: &'static str,
        shape: &'a [usize],
        data_offsets: [u64; 2],
    },
}

pub(crate) fn write_parts(
    path: &Path,
    parts: &BTreeMap<&str, Part<'_>>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let mut entries = BTreeMap::new();
    if !metadata.is_empty() {
        entries.insert("__metadata__", Entry::Metadata(metadata));
    }
    let mut end = 0;
    for (&name, part) in parts {
        let begin = end;
        let (dtype, shape, elements) = match part {
            Part::F32(array) => ("F32", array.shape(), array.len()),
            Part::U32(shape, values) => ("U32", shape.as_slice(), values.len()),
        };
        end += elements as u64 * 4;
        entries.insert(
            name,
            Entry::Tensor {
                dtype,
                shape,
                data_offsets: [begin, end],
            },
        );
    }
    let header = serde_json::to_vec(&entries).map_err(|e| malformed(path, e.to_string()))?;
    // Blanks up to a multiple of 8, so that the elements are aligned in memory maps.
    let padding = header.len().next_multiple_of(8) - header.len();
    Ok(write_atomically(path, |file| {
        file.write_all(&((header.len() + padding) as u64).to_le_bytes())?;
        file.write_all(&header)?;
        file.write_all(&b"        "[..padding])?;
        for part in parts.values() {
            match part {
                Part::F32(array) => write_elements(file, array.view())?,
                Part::U32(_, values) => values.iter().try_for_each(|v| file.write_all(&v.to_le_bytes()))?,
            }
        }
        Ok(())
    })?)
}

/// An open safetensors file whose header has been held against its length.
pub(crate) struct TensorsFile {
    path: PathBuf,
    file: File,
    data_start: u64,
    metadata: Metadata,
}

impl TensorsFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(io("read", path))?;
        let total = file.metadata().map_err(io("read", path))?.len();
        let mut prefix = [0u8; 8];
        let filled = read_full(&mut file, &mut prefix).map_err(io("read", path))?;
        if filled < 8 {
            return Err(malformed(path, format!("{filled} bytes; expected at least 8")));
        }
        let announced = u64::from_le_bytes(prefix);
        if announced > MAX_HEADER || announced > total.saturating_sub(8) {
            let fault = format!("a header of {announced} bytes is announced in a file of {total} bytes");
            return Err(malformed(path, fault));
        }
        let mut text = vec![0u8; announced as usize];
        file.read_exact(&mut text).map_err(io("read", path))?;
        let metadata: Metadata = serde_json::from_slice(&text).map_err(|e| malformed(path, e.to_string()))?;
        let (expected, got) = (metadata.data_len() as u64, total - 8 - announced);
        if expected != got {
            return Err(Error::Size {
                place: path.display().to_string(),
                expected,
                got,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            data_start: 8 + announced,
            metadata,
        })
    }

    pub(crate) fn header(&self) -> TensorsHeader {
        let mut tensors: Vec<TensorInfo> = self
            .metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| TensorInfo {
                name,
                dtype: info.dtype.to_string(),
                shape: info.shape.clone(),
            })
            .collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        let metadata = self
            .metadata
            .metadata()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        TensorsHeader { tensors, metadata }
    }

    pub(crate) fn read_f32(&mut self, name: &str) -> Result<Vec<f32>> {
        Ok(self
            .read_words(name, Dtype::F32, "F32")?
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(word(b)))
            .collect())
    }

    pub(crate) fn read_u32(&mut self, name: &str) -> Result<Vec<u32>> {
        Ok(self
            .read_words(name, Dtype::U32, "U32")?
            .chunks_exact(4)
            .map(|b| u32::from_le_bytes(word(b)))
            .collect())
    }

    fn read_words(&mut self, name: &str, dtype: Dtype, expected: &'static str) -> Result<Vec<u8>> {
        let info = self.metadata.info(name).ok_or_else(|| Error::Missing {
            path: self.path.clone(),
            expected: format!("tensor `{name}`"),
            got: listed(
                &self
                    .header()
                    .tensors
                    .iter()
                    .map(|t| t.name.as_str())
                    .collect::<Vec<_>>(),
            ),
        })?;
        if info.dtype != dtype {
            let place = format!("`{name}` of {}", self.path.display());
            return Err(Error::Dtype {
                place,
                got: info.dtype.to_string(),
                expected,
            });
        }
        let (begin, end) = info.data_offsets;
        let mut bytes = vec![0u8; end - begin];
        self.file
            .seek(SeekFrom::Start(self.data_start + begin as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(io("read", &self.path))?;
        Ok(bytes)
    }
}

fn word(bytes: &[u8]) -> [u8; 4] {
    [bytes[0], bytes[1], bytes[2], bytes[3]]
}

pub(crate) fn malformed(path: &Path, fault: String) -> Error {
    Error::Malformed {
        place: path.display().to_string(),
        format: "safetensors",
        fault,
    }
}
