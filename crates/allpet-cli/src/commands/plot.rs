//! `allpet plot`: arrays as pictures.

use crate::fault::{Result, given};
use crate::options::Span;
use crate::output;
use crate::report::Report;
use allpet::io::{
    Format, Grid, Palette, Tile, Window, detect, read_dataset, read_npy, read_npz_all, write_png_mapped,
    write_png16,
};
use ndarray::{Array2, ArrayD, Ix3};
use serde_json::json;
use std::path::PathBuf;

/// Most arrays in one picture.
const SHOWN: usize = 16;
/// Small arrays are enlarged until their longer side has about so many pixels.
const SIDE: usize = 512;

/// Draw an array, or the first 16 of several, as a PNG
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Array [.., row, col] as .npy or .npz (every array in it), or a dataset .safetensors
    #[arg(long = "in", value_name = "ARRAY")]
    input: PathBuf,
    /// Picture, .png
    #[arg(long)]
    out: PathBuf,
    /// Colours: magma, viridis, grey, inverted or blue-red
    #[arg(long, default_value = "magma")]
    palette: Palette,
    /// Values from darkest to brightest, a..b [default: 0 to the 99.5th percentile; the full range with --grey16]
    #[arg(long, value_name = "A..B", allow_hyphen_values = true)]
    window: Option<Span<f32>>,
    /// 16-bit grey with a linear window, for a single array
    #[arg(long, conflicts_with = "palette")]
    grey16: bool,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        output::file(&self.out, &[Format::Png])?;
        let arrays = self.read()?;
        let slices: Vec<(String, Array2<f32>)> = arrays.into_iter().flat_map(|(n, a)| split(&n, a)).collect();
        let total = slices.len();
        let given_window = self.window.map(|w| Window::Fixed(w.from, w.to));
        let shown = match slices.as_slice() {
            [] => {
                return given(format!(
                    "{}: nothing to draw; expected an array [.., row, col] with at least 1 element",
                    self.input.display()
                ));
            }
            [(_, one)] => {
                let window = given_window.unwrap_or(if self.grey16 { Window::Full } else { Window::Robust });
                let upscale = (SIDE / one.nrows().max(one.ncols())).max(1);
                let used = match self.grey16 {
                    true => write_png16(&self.out, one.view(), window, upscale)?,
                    false => write_png_mapped(&self.out, one.view(), window, self.palette, upscale)?,
                };
                return Ok(Report::new(
                    json!({ "out": self.out, "shown": 1, "of": 1, "window": [used.0, used.1] }),
                    format!(
                        "{}: {} from {} to {}",
                        self.out.display(),
                        output::by(one.shape()),
                        used.0,
                        used.1
                    ),
                ));
            }
            _ if self.grey16 => {
                return given(format!(
                    "{}: holds {total} arrays; expected a single one with --grey16",
                    self.input.display()
                ));
            }
            several => &several[..SHOWN.min(total)],
        };
        let window = given_window.unwrap_or(Window::Robust);
        let tiles: Vec<Tile<'_>> = shown
            .iter()
            .map(|(name, values)| {
                Tile::new(values.view(), name.as_str())
                    .palette(self.palette)
                    .window(window)
            })
            .collect();
        let side = shown
            .iter()
            .map(|(_, v)| v.nrows().max(v.ncols()))
            .max()
            .unwrap_or(1);
        let grid = Grid {
            upscale: (SIDE / 2 / side).max(1),
            ..Grid::new(columns(shown.len()))
        };
        grid.write(&self.out, &tiles)?;
        Ok(Report::new(
            json!({ "out": self.out, "shown": shown.len(), "of": total }),
            format!("{}: {} of {total} arrays", self.out.display(), shown.len()),
        ))
    }

    fn read(&self) -> Result<Vec<(String, ArrayD<f32>)>> {
        Ok(match detect(&self.input)? {
            Format::Npy => vec![(String::new(), read_npy(&self.input)?)],
            Format::Npz => read_npz_all(&self.input)?,
            Format::Safetensors => read_dataset(&self.input)?.arrays.into_iter().collect(),
            other => {
                return given(format!(
                    "{}: is {other}; expected .npy, .npz or a dataset .safetensors",
                    self.input.display()
                ));
            }
        })
    }
}

/// The first slices `[row, col]` of an array, with names; those of fewer axes have none.
fn split(name: &str, array: ArrayD<f32>) -> Vec<(String, Array2<f32>)> {
    let &[.., rows, cols] = array.shape() else {
        return Vec::new();
    };
    if array.is_empty() {
        return Vec::new();
    }
    let count = array.len() / (rows * cols);
    let batch = array.ndim() > 2;
    let Ok(stack) = array
        .as_standard_layout()
        .into_owned()
        .into_shape_with_order((count, rows, cols))
    else {
        return Vec::new();
    };
    let stack: ndarray::Array<f32, Ix3> = stack;
    let caption = |i: usize| match (name.is_empty(), batch) {
        (_, false) => name.to_owned(),
        (true, true) => i.to_string(),
        (false, true) => format!("{name} {i}"),
    };
    stack
        .outer_iter()
        .enumerate()
        .map(|(i, slice)| (caption(i), slice.to_owned()))
        .collect()
}

/// As square as it gets.
fn columns(count: usize) -> usize {
    (1..=count).find(|c| c * c >= count).unwrap_or(1)
}
