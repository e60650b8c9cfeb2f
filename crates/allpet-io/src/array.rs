//! `.npy` arrays, version 1 to 3 of the NumPy format (numpy.lib.format, NEP 1): a magic string, the length of a
//! Python dictionary literal, the dictionary, then the bare elements.
//!
//! The header is a claim by a stranger: nothing is allocated before it has been held against the bytes that are
//! really there, and its literal is scanned without recursion.

use crate::error::{Error, Result, io};
use allpet_core::{AtomicFile, check_finite, write_atomically};
use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// The first bytes of every `.npy`.
pub(crate) const NPY_MAGIC: &[u8; 6] = b"\x93NUMPY";
const READABLE: &str = "<f4 or <f8 (little-endian float32 or float64)";
// The dictionary of a plain array has about 80 characters; a long one is damage.
const MAX_HEADER: usize = 1 << 16;
const CHUNK: usize = 1 << 16;

/// What the header of an `.npy` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NpyHeader {
    /// Element type in NumPy's notation, for example `<f4`.
    pub dtype: String,
    /// True when the first axis runs fastest.
    pub fortran_order: bool,
    /// The shape, outermost axis first.
    pub shape: Vec<usize>,
}

/// Reads an `.npy` of `<f4` or `<f8` as f32; Fortran order is rearranged.
///
/// # Errors
/// A missing file, another element type, a header that announces other than the bytes there are, NaN or infinity
/// (also a float64 beyond float32).
pub fn read_npy(path: &Path) -> Result<ArrayD<f32>> {
    let file = File::open(path).map_err(io("read", path))?;
    let length = file
        .metadata()
        .ok()
        .filter(std::fs::Metadata::is_file)
        .map(|m| m.len());
    read_npy_from(&mut BufReader::new(file), length, &path.display().to_string())
}

/// Reads the header of an `.npy` and nothing else.
///
/// # Errors
/// A missing file, or one that is not `.npy`.
pub fn read_npy_header(path: &Path) -> Result<NpyHeader> {
    let file = File::open(path).map_err(io("read", path))?;
    Ok(read_header(&mut BufReader::new(file), &path.display().to_string())?.0)
}

/// Writes an `.npy` of `<f4` in C order, whole or not at all.
///
/// # Errors
/// The file system's, naming `path`.
pub fn write_npy<D: Dimension>(path: &Path, array: ArrayView<'_, f32, D>) -> Result<()> {
    Ok(write_atomically(path, |file| {
        write_npy_to(file, array.shape(), array.view())
    })?)
}

/// A large `.npy` written piece by piece without being held; nothing appears at its path before
/// [`NpyStream::finish`].
#[derive(Debug)]
pub struct NpyStream {
    file: AtomicFile,
    path: PathBuf,
    shape: Vec<usize>,
    expected: u64,
    written: u64,
}

impl NpyStream {
    /// Starts an array of the given shape.
    ///
    /// # Errors
    /// The file system's; a shape of more elements than can be counted.
    pub fn create(path: &Path, shape: &[usize]) -> Result<Self> {
        let expected = count(shape).ok_or_else(|| Error::Shape {
            place: path.display().to_string(),
            got: shape.to_vec(),
            expected: "fewer elements".to_owned(),
        })?;
        let mut file = AtomicFile::create(path)?;
        file.write_all(&header_bytes(shape)).map_err(io("write", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            shape: shape.to_vec(),
            expected: expected as u64,
            written: 0,
        })
    }

    /// Appends elements in C order.
    ///
    /// # Errors
    /// The file system's; more elements than the shape has room for.
    pub fn append<D: Dimension>(&mut self, part: ArrayView<'_, f32, D>) -> Result<()> {
        self.written += part.len() as u64;
        if self.written > self.expected {
            return Err(self.wrong_count());
        }
        write_elements(&mut self.file, part).map_err(io("write", &self.path))
    }

    /// Makes the file appear.
    ///
    /// # Errors
    /// The file system's; fewer elements than the shape announces. Nothing appears then.
    pub fn finish(self) -> Result<()> {
        if self.written != self.expected {
            return Err(self.wrong_count());
        }
        Ok(self.file.commit()?)
    }

    fn wrong_count(&self) -> Error {
        Error::Shape {
            place: self.path.display().to_string(),
            got: self.shape.clone(),
            expected: format!("the shape of the {} elements that were appended", self.written),
        }
    }
}

/// Reads an `.npy` from a stream; `length` is the stream's whole length where it is known.
pub(crate) fn read_npy_from(reader: &mut dyn Read, length: Option<u64>, place: &str) -> Result<ArrayD<f32>> {
    let (header, start) = read_header(reader, place)?;
    let width = match header.dtype.as_str() {
        "<f4" => 4,
        "<f8" => 8,
        _ => {
            return Err(Error::Dtype {
                place: place.to_owned(),
                got: header.dtype,
                expected: READABLE,
            });
        }
    };
    let malformed = |fault: String| Error::Malformed {
        place: place.to_owned(),
        format: "npy",
        fault,
    };
    let elements =
        count(&header.shape).filter(|n| n.checked_mul(8).is_some_and(|b| isize::try_from(b).is_ok()));
    let elements = elements.ok_or_else(|| {
        malformed(format!(
            "its header announces the impossible shape {:?}",
            header.shape
        ))
    })?;
    let expected = elements as u64 * width as u64;
    let size = |got| Error::Size {
        place: place.to_owned(),
        expected,
        got,
    };
    if let Some(got) = length
        .map(|l| l.saturating_sub(start))
        .filter(|&got| got != expected)
    {
        return Err(size(got));
    }
    let mut values: Vec<f32> = Vec::new();
    values
        .try_reserve_exact(elements)
        .map_err(|_| malformed(format!("{expected} bytes of data do not fit in memory")))?;
    let mut buffer = vec![0u8; CHUNK];
    let mut remaining = expected;
    while remaining > 0 {
        let part = &mut buffer[..remaining.min(CHUNK as u64) as usize];
        let filled = read_full(reader, part).map_err(|e| malformed(e.to_string()))?;
        if filled < part.len() {
            return Err(size(expected - remaining + filled as u64));
        }
        if width == 4 {
            values.extend(
                part.chunks_exact(4)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            );
        } else {
            let double = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
            values.extend(part.chunks_exact(8).map(|b| double(b) as f32));
        }
        remaining -= filled as u64;
    }
    // Also lets a zip entry check its sum, which happens at its end.
    let beyond = std::io::copy(&mut reader.take(1 << 32), &mut std::io::sink())
        .map_err(|e| malformed(e.to_string()))?;
    if beyond > 0 {
        return Err(size(expected + beyond));
    }
    let shaped = |shape: &[usize], values| {
        ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| malformed(format!("shape {shape:?}: {e}")))
    };
    let array = if header.fortran_order {
        let reversed: Vec<usize> = header.shape.iter().rev().copied().collect();
        shaped(&reversed, values)?
            .reversed_axes()
            .as_standard_layout()
            .into_owned()
    } else {
        shaped(&header.shape, values)?
    };
    check_finite(place, array.view())?;
    Ok(array)
}

/// The header and the number of bytes it took.
pub(crate) fn read_header(reader: &mut dyn Read, place: &str) -> Result<(NpyHeader, u64)> {
    let malformed = |fault: String| Error::Malformed {
        place: place.to_owned(),
        format: "npy",
        fault,
    };
    let mut fill = |buffer: &mut [u8]| match read_full(reader, buffer) {
        Ok(filled) if filled == buffer.len() => Ok(()),
        Ok(_) => Err(malformed("it ends inside its header".to_owned())),
        Err(e) => Err(malformed(e.to_string())),
    };
    let mut prefix = [0u8; 8];
    fill(&mut prefix)?;
    if &prefix[..6] != NPY_MAGIC {
        return Err(malformed(r"it does not begin with \x93NUMPY".to_owned()));
    }
    let (length, prefix_bytes) = match prefix[6] {
        1 => {
            let mut short = [0u8; 2];
            fill(&mut short)?;
            (usize::from(u16::from_le_bytes(short)), 10)
        }
        2 | 3 => {
            let mut long = [0u8; 4];
            fill(&mut long)?;
            (u32::from_le_bytes(long) as usize, 12)
        }
        other => return Err(malformed(format!("format version {other}; expected 1, 2 or 3"))),
    };
    if length > MAX_HEADER {
        return Err(malformed(format!(
            "a header of {length} bytes; expected at most {MAX_HEADER}"
        )));
    }
    let mut text = vec![0u8; length];
    fill(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    let header = parse_dictionary(&text).map_err(malformed)?;
    Ok((header, (prefix_bytes + length) as u64))
}

pub(crate) fn write_npy_to<D: Dimension>(
    writer: &mut dyn Write,
    shape: &[usize],
    array: ArrayView<'_, f32, D>,
) -> std::io::Result<()> {
    writer.write_all(&header_bytes(shape))?;
    write_elements(writer, array)
}

/// Little-endian elements in C order.
pub(crate) fn write_elements<D: Dimension>(
    writer: &mut dyn Write,
    array: ArrayView<'_, f32, D>,
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(CHUNK);
    let mut push = |value: f32| {
        buffer.extend_from_slice(&value.to_le_bytes());
        if buffer.len() == CHUNK {
            writer.write_all(&buffer)?;
            buffer.clear();
        }
        Ok::<(), std::io::Error>(())
    };
    match array.as_slice() {
        Some(slice) => slice.iter().try_for_each(|&v| push(v))?,
        None => array.iter().try_for_each(|&v| push(v))?,
    }
    writer.write_all(&buffer)
}

fn header_bytes(shape: &[usize]) -> Vec<u8> {
    let axes: String = match shape {
        [one] => format!("{one},"),
        many => many
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({axes}), }}");
    // The elements begin at a multiple of 64 bytes, behind a line feed.
    let filled = (10 + text.len() + 1).next_multiple_of(64) - 11;
    text = format!("{text:<filled$}\n");
    let mut bytes = NPY_MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis))
}

/// Fills the buffer as far as the stream goes.
pub(crate) fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }` in any order.
fn parse_dictionary(text: &str) -> std::result::Result<NpyHeader, String> {
    let mut scan = Scan { rest: text };
    let (mut dtype, mut fortran_order, mut shape) = (None, None, None);
    scan.expect('{')?;
    while !scan.take('}') {
        let key = scan.quoted()?;
        scan.expect(':')?;
        match key {
            "descr" if scan.peek('[') => {
                return Err("a structured element type; expected <f4 or <f8".to_owned());
            }
            "descr" => dtype = Some(scan.quoted()?.to_owned()),
            "fortran_order" => fortran_order = Some(scan.boolean()?),
            "shape" => shape = Some(scan.tuple()?),
            other => {
                return Err(format!(
                    "unknown header key `{other}`; expected descr, fortran_order, shape"
                ));
            }
        }
        if !scan.take(',') {
            scan.expect('}')?;
            break;
        }
    }
    match (dtype, fortran_order, shape) {
        (Some(dtype), Some(fortran_order), Some(shape)) => Ok(NpyHeader {
            dtype,
            fortran_order,
            shape,
        }),
        _ => Err("its header lacks one of the keys descr, fortran_order, shape".to_owned()),
    }
}

struct Scan<'a> {
    rest: &'a str,
}

impl<'a> Scan<'a> {
    fn peek(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        self.rest.starts_with(wanted)
    }

    fn take(&mut self, wanted: char) -> bool {
        let found = self.peek(wanted);
        if found {
            self.rest = &self.rest[wanted.len_utf8()..];
        }
        found
    }

    fn expect(&mut self, wanted: char) -> std::result::Result<(), String> {
        if self.take(wanted) {
            Ok(())
        } else {
            Err(self.unexpected(&format!("`{wanted}`")))
        }
    }

    fn unexpected(&self, wanted: &str) -> String {
        let found: String = self
            .rest
            .chars()
            .take(12)
            .flat_map(char::escape_default)
            .collect();
        format!("its header has `{found}` where {wanted} is expected")
    }

    fn quoted(&mut self) -> std::result::Result<&'a str, String> {
        self.rest = self.rest.trim_start();
        let quote = self.rest.chars().next().filter(|c| ['\'', '"'].contains(c));
        let quote = quote.ok_or_else(|| self.unexpected("a quoted word"))?;
        let (word, rest) = self.rest[1..]
            .split_once(quote)
            .ok_or_else(|| self.unexpected("a closed quote"))?;
        self.rest = rest;
        Ok(word)
    }

    fn boolean(&mut self) -> std::result::Result<bool, String> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.unexpected("True or False"))
    }

    fn tuple(&mut self) -> std::result::Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut axes = Vec::new();
        while !self.take(')') {
            self.rest = self.rest.trim_start();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let axis = self.rest[..digits]
                .parse()
                .map_err(|_| self.unexpected("a length"))?;
            axes.push(axis);
            self.rest = &self.rest[digits..];
            // Python 2 wrote long integers with an L.
            self.take('L');
            if !self.take(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(axes)
    }
}
