//! Arrays as PNG pictures: 16-bit grey with a linear window, or through a colour map as 8-bit RGB in a file or as 255
//! indexed colours in memory.
//!
//! In a file the window is kept in the text chunk `window` as `low high`, so that grey levels can be turned back into values.

use crate::canvas::{Canvas, Rgb};
use crate::error::{Result, invalid};
use allpet_core::{check_finite, write_atomically};
use ndarray::ArrayView2;
use png::{BitDepth, ColorType, Encoder, EncodingError};
use std::io::Write;
use std::path::Path;
use std::str::FromStr;

/// How values become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Palette {
    /// Black to white.
    Grey,
    /// White to black, as PET is read.
    #[default]
    InvertedGrey,
    /// Black through purple to cream.
    Magma,
    /// Purple through green to yellow.
    Viridis,
    /// Blue through near white in the middle to red, for signed values in [`Window::Symmetric`] (ColorBrewer's RdBu,
    /// told apart also by the colour-blind).
    BlueRed,
}

impl Palette {
    /// Every palette.
    pub const ALL: &'static [Self] = &[
        Self::Grey,
        Self::InvertedGrey,
        Self::Magma,
        Self::Viridis,
        Self::BlueRed,
    ];

    /// The word used on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::Grey => "grey",
            Self::InvertedGrey => "inverted",
            Self::Magma => "magma",
            Self::Viridis => "viridis",
            Self::BlueRed => "blue-red",
        }
    }

    /// The colour of a level from 0 to 1; levels outside are clipped.
    pub fn colour(self, level: f64) -> Rgb {
        let level = level.clamp(0.0, 1.0);
        let grey = (level * 255.0).round() as u8;
        match self {
            Self::Grey => [grey; 3],
            Self::InvertedGrey => [255 - grey; 3],
            Self::Magma => colorous::MAGMA.eval_continuous(level).as_array(),
            Self::Viridis => colorous::VIRIDIS.eval_continuous(level).as_array(),
            Self::BlueRed => colorous::RED_BLUE.eval_continuous(1.0 - level).as_array(),
        }
    }
}

impl FromStr for Palette {
    type Err = allpet_core::Error;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .copied()
            .find(|p| p.id() == word)
            .ok_or_else(|| allpet_core::Error::UnknownWord {
                what: "palette",
                word: word.to_owned(),
                known: Self::ALL.iter().map(|p| p.id()).collect::<Vec<_>>().join(", "),
            })
    }
}

/// Which values become the darkest and the brightest.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Window {
    /// The smallest to the largest value.
    #[default]
    Full,
    /// 0 to the 99.5th percentile, as PET is shown: neither noise below 0 nor a few hot pixels flatten the rest.
    /// Where that percentile is not positive, from the smallest value.
    Robust,
    /// 0 in the middle and the 99.5th percentile of the values' size at both ends, for signed values. Where that
    /// percentile is 0, the largest size; where that is 0 too, 1.
    Symmetric,
    /// From one value to another.
    Fixed(f32, f32),
}

impl Window {
    /// The two values for an array; they differ.
    ///
    /// # Errors
    /// NaN or infinity in the array or in the window.
    pub fn resolve(self, values: ArrayView2<'_, f32>) -> Result<(f32, f32)> {
        check_finite("picture", values.view())?;
        let extremes = || {
            values
                .iter()
                .fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), &v| {
                    (a.min(v), b.max(v))
                })
        };
        let (low, high) = match self {
            Self::Fixed(low, high) if low.is_finite() && high.is_finite() => (low, high),
            Self::Fixed(low, high) => {
                return Err(invalid(
                    "window",
                    format!("{low} to {high}; expected finite numbers"),
                ));
            }
            _ if values.is_empty() => (0.0, 1.0),
            Self::Full => extremes(),
            Self::Robust => {
                let high = percentile_995(values.iter().copied().collect());
                (if high > 0.0 { 0.0 } else { extremes().0 }, high)
            }
            Self::Symmetric => {
                let sizes = || values.iter().map(|v| v.abs());
                // Fewer than one value in 200 may differ from 0: then the largest.
                let ends = [percentile_995(sizes().collect()), sizes().fold(0.0, f32::max)];
                let end = ends.into_iter().find(|&e| e > 0.0).unwrap_or(1.0);
                (-end, end)
            }
        };
        // A flat picture has no width of its own; 1 shows it evenly, or the next value where 1 is too little to differ.
        Ok(if high > low {
            (low, high)
        } else {
            (low, (low + 1.0).max(low.next_up()))
        })
    }
}

/// The 99.5th percentile, by nearest rank, of one value or more.
fn percentile_995(mut values: Vec<f32>) -> f32 {
    let rank = (values.len() - 1) * 995 / 1000;
    *values.select_nth_unstable_by(rank, f32::total_cmp).1
}

/// Writes 16-bit grey: 0 is the window's low end, 65535 its high end. Each value becomes `upscale²` pixels. Returns
/// the window.
///
/// # Errors
/// An array without pixels, NaN; the file system's.
pub fn write_png16(
    path: &Path,
    values: ArrayView2<'_, f32>,
    window: Window,
    upscale: usize,
) -> Result<(f32, f32)> {
    let (low, high) = window.resolve(values)?;
    let (rows, cols) = values.dim();
    let upscale = upscale.max(1);
    let (width, height) = enlarged(rows, cols, upscale)?;
    let mut bytes = Vec::with_capacity(width * height * 2);
    for y in 0..height {
        for x in 0..width {
            let level = level(values[[y / upscale, x / upscale]], (low, high));
            bytes.extend_from_slice(&((level * 65535.0).round() as u16).to_be_bytes());
        }
    }
    let note = format!("{low} {high}");
    write_png(
        path,
        (width, height),
        (ColorType::Grayscale, BitDepth::Sixteen),
        &bytes,
        &[("window", &note)],
    )?;
    Ok((low, high))
}

/// Writes 8-bit RGB through a palette, otherwise as [`write_png16`].
///
/// # Errors
/// Those of [`write_png16`].
pub fn write_png_mapped(
    path: &Path,
    values: ArrayView2<'_, f32>,
    window: Window,
    palette: Palette,
    upscale: usize,
) -> Result<(f32, f32)> {
    let (low, high) = window.resolve(values)?;
    let (rows, cols) = values.dim();
    let (width, height) = enlarged(rows, cols, upscale.max(1))?;
    let mut canvas = Canvas::new(width, height, [0; 3]);
    draw(&mut canvas, (0, 0), values, (low, high), palette, upscale.max(1));
    canvas.write(
        path,
        &[("window", &format!("{low} {high}")), ("palette", palette.id())],
    )?;
    Ok((low, high))
}

/// A PNG in memory, one pixel per value, as a page embeds it: 255 indexed colours of a palette, an odd number so that
/// the middle of a window has a colour of its own. Values outside the window take the colour of its end.
///
/// # Errors
/// An array without pixels or with too many, NaN.
pub fn encode_png_mapped(values: ArrayView2<'_, f32>, window: Window, palette: Palette) -> Result<Vec<u8>> {
    const TOP: u8 = 254;
    let window = window.resolve(values)?;
    let (height, width) = values.dim();
    check_size(width, height)?;
    let levels: Vec<u8> = values
        .iter()
        .map(|&v| (level(v, window) * f64::from(TOP)).round() as u8)
        .collect();
    let colours = (0..=TOP)
        .flat_map(|i| palette.colour(f64::from(i) / f64::from(TOP)))
        .collect();
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_palette::<Vec<u8>>(colours);
    encode(encoder, (ColorType::Indexed, BitDepth::Eight), &levels)
        .map_err(|fault| invalid("picture", fault.to_string()))?;
    Ok(file)
}

/// Draws an array with its upper left corner at a pixel.
pub(crate) fn draw(
    canvas: &mut Canvas,
    (left, top): (usize, usize),
    values: ArrayView2<'_, f32>,
    window: (f32, f32),
    palette: Palette,
    upscale: usize,
) {
    for ((row, col), &value) in values.indexed_iter() {
        let colour = palette.colour(level(value, window));
        canvas.fill(
            left + col * upscale,
            top + row * upscale,
            upscale,
            upscale,
            colour,
        );
    }
}

/// A PNG file with text chunks, whole or not at all.
pub(crate) fn write_png(
    path: &Path,
    (width, height): (usize, usize),
    format: (ColorType, BitDepth),
    bytes: &[u8],
    notes: &[(&str, &str)],
) -> Result<()> {
    check_size(width, height)?;
    Ok(write_atomically(path, |file| {
        let mut encoder = Encoder::new(file, width as u32, height as u32);
        for (key, text) in notes {
            encoder.add_itxt_chunk((*key).to_owned(), (*text).to_owned())?;
        }
        Ok(encode(encoder, format, bytes)?)
    })?)
}

/// The one place that encodes PNG.
fn encode<W: Write>(
    mut encoder: Encoder<'_, W>,
    (colour, depth): (ColorType, BitDepth),
    bytes: &[u8],
) -> Result<(), EncodingError> {
    encoder.set_color(colour);
    encoder.set_depth(depth);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    writer.finish()
}

fn enlarged(rows: usize, cols: usize, upscale: usize) -> Result<(usize, usize)> {
    let (width, height) = (cols.saturating_mul(upscale), rows.saturating_mul(upscale));
    check_size(width, height)?;
    Ok((width, height))
}

pub(crate) fn check_size(width: usize, height: usize) -> Result<()> {
    // Pictures are for eyes; more than this is a mistake and would not fit in memory.
    const MAX: usize = 1 << 28;
    if width == 0 || height == 0 || width.saturating_mul(height) > MAX {
        return Err(invalid(
            "picture",
            format!("{width} x {height} pixels; expected 1 to {MAX} in all"),
        ));
    }
    Ok(())
}

fn level(value: f32, (low, high): (f32, f32)) -> f64 {
    ((f64::from(value) - f64::from(low)) / (f64::from(high) - f64::from(low))).clamp(0.0, 1.0)
}
