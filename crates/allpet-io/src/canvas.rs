//! An RGB picture to draw on: rectangles, lines (Bresenham, IBM Syst. J. 4:25, 1965), text.

use crate::error::Result;
use crate::font;
use crate::picture::write_png;
use png::{BitDepth, ColorType};
use std::path::Path;

/// Red, green, blue.
pub type Rgb = [u8; 3];

/// A picture of `width × height` RGB pixels; drawing outside it does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl Canvas {
    /// A picture filled with one colour.
    pub fn new(width: usize, height: usize, background: Rgb) -> Self {
        Self {
            width,
            height,
            pixels: background.repeat(width * height),
        }
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The colour of a pixel inside the picture.
    pub fn get(&self, x: usize, y: usize) -> Option<Rgb> {
        let at = (y * self.width + x) * 3;
        (x < self.width && y < self.height)
            .then(|| [self.pixels[at], self.pixels[at + 1], self.pixels[at + 2]])
    }

    /// Sets a pixel.
    pub fn set(&mut self, x: usize, y: usize, colour: Rgb) {
        if x < self.width && y < self.height {
            let at = (y * self.width + x) * 3;
            self.pixels[at..at + 3].copy_from_slice(&colour);
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Rgb) {
        for row in y..y.saturating_add(height).min(self.height) {
            for column in x..x.saturating_add(width).min(self.width) {
                self.set(column, row, colour);
            }
        }
    }

    /// Draws a line between two pixels inside the picture's range.
    pub fn line(&mut self, from: (usize, usize), to: (usize, usize), colour: Rgb) {
        let (mut x, mut y) = (from.0 as i64, from.1 as i64);
        let (end_x, end_y) = (to.0 as i64, to.1 as i64);
        let (dx, dy) = ((end_x - x).abs(), -(end_y - y).abs());
        let (step_x, step_y) = ((end_x - x).signum(), (end_y - y).signum());
        let mut error = dx + dy;
        loop {
            self.set(x as usize, y as usize, colour);
            if (x, y) == (end_x, end_y) {
                return;
            }
            let doubled = 2 * error;
            if doubled >= dy {
                error += dy;
                x += step_x;
            }
            if doubled <= dx {
                error += dx;
                y += step_y;
            }
        }
    }

    /// Writes text with its upper left corner at a pixel, `scale` pixels per font pixel.
    pub fn text(&mut self, x: usize, y: usize, text: &str, scale: usize, colour: Rgb) {
        for (i, character) in text.chars().enumerate() {
            for row in 0..font::HEIGHT {
                for column in (0..font::WIDTH).filter(|&c| font::is_set(character, c, row)) {
                    let left = x + (i * (font::WIDTH + 1) + column) * scale;
                    self.fill(left, y + row * scale, scale, scale, colour);
                }
            }
        }
    }

    /// Width of a text in pixels.
    pub fn text_width(text: &str, scale: usize) -> usize {
        (text.chars().count() * (font::WIDTH + 1)).saturating_sub(1) * scale
    }

    /// Height of a text in pixels.
    pub fn text_height(scale: usize) -> usize {
        font::HEIGHT * scale
    }

    /// Writes the picture as 8-bit RGB PNG with text chunks, whole or not at all.
    ///
    /// # Errors
    /// An empty or too large picture; the file system's.
    pub fn write(&self, path: &Path, notes: &[(&str, &str)]) -> Result<()> {
        write_png(
            path,
            (self.width, self.height),
            (ColorType::Rgb, BitDepth::Eight),
            &self.pixels,
            notes,
        )
    }
}
