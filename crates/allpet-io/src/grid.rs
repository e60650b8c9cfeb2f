//! Several arrays side by side in one picture, with captions.

use crate::canvas::{Canvas, Rgb};
use crate::error::{Result, invalid};
use crate::picture::{Palette, Window, check_size, draw};
use ndarray::ArrayView2;
use std::path::Path;

const BACKGROUND: Rgb = [255, 255, 255];
const INK: Rgb = [40, 40, 40];

/// One picture of a [`Grid`].
#[derive(Debug, Clone)]
pub struct Tile<'a> {
    /// The values, `[row, col]`.
    pub values: ArrayView2<'a, f32>,
    /// Written under it; may be empty.
    pub caption: String,
    /// How it is coloured.
    pub palette: Palette,
    /// Which values are darkest and brightest.
    pub window: Window,
}

impl<'a> Tile<'a> {
    /// A tile in inverted greys over its full range.
    pub fn new(values: ArrayView2<'a, f32>, caption: impl Into<String>) -> Self {
        Self {
            values,
            caption: caption.into(),
            palette: Palette::default(),
            window: Window::default(),
        }
    }

    /// The same in another palette.
    pub fn palette(mut self, palette: Palette) -> Self {
        self.palette = palette;
        self
    }

    /// The same with another window.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }
}

/// Layout of several arrays in rows of `columns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Tiles in a row.
    pub columns: usize,
    /// Pixels around each tile.
    pub gap: usize,
    /// Picture pixels per array element.
    pub upscale: usize,
    /// Picture pixels per font pixel of the captions; 0 leaves them out.
    pub caption_scale: usize,
}

impl Grid {
    /// A grid with gaps of 8 pixels, no enlargement and small captions.
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            gap: 8,
            upscale: 1,
            caption_scale: 2,
        }
    }

    /// Draws the tiles row by row; a cell has the size of the largest tile, smaller ones stand in its middle.
    ///
    /// # Errors
    /// No columns, no tile, a picture too large, NaN.
    pub fn render(&self, tiles: &[Tile<'_>]) -> Result<Canvas> {
        if self.columns == 0 || tiles.is_empty() {
            let fault = format!(
                "{} tiles in {} columns; expected at least 1 in 1",
                tiles.len(),
                self.columns
            );
            return Err(invalid("picture grid", fault));
        }
        let upscale = self.upscale.max(1);
        let widest = tiles
            .iter()
            .map(|t| t.values.ncols())
            .max()
            .unwrap_or(0)
            .saturating_mul(upscale);
        let highest = tiles
            .iter()
            .map(|t| t.values.nrows())
            .max()
            .unwrap_or(0)
            .saturating_mul(upscale);
        check_size(widest, highest)?;
        let captioned = self.caption_scale > 0 && tiles.iter().any(|t| !t.caption.is_empty());
        let caption = if captioned {
            Canvas::text_height(self.caption_scale) + 4
        } else {
            0
        };
        let (cell_width, cell_height) = (widest + self.gap, highest + caption + self.gap);
        let columns = self.columns.min(tiles.len());
        let rows = tiles.len().div_ceil(columns);
        let width = columns.saturating_mul(cell_width).saturating_add(self.gap);
        let height = rows.saturating_mul(cell_height).saturating_add(self.gap);
        check_size(width, height)?;
        let mut canvas = Canvas::new(width, height, BACKGROUND);
        for (i, tile) in tiles.iter().enumerate() {
            let window = tile.window.resolve(tile.values)?;
            let (left, top) = (
                self.gap + i % columns * cell_width,
                self.gap + i / columns * cell_height,
            );
            let corner = (
                left + (widest - tile.values.ncols() * upscale) / 2,
                top + (highest - tile.values.nrows() * upscale) / 2,
            );
            draw(&mut canvas, corner, tile.values, window, tile.palette, upscale);
            if captioned {
                let shown = fitting(&tile.caption, widest + self.gap / 2, self.caption_scale);
                canvas.text(left, top + highest + 4, shown, self.caption_scale, INK);
            }
        }
        Ok(canvas)
    }

    /// [`Grid::render`] into a PNG file; errors as there, and the file system's.
    pub fn write(&self, path: &Path, tiles: &[Tile<'_>]) -> Result<()> {
        self.render(tiles)?.write(path, &[])
    }
}

/// As much of a caption as fits in a width, so that neighbours do not run into each other.
fn fitting(text: &str, width: usize, scale: usize) -> &str {
    let mut shown = text;
    while Canvas::text_width(shown, scale) > width {
        let Some((last, _)) = shown.char_indices().next_back() else {
            break;
        };
        shown = &shown[..last];
    }
    shown
}
