//! Exchange formats of ALL-PET, and the only crate that knows them: NumPy arrays, safetensors datasets, Interfile
//! list-mode and pictures.
//!
//! - Readers judge what a file claims against what is there and refuse NaN; no input makes them panic.
//! - Writers produce whole files or none ([`allpet_core::write_atomically`]), and the same bytes for the same content.
//! - [`detect`] decides what a file is, by content first and extension second.

mod archive;
mod array;
mod axis;
mod canvas;
mod curve;
mod dataset;
mod error;
mod font;
mod format;
mod grid;
mod interfile;
mod listmode;
mod listmode_writer;
mod picture;
mod tensors;

pub use archive::{npz_names, read_npz, read_npz_all, read_npz_headers, write_npz};
pub use array::{NpyHeader, NpyStream, read_npy, read_npy_header, write_npy};
pub use axis::Axis;
pub use canvas::{Canvas, Rgb};
pub use curve::{Curve, CurvePlot};
pub use dataset::{read_dataset, write_dataset};
pub use error::{Error, Result};
pub use format::{Format, NotedSinogram, detect, read_array, read_sinogram, write_array};
pub use grid::{Grid, Tile};
pub use interfile::{InterfileEntry, InterfileHeader};
pub use listmode::{Event, Histogram, HistogramOptions, ListMode, Record, Records, Thinning};
pub use listmode_writer::{Announcement, ListModeWriter};
pub use picture::{Palette, Window, encode_png_mapped, write_png_mapped, write_png16};
pub use tensors::{TensorInfo, Tensors, TensorsHeader, read_metadata, read_tensors, write_tensors};
