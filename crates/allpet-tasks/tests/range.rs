//! Results moved onto the range of the Radon transform.

#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::{LinearOperator, Projector};
use allpet_tasks::Restored;
use ndarray::{Array2, Array4, Axis, s};

fn geometry() -> ParallelGeometry {
    ParallelGeometry::new(48, 48, 4.0).unwrap()
}

/// The projection of an off-centre disc, `[48, 48]`.
fn disc() -> Array2<f32> {
    let grid = ImageGrid::square(48, 4.0).unwrap();
    let image = Array2::from_shape_fn(grid.shape(), |(row, col)| {
        f32::from((grid.x_mm(col as f64) - 12.0).hypot(grid.y_mm(row as f64)) < 40.0)
    });
    let projector = Projector::new(grid, geometry()).unwrap();
    projector
        .apply(image.view().into_dyn())
        .unwrap()
        .into_dimensionality()
        .unwrap()
}

fn result(sinogram: &Array2<f32>) -> Restored {
    let mean: Array4<f32> = sinogram.clone().insert_axis(Axis(0)).insert_axis(Axis(0));
    Restored {
        sd: Array4::zeros(mean.dim()),
        mean,
        samples: None,
        inconsistency: Vec::new(),
    }
}

fn error(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    let square = |v: f32| f64::from(v).powi(2);
    let off: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (off / b.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
}

#[test]
fn what_is_no_sinogram_goes_and_what_is_one_stays() {
    let truth = disc();
    let fitted = |sinogram: &Array2<f32>| {
        let mut restored = result(sinogram);
        restored
            .project_onto_range(&geometry(), Restored::RANGE_ITERATIONS)
            .unwrap();
        let mean = restored.mean.slice(s![0, 0, .., ..]).to_owned();
        let total = |a: &Array2<f32>| a.iter().map(|v| f64::from(*v)).sum::<f64>();
        assert!((total(&mean) / total(sinogram) - 1.0).abs() < 1e-5);
        mean
    };
    let kept = error(&fitted(&truth), &truth);
    assert!(kept < 0.02, "a sinogram moved by {kept}");
    // Stripes from view to view are no projection of anything: views of an object change slowly.
    let mut striped = truth.clone();
    for (view, mut row) in striped.outer_iter_mut().enumerate() {
        row.mapv_inplace(|v| v * if view % 2 == 0 { 1.2 } else { 0.8 });
    }
    let (before, after) = (error(&striped, &truth), error(&fitted(&striped), &truth));
    assert!(after < 0.35 * before, "{before} to {after}");
    // The control: a larger disc is a sinogram too, and stays as far off as it was.
    let larger = truth.mapv(|v| 1.2 * v);
    let (before, after) = (error(&larger, &truth), error(&fitted(&larger), &truth));
    assert!((after / before - 1.0).abs() < 0.05, "{before} to {after}");
}

#[test]
fn bad_requests_are_one_line() {
    let mut restored = result(&disc());
    let before = restored.mean.clone();
    for (geometry, iterations, words) in [
        (geometry(), 0, "iterations"),
        (ParallelGeometry::new(40, 48, 4.0).unwrap(), 3, "48"),
    ] {
        let said = restored
            .project_onto_range(&geometry, iterations)
            .unwrap_err()
            .to_string();
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        assert_eq!(restored.mean, before);
    }
}
