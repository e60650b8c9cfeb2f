//! The outline of the body on a coarse image: cold lesions are looked for inside it only.
//!
//! Threshold, largest component, holes filled (J. Serra, "Image Analysis and Mathematical Morphology", 1982), then
//! eroded by a disc: near the border partial volume makes healthy tissue look cold.

use super::components::{Connectivity, label_components};
use super::threshold::{Side, Threshold};
use allpet_core::ImageGrid;
use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

/// How the body is found on the image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Body {
    /// What is brighter than this belongs to the body; statistics over the whole image.
    pub level: Threshold,
    /// How far inside its border the search begins, in mm, 0 or more.
    pub margin_mm: f64,
}

impl Default for Body {
    /// Above 0.3 of the image's mean, 8 mm inside.
    ///
    /// The mean, because the maximum is that of a bladder or a kidney, beside which the body itself is dark.
    fn default() -> Self {
        Self {
            level: Threshold::OfMean { fraction: 0.3 },
            margin_mm: 8.0,
        }
    }
}

impl Body {
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = self.level.faults("body outline");
        if !(self.margin_mm.is_finite() && self.margin_mm >= 0.0) {
            faults.push(format!(
                "body outline: margin of {} mm; expected 0 or more",
                self.margin_mm
            ));
        }
        faults
    }

    /// The outline's inside, filled and eroded.
    pub(crate) fn find(&self, image: ArrayView2<'_, f32>, grid: &ImageGrid) -> Array2<bool> {
        let everywhere = Array2::from_elem(image.dim(), true);
        let level = self.level.level(image, everywhere.view(), grid, Side::Above);
        let bright = level.select(image, everywhere.view(), Side::Above);
        let body = fill_holes(label_components(bright.view(), Connectivity::Eight).largest());
        erode(&body, self.margin_mm / grid.pixel_mm)
    }
}

/// Fills what the mask surrounds: background that no path of shared sides joins to the image's border.
fn fill_holes(mask: Array2<bool>) -> Array2<bool> {
    let (rows, cols) = mask.dim();
    let outside = label_components(mask.mapv(|v| !v).view(), Connectivity::Four);
    let mut open = vec![false; outside.pixels.len() + 1];
    for ((row, col), &label) in outside.labels.indexed_iter() {
        if row == 0 || col == 0 || row + 1 == rows || col + 1 == cols {
            open[label as usize] = true;
        }
    }
    outside.labels.mapv(|label| label == 0 || !open[label as usize])
}

/// Keeps the pixels whose disc of `radius` pixels lies inside the mask; outside the image there is no body.
fn erode(mask: &Array2<bool>, radius: f64) -> Array2<bool> {
    let (rows, cols) = mask.dim();
    let reach = (radius.floor() as usize).min(rows.max(cols));
    // Half-widths of the disc's rows.
    let widths: Vec<isize> = (0..=reach)
        .map(|dy| (radius * radius - (dy * dy) as f64).max(0.0).sqrt().floor() as isize)
        .collect();
    // Length of the mask's run that ends at a pixel, from the left and from the right.
    let mut runs = Array2::from_elem((rows, cols), (0_isize, 0_isize));
    for row in 0..rows {
        let (mut left, mut right) = (0, 0);
        for col in 0..cols {
            left = if mask[[row, col]] { left + 1 } else { 0 };
            runs[[row, col]].0 = left;
            let back = cols - 1 - col;
            right = if mask[[row, back]] { right + 1 } else { 0 };
            runs[[row, back]].1 = right;
        }
    }
    Array2::from_shape_fn((rows, cols), |(row, col)| {
        widths.iter().enumerate().all(|(dy, &half)| {
            [row.checked_sub(dy), Some(row + dy)].into_iter().all(|at| {
                at.and_then(|r| runs.get([r, col]))
                    .is_some_and(|&(left, right)| left > half && right > half)
            })
        })
    })
}
