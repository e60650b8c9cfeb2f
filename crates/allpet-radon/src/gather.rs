//! Runs the gathering kernel over an image: lines in parallel, one slice or sixteen at a time.

use crate::pool::Pool;
use crate::simd::{LANES, Level};
use crate::slices::{Separate, alike};
use crate::tent::{GatherLines, GatherSlices, LINES, Target, Tents};
use rayon::prelude::*;

/// The views that walk rows and those that walk columns.
#[derive(Debug, Clone)]
pub(crate) struct Gathering {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) straight: Tents,
    pub(crate) turned: Tents,
}

impl Gathering {
    /// One image from one padded source.
    pub(crate) fn one(&self, level: Level, pool: &Pool, source: &[f32], image: &mut [f32]) {
        let (rows, cols) = (self.rows, self.cols);
        let wide = |pixels: usize| pixels.div_ceil(LANES) * LANES;
        // Columns first, as lines of rows; then rows, which take the columns up.
        let mut columns = pool.zeros(if self.turned.is_empty() {
            0
        } else {
            cols * wide(rows)
        });
        add_lines(level, &self.turned, source, rows, &mut columns);
        let columns = &*columns;
        image
            .par_chunks_mut(LINES * cols)
            .enumerate()
            .for_each(|(tile, image)| {
                let mut lines = pool.zeros(image.len() / cols * wide(cols));
                tile_of_lines(level, &self.straight, source, tile, cols, &mut lines);
                for (l, (row, line)) in image
                    .chunks_exact_mut(cols)
                    .zip(lines.chunks_exact(wide(cols)))
                    .enumerate()
                {
                    row.copy_from_slice(&line[..cols]);
                    for (value, column) in row.iter_mut().zip(columns.chunks_exact(wide(rows))) {
                        *value += column[tile * LINES + l];
                    }
                }
            });
    }

    /// Up to sixteen images from a padded source with slices innermost.
    pub(crate) fn many(&self, level: Level, pool: &Pool, source: &[f32], images: &mut [f32]) {
        let (rows, cols) = (self.rows, self.cols);
        let source = source.as_chunks().0;
        let mut columns = pool.zeros(if self.turned.is_empty() {
            0
        } else {
            cols * rows * LANES
        });
        let columns: &mut [[f32; LANES]] = columns.as_chunks_mut().0;
        add_slices(level, &self.turned, source, rows, columns);
        let columns = &*columns;
        alike(images, rows * cols, LINES * cols)
            .into_par_iter()
            .enumerate()
            .for_each(|(tile, mut images)| {
                let mut buffer = pool.zeros(images.first().map_or(0, |i| i.len()) * LANES);
                let sums: &mut [[f32; LANES]] = buffer.as_chunks_mut().0;
                tile_of_slices(level, &self.straight, source, tile, cols, sums);
                for (l, row) in sums.chunks_exact_mut(cols).enumerate() {
                    for (value, column) in row.iter_mut().zip(columns.chunks_exact(rows)) {
                        let column = &column[tile * LINES + l];
                        value.iter_mut().zip(column).for_each(|(v, c)| *v += c);
                    }
                }
                level.run(Separate {
                    from: sums,
                    slices: &mut images,
                });
            });
    }
}

/// Adds all views to all lines of an image of one slice, each line in whole blocks of pixels.
pub(crate) fn add_lines(level: Level, tents: &Tents, source: &[f32], pixels: usize, lines: &mut [f32]) {
    lines
        .par_chunks_mut(LINES * pixels.div_ceil(LANES) * LANES)
        .enumerate()
        .for_each(|(tile, lines)| tile_of_lines(level, tents, source, tile, pixels, lines));
}

fn tile_of_lines(level: Level, tents: &Tents, source: &[f32], tile: usize, pixels: usize, lines: &mut [f32]) {
    level.run(GatherLines {
        tents,
        target: Target {
            first_line: tile * LINES,
            pixels,
        },
        source,
        lines: lines.as_chunks_mut().0,
        blocks: pixels.div_ceil(LANES),
    });
}

/// The same for sixteen slices, innermost.
pub(crate) fn add_slices(
    level: Level,
    tents: &Tents,
    source: &[[f32; LANES]],
    pixels: usize,
    lines: &mut [[f32; LANES]],
) {
    lines
        .par_chunks_mut(LINES * pixels)
        .enumerate()
        .for_each(|(tile, lines)| tile_of_slices(level, tents, source, tile, pixels, lines));
}

fn tile_of_slices(
    level: Level,
    tents: &Tents,
    source: &[[f32; LANES]],
    tile: usize,
    pixels: usize,
    lines: &mut [[f32; LANES]],
) {
    level.run(GatherSlices {
        tents,
        target: Target {
            first_line: tile * LINES,
            pixels,
        },
        source,
        lines,
    });
}
