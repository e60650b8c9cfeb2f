//! The forward projector against closed forms.

use crate::common::{area_sampled, geometry, relative, three_ellipses};
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::analytic::{self, Rectangle};
use allpet_radon::{LinearOperator, Projector};
use ndarray::Array2;

/// Errors for images of 64 to 512 pixels a side; `geometry` makes the sinogram's for a number of pixels.
fn ellipse_errors(pixel_mm: f64, geometry: impl Fn(usize) -> ParallelGeometry) -> [f64; 4] {
    [64, 128, 256, 512].map(|size| {
        let grid = ImageGrid::square(size, pixel_mm).unwrap();
        let geometry = geometry(size);
        let shapes = three_ellipses(size as f64 * pixel_mm / 2.0);
        let image = area_sampled(&shapes, &grid).into_dyn();
        let got = Projector::new(grid, geometry)
            .unwrap()
            .apply(image.view())
            .unwrap();
        relative(
            got.as_slice().unwrap(),
            analytic::project(&shapes, &geometry).as_slice().unwrap(),
        )
    })
}

#[test]
fn ellipses_match_their_line_integrals_and_better_so_on_finer_grids() {
    let plain = ellipse_errors(1.0, |n| {
        geometry(n * 360 / 256, n * 367 / 256, 1.0, 180.0, 0.0, 0.0)
    });
    let shifted = ellipse_errors(2.5, |n| {
        geometry(n * 360 / 256, n * 552 / 256, 1.7, 360.0, 13.0, 3.25)
    });
    println!("{plain:?}, {shifted:?}");
    for errors in [plain, shifted] {
        assert!(errors[2] <= 4.6e-3);
        assert!(errors.windows(2).all(|pair| pair[1] < pair[0]));
    }
}

#[test]
fn ones_give_the_chord_to_the_edge() {
    for (rows, cols, pixel, g) in [
        (256, 256, 1.0, geometry(360, 367, 1.0, 180.0, 0.0, 0.0)),
        (256, 256, 2.5, geometry(360, 552, 1.7, 360.0, 13.0, 3.25)),
        (101, 64, 0.7, geometry(77, 180, 0.9, 200.0, 5.0, -7.5)),
        (1, 9, 1.0, geometry(50, 33, 0.4, 180.0, 0.0, 0.0)),
        (7, 1, 1.0, geometry(50, 33, 0.4, 360.0, 1.0, 0.0)),
    ] {
        let grid = ImageGrid::new(rows, cols, pixel).unwrap();
        let got = Projector::new(grid, g)
            .unwrap()
            .apply(Array2::ones((rows, cols)).into_dyn().view())
            .unwrap();
        let (width_mm, height_mm) = (cols as f64 * pixel, rows as f64 * pixel);
        let exact = analytic::project(
            &[Rectangle {
                value: 1.0,
                x_mm: 0.0,
                y_mm: 0.0,
                width_mm,
                height_mm,
            }],
            &g,
        );
        let mean = got
            .iter()
            .zip(&exact)
            .map(|(a, b)| f64::from((a - b).abs()))
            .sum::<f64>()
            / got.len() as f64;
        let l2 = relative(got.as_slice().unwrap(), exact.as_slice().unwrap());
        println!(
            "{rows}x{cols}: relative {l2:.2e}, mean {:.2e} pixel",
            mean / pixel
        );
        assert!(l2 <= 1e-5 && mean <= 1e-4 * pixel);
    }
}
