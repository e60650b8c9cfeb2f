//! Arrays as PNG pictures inside the page: 255 levels of a colour map, so that zero of a symmetric window is one of them.
//!
//! Large arrays are averaged by area first: each pixel of the picture is the mean of what it covers, parts of pixels
//! included.

use crate::fault::{Fault, Result};
use allpet::io::{Palette, Rgb, Window};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ndarray::{Array2, ArrayView2};
use png::{BitDepth, ColorType, Encoder};

/// Longest side of a picture, which keeps a page of them small.
pub(super) const LONGEST: usize = 256;
const LEVELS: usize = 255;

/// How values become colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColourMap {
    /// White to black, as PET is read.
    Intensity,
    /// Blue below zero, near white at zero, red above (ColorBrewer RdBu, told apart also by the colour-blind).
    Error,
}

impl ColourMap {
    fn colour(self, level: f64) -> Rgb {
        match self {
            Self::Intensity => Palette::InvertedGrey.colour(level),
            Self::Error => colorous::RED_BLUE.eval_continuous(1.0 - level).as_array(),
        }
    }
}

/// A picture as it stands in the page.
#[derive(Debug)]
pub(super) struct Picture {
    /// `data:image/png;base64,..`
    pub(super) uri: String,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// The values as a picture; those outside the window take the colour of its end.
pub(super) fn picture(values: ArrayView2<'_, f32>, window: (f32, f32), map: ColourMap) -> Result<Picture> {
    let (low, high) = (f64::from(window.0), f64::from(window.1));
    let top = (LEVELS - 1) as f64;
    let levels: Vec<u8> = values
        .iter()
        .map(|&v| (((f64::from(v) - low) / (high - low)).clamp(0.0, 1.0) * top).round() as u8)
        .collect();
    let palette: Vec<u8> = (0..LEVELS).flat_map(|i| map.colour(i as f64 / top)).collect();
    let (height, width) = values.dim();
    let uri = encode(&levels, (width, height), palette)
        .map_err(|e| Fault::Other(format!("a picture of the report: {e}")))?;
    Ok(Picture { uri, width, height })
}

/// The colour map from its lowest to its highest colour.
pub(super) fn bar(map: ColourMap) -> Result<Picture> {
    let levels = Array2::from_shape_fn((1, LEVELS), |(_, i)| i as f32);
    picture(levels.view(), (0.0, (LEVELS - 1) as f32), map)
}

fn encode(
    levels: &[u8],
    (width, height): (usize, usize),
    palette: Vec<u8>,
) -> Result<String, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width as u32, height as u32);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(levels)?;
    writer.finish()?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(bytes)))
}

/// 0 to the 99.5th percentile of the reference, for every picture that is compared with it.
pub(super) fn window_of(reference: ArrayView2<'_, f32>) -> Result<(f32, f32)> {
    Ok(Window::Robust.resolve(reference)?)
}

/// Zero in the middle, the 99.5th percentile of the size at the ends; `None` where all is zero.
pub(super) fn symmetric(errors: ArrayView2<'_, f32>) -> Option<f32> {
    let mut sizes: Vec<f32> = errors.iter().map(|e| e.abs()).collect();
    let rank = (sizes.len().checked_sub(1)?) * 995 / 1000;
    let high = *sizes.select_nth_unstable_by(rank, f32::total_cmp).1;
    let largest = sizes.iter().copied().fold(0.0, f32::max);
    // Fewer than one pixel in 200 may differ: then the largest.
    [high, largest].into_iter().find(|&e| e > 0.0)
}

/// The array with no side above [`LONGEST`].
pub(super) fn averaged(values: ArrayView2<'_, f32>) -> Array2<f32> {
    let (rows, cols) = values.dim();
    let (height, width) = shrunk((rows, cols));
    if (height, width) == (rows, cols) {
        return values.to_owned();
    }
    let (down, across) = (shares(rows, height), shares(cols, width));
    let mut narrow = Array2::<f64>::zeros((rows, width));
    for (col, parts) in across.iter().enumerate() {
        for &(from, share) in parts {
            for row in 0..rows {
                narrow[[row, col]] += share * f64::from(values[[row, from]]);
            }
        }
    }
    Array2::from_shape_fn((height, width), |(row, col)| {
        let sum: f64 = down[row]
            .iter()
            .map(|&(from, share)| share * narrow[[from, col]])
            .sum();
        sum as f32
    })
}

/// Rows and columns of the picture of an array.
pub(super) fn shrunk((rows, cols): (usize, usize)) -> (usize, usize) {
    let longest = rows.max(cols);
    if longest <= LONGEST {
        return (rows, cols);
    }
    let side = |n: usize| ((n * LONGEST + longest / 2) / longest).max(1);
    (side(rows), side(cols))
}

/// For each of `to` equal parts of a line of `from` pixels: the pixels it covers and their shares of it.
fn shares(from: usize, to: usize) -> Vec<Vec<(usize, f64)>> {
    // In units of 1/to of a pixel, every edge is a whole number.
    (0..to)
        .map(|part| {
            let (start, end) = (part * from, (part + 1) * from);
            (start / to..end.div_ceil(to))
                .map(|pixel| {
                    let covered = end.min((pixel + 1) * to) - start.max(pixel * to);
                    (pixel, covered as f64 / from as f64)
                })
                .collect()
        })
        .collect()
}
