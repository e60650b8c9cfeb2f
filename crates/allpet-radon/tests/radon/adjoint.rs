//! The adjoint is the exact transpose of the forward projector, for every built-in and every odd geometry.

use crate::common::geometry;
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::check::check_operator;
use allpet_radon::{LinearOperator, Projector, Result};
use ndarray::{ArrayViewD, ArrayViewMutD};

const TOLERANCE: f64 = 1e-6;

fn projector((rows, cols, pixel_mm): (usize, usize, f64), geometry: ParallelGeometry) -> Projector {
    Projector::new(ImageGrid::new(rows, cols, pixel_mm).unwrap(), geometry).unwrap()
}

/// Every built-in operator, each on geometries that have nothing round about them.
fn registry() -> Vec<(&'static str, Box<dyn LinearOperator>)> {
    vec![
        (
            "even",
            Box::new(projector((64, 64, 1.0), geometry(90, 93, 1.0, 180.0, 0.0, 0.0))),
        ),
        (
            "odd, offset",
            Box::new(projector(
                (61, 47, 2.5),
                geometry(73, 101, 1.7, 360.0, 13.0, 3.25),
            )),
        ),
        (
            "wide",
            Box::new(projector((5, 83, 1.0), geometry(31, 90, 1.0, 180.0, -7.0, 0.5))),
        ),
        (
            "tall, falling view",
            Box::new(projector((83, 6, 0.3), geometry(29, 64, 0.5, 270.0, 100.0, -2.0))),
        ),
        (
            "truncated",
            Box::new(projector((64, 64, 1.0), geometry(40, 21, 1.0, 180.0, 0.0, 0.0))),
        ),
        (
            "truncated to one side",
            Box::new(projector((40, 40, 1.0), geometry(40, 21, 1.0, 360.0, 3.0, 17.0))),
        ),
        (
            "fine bins",
            Box::new(projector((17, 17, 2.0), geometry(23, 140, 0.26, 180.0, 0.0, 0.0))),
        ),
        (
            "coarse bins",
            Box::new(projector((50, 50, 1.0), geometry(23, 11, 6.5, 180.0, 0.0, 0.0))),
        ),
        (
            "one row",
            Box::new(projector((1, 19, 1.0), geometry(30, 40, 0.6, 180.0, 0.0, 0.0))),
        ),
        (
            "two columns",
            Box::new(projector((19, 2, 1.0), geometry(30, 40, 0.6, 180.0, 0.0, 0.0))),
        ),
        (
            "one pixel, one bin",
            Box::new(projector((1, 1, 1.0), geometry(7, 1, 1.0, 180.0, 0.0, 0.0))),
        ),
    ]
}

#[test]
fn built_ins_conform() {
    for (name, op) in registry() {
        for seed in 0..3 {
            let report = check_operator(op.as_ref(), seed).unwrap();
            println!("{name}: {report}");
            assert!(report.passes(TOLERANCE), "{name}: {report}");
        }
    }
}

/// A forward projector with the adjoint of another.
struct Pair(Projector, Projector, f32);

impl LinearOperator for Pair {
    fn domain_shape(&self) -> &[usize] {
        self.0.domain_shape()
    }
    fn range_shape(&self) -> &[usize] {
        self.0.range_shape()
    }
    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.0.forward(x, out)
    }
    fn adjoint(&self, y: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.1.adjoint(y, out.view_mut())?;
        out *= self.2;
        Ok(())
    }
}

#[test]
fn broken_pairs_fail() {
    let grid = (48, 48, 1.0);
    let good = geometry(50, 71, 1.0, 180.0, 0.0, 0.0);
    let pair = |other, factor| Pair(projector(grid, good), projector(grid, other), factor);
    let check = |pair: &Pair| check_operator(pair, 5).unwrap();
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
