//! The projector against Joseph's method written out in `f64`, pixel by pixel, and the same bytes however it is run.

use crate::common::{geometry, noise, relative};
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::{Instructions, LinearOperator, Projector};
use ndarray::{ArrayD, ArrayView2, Axis, IxDyn, s};

/// Every line crossed at its centre, in world coordinates; the end pixels reach to their outer edges.
pub(crate) fn joseph(image: ArrayView2<'_, f32>, grid: &ImageGrid, geometry: &ParallelGeometry) -> Vec<f32> {
    let mut out = Vec::new();
    for view in 0..geometry.views {
        let (sin, cos) = geometry.angle(view).sin_cos();
        let by_column = sin.abs() > cos.abs();
        let (lines, pixels) = if by_column {
            (grid.cols, grid.rows)
        } else {
            (grid.rows, grid.cols)
        };
        let drift = (if by_column { cos / sin } else { sin / cos }).abs().max(1e-6);
        for bin in 0..geometry.bins {
            let s = geometry.s_mm(bin as f64);
            let mut sum = 0.0;
            for line in 0..lines {
                let u = if by_column {
                    let y = (s - grid.x_mm(line as f64) * cos) / sin;
                    (grid.rows as f64 - 1.0) / 2.0 - y / grid.pixel_mm
                } else {
                    let x = (s - grid.y_mm(line as f64) * sin) / cos;
                    x / grid.pixel_mm + (grid.cols as f64 - 1.0) / 2.0
                };
                let last = pixels as f64 - 1.0;
                // Part of [u - drift/2, u + drift/2] that lies within [-1/2, last + 1/2].
                let inside =
                    ((u + drift / 2.0).min(last + 0.5) - (u - drift / 2.0).max(-0.5)).max(0.0) / drift;
                let u = u.clamp(0.0, last);
                let i = (u.floor() as usize).min(pixels.saturating_sub(2));
                let pixel = |i: usize| {
                    f64::from(if by_column {
                        image[[i, line]]
                    } else {
                        image[[line, i]]
                    })
                };
                let value = if pixels == 1 {
                    pixel(0)
                } else {
                    pixel(i) + (u - i as f64) * (pixel(i + 1) - pixel(i))
                };
                sum += inside * value;
            }
            out.push((sum * grid.pixel_mm / sin.abs().max(cos.abs())) as f32);
        }
    }
    out
}

#[test]
fn single_precision_stays_within_2e_6_of_double() {
    for (rows, cols, pixel, g) in [
        (128, 128, 1.0, geometry(60, 185, 1.0, 180.0, 0.0, 0.0)),
        (90, 121, 2.5, geometry(61, 160, 1.7, 360.0, 13.0, 3.25)),
        (64, 33, 1.0, geometry(31, 40, 3.1, 270.0, -20.0, 0.0)),
        (40, 64, 1.0, geometry(31, 200, 0.3, 180.0, 0.0, 12.5)),
        (1, 12, 1.0, geometry(31, 20, 0.8, 180.0, 0.0, 0.0)),
    ] {
        let grid = ImageGrid::new(rows, cols, pixel).unwrap();
        for offset in [0.0, 1.0] {
            let image = noise(4, &[rows, cols]) + offset;
            let plane = image.view().into_dimensionality().unwrap();
            let expected = joseph(plane, &grid, &g);
            let moved = joseph(plane, &grid, &g.with_offset_bins(g.offset_bins + 1e-3));
            for instructions in Instructions::available() {
                let projector = Projector::new(grid, g).unwrap();
                let projector = projector.with_instructions(instructions).unwrap();
                let got = projector.apply(image.view()).unwrap();
                let error = relative(got.as_slice().unwrap(), &expected);
                println!("{rows}x{cols}, mean {offset}, {instructions:?}: {error:.1e}");
                assert!(error <= 2e-6);
                // The reference sees a shift of a thousandth of a bin, so agreement is no accident.
                assert!(relative(got.as_slice().unwrap(), &moved) > 2e-6);
                // Sixteen slices at a time, and the transpose by its own definition.
                let many = ndarray::stack(Axis(0), &vec![image.view(); 7]).unwrap();
                let batch = projector.apply(many.view()).unwrap();
                assert!(batch.outer_iter().all(|one| one == got));
                let y = noise(5, got.shape());
                let back = projector.apply_adjoint(y.view()).unwrap();
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
                };
                let (left, right) = (
                    dot(&expected, y.as_slice().unwrap()),
                    dot(image.as_slice().unwrap(), back.as_slice().unwrap()),
                );
                let size = dot(&expected, &expected).sqrt() * (y.len() as f64).sqrt();
                assert!(
                    (left - right).abs() <= 1e-6 * size,
                    "{instructions:?}: {left} and {right}"
                );
            }
        }
    }
}

#[test]
fn thread_count_layout_and_batch_axes_leave_the_bytes_alone() {
    let grid = ImageGrid::new(37, 53, 1.2).unwrap();
    let projector = Projector::new(grid, geometry(41, 71, 0.9, 180.0, 3.0, 0.5)).unwrap();
    let x = noise(1, &[2, 9, 37, 53]);
    let (ax, aty) = (projector.apply(x.view()).unwrap(), |y: &ArrayD<f32>| {
        projector.apply_adjoint(y.view()).unwrap()
    });
    let back = aty(&ax);
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            assert_eq!(projector.apply(x.view()).unwrap(), ax);
            assert_eq!(aty(&ax), back);
        });
    }
    // Every second slice, columns in memory order, into every second slice of an output.
    let mut swapped = x
        .clone()
        .permuted_axes(IxDyn(&[0, 1, 3, 2]))
        .as_standard_layout()
        .to_owned();
    swapped.swap_axes(2, 3);
    let mut out = ArrayD::from_elem(IxDyn(&[2, 9, 41, 71]), f32::NAN);
    projector
        .forward(
            swapped.slice(s![.., ..;2, .., ..]).into_dyn(),
            out.slice_mut(s![.., ..;2, .., ..]).into_dyn(),
        )
        .unwrap();
    for k in 0..9 {
        let slice = out.index_axis(Axis(1), k);
        if k % 2 == 0 {
            assert_eq!(slice, ax.index_axis(Axis(1), k))
        } else {
            assert!(slice.iter().all(|v| v.is_nan()))
        }
    }
    assert_eq!(
        projector
            .apply(ArrayD::zeros(IxDyn(&[0, 37, 53])).view())
            .unwrap()
            .shape(),
        [0, 41, 71]
    );
}

#[test]
fn wrong_shapes_and_settings_are_errors_that_say_what_was_expected() {
    let grid = ImageGrid::new(4, 5, 1.0).unwrap();
    let projector = Projector::new(grid, geometry(3, 7, 1.0, 180.0, 0.0, 0.0)).unwrap();
    let error = projector.apply(ArrayD::zeros(IxDyn(&[5, 4])).view()).unwrap_err();
    assert_eq!(error.to_string(), "input has shape [5, 4]; expected [.., 4, 5]");
    let mut out = ArrayD::zeros(IxDyn(&[2, 4, 5]));
    let error = projector
        .adjoint(ArrayD::zeros(IxDyn(&[3, 3, 7])).view(), out.view_mut())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "output has shape [2, 4, 5]; expected [3, 4, 5]"
    );
    let error = Projector::new(grid, geometry(3, 7, 1e4, 180.0, 0.0, 0.0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bin size in pixels is 10000; expected 0.001 to 1000"
    );
    let broken = ParallelGeometry {
        views: 0,
        ..*projector.geometry()
    };
    assert!(Projector::new(grid, broken).is_err());
    assert!(
        Projector::new(
            ImageGrid {
                pixel_mm: f64::NAN,
                ..grid
            },
            *projector.geometry()
        )
        .is_err()
    );
}

#[test]
fn bins_beside_the_image_give_zeros_and_bins_that_all_miss_it_are_an_error() {
    let grid = ImageGrid::new(9, 9, 1.0).unwrap();
    for offset in [1e3, -1e3, 1e12, -1e12, 1e300] {
        let error = Projector::new(grid, geometry(6, 11, 1.0, 180.0, 0.0, offset)).unwrap_err();
        assert!(error.to_string().contains("meets the image"), "{error}");
    }
    // Beside the rows and columns, yet within reach of the corners.
    for offset in [11.0, -11.0] {
        let projector = Projector::new(grid, geometry(2, 11, 1.0, 180.0, 0.0, offset)).unwrap();
        assert!(
            projector
                .apply(noise(1, &[9, 9]).view())
                .unwrap()
                .iter()
                .all(|&v| v == 0.0)
        );
        assert!(
            projector
                .apply_adjoint(noise(1, &[2, 11]).view())
                .unwrap()
                .iter()
                .all(|&v| v == 0.0)
        );
    }
    for ratio in [1.1e-3, 900.0] {
        let projector = Projector::new(grid, geometry(6, 11, ratio, 180.0, 0.0, 0.0)).unwrap();
        let y = projector.apply(noise(1, &[9, 9]).view()).unwrap();
        assert!(
            projector
                .apply_adjoint(y.view())
                .unwrap()
                .iter()
                .all(|v| v.is_finite())
        );
    }
}
