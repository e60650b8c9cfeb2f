//! The truth about the lesions a slice cuts: where, how large, how hot, and in what.

use super::pair::{Pair, Scene};
use crate::tracer::KBQ_PER_ML_PER_SUV;
use allpet_core::ImageGrid;
use ndarray::{Array2, ArrayViewMutD};

/// Rows of a slice in the array `lesions`; rows without a lesion are 0 throughout.
pub const MAX_LESIONS: usize = 16;

/// Columns before those of the targets: centre x, y in mm, half axes in mm, rotation in degrees.
const SHAPE_COLUMNS: usize = 5;

/// Number of columns for so many targets.
pub(crate) fn columns(targets: usize) -> usize {
    SHAPE_COLUMNS + 2 * targets
}

/// Names of the columns, for the metadata.
pub(crate) fn column_names(targets: usize) -> String {
    let mut names = vec!["x_mm", "y_mm", "a_mm", "b_mm", "rotation_deg"]
        .into_iter()
        .map(str::to_owned)
        .collect::<Vec<_>>();
    match targets {
        1 => names.extend(["value", "host"].map(str::to_owned)),
        _ => names.extend((0..targets).flat_map(|t| [format!("value_{t}"), format!("host_{t}")])),
    }
    names.join(",")
}

/// Fills `lesions` `[MAX_LESIONS, columns]`: the ellipse that the slice cuts, in the image's own frame, then for each
/// target the lesion's value and that of the tissue it grew in, in the image's unit.
///
/// A lesion that the tracer does not show has its host's value.
pub(crate) fn table(scene: &Scene<'_>, pair: &Pair, rows: &mut ArrayViewMutD<'_, f32>) {
    let (sin, cos) = scene.pose.rotation_rad.sin_cos();
    let section = &scene.section;
    let lesions = section.lesions().iter().zip(section.lesion_numbers());
    for (mut row, (lesion, &number)) in rows.outer_iter_mut().zip(lesions) {
        let [x, y, h] = lesion.centre_mm;
        let [a, b, c] = lesion.radii_mm;
        let cut = (1.0 - ((section.height_mm() - h) / c).powi(2)).max(0.0).sqrt();
        let (u, v) = (f64::from(x), f64::from(y));
        row[[0]] = (cos * u - sin * v + scene.pose.shift_mm[0]) as f32;
        row[[1]] = (sin * u + cos * v + scene.pose.shift_mm[1]) as f32;
        row[[2]] = a * cut;
        row[[3]] = b * cut;
        row[[4]] = scene.pose.rotation_rad.to_degrees() as f32;
        for (t, target) in pair.targets.iter().enumerate() {
            let unit = KBQ_PER_ML_PER_SUV
                * target.weight
                * target.uptake.lobe(section.part(), x, y, section.height_mm());
            let host = target.uptake.suv(lesion.host);
            let value = target.uptake.lesion_suv(number, lesion).unwrap_or(host);
            row[[SHAPE_COLUMNS + 2 * t]] = value * unit;
            row[[SHAPE_COLUMNS + 2 * t + 1]] = host * unit;
        }
    }
}

/// The label of each pixel: 0, or 1 + the row of the lesion its centre lies in.
pub(crate) fn labels(scene: &Scene<'_>, grid: ImageGrid) -> Array2<f32> {
    let (sin, cos) = scene.pose.rotation_rad.sin_cos();
    let [dx, dy] = scene.pose.shift_mm;
    Array2::from_shape_fn(grid.shape(), |(r, c)| {
        let (u, v) = (grid.x_mm(c as f64) - dx, grid.y_mm(r as f64) - dy);
        let (x, y) = ((cos * u + sin * v) as f32, (cos * v - sin * u) as f32);
        match scene.section.lesion_at(x, y) {
            Some(row) if row < MAX_LESIONS && scene.section.tissue(x, y).index() != 0 => (row + 1) as f32,
            _ => 0.0,
        }
    })
}
