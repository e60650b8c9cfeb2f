//! Filtered back-projection returns the object's own values.

use crate::common::{geometry, noise, relative, three_ellipses};
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::analytic::{self, Ellipse};
use allpet_radon::{Fbp, Filter, LinearOperator, Projector};
use ndarray::{ArrayD, Axis};

/// Means over the inner 80 % of a disc and over a ring well outside it, of the reconstruction of its projections.
fn disc_means(
    grid: ImageGrid,
    measured: ParallelGeometry,
    assumed: ParallelGeometry,
    filter: Filter,
) -> (f64, f64) {
    let half = grid.pixel_mm * grid.rows.min(grid.cols) as f64 / 2.0;
    let disc = Ellipse {
        value: 3.0,
        x_mm: 0.1 * half,
        y_mm: -0.15 * half,
        a_mm: 0.5 * half,
        b_mm: 0.5 * half,
        tilt_rad: 0.0,
    };
    let sinogram = analytic::project(&[disc], &measured).into_dyn();
    let image = Fbp::new(grid, assumed, filter, 1.0)
        .unwrap()
        .reconstruct(sinogram.view())
        .unwrap();
    let (mut inside, mut outside) = ((0.0, 0.0), (0.0, 0.0));
    for (index, &value) in image.indexed_iter() {
        let (x, y) = (
            grid.x_mm(index[1] as f64) - disc.x_mm,
            grid.y_mm(index[0] as f64) - disc.y_mm,
        );
        let r = x.hypot(y) / disc.a_mm;
        let sum = if r < 0.8 {
            &mut inside
        } else if r > 1.2 {
            &mut outside
        } else {
            continue;
        };
        sum.0 += f64::from(value) / disc.value;
        sum.1 += 1.0;
    }
    (inside.0 / inside.1, outside.0 / outside.1)
}

fn settings() -> Vec<(ImageGrid, ParallelGeometry)> {
    let grid = |rows, cols, pixel| ImageGrid::new(rows, cols, pixel).unwrap();
    vec![
        (grid(128, 128, 1.0), geometry(180, 183, 1.0, 180.0, 0.0, 0.0)),
        (grid(128, 128, 2.5), geometry(360, 300, 1.7, 360.0, 13.0, 3.25)),
        (grid(128, 128, 2.5), geometry(180, 300, 1.7, 180.0, 13.0, 3.25)),
        (grid(101, 140, 0.7), geometry(200, 260, 0.5, 180.0, -40.0, -8.5)),
        (grid(128, 128, 1.0), geometry(240, 140, 1.3, 240.0, 5.0, 0.0)),
        (grid(128, 128, 1.0), geometry(301, 140, 1.3, 301.0, 5.0, 0.5)),
        (grid(96, 96, 0.25), geometry(180, 96, 0.25, 360.0, 0.0, 0.0)),
    ]
}

#[test]
fn a_disc_comes_back_at_its_own_value() {
    for (grid, g) in settings() {
        for filter in Filter::ALL {
            let (inside, outside) = disc_means(grid, g, g, filter);
            println!(
                "{} views over {:.0}°, {filter}: {inside:.5}, {outside:.5}",
                g.views,
                g.arc_rad.to_degrees()
            );
            assert!((inside - 1.0).abs() < 5e-3 && outside.abs() < 5e-3);
        }
    }
}

#[test]
fn a_wrong_spacing_or_offset_fails() {
    let (grid, g) = settings()[0];
    let spacing = ParallelGeometry { bin_mm: 1.02, ..g };
    assert!((disc_means(grid, g, spacing, Filter::Ramp).0 - 1.0).abs() > 5e-3);
    let (_, arc) = settings()[4];
    let as_half = ParallelGeometry {
        arc_rad: std::f64::consts::PI,
        ..arc
    };
    let (inside, outside) = disc_means(grid, arc, as_half, Filter::Ramp);
    assert!((inside - 1.0).abs() > 5e-3 || outside.abs() > 5e-3);
}

#[test]
fn the_image_comes_back_in_its_own_orientation() {
    let grid = ImageGrid::new(128, 160, 1.5).unwrap();
    let g = geometry(300, 220, 1.2, 180.0, 25.0, 4.5);
    let shapes = three_ellipses(80.0);
    let truth = crate::common::area_sampled(&shapes, &grid);
    let sinogram = analytic::project(&shapes, &g).into_dyn();
    let error = |g| {
        let image = Fbp::new(grid, g, Filter::Hann, 1.0)
            .unwrap()
            .reconstruct(sinogram.view())
            .unwrap();
        relative(image.as_slice().unwrap(), truth.as_slice().unwrap())
    };
    println!("{:.3}", error(g));
    assert!(error(g) < 0.15);
    // One bin of offset, or the opposite sense of rotation, is seen.
    assert!(error(g.with_offset_bins(5.5)) > 1.15 * error(g));
    assert!(
        error(ParallelGeometry {
            start_rad: -g.start_rad,
            ..g
        }) > 2.0 * error(g)
    );
}

#[test]
fn filters_smooth_in_order_and_cutoffs_cut() {
    let grid = ImageGrid::square(64, 1.0).unwrap();
    let g = geometry(90, 93, 1.0, 180.0, 0.0, 0.0);
    let y = noise(2, &[90, 93]);
    let size = |filter, cutoff| {
        let image = Fbp::new(grid, g, filter, cutoff)
            .unwrap()
            .reconstruct(y.view())
            .unwrap();
        image.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
    };
    let sizes = Filter::ALL.map(|filter| size(filter, 1.0));
    assert!(sizes.windows(2).all(|pair| pair[1] < pair[0]), "{sizes:?}");
    assert!(size(Filter::Hann, 0.5) < 0.5 * size(Filter::Hann, 1.0));
    for filter in Filter::ALL {
        assert_eq!(filter.id().parse::<Filter>().unwrap(), filter);
    }
    let error = "butter".parse::<Filter>().unwrap_err();
    assert_eq!(
        error.to_string(),
        "unknown filter `butter`; known: ramp, shepp-logan, cosine, hamming, hann"
    );
}

#[test]
fn batches_are_native_and_bad_settings_are_errors() {
    let grid = ImageGrid::new(20, 31, 1.0).unwrap();
    let g = geometry(24, 40, 1.0, 180.0, 0.0, 0.0);
    let fbp = Fbp::new(grid, g, Filter::Cosine, 0.8).unwrap();
    let y = noise(5, &[3, 7, 24, 40]);
    let images = fbp.reconstruct(y.view()).unwrap();
    assert_eq!(images.shape(), [3, 7, 20, 31]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for i in 0..3 {
        for j in 0..7 {
            let alone = y.index_axis(Axis(0), i).index_axis(Axis(0), j).to_owned();
            let image = pool.install(|| fbp.reconstruct(alone.view()).unwrap());
            assert_eq!(image, images.index_axis(Axis(0), i).index_axis(Axis(0), j));
        }
    }
    assert!(fbp.reconstruct(noise(1, &[40, 24]).view()).is_err());
    let error = Fbp::new(grid, g.with_arc_deg(150.0), Filter::Ramp, 1.0).unwrap_err();
    assert!(error.to_string().contains("180 to 360"));
    for cutoff in [0.0, -1.0, 1.5, f64::NAN] {
        assert!(Fbp::new(grid, g, Filter::Ramp, cutoff).is_err());
    }
    // The projector and the reconstruction are inverse to each other on smooth images.
    let grid = ImageGrid::square(96, 1.0).unwrap();
    let g = geometry(150, 139, 1.0, 180.0, 0.0, 0.0);
    let image: ArrayD<f32> = ndarray::Array2::from_shape_fn(grid.shape(), |(row, col)| {
        (-(grid.x_mm(col as f64).powi(2) + grid.y_mm(row as f64).powi(2)) / 200.0).exp() as f32
    })
    .into_dyn();
    let y = Projector::new(grid, g).unwrap().apply(image.view()).unwrap();
    let back = Fbp::new(grid, g, Filter::Ramp, 1.0)
        .unwrap()
        .reconstruct(y.view())
        .unwrap();
    let error = relative(back.as_slice().unwrap(), image.as_slice().unwrap());
    println!("round trip {error:.1e}");
    assert!(error < 5e-3);
}
