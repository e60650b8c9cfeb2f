//! Named tensors in safetensors files whose bytes depend on the content alone.
//!
//! The safetensors crate writes its metadata in the order of a hash map, which differs from run to run; so the
//! header is written here, names in order, with a checksum of metadata, names, shapes and values. Reading goes
//! through the crate's own checks and then the checksum; files without one (from elsewhere) are read as well.

use crate::checksum::Checksum;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

const CHECKSUM: &str = "checksum";

/// Values in row-major order, little endian, with what the header says of them.
pub(crate) struct Encoded {
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Writes named tensors with metadata (usually JSON texts) as safetensors, whole or not at all; the same content
/// gives the same bytes.
///
/// With `half` the values are stored as `f16` (relative error up to 2⁻¹¹), otherwise as `f32`.
///
/// # Errors
/// [`Error::Tensor`] for a value beyond the range of `f16` or a metadata key that is taken (`checksum`);
/// [`Error::Core`] when the file cannot be written, what was there before stays.
pub fn save_model(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    metadata: &BTreeMap<String, String>,
    half: bool,
) -> Result<()> {
    let mut encoded = BTreeMap::new();
    for (name, tensor) in tensors {
        encoded.insert(name.clone(), encode(name, tensor, half)?);
    }
    write(path, &encoded, metadata)
}

/// Reads named tensors, as `f32`, and the metadata.
///
/// # Errors
/// [`Error::Core`] when the file cannot be read, [`Error::Damaged`] when it is no whole safetensors file or its
/// content does not fit its checksum, [`Error::Tensor`] for a tensor that holds no floats.
pub fn load_model(
    path: &Path,
    device: &Device,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let contents = read(path, device)?;
    Ok((contents.tensors, contents.metadata))
}

/// [`load_model`] from bytes in memory, for weights that are part of the program; `name` stands for the file in errors.
///
/// # Errors
/// As [`load_model`], except that nothing is read from a disk.
pub fn load_model_bytes(
    name: &str,
    bytes: &[u8],
    device: &Device,
) -> Result<(BTreeMap<String, Tensor>, BTreeMap<String, String>)> {
    let contents = parse(Path::new(name), bytes, device)?;
    Ok((contents.tensors, contents.metadata))
}

/// What a file holds, and whether it carried a checksum (which then fitted).
pub(crate) struct Contents {
    pub(crate) tensors: BTreeMap<String, Tensor>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) verified: bool,
}

pub(crate) fn read(path: &Path, device: &Device) -> Result<Contents> {
    let bytes = std::fs::read(path).map_err(|source| allpet_core::Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    parse(path, &bytes, device)
}

fn parse(path: &Path, bytes: &[u8], device: &Device) -> Result<Contents> {
    let damaged = |reason: String| Error::Damaged {
        path: path.to_owned(),
        reason,
        advice: None,
    };
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
    let mut metadata: BTreeMap<String, String> = header
        .metadata()
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
    let views: BTreeMap<String, _> = file.tensors().into_iter().collect();

    let expected = metadata.remove(CHECKSUM);
    let verified = expected.is_some();
    if let Some(expected) = expected {
        let mut checksum = start_checksum(&metadata);
        for (name, view) in &views {
            add_tensor(
                &mut checksum,
                name,
                &view.dtype().to_string(),
                view.shape(),
                view.data(),
            );
        }
        let got = checksum.hex();
        if got != expected {
            return Err(damaged(format!(
                "its content has checksum {got}; expected {expected}"
            )));
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, view) in views {
        let dtype = match view.dtype() {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => {
                return Err(Error::Tensor {
                    what: format!("tensor `{name}` of {}", path.display()),
                    expected: "F16, BF16, F32 or F64".into(),
                    got: other.to_string(),
                });
            }
        };
        let tensor = Tensor::from_raw_buffer(view.data(), dtype, view.shape(), &Device::Cpu)?;
        tensors.insert(name, tensor.to_dtype(DType::F32)?.to_device(device)?);
    }
    Ok(Contents {
        tensors,
        metadata,
        verified,
    })
}

pub(crate) fn encode(name: &str, tensor: &Tensor, half: bool) -> Result<Encoded> {
    let values = tensor
        .detach()
        .to_device(&Device::Cpu)?
        .to_dtype(DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?;
    let shape = tensor.dims().to_vec();
    if !half {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        return Ok(Encoded {
            dtype: "F32",
            shape,
            bytes,
        });
    }
    if let Some(beyond) = values.iter().find(|v| v.abs() > f16::MAX.to_f32()) {
        return Err(Error::Tensor {
            what: format!("a value of `{name}`"),
            expected: format!("at most {} to be stored in 16 bits", f16::MAX),
            got: beyond.to_string(),
        });
    }
    let bytes = values
        .iter()
        .flat_map(|&v| f16::from_f32(v).to_le_bytes())
        .collect();
    Ok(Encoded {
        dtype: "F16",
        shape,
        bytes,
    })
}

pub(crate) fn write(
    path: &Path,
    tensors: &BTreeMap<String, Encoded>,
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    if metadata.contains_key(CHECKSUM) {
        return Err(Error::Tensor {
            what: format!("metadata key `{CHECKSUM}`"),
            expected: "another key: this one is written by the file itself".into(),
            got: "given".into(),
        });
    }
    let header = header(tensors, metadata);
    Ok(allpet_core::write_atomically(path, |file| {
        write_to(file, &header, tensors)
    })?)
}

fn write_to(file: &mut dyn Write, header: &[u8], tensors: &BTreeMap<String, Encoded>) -> std::io::Result<()> {
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(header)?;
    tensors
        .values()
        .try_for_each(|tensor| file.write_all(&tensor.bytes))
}

fn header(tensors: &BTreeMap<String, Encoded>, metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let mut checksum = start_checksum(metadata);
    let mut start = 0;
    let mut entries = Map::new();
    for (name, tensor) in tensors {
        add_tensor(&mut checksum, name, tensor.dtype, &tensor.shape, &tensor.bytes);
        let end = start + tensor.bytes.len();
        let entry = json!({ "dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        entries.insert(name.clone(), entry);
        start = end;
    }
    let mut words: Map<String, Value> = metadata.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    words.insert(CHECKSUM.into(), json!(checksum.hex()));
    entries.insert("__metadata__".into(), Value::Object(words));
    let mut text = Value::Object(entries).to_string().into_bytes();
    // The format asks for values on an 8-byte boundary.
    text.resize(text.len().next_multiple_of(8), b' ');
    text
}

fn start_checksum(metadata: &BTreeMap<String, String>) -> Checksum {
    let mut checksum = Checksum::new();
    for (key, value) in metadata {
        checksum.add(key.as_bytes());
        checksum.add(value.as_bytes());
    }
    checksum
}

fn add_tensor(checksum: &mut Checksum, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
    checksum.add(name.as_bytes());
    checksum.add(dtype.as_bytes());
    shape
        .iter()
        .for_each(|&n| checksum.add(&(n as u64).to_le_bytes()));
    checksum.add(bytes);
}
