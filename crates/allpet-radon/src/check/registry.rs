//! Every operator of this crate on geometries that have nothing round about them.

use crate::operators::{Attenuation, Diagonal, GaussianPsf, Product, Scaled, Subset, Sum};
use crate::{LinearOperator, Projector, Result};
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{Array2, ArrayD};
use std::sync::Arc;

/// An operator and what it is.
pub struct Case {
    /// Operator and geometry, for messages.
    pub name: String,
    /// The operator.
    pub operator: Box<dyn LinearOperator>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Case").field(&self.name).finish()
    }
}

/// Rows, columns, pixel in mm; views, bins, bin in mm, arc and start in degrees, offset in bins.
type Layout = (
    &'static str,
    (usize, usize, f64),
    (usize, usize, f64),
    (f64, f64, f64),
);

const LAYOUTS: &[Layout] = &[
    ("even", (64, 64, 1.0), (90, 93, 1.0), (180.0, 0.0, 0.0)),
    ("odd, offset", (61, 47, 2.5), (73, 101, 1.7), (360.0, 13.0, 3.25)),
    ("wide", (5, 83, 1.0), (31, 90, 1.0), (180.0, -7.0, 0.5)),
    (
        "tall, falling view",
        (83, 6, 0.3),
        (29, 64, 0.5),
        (270.0, 100.0, -2.0),
    ),
    ("truncated", (64, 64, 1.0), (40, 21, 1.0), (180.0, 0.0, 0.0)),
    (
        "truncated to one side",
        (40, 40, 1.0),
        (40, 21, 1.0),
        (360.0, 3.0, 17.0),
    ),
    ("fine bins", (17, 17, 2.0), (23, 140, 0.26), (180.0, 0.0, 0.0)),
    ("coarse bins", (50, 50, 1.0), (23, 11, 6.5), (180.0, 0.0, 0.0)),
    ("one row", (1, 19, 1.0), (30, 40, 0.6), (180.0, 0.0, 0.0)),
    ("two columns", (19, 2, 1.0), (30, 40, 0.6), (180.0, 0.0, 0.0)),
    ("one pixel, one bin", (1, 1, 1.0), (7, 1, 1.0), (180.0, 0.0, 0.0)),
];

/// Every operator on every layout: odd sizes, truncated, off centre, a full turn, one row, one bin.
///
/// # Errors
/// None that is known; an operator that refuses a layout would be found here.
pub fn registry() -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    for (layout, grid, geometry) in layouts()? {
        for (operator, name) in operators(grid, geometry)? {
            cases.push(Case {
                name: format!("{name}, {layout}"),
                operator,
            });
        }
    }
    Ok(cases)
}

/// The layouts by name.
pub(crate) fn layouts() -> Result<Vec<(&'static str, ImageGrid, ParallelGeometry)>> {
    let of = |&(name, (rows, cols, pixel_mm), (views, bins, bin_mm), (arc, start, offset)): &Layout| {
        let geometry = ParallelGeometry::new(views, bins, bin_mm)?
            .with_arc_deg(arc)
            .with_start_deg(start)
            .with_offset_bins(offset);
        Ok((name, ImageGrid::new(rows, cols, pixel_mm)?, geometry))
    };
    LAYOUTS.iter().map(of).collect()
}

type Named = (Box<dyn LinearOperator>, &'static str);

fn operators(grid: ImageGrid, geometry: ParallelGeometry) -> Result<Vec<Named>> {
    let projector = Arc::new(Projector::new(grid, geometry)?);
    let mu_per_mm: ArrayD<f32> = Array2::from_shape_fn(grid.shape(), |(row, col)| {
        0.01 * ((row * 7 + col * 3) % 5) as f32 / grid.pixel_mm as f32
    })
    .into_dyn();
    // With dead bins; of both signs, since a weight need not be an efficiency.
    let weights = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        ((view * 11 + bin * 5) % 8) as f32 * 0.4 - 0.8
    })
    .into_dyn();
    let attenuation = Attenuation::from_image(&projector, mu_per_mm.view())?;
    let psf = GaussianPsf::new(grid, 3.3 * grid.pixel_mm)?;
    let model = Product::new(attenuation.clone(), Product::new(projector.clone(), psf.clone())?)?;
    let moved = Projector::new(grid, geometry.with_offset_bins(geometry.offset_bins + 0.4))?;
    let sum = Sum::new(projector.clone(), Scaled::new(moved, -0.3)?)?;
    let first = Subset::new(grid, geometry, 0, 4)?;
    let last = Subset::new(grid, geometry, 3, 4)?;
    Ok(vec![
        (Box::new(projector.clone()), "projector"),
        (Box::new(first), "subset 0 of 4"),
        (Box::new(last), "subset 3 of 4"),
        (Box::new(Diagonal::new(weights.view())?), "diagonal"),
        (Box::new(attenuation), "attenuation"),
        (Box::new(psf), "Gaussian PSF"),
        (Box::new(Scaled::new(projector, -2.3)?), "scaled"),
        (Box::new(sum), "sum"),
        (Box::new(model), "product"),
    ])
}
