//! Operators that compose: exact transposes on every geometry, and the values they stand for.

use crate::common::{Mismatched, geometry, noise, relative};
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::analytic::{self, Ellipse};
use allpet_radon::check::{check_operator, registry};
use allpet_radon::operators::{Attenuation, Diagonal, GaussianPsf, Product, Scaled, Subset, Sum};
use allpet_radon::{LinearOperator, Projector};
use ndarray::{Array2, ArrayD, Axis, IxDyn, s};
use std::sync::Arc;

const TOLERANCE: f64 = 1e-6;

fn projector(grid: ImageGrid, geometry: ParallelGeometry) -> Projector {
    Projector::new(grid, geometry).unwrap()
}

#[test]
fn the_whole_registry_conforms() {
    let cases = registry().unwrap();
    assert!(cases.len() >= 99);
    let mut worst = 0.0f64;
    for case in cases {
        for seed in 0..if case.name.starts_with("projector") { 3 } else { 1 } {
            let report = check_operator(case.operator.as_ref(), seed).unwrap();
            assert!(report.passes(TOLERANCE), "{}: {report}", case.name);
            worst = worst.max(report.adjoint_image).max(report.adjoint_impulses);
        }
    }
    println!("worst adjoint error {worst:.1e}");
}

#[test]
fn a_transpose_shifted_by_half_a_bin_is_found_inside_every_composition() {
    let grid = ImageGrid::new(40, 33, 1.0).unwrap();
    let g = geometry(42, 61, 1.0, 180.0, 4.0, 0.0);
    let pair = |offset: f64| Mismatched(projector(grid, g), projector(grid, g.with_offset_bins(offset)));
    let psf = GaussianPsf::new(grid, 2.0).unwrap();
    let weights = Diagonal::new((noise(1, &[42, 61]) * 0.2 + 1.0).view()).unwrap();
    let subset = |offset: f64| {
        Mismatched(
            Subset::new(grid, g, 1, 3).unwrap(),
            Subset::new(grid, g.with_offset_bins(offset), 1, 3).unwrap(),
        )
    };
    for (offset, passes) in [(0.0, true), (0.5, false)] {
        let product = Product::new(&weights, Product::new(pair(offset), &psf).unwrap()).unwrap();
        let sum = Sum::new(projector(grid, g), pair(offset)).unwrap();
        let operators: [&dyn LinearOperator; 3] = [&product, &sum, &subset(offset)];
        for operator in operators {
            let report = check_operator(operator, 2).unwrap();
            assert_eq!(report.passes(TOLERANCE), passes, "{report}");
            assert!(passes || report.adjoint_impulses > 1e-3);
        }
    }
}

#[test]
fn compositions_are_what_their_names_say() {
    let grid = ImageGrid::new(21, 30, 1.3).unwrap();
    let g = geometry(25, 41, 1.1, 180.0, 3.0, 0.0);
    let (p, moved) = (projector(grid, g), projector(grid, g.with_offset_bins(2.0)));
    let psf = GaussianPsf::new(grid, 3.0).unwrap();
    let x = noise(1, &[2, 21, 30]);
    let inner = p.apply(psf.apply(x.view()).unwrap().view()).unwrap();
    assert_eq!(Product::new(&p, &psf).unwrap().apply(x.view()).unwrap(), inner);
    let both = p.apply(x.view()).unwrap() + moved.apply(x.view()).unwrap();
    // Behind pointers of every kind, also when the type is not known.
    let (shared, boxed): (Arc<dyn LinearOperator>, Box<dyn LinearOperator>) =
        (Arc::new(p.clone()), Box::new(moved));
    assert_eq!(Sum::new(shared, boxed).unwrap().apply(x.view()).unwrap(), both);
    assert_eq!(
        Scaled::new(&p, 3.0).unwrap().apply(x.view()).unwrap(),
        p.apply(x.view()).unwrap() * 3.0
    );
    let weights = noise(2, &[25, 41]);
    let y = p.apply(x.view()).unwrap();
    assert_eq!(
        Diagonal::new(weights.view()).unwrap().apply(y.view()).unwrap(),
        &y * &weights
    );
    // Strided input and output.
    let diagonal = Diagonal::new(weights.slice(s![..;-1, ..]).into_dyn()).unwrap();
    let mut out = ArrayD::zeros(IxDyn(&[2, 25, 41]));
    diagonal
        .forward(
            y.slice(s![.., ..;-1, ..]).into_dyn(),
            out.slice_mut(s![.., ..;-1, ..]).into_dyn(),
        )
        .unwrap();
    assert_eq!(out, &y * &weights);
}

#[test]
fn attenuation_is_the_exponential_of_the_chord() {
    let g = geometry(60, 101, 2.0, 180.0, 0.0, 0.0);
    let body = Ellipse {
        value: 0.0096,
        x_mm: 5.0,
        y_mm: -8.0,
        a_mm: 80.0,
        b_mm: 60.0,
        tilt_rad: 0.2,
    };
    let exact = analytic::project(&[body], &g).mapv(|integral| (-integral).exp());
    let errors = [(96, 2.0), (192, 1.0)].map(|(size, pixel_mm)| {
        let grid = ImageGrid::square(size, pixel_mm).unwrap();
        let mu = crate::common::area_sampled(&[body], &grid).into_dyn();
        let attenuation = Attenuation::from_image(&projector(grid, g), mu.view()).unwrap();
        relative(attenuation.factors(), exact.as_slice().unwrap())
    });
    println!("attenuation {errors:.4?}");
    assert!(errors[0] < 1.2e-2 && errors[1] < 0.6 * errors[0]);
    let given = Attenuation::from_factors(exact.into_dyn().view()).unwrap();
    let y = ArrayD::ones(IxDyn(&[3, 60, 101]));
    let seen = given.apply(y.view()).unwrap();
    assert_eq!(seen.index_axis(Axis(0), 2).as_slice().unwrap(), given.factors());
}

#[test]
fn the_gaussian_has_its_width_keeps_sums_and_loses_only_what_leaves_the_image() {
    let grid = ImageGrid::new(61, 81, 1.5).unwrap();
    for fwhm_mm in [3.0f64, 4.5, 10.0] {
        let psf = GaussianPsf::new(grid, fwhm_mm).unwrap();
        let mut impulse = Array2::<f32>::zeros((61, 81));
        impulse[[30, 40]] = 1.0;
        let response = psf.apply(impulse.into_dyn().view()).unwrap();
        let (mut sum, mut xx, mut yy) = (0.0, 0.0, 0.0);
        for (index, &value) in response.indexed_iter() {
            let value = f64::from(value);
            sum += value;
            xx += value * grid.x_mm(index[1] as f64).powi(2);
            yy += value * grid.y_mm(index[0] as f64).powi(2);
        }
        let variance = fwhm_mm.powi(2) / (8.0 * 2f64.ln());
        println!("{fwhm_mm}: {sum:.7} {:.5} {:.5}", xx / variance, yy / variance);
        assert!((sum - 1.0).abs() < 1e-6);
        assert!((xx / variance - 1.0).abs() < 3e-3 && (yy / variance - 1.0).abs() < 3e-3);
        let ones = psf.apply(ArrayD::ones(IxDyn(&[61, 81])).view()).unwrap();
        assert!((ones[[30, 40]] - 1.0).abs() < 1e-5 && ones[[0, 40]] < 0.8 && ones[[0, 0]] < 0.6);
    }
    let x = noise(3, &[61, 81]);
    assert_eq!(GaussianPsf::new(grid, 0.0).unwrap().apply(x.view()).unwrap(), x);
    for fwhm in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(GaussianPsf::new(grid, fwhm).is_err());
    }
}

#[test]
fn subsets_are_the_views_of_the_whole() {
    let grid = ImageGrid::new(30, 37, 1.2).unwrap();
    for (g, subsets) in [
        (geometry(47, 61, 0.9, 180.0, 3.0, 0.5), 5),
        (geometry(47, 61, 0.9, 360.0, 3.0, 0.5), 5),
        (geometry(48, 61, 0.9, 360.0, 3.0, 0.5), 12),
        (geometry(9, 61, 0.9, 360.0, -11.0, 0.0), 9),
        (geometry(47, 61, 0.9, 200.0, 3.0, 0.5), 1),
    ] {
        let whole = projector(grid, g);
        let (x, y) = (noise(1, &[2, 30, 37]), noise(2, &[2, g.views, 61]));
        let all = whole.apply(x.view()).unwrap();
        let mut back = ArrayD::zeros(IxDyn(&[2, 30, 37]));
        let mut views = Vec::new();
        for m in 0..subsets {
            let subset = Subset::new(grid, g, m, subsets).unwrap();
            let rows = subset.apply(x.view()).unwrap();
            let same = subset
                .select(all.view())
                .unwrap()
                .as_standard_layout()
                .into_owned();
            let error = relative(rows.as_slice().unwrap(), same.as_slice().unwrap());
            assert!(error < 1e-6, "{m} of {subsets}: {error}");
            let part = subset.select(y.view()).unwrap();
            assert_eq!(part.shape(), [2, subset.views().count(), 61]);
            back += &subset.apply_adjoint(part).unwrap();
            views.extend(subset.views());
        }
        views.sort_unstable();
        assert_eq!(views, (0..g.views).collect::<Vec<_>>());
        let full = whole.apply_adjoint(y.view()).unwrap();
        assert!(relative(back.as_slice().unwrap(), full.as_slice().unwrap()) < 1e-6);
    }
}

#[test]
fn what_does_not_fit_is_an_error_when_it_is_made() {
    let grid = ImageGrid::new(8, 9, 1.0).unwrap();
    let g = geometry(6, 13, 1.0, 180.0, 0.0, 0.0);
    let p = projector(grid, g);
    let said = |error: allpet_radon::Error| error.to_string();
    let other = projector(grid, geometry(6, 12, 1.0, 180.0, 0.0, 0.0));
    assert_eq!(
        said(Product::new(&p, &p).unwrap_err()),
        "range of the right factor has shape [6, 13]; expected [8, 9]"
    );
    assert_eq!(
        said(Sum::new(&p, &other).unwrap_err()),
        "range of the second term has shape [6, 12]; expected [6, 13]"
    );
    assert_eq!(
        said(Attenuation::from_image(&p, noise(1, &[9, 8]).view()).unwrap_err()),
        "attenuation image has shape [9, 8]; expected [8, 9]"
    );
    let mut factors = ArrayD::ones(IxDyn(&[6, 13]));
    factors[[2, 7]] = -0.5;
    factors[[4, 1]] = f32::NAN;
    assert_eq!(
        said(Attenuation::from_factors(factors.view()).unwrap_err()),
        "attenuation factors holds -0.5 at index [2, 7]; every value must be finite and not negative"
    );
    assert!(said(Diagonal::new(factors.view()).unwrap_err()).contains("NaN at index [4, 1]"));
    assert!(Diagonal::new(ArrayD::zeros(IxDyn(&[0, 3])).view()).is_err());
    assert!(Scaled::new(&p, f32::INFINITY).is_err());
    assert_eq!(
        said(Subset::new(grid, g, 0, 7).unwrap_err()),
        "number of subsets is 7; expected at least 1 and at most the number of views"
    );
    assert!(Subset::new(grid, g, 0, 0).is_err() && Subset::new(grid, g, 3, 3).is_err());
}
