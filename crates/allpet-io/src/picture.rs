//! Arrays as PNG pictures: 16-bit grey with a linear window, or 8-bit RGB through a colour map.
//!
//! The window is kept in the text chunk `window` as `low high`, so that grey levels can be turned back into values.

use crate::canvas::{Canvas, Rgb};
use crate::error::{Result, invalid};
use allpet_core::{check_finite, write_atomically};
use ndarray::ArrayView2;
use png::{BitDepth, ColorType, Encoder};
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
}

impl Palette {
    /// Every palette.
    pub const ALL: &'static [Self] = &[Self::Grey, Self::InvertedGrey, Self::Magma, Self::Viridis];

    /// The word used on the command line.
    pub fn id(self) -> &'static str {
        match self {
            Self::Grey => "grey",
            Self::InvertedGrey => "inverted",
            Self::Magma => "magma",
            Self::Viridis => "viridis",
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
                let mut sorted: Vec<f32> = values.iter().copied().collect();
                let rank = (sorted.len() - 1) * 995 / 1000;
                let high = *sorted.select_nth_unstable_by(rank, f32::total_cmp).1;
                (if high > 0.0 { 0.0 } else { extremes().0 }, high)
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

/// The one place that encodes PNG.
pub(crate) fn write_png(
    path: &Path,
    (width, height): (usize, usize),
    (colour, depth): (ColorType, BitDepth),
    bytes: &[u8],
    notes: &[(&str, &str)],
) -> Result<()> {
    check_size(width, height)?;
    Ok(write_atomically(path, |file| {
        let mut encoder = Encoder::new(file, width as u32, height as u32);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        for (key, text) in notes {
            encoder.add_itxt_chunk((*key).to_owned(), (*text).to_owned())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        Ok(writer.finish()?)
    })?)
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
