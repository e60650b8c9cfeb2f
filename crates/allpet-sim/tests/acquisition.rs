//! The physics against closed forms: strip integrals of a disc, conserved mass, Poisson statistics, counts.

use allpet_core::{ImageGrid, ParallelGeometry, Tracer, stream};
use allpet_radon::{LinearOperator, Projector};
use allpet_sim::acquisition::measure_transmission;
use allpet_sim::footprint::project_pair;
use allpet_sim::raster::{Pose, Rendering, render, resample};
use allpet_sim::{Acquisition, Part, Subject, Uptake};
use ndarray::{Array2, ArrayView2};

const DISC: ([f64; 2], f64) = ([12.0, -7.0], 80.0);

/// A disc of 10 kBq/mL in water, sampled 8 × 8 per pixel.
fn disc(grid: ImageGrid) -> Rendering {
    let ([cx, cy], radius) = DISC;
    let share = Array2::from_shape_fn(grid.shape(), |(r, c)| {
        let inside = (0..64).filter(|k| {
            let at = |i: usize| (i as f64 + 0.5) / 8.0 - 0.5;
            let (x, y) = (grid.x_mm(c as f64 + at(k % 8)), grid.y_mm(r as f64 + at(k / 8)));
            (x - cx).hypot(y - cy) < radius
        });
        inside.count() as f32 / 64.0
    });
    Rendering {
        grid,
        activity: &share * 10.0,
        attenuation: share * 0.0096,
    }
}

/// Mean over each bin of the disc's chord: the antiderivative of 2√(R² - s²) is s√(R² - s²) + R² asin(s/R).
fn disc_means(geometry: &ParallelGeometry) -> Array2<f64> {
    let ([cx, cy], radius) = DISC;
    let area = |s: f64| {
        let s = s.clamp(-radius, radius);
        s * (radius * radius - s * s).max(0.0).sqrt() + radius * radius * (s / radius).asin()
    };
    Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let (sin, cos) = geometry.angle(view).sin_cos();
        let s = geometry.s_mm(bin as f64) - (cx * cos + cy * sin);
        (area(s + geometry.bin_mm / 2.0) - area(s - geometry.bin_mm / 2.0)) / geometry.bin_mm
    })
}

/// Mean over each bin of `10·c·exp(-0.0096·c)`, `c` the disc's chord, by the midpoint rule.
fn attenuated_disc_means(geometry: &ParallelGeometry) -> Array2<f64> {
    let ([cx, cy], radius) = DISC;
    Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
        let (sin, cos) = geometry.angle(view).sin_cos();
        let rate = |i: usize| {
            let s = geometry.s_mm(bin as f64 + (i as f64 + 0.5) / 200.0 - 0.5) - (cx * cos + cy * sin);
            let chord = 2.0 * (radius * radius - s * s).max(0.0).sqrt();
            10.0 * chord * (-0.0096 * chord).exp()
        };
        (0..200).map(rate).sum::<f64>() / 200.0
    })
}

fn relative_l2(candidate: ArrayView2<'_, f32>, reference: &Array2<f64>) -> f64 {
    let far: f64 = candidate
        .iter()
        .zip(reference)
        .map(|(&a, b)| (f64::from(a) - b).powi(2))
        .sum();
    (far / reference.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

fn brain(grid: ImageGrid) -> Rendering {
    let subject = Subject::draw(5, 2);
    let uptake = Uptake::draw(&subject, Tracer::Fdg);
    let pose = Pose {
        rotation_rad: 0.1,
        shift_mm: [6.0, -4.0],
    };
    render(&subject.section(Part::Brain, 0.5), Some(&uptake), pose, grid, 3)
}

fn quiet() -> Acquisition {
    Acquisition {
        psf_fwhm_mm: 0.0,
        ..Acquisition::ideal()
    }
}

#[test]
fn a_disc_comes_back_as_its_chords() {
    let rendering = disc(ImageGrid::square(200, 1.0).unwrap());
    let fine = disc(ImageGrid::square(400, 0.5).unwrap());
    for geometry in [
        ParallelGeometry::new(48, 64, 4.0).unwrap(),
        ParallelGeometry::new(31, 75, 3.3)
            .unwrap()
            .with_start_deg(13.0)
            .with_arc_deg(360.0)
            .with_offset_bins(2.25),
    ] {
        let reference = disc_means(&geometry);
        let measured = quiet().measure(&rendering, geometry, None).unwrap();
        let error = relative_l2(measured.precorrected().view(), &(&reference * 10.0));
        let path = relative_l2(measured.path.view(), &(&reference * 0.0096));
        let transmission = relative_l2(
            measure_transmission(&rendering, geometry, 1e5, None)
                .unwrap()
                .view(),
            &(&reference * 0.0096),
        );
        println!("activity {error:.2e}, attenuation {path:.2e}, transmission {transmission:.2e}");
        // Within a bin at the edge activity and attenuation vary together: the corrected mean is a little off there.
        assert!(error < 4e-3 && path < 1e-3 && transmission < 2e-3);
        // Uncorrected, the mean of c·exp(-μc) over the bin by quadrature.
        let rates = &measured.prompts / measured.calibration as f32;
        let rate_error = relative_l2(rates.view(), &attenuated_disc_means(&geometry));
        let finer = quiet().measure(&fine, geometry, None).unwrap();
        let rates_finer = &finer.prompts / finer.calibration as f32;
        let rate_error_finer = relative_l2(rates_finer.view(), &attenuated_disc_means(&geometry));
        // What remains is the disc's edge on pixels: it goes as they shrink.
        println!("attenuated {rate_error:.2e}, on half the pixel {rate_error_finer:.2e}");
        assert!(
            rate_error < 4e-3 && rate_error_finer < 0.6 * rate_error,
            "{rate_error} {rate_error_finer}"
        );
        // Control: without attenuation correction the disc is some ten times too faint in the middle.
        assert!(relative_l2(rates.view(), &(&reference * 10.0)) > 0.5);
        // Control: shifted by one bin it is not the disc.
        let shifted = ParallelGeometry {
            offset_bins: geometry.offset_bins + 1.0,
            ..geometry
        };
        assert!(relative_l2(measured.precorrected().view(), &(&disc_means(&shifted) * 10.0)) > 20.0 * error);
    }
}

#[test]
fn every_view_holds_the_image_s_integral() {
    // Helgason-Ludwig of order 0, exactly as far as f32 sums go.
    let grid = ImageGrid::square(192, 1.4).unwrap();
    let rendering = brain(grid);
    let geometry = ParallelGeometry::new(40, 320, 0.9).unwrap();
    let [activity, _] = project_pair(&rendering.activity, &rendering.attenuation, grid, geometry);
    let total: f64 = rendering.activity.iter().map(|&v| f64::from(v)).sum::<f64>() * grid.pixel_mm.powi(2);
    let mass = |a: &Array2<f32>| -> Vec<f64> {
        a.rows()
            .into_iter()
            .map(|r| r.iter().map(|&v| f64::from(v)).sum::<f64>() * geometry.bin_mm)
            .collect()
    };
    let worst = mass(&activity)
        .iter()
        .map(|m| (m / total - 1.0).abs())
        .fold(0.0, f64::max);
    println!("worst view {worst:.1e}");
    assert!(worst < 2e-5);
    // The resolution leaves it so, and the image of the dataset holds the same.
    let coarse = ParallelGeometry::new(40, 72, 4.0).unwrap();
    let blurred = Acquisition::ideal()
        .measure(
            &Rendering {
                attenuation: grid_zeros(grid),
                ..rendering.clone()
            },
            coarse,
            None,
        )
        .unwrap();
    let counts: Vec<f64> = blurred
        .prompts
        .rows()
        .into_iter()
        .map(|r| r.iter().map(|&v| f64::from(v)).sum::<f64>())
        .collect();
    let expected = total * blurred.calibration / coarse.bin_mm;
    assert!(
        counts.iter().all(|c| (c / expected - 1.0).abs() < 1e-4),
        "{counts:?} {expected}"
    );
    let to = ImageGrid::square(72, 4.0).unwrap();
    let image: f64 = resample(&rendering.activity, grid, to)
        .iter()
        .map(|&v| f64::from(v))
        .sum::<f64>()
        * 16.0;
    assert!((image / total - 1.0).abs() < 1e-5);
    // Control: attenuated projections do not obey.
    let attenuated = Acquisition::ideal().measure(&rendering, coarse, None).unwrap();
    let sums: Vec<f64> = attenuated
        .prompts
        .rows()
        .into_iter()
        .map(|r| r.iter().map(|&v| f64::from(v)).sum())
        .collect();
    let (low, high) = sums
        .iter()
        .fold((f64::MAX, 0.0f64), |(l, h), &s| (l.min(s), h.max(s)));
    assert!(high / low > 1.02, "{low} {high}");
}

fn grid_zeros(grid: ImageGrid) -> Array2<f32> {
    Array2::zeros(grid.shape())
}

#[test]
fn counts_scatter_and_randoms_land_where_asked() {
    let rendering = disc(ImageGrid::square(100, 2.0).unwrap());
    let geometry = ParallelGeometry::new(60, 64, 4.0).unwrap();
    let rng = &mut stream(3, "test", 0);
    for counts in [2e4, 1e6] {
        let acquisition = Acquisition {
            counts,
            ..Acquisition::draw(rng, 1e6)
        };
        let measured = acquisition.measure(&rendering, geometry, Some(rng)).unwrap();
        let sum = |a: &Array2<f32>| a.iter().map(|&v| f64::from(v)).sum::<f64>();
        let (expected, got) = (sum(&measured.expectation), sum(&measured.prompts));
        assert!((expected / counts - 1.0).abs() < 1e-4, "{expected}");
        assert!((got - counts).abs() < 5.0 * counts.sqrt(), "{got} of {counts}");
        let (scatter, randoms) = (sum(&measured.scatter), sum(&measured.randoms));
        assert!((randoms / counts - acquisition.randoms_fraction).abs() < 1e-4);
        assert!((scatter / (counts - randoms) - acquisition.scatter_fraction).abs() < 1e-3);
    }
    for _ in 0..200 {
        let drawn = Acquisition::draw(rng, 1e6);
        drawn.validate().unwrap();
        assert!((5e5..=2e6).contains(&drawn.counts) && (0.29..0.42).contains(&drawn.scatter_fraction));
    }
}

#[test]
fn prompts_are_poisson_and_corrected_values_are_not() {
    let rendering = disc(ImageGrid::square(60, 4.0).unwrap());
    let geometry = ParallelGeometry::new(8, 32, 8.0).unwrap();
    let acquisition = Acquisition {
        counts: 5e3,
        ..Acquisition::draw(&mut stream(1, "test", 0), 1e6)
    };
    let rng = &mut stream(8, "test", 1);
    let (mut bias, mut dispersion, mut corrected, mut n) = (0.0, 0.0, 0.0, 0.0);
    for _ in 0..300 {
        let measured = acquisition.measure(&rendering, geometry, Some(rng)).unwrap();
        let clean = acquisition
            .measure(&rendering, geometry, None)
            .unwrap()
            .precorrected();
        let values = measured
            .prompts
            .iter()
            .zip(&measured.expectation)
            .zip(measured.precorrected())
            .zip(&clean);
        for (((&y, &mean), x), &truth) in values.filter(|(_, truth)| **truth > 100.0) {
            assert!(y >= 0.0 && y.fract() == 0.0);
            let excess = f64::from(y) - f64::from(mean);
            bias += excess / f64::from(mean).sqrt();
            dispersion += excess * excess / f64::from(mean);
            corrected += f64::from(x - truth).powi(2) / f64::from(truth);
            n += 1.0;
        }
    }
    println!(
        "{n} bins: bias {:.4}, variance/mean {:.4}, corrected {:.2}",
        bias / n,
        dispersion / n,
        corrected / n
    );
    assert!(n > 3e4);
    assert!((bias / n).abs() < 0.03 && (dispersion / n - 1.0).abs() < 0.04);
    // Control: correction scales counts, so that variance is no longer the mean.
    assert!((corrected / n - 1.0).abs() > 0.5);
}

#[test]
fn simulated_data_are_no_inverse_crime() {
    let fine = ImageGrid::square(192, 1.4).unwrap();
    let rendering = brain(fine);
    let geometry = ParallelGeometry::new(96, 64, 4.0).unwrap();
    let simulated = quiet()
        .measure(&rendering, geometry, None)
        .unwrap()
        .precorrected();
    let grid = ImageGrid::square(64, 4.0).unwrap();
    let image = resample(&rendering.activity, fine, grid);
    let mut modelled = Array2::<f32>::zeros(geometry.shape());
    Projector::new(grid, geometry)
        .unwrap()
        .forward(image.view().into_dyn(), modelled.view_mut().into_dyn())
        .unwrap();
    let difference = relative_l2(simulated.view(), &modelled.mapv(f64::from));
    println!("simulator against model projector {difference:.4}");
    assert!(difference > 1e-3 && difference < 0.05, "{difference}");
}

#[test]
fn footprints_approach_the_interpolating_projector_as_the_grid_refines() {
    let grid = ImageGrid::square(256, 1.0).unwrap();
    let rendering = brain(grid);
    // Bins of a quarter pixel, averaged by four: rays dense enough to stand for strips.
    let strips = ParallelGeometry::new(24, 200, 1.0).unwrap();
    let rays = ParallelGeometry::new(24, 1600, 0.125).unwrap();
    let [ours, _] = project_pair(&rendering.activity, &rendering.attenuation, grid, strips);
    let mut theirs = Array2::<f32>::zeros(rays.shape());
    Projector::new(grid, rays)
        .unwrap()
        .forward(rendering.activity.view().into_dyn(), theirs.view_mut().into_dyn())
        .unwrap();
    let means = Array2::from_shape_fn(strips.shape(), |(view, bin)| {
        (0..8)
            .map(|i| f64::from(theirs[[view, bin * 8 + i]]))
            .sum::<f64>()
            / 8.0
    });
    let difference = relative_l2(ours.view(), &means);
    println!("strips against dense rays {difference:.2e}");
    assert!(difference < 6e-3, "{difference}");
}

#[test]
fn faulty_settings_are_told_all_at_once() {
    let rendering = disc(ImageGrid::square(30, 8.0).unwrap());
    let geometry = ParallelGeometry::new(4, 30, 8.0).unwrap();
    let broken = Acquisition {
        counts: -1.0,
        scatter_fraction: 1.0,
        psf_fwhm_mm: f64::NAN,
        ..Acquisition::ideal()
    };
    let message = broken
        .measure(&rendering, geometry, None)
        .unwrap_err()
        .to_string();
    for word in ["-1 counts", "scatter fraction of 1", "NaN mm"] {
        assert!(message.contains(word), "{message}");
    }
    let empty = Rendering {
        activity: grid_zeros(rendering.grid),
        ..rendering
    };
    assert!(Acquisition::ideal().measure(&empty, geometry, None).is_err());
}
