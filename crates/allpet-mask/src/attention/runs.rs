//! A pixel mask as few disjoint rectangles: what a ray crosses exactly, edge by edge.

use allpet_core::ImageGrid;
use ndarray::ArrayView2;

/// A rectangle in mm with its sides along the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Slab {
    pub(crate) x: [f64; 2],
    pub(crate) y: [f64; 2],
}

/// Runs along the rows, joined downward while their ends agree. Together they cover the mask, each pixel once.
pub(crate) fn rectangles(mask: ArrayView2<'_, bool>, grid: &ImageGrid) -> Vec<Slab> {
    let mut done = Vec::new();
    // Runs `[first column, end)` that the row above ended with, and the row each began at.
    let mut open: Vec<([usize; 2], usize)> = Vec::new();
    let slab = |[first, end]: [usize; 2], top: usize, bottom: usize| {
        let x = |col: usize| grid.x_mm(col as f64 - 0.5);
        let y = |row: usize| grid.y_mm(row as f64 - 0.5);
        Slab {
            x: [x(first), x(end)],
            y: [y(bottom), y(top)],
        }
    };
    for (row, line) in mask.rows().into_iter().enumerate() {
        let mut now = Vec::new();
        let mut first = None;
        for (col, &inside) in line.iter().chain(std::iter::once(&false)).enumerate() {
            match (inside, first) {
                (true, None) => first = Some(col),
                (false, Some(from)) => {
                    now.push([from, col]);
                    first = None;
                }
                _ => {}
            }
        }
        let mut next = Vec::with_capacity(now.len());
        for run in &now {
            let began = open.iter().find(|(above, _)| above == run).map_or(row, |o| o.1);
            next.push((*run, began));
        }
        done.extend(
            open.iter()
                .filter(|(run, _)| !now.contains(run))
                .map(|&(run, began)| slab(run, began, row)),
        );
        open = next;
    }
    let rows = mask.nrows();
    done.extend(open.into_iter().map(|(run, began)| slab(run, began, rows)));
    done
}
