//! Classical restorations against closed forms and Poisson data of known truth; a broken control beside each check.

#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry, stream};
use allpet_radon::analytic::{Ellipse, project, project_bin_means};
use allpet_tasks::classical::{OsemFiltered, UniformWater};
use ndarray::{Array2, Array3, ArrayView2, ArrayView3, Axis, concatenate, s, stack};
use rand::Rng;

const WATER: f64 = 0.0096;

fn geometry() -> ParallelGeometry {
    ParallelGeometry::new(64, 64, 5.0).unwrap()
}

fn ellipse(value: f64, x_mm: f64, y_mm: f64, a_mm: f64, b_mm: f64, tilt_rad: f64) -> Ellipse {
    Ellipse {
        value,
        x_mm,
        y_mm,
        a_mm,
        b_mm,
        tilt_rad,
    }
}

fn body() -> Ellipse {
    ellipse(1.0, 20.0, -15.0, 90.0, 60.0, 0.4)
}

fn water() -> UniformWater {
    UniformWater {
        size: 64,
        ..UniformWater::default()
    }
}

fn osem() -> OsemFiltered {
    OsemFiltered {
        size: 64,
        ..OsemFiltered::default()
    }
}

/// Activity and its attenuated sinogram; the cylinder of water has the body's outline.
fn cylinder(activity: &[Ellipse]) -> (Array2<f32>, Array2<f32>) {
    let truth = project(activity, &geometry());
    let path = project(
        &[Ellipse {
            value: WATER,
            ..body()
        }],
        &geometry(),
    );
    let attenuated = &truth * &path.mapv(|p| (-p).exp());
    (truth, attenuated)
}

fn mean_square(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    sum / a.len() as f64
}

/// Root of the mean square error, relative to the reference's root mean square.
fn relative(a: ArrayView2<'_, f32>, reference: ArrayView2<'_, f32>) -> f64 {
    let zero = Array2::zeros(reference.dim());
    (mean_square(a, reference) / mean_square(zero.view(), reference)).sqrt()
}

fn sum(values: ArrayView2<'_, f32>) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum()
}

fn inside(shape: &Ellipse) -> Array2<bool> {
    let grid = ImageGrid::square(64, 5.0).unwrap();
    Array2::from_shape_fn(grid.shape(), |(row, col)| {
        shape.contains(grid.x_mm(col as f64), grid.y_mm(row as f64))
    })
}

fn dice(a: &Array2<bool>, b: &Array2<bool>) -> f64 {
    let count = |m: &Array2<bool>| m.iter().filter(|v| **v).count() as f64;
    let both = a.iter().zip(b).filter(|(a, b)| **a && **b).count() as f64;
    2.0 * both / (count(a) + count(b))
}

fn outline_of(sinogram: &Array2<f32>) -> Array2<bool> {
    let stack = sinogram.view().insert_axis(Axis(0));
    let maps = water().attenuation_maps(stack, &geometry()).unwrap();
    maps.index_axis(Axis(0), 0).mapv(|mu| mu > 0.0)
}

/// Knuth's method; exact for the small means here.
fn poisson(mean: f64, rng: &mut impl Rng) -> f32 {
    let (end, mut product, mut count) = ((-mean).exp(), rng.random::<f64>(), 0.0);
    while product > end {
        product *= rng.random::<f64>();
        count += 1.0;
    }
    count
}

/// A disc with a hot and a cold spot; at the whole dose its bins have some 40 counts.
fn disc() -> Array2<f32> {
    let shapes = [
        ellipse(0.25, 10.0, 5.0, 80.0, 80.0, 0.0),
        ellipse(0.5, 40.0, 20.0, 15.0, 15.0, 0.0),
        ellipse(-0.2, -20.0, 0.0, 20.0, 20.0, 0.0),
    ];
    project_bin_means(&shapes, &geometry())
}

fn thinned(truth: &Array2<f32>, dose: f64, seed: u64) -> Array2<f32> {
    let mut rng = stream(seed, "thinned disc", 0);
    truth.mapv(|v| poisson(f64::from(v) * dose, &mut rng))
}

fn noisy(n: u64) -> Array3<f32> {
    let sinograms: Vec<_> = (0..n).map(|i| thinned(&disc(), 0.25, i)).collect();
    let views: Vec<_> = sinograms.iter().map(|s| s.view()).collect();
    stack(Axis(0), &views).unwrap()
}

#[test]
fn water_cylinder_is_corrected_to_its_unattenuated_projection() {
    let hot = ellipse(3.0, 50.0, 0.0, 12.0, 12.0, 0.0);
    let (truth, attenuated) = cylinder(&[body(), hot]);
    let input = attenuated.view().insert_axis(Axis(0));
    let error = |water: UniformWater| {
        let restored = water.restore(input, &geometry()).unwrap();
        relative(restored.index_axis(Axis(0), 0), truth.view())
    };
    let corrected = error(water());
    assert!(corrected < 0.04, "{corrected}");
    let untouched = relative(attenuated.view(), truth.view());
    assert!(untouched > 0.5, "{untouched}");
    for wrong in [0.8 * WATER, 1.2 * WATER] {
        let wrong = error(UniformWater {
            mu_per_mm: wrong,
            ..water()
        });
        assert!(wrong > 3.0 * corrected, "{wrong} beside {corrected}");
    }
    let total = sum(water()
        .restore(input, &geometry())
        .unwrap()
        .index_axis(Axis(0), 0))
        / sum(truth.view());
    assert!((total - 1.0).abs() < 0.04, "{total}");
}

#[test]
fn outline_of_an_off_centre_ellipse_is_found_lungs_and_all() {
    let (_, plain) = cylinder(&[body()]);
    let lungs = ellipse(-1.0, 15.0, -10.0, 50.0, 30.0, 0.4);
    let (_, hollow) = cylinder(&[body(), lungs]);
    for sinogram in [plain, hollow] {
        let found = outline_of(&sinogram);
        let right = dice(&found, &inside(&body()));
        assert!(right > 0.96, "{right}");
        let lung_area = inside(&Ellipse { value: 1.0, ..lungs });
        assert!(found.iter().zip(&lung_area).all(|(body, lung)| *body || !lung));
        for wrong in [
            Ellipse { y_mm: 15.0, ..body() },
            Ellipse {
                tilt_rad: -0.4,
                ..body()
            },
            Ellipse {
                x_mm: -20.0,
                ..body()
            },
        ] {
            let wrong = dice(&found, &inside(&wrong));
            assert!(wrong < 0.9, "{wrong}");
        }
    }
}

#[test]
fn outline_holds_under_noise_and_what_randoms_leave() {
    let (_, attenuated) = cylinder(&[body()]);
    let mut rng = stream(3, "noise", 0);
    // One count per unit, and randoms that a correction left over: 2 % of the mean.
    let left = 0.02 * attenuated.mean().unwrap();
    let counted = attenuated.mapv(|v| poisson(f64::from(v + left), &mut rng));
    let right = dice(&outline_of(&counted), &inside(&body()));
    assert!(right > 0.92, "{right}");
    let maps = |level| UniformWater { level, ..water() };
    let low = maps(1e-6)
        .attenuation_maps(counted.view().insert_axis(Axis(0)), &geometry())
        .unwrap();
    let low = dice(&low.index_axis(Axis(0), 0).mapv(|mu| mu > 0.0), &inside(&body()));
    assert!(low < right - 0.05, "{low}");
}

#[test]
fn filtered_osem_beats_the_scaled_input_on_a_thinned_disc() {
    let truth = disc();
    for (dose, factor) in [(0.25, 10.0), (0.05, 25.0)] {
        let counted = thinned(&truth, dose, 7);
        let scaled = mean_square(counted.mapv(|v| v / dose as f32).view(), truth.view());
        let error = |osem: OsemFiltered, dose: f64| {
            let restored = osem
                .restore(counted.view().insert_axis(Axis(0)), &geometry(), dose)
                .unwrap();
            mean_square(restored.index_axis(Axis(0), 0), truth.view())
        };
        let chosen = OsemFiltered {
            size: 64,
            ..OsemFiltered::for_dose(dose).unwrap()
        };
        let ours = error(chosen, dose);
        assert!(
            scaled > factor * ours,
            "dose {dose}: {scaled} / {ours} = {}",
            scaled / ours
        );
        // Iterated into the noise and not filtered, it loses most of that.
        let noise = error(
            OsemFiltered {
                iterations: 20,
                subsets: 8,
                fwhm_mm: 0.0,
                ..chosen
            },
            dose,
        );
        assert!(
            noise > 3.0 * ours,
            "dose {dose}: {noise} / {ours} = {}",
            noise / ours
        );
        let wrong = error(chosen, (2.0 * dose).min(1.0));
        assert!(
            wrong > 3.0 * ours,
            "dose {dose}: {wrong} / {ours} = {}",
            wrong / ours
        );
    }
}

#[test]
fn totals_are_divided_by_the_dose() {
    let input = noisy(2);
    for dose in [0.25, 0.01] {
        let osem = OsemFiltered {
            size: 64,
            ..OsemFiltered::for_dose(dose).unwrap()
        };
        let restored = osem.restore(input.view(), &geometry(), dose).unwrap();
        for (input, restored) in input.outer_iter().zip(restored.outer_iter()) {
            let ratio = sum(restored) * dose / sum(input);
            assert!((ratio - 1.0).abs() < 0.01, "dose {dose}: {ratio}");
        }
        assert!(restored.iter().all(|v| *v >= 0.0));
    }
    let unscaled = osem().restore(input.view(), &geometry(), 1.0).unwrap();
    let ratio = sum(unscaled.index_axis(Axis(0), 0)) * 0.25 / sum(input.index_axis(Axis(0), 0));
    assert!((ratio - 1.0).abs() > 0.5, "{ratio}");
}

#[test]
fn images_are_what_is_projected_and_have_the_activity_of_the_object() {
    let dose = 0.25;
    let input = disc().mapv(|v| v * dose).insert_axis(Axis(0));
    let images = osem().images(input.view(), &geometry()).unwrap();
    let grid = ImageGrid::square(64, 5.0).unwrap();
    let at = |x_mm: f64, y_mm: f64| {
        let (row, col) = (31.5 - y_mm / grid.pixel_mm, 31.5 + x_mm / grid.pixel_mm);
        images[[0, row.round() as usize, col.round() as usize]]
    };
    for (x, y, value) in [(10.0, -50.0, 0.25), (40.0, 20.0, 0.75), (-20.0, 0.0, 0.05)] {
        let got = at(x, y) / dose;
        assert!((got - value).abs() < 0.08, "{got} at {x}, {y}; expected {value}");
    }
    assert!((at(40.0, -20.0) / dose - 0.75).abs() > 0.3);
    let projector = allpet_radon::Projector::new(grid, geometry()).unwrap();
    let projected = allpet_radon::LinearOperator::apply(&projector, images.view().into_dyn()).unwrap();
    let restored = osem()
        .restore(input.view(), &geometry(), f64::from(dose))
        .unwrap();
    assert!(
        projected
            .iter()
            .zip(&restored)
            .all(|(p, r)| (p / dose - r).abs() <= 1e-6 * r)
    );
}

/// Both restorations of a stack, one after the other.
fn both(sinograms: ArrayView3<'_, f32>) -> Array3<f32> {
    let low_dose = osem().restore(sinograms, &geometry(), 0.25).unwrap();
    let attenuation = water().restore(sinograms, &geometry()).unwrap();
    stack(Axis(0), &[low_dose.view(), attenuation.view()])
        .unwrap()
        .permuted_axes([1, 0, 2, 3])
        .to_shape((sinograms.len_of(Axis(0)), 128, 64))
        .unwrap()
        .into_owned()
}

fn bits(values: &Array3<f32>) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_sample_gives_the_same_bits_alone_in_any_batch_and_on_any_threads() {
    // Three go slice by slice, seven through the kernel of sixteen.
    let all = noisy(7);
    let whole = both(all.view());
    let three = both(all.slice(s![..3, .., ..]));
    let single: Vec<_> = (0..7).map(|i| both(all.slice(s![i..=i, .., ..]))).collect();
    let views: Vec<_> = single.iter().map(|s| s.view()).collect();
    let alone = concatenate(Axis(0), &views).unwrap();
    assert_eq!(bits(&whole), bits(&alone));
    assert_eq!(bits(&three), bits(&alone.slice(s![..3, .., ..]).to_owned()));
    for threads in [1, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        assert_eq!(bits(&pool.install(|| both(all.view()))), bits(&whole));
    }
    let mut touched = all.clone();
    touched[[1, 30, 30]] += 1.0;
    let touched = both(touched.view());
    assert_ne!(bits(&touched), bits(&whole));
    assert_eq!(touched.index_axis(Axis(0), 0), whole.index_axis(Axis(0), 0));
}

#[test]
fn the_fewer_counts_the_earlier_it_stops_and_the_wider_it_smooths() {
    let settings: Vec<_> = [1.0, 0.25, 0.01]
        .map(|dose| OsemFiltered::for_dose(dose).unwrap())
        .into();
    for pair in settings.windows(2) {
        assert!(pair[0].iterations > pair[1].iterations);
        assert!(pair[0].fwhm_mm < pair[1].fwhm_mm);
    }
    let default = OsemFiltered::default();
    assert_eq!(settings[1].iterations, default.iterations);
    assert!((settings[1].fwhm_mm - default.fwhm_mm).abs() < 0.05);
    assert!((settings[2].fwhm_mm - default.fwhm_mm).abs() > 5.0);
}

#[test]
fn bad_input_gives_one_clear_error() {
    let good = noisy(3);
    let geometry = geometry();
    let zero = |i: usize| {
        let mut bad = good.clone();
        bad.index_axis_mut(Axis(0), i).fill(0.0);
        bad
    };
    let with = |value: f32| {
        let mut bad = good.clone();
        bad[[2, 5, 9]] = value;
        bad
    };
    let narrow = good.slice(s![.., .., ..60]).to_owned();
    let none = good.slice(s![..0, .., ..]).to_owned();
    for (bad, words) in [
        (narrow, "sinograms: [3, 64, 60]; expected [n, 64, 64]"),
        (none, "sinograms: none; expected at least one"),
        (zero(1), "sinogram 1: 0 in every bin; expected some counts"),
        (
            with(-0.5),
            "sinogram 2: -0.5 in view 5, bin 9; expected 0 or more",
        ),
        (with(f32::NAN), "[2, 5, 9]"),
    ] {
        for error in [
            osem().restore(bad.view(), &geometry, 0.25).map(drop),
            osem().images(bad.view(), &geometry).map(drop),
            water().restore(bad.view(), &geometry).map(drop),
            water().attenuation_maps(bad.view(), &geometry).map(drop),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains('\n'));
        }
    }
    for dose in [0.0, -1.0, 1.5, f64::NAN, f64::INFINITY] {
        let words = format!("dose of {dose}; expected a fraction of more than 0 and at most 1");
        let restored = osem().restore(good.view(), &geometry, dose);
        assert!(restored.unwrap_err().to_string().contains(&words));
        assert!(
            OsemFiltered::for_dose(dose)
                .unwrap_err()
                .to_string()
                .contains(&words)
        );
    }
    let subsets = OsemFiltered {
        subsets: 65,
        ..osem()
    };
    let error = subsets
        .restore(good.view(), &geometry, 0.25)
        .unwrap_err()
        .to_string();
    assert!(error.contains("at most the number of views"), "{error}");
    // The good stack passes through all of them.
    assert!(osem().restore(good.view(), &geometry, 0.25).is_ok());
    assert!(water().restore(good.view(), &geometry).is_ok());
}

#[test]
fn settings_report_every_fault_at_once() {
    let osem = OsemFiltered {
        iterations: 0,
        subsets: 0,
        fwhm_mm: f64::NAN,
        size: 0,
    };
    let error = osem.validate().unwrap_err().to_string();
    assert_eq!(error.matches("expected").count(), 4, "{error}");
    let water = UniformWater {
        mu_per_mm: 0.0,
        level: 1.0,
        smooth: -1.0,
        trim: f64::NAN,
        size: 0,
    };
    let error = water.validate().unwrap_err().to_string();
    assert_eq!(error.matches("expected").count(), 5, "{error}");
    assert!(OsemFiltered::default().validate().is_ok());
    assert!(UniformWater::default().validate().is_ok());
}

#[test]
fn a_sinogram_without_an_outline_is_named() {
    // A bin that counts alone, in every view: off the axis no point of a body casts that shadow.
    let mut stack = noisy(3);
    let mut ring = stack.index_axis_mut(Axis(0), 1);
    ring.fill(0.0);
    ring.column_mut(50).fill(10.0);
    let error = water()
        .restore(stack.view(), &geometry())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("sinogram 1: shadows without a common pixel"),
        "{error}"
    );
    // On the axis there is one.
    let mut ring = stack.index_axis_mut(Axis(0), 1);
    ring.fill(0.0);
    ring.slice_mut(s![.., 31..33]).fill(10.0);
    assert!(water().restore(stack.view(), &geometry()).is_ok());
}
