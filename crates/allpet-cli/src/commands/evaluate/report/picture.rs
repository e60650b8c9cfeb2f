//! Arrays as PNG pictures inside the page.
//!
//! Large arrays are averaged by area first: each pixel of the picture is the mean of what it covers, parts of pixels
//! included.

use crate::fault::Result;
use allpet::io::{Palette, Window, encode_png_mapped};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ndarray::{Array2, ArrayView2};

/// Longest side of a picture, which keeps a page of them small.
pub(super) const LONGEST: usize = 256;
/// White to black, as PET is read.
pub(super) const INTENSITY: Palette = Palette::InvertedGrey;
/// Of signed errors.
pub(super) const ERROR: Palette = Palette::BlueRed;

/// A picture as it stands in the page.
#[derive(Debug)]
pub(super) struct Picture {
    /// `data:image/png;base64,..`
    pub(super) uri: String,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// The values as a picture; those outside the window take the colour of its end.
pub(super) fn picture(values: ArrayView2<'_, f32>, window: (f32, f32), palette: Palette) -> Result<Picture> {
    let file = encode_png_mapped(values, Window::Fixed(window.0, window.1), palette)?;
    let (height, width) = values.dim();
    let uri = format!("data:image/png;base64,{}", STANDARD.encode(file));
    Ok(Picture { uri, width, height })
}

/// A palette from its lowest to its highest colour.
pub(super) fn bar(palette: Palette) -> Result<Picture> {
    let levels = Array2::from_shape_fn((1, 255), |(_, i)| i as f32);
    picture(levels.view(), (0.0, 254.0), palette)
}

/// 0 to the 99.5th percentile of the reference, for every picture that is compared with it.
pub(super) fn window_of(reference: ArrayView2<'_, f32>) -> Result<(f32, f32)> {
    Ok(Window::Robust.resolve(reference)?)
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
