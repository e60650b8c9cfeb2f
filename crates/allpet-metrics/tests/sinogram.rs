//! Helgason-Ludwig residuals: none for closed-form projections, the closed-form amount for known faults.

#![allow(clippy::unwrap_used)]

use allpet_core::ParallelGeometry;
use allpet_metrics::Error;
use allpet_metrics::sinogram::helgason_ludwig;
use ndarray::{Array2, Array3, s};

const ORDERS: usize = 8;

fn geometry(arc: f64) -> ParallelGeometry {
    ParallelGeometry::new(90, 181, 1.5).unwrap().with_arc_deg(arc)
}

/// Projections of Gaussian blobs (x, y, sd, weight in mm), whose sums over bins are exact to rounding.
fn blobs(geometry: &ParallelGeometry) -> Array2<f64> {
    let blobs = [
        (30.0, -12.0, 9.0, 1.0),
        (-41.0, 22.0, 6.0, 0.7),
        (3.0, 35.0, 12.0, 2.0),
    ];
    Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let (theta, s) = (geometry.angle(view), geometry.s_mm(bin as f64));
        let at = |&(x, y, sd, weight): &(f64, f64, f64, f64)| {
            let d = (s - x * theta.cos() - y * theta.sin()) / sd;
            weight * (-0.5 * d * d).exp() / sd
        };
        blobs.iter().map(at).sum()
    })
}

#[test]
fn projections_are_consistent_on_any_arc() {
    for arc in [180.0, 217.0, 270.0, 360.0] {
        let geometry = geometry(arc).with_start_deg(23.0).with_offset_bins(1.75);
        let residuals = helgason_ludwig(blobs(&geometry).view(), &geometry, ORDERS).unwrap();
        assert_eq!(residuals.shape(), [ORDERS + 1]);
        assert!(residuals.iter().all(|&r| r < 1e-12), "{arc}°: {residuals}");
        let single = helgason_ludwig(blobs(&geometry).mapv(|v| v as f32).view(), &geometry, ORDERS).unwrap();
        assert!(single.iter().all(|&r| r < 1e-7), "{arc}° in f32: {single}");
    }
}

#[test]
fn a_disc_is_consistent_to_its_bins() {
    let of = |bins, bin_mm| {
        let geometry = ParallelGeometry::new(90, bins, bin_mm).unwrap();
        let disc = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
            let theta = geometry.angle(view);
            let d = geometry.s_mm(bin as f64) - 40.0 * theta.cos() - 20.0 * theta.sin();
            2.0 * (50.0f64 * 50.0 - d * d).max(0.0).sqrt()
        });
        helgason_ludwig(disc.view(), &geometry, ORDERS).unwrap()
    };
    let (coarse, fine) = (of(181, 1.5), of(724, 0.375));
    assert!(coarse[0] < 1e-3 && coarse.iter().all(|&r| r < 1e-2), "{coarse}");
    // A root-like edge is summed with an error of bin^1.5: 8 for bins of a quarter.
    for (coarse, fine) in coarse.iter().zip(&fine) {
        assert!((4.0..16.0).contains(&(coarse / fine)), "{coarse} {fine}");
    }
}

#[test]
fn known_faults_have_known_residuals() {
    let geometry = geometry(180.0);
    let whole = blobs(&geometry);
    // A view lost: of K equal moments of order 0 one is zero, which leaves 1/√K.
    let mut lost = whole.clone();
    lost.row_mut(17).fill(0.0);
    let residuals = helgason_ludwig(lost.view(), &geometry, 2).unwrap();
    assert!((residuals[0] * 90f64.sqrt() - 1.0).abs() < 1e-9, "{residuals}");
    // A centred blob times 1 + e·cos 2θ: not constant at order 0, a polynomial of degree 2 at order 2.
    let e = 0.3;
    let modulated = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let s = geometry.s_mm(bin as f64) / 20.0;
        (-0.5 * s * s).exp() * (1.0 + e * (2.0 * geometry.angle(view)).cos())
    });
    let residuals = helgason_ludwig(modulated.view(), &geometry, 3).unwrap();
    let expected = (0.5f64 * e * e / (1.0 + 0.5 * e * e)).sqrt();
    assert!((residuals[0] - expected).abs() < 1e-12, "{residuals} {expected}");
    assert!(
        residuals[1] < 1e-12 && residuals[2] < 1e-12 && residuals[3] < 1e-12,
        "{residuals}"
    );
    let modulated = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let s = geometry.s_mm(bin as f64) / 20.0;
        (-0.5 * s * s).exp() * (1.0 + e * (4.0 * geometry.angle(view)).cos())
    });
    let residuals = helgason_ludwig(modulated.view(), &geometry, 4).unwrap();
    assert!(
        (residuals[2] - expected).abs() < 1e-12 && residuals[4] < 1e-12,
        "{residuals}"
    );
}

#[test]
fn broken_sinograms_are_found() {
    let geometry = geometry(180.0);
    let whole = blobs(&geometry);
    let of = |sinogram: &Array2<f64>, geometry: &ParallelGeometry| {
        helgason_ludwig(sinogram.view(), geometry, ORDERS)
            .unwrap()
            .into_iter()
            .collect::<Vec<_>>()
    };
    // Views in another order keep their sums: order 0 cannot see it, every other must.
    let shuffled = Array2::from_shape_fn(whole.dim(), |(view, bin)| whole[[view * 37 % 90, bin]]);
    let residuals = of(&shuffled, &geometry);
    assert!(
        residuals[0] < 1e-12 && residuals[1..].iter().all(|&r| r > 0.01),
        "{residuals:?}"
    );
    // The centre of rotation two bins off, and the arc said to be twice as long.
    assert!(of(&whole, &geometry.with_offset_bins(2.0))[1] > 1e-3);
    assert!(of(&whole, &geometry.with_arc_deg(360.0))[1] > 0.01);
    let noise: Vec<f64> = (0..whole.len())
        .map(|i| ((i * 7919) % 1009) as f64 / 1009.0 - 0.5)
        .collect();
    let noisy = &whole + &(0.1 * Array2::from_shape_vec(whole.dim(), noise).unwrap());
    assert!(of(&noisy, &geometry).iter().all(|&r| r > 1e-4));
}

#[test]
fn a_batch_is_its_sinograms_on_any_number_of_threads() {
    let geometry = geometry(180.0);
    let whole = blobs(&geometry);
    let batch = Array3::from_shape_fn((5, 90, 181), |(n, view, bin)| {
        whole[[(view + n * view * view) % 90, bin]] * (1 + n) as f64
    });
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| helgason_ludwig(batch.view(), &geometry, ORDERS).unwrap())
    };
    let together = on(1);
    assert_eq!(together.shape(), [5, ORDERS + 1]);
    assert_eq!(together, on(3));
    let alone = helgason_ludwig(batch.slice(s![3, .., ..]), &geometry, ORDERS).unwrap();
    assert_eq!(together.slice(s![3, ..]).into_dyn(), alone);
}

#[test]
fn edges() {
    let geometry = geometry(180.0);
    let zeros = helgason_ludwig(Array2::<f32>::zeros((90, 181)).view(), &geometry, 3).unwrap();
    assert!(zeros.iter().all(|&r| r == 0.0));
    let mut broken = blobs(&geometry);
    broken[[4, 9]] = f64::NAN;
    let error = helgason_ludwig(broken.view(), &geometry, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "sinogram holds NaN at index [4, 9]; every value must be finite"
    );
    let wide = Array2::<f64>::zeros((90, 182));
    assert!(helgason_ludwig(wide.view(), &geometry, 3).is_err());
    let short = helgason_ludwig(blobs(&geometry).view(), &geometry.with_arc_deg(120.0), 3).unwrap_err();
    assert!(short.to_string().ends_with("expected at least 180"), "{short}");
    assert!(helgason_ludwig(blobs(&geometry).view(), &geometry, 88).is_ok());
    for orders in [89, usize::MAX] {
        let error = helgason_ludwig(blobs(&geometry).view(), &geometry, orders).unwrap_err();
        assert!(matches!(error, Error::TooFew { .. }), "{error}");
    }
    // Over a full turn half the views say the same as the other half.
    let full = geometry.with_arc_deg(360.0);
    let residuals = helgason_ludwig(blobs(&full).view(), &full, 43).unwrap();
    assert!(residuals.iter().all(|&r| r < 1e-9), "{residuals}");
    assert!(helgason_ludwig(blobs(&full).view(), &full, 44).is_err());
    let huge = Array2::from_elem((90, 181), f64::MAX);
    assert!(matches!(
        helgason_ludwig(huge.view(), &geometry, 1),
        Err(Error::UndefinedImage { .. })
    ));
    let one = ParallelGeometry::new(4, 1, 1.0).unwrap();
    assert!(
        helgason_ludwig(Array2::<f64>::ones((4, 1)).view(), &one, 2)
            .unwrap()
            .iter()
            .all(|&r| r < 1e-12)
    );
}
