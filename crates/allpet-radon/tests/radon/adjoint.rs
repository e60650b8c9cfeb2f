//! Pairs that are no operator and its transpose are found out; that the built-in ones are is in `operators.rs`.

use crate::common::{Mismatched, geometry};
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::check::check_operator;
use allpet_radon::operators::Scaled;
use allpet_radon::{LinearOperator, Projector, Result};
use ndarray::{ArrayViewD, ArrayViewMutD};

const TOLERANCE: f64 = 1e-6;

fn projector((rows, cols, pixel_mm): (usize, usize, f64), geometry: ParallelGeometry) -> Projector {
    Projector::new(ImageGrid::new(rows, cols, pixel_mm).unwrap(), geometry).unwrap()
}

#[test]
fn broken_pairs_fail() {
    let grid = (48, 48, 1.0);
    let good = geometry(50, 71, 1.0, 180.0, 0.0, 0.0);
    let pair = |other, factor| {
        Mismatched(
            projector(grid, good),
            Scaled::new(projector(grid, other), factor).unwrap(),
        )
    };
    let check = |pair: &dyn LinearOperator| check_operator(pair, 5).unwrap();
    assert!(check(&pair(good, 1.0)).passes(TOLERANCE));

    let shifted = check(&pair(good.with_offset_bins(0.5), 1.0));
    println!("half a bin: {shifted}");
    assert!(!shifted.passes(TOLERANCE) && shifted.adjoint_impulses > 1e-2 && shifted.adjoint_image > 1e-2);

    let scaled = check(&pair(good, 1.01));
    println!("one percent: {scaled}");
    assert!(!scaled.passes(TOLERANCE) && scaled.adjoint_image > 5e-3 && (scaled.scale - 1.0).abs() > 5e-3);
}

/// An operator that adds to its output and treats the second element of a batch otherwise.
struct Careless(Projector);

impl LinearOperator for Careless {
    fn domain_shape(&self) -> &[usize] {
        self.0.domain_shape()
    }
    fn range_shape(&self) -> &[usize] {
        self.0.range_shape()
    }
    fn forward(&self, x: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        out += &self.0.apply(x)?;
        Ok(())
    }
    fn adjoint(&self, y: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        let factor = if y.ndim() > 2 { 1.0 + f32::EPSILON } else { 1.0 };
        self.0.adjoint(y, out.view_mut())?;
        out *= factor;
        Ok(())
    }
}

#[test]
fn dirty_buffers_and_batch_dependence_are_found() {
    let report = check_operator(
        &Careless(projector((9, 9, 1.0), geometry(8, 13, 1.0, 180.0, 0.0, 0.0))),
        1,
    )
    .unwrap();
    assert!(report.dirty > 0 && report.batch > 0 && !report.passes(TOLERANCE));
}
