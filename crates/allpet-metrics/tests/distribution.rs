//! Distribution metrics: closed forms, independence of batches and threads, degenerate sets, refusals.

#![allow(clippy::unwrap_used)]

use allpet_core::stream;
use allpet_metrics::distribution::{
    GaussianStatistics, InceptionScoreSettings, KernelSettings, RandomFeatures, frechet_distance,
    frechet_distance_of, inception_score, kernel_distance, nearest_neighbours, polynomial_mmd,
    precision_recall,
};
use ndarray::{Array1, Array2, Array3, Axis, arr2, concatenate, s};
use rand::Rng;

fn noise(seed: u64, samples: usize, features: usize) -> Array2<f64> {
    let mut generator = stream(seed, "test", 0);
    Array2::from_shape_simple_fn((samples, features), || generator.random::<f64>())
}

fn in_threads<R: Send>(threads: usize, run: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(run)
}

fn statistics(set: &Array2<f64>, batch: usize) -> GaussianStatistics {
    let mut statistics = GaussianStatistics::new(set.ncols()).unwrap();
    for part in set.axis_chunks_iter(Axis(0), batch) {
        statistics.update(part).unwrap();
    }
    statistics
}

#[test]
fn frechet_distance_of_diagonal_gaussians_is_closed() {
    let d = 9;
    let mean = Array1::from_shape_fn(d, |j| 0.1 * j as f64);
    let (a, b) = (
        Array1::from_shape_fn(d, |j| 0.5 + j as f64),
        Array1::from_shape_fn(d, |j| 2.0 / (1.0 + j as f64)),
    );
    let first = GaussianStatistics::from_moments(100, mean.view(), Array2::from_diag(&a).view()).unwrap();
    let second =
        GaussianStatistics::from_moments(100, Array1::zeros(d).view(), Array2::from_diag(&b).view()).unwrap();
    let expected = mean.dot(&mean)
        + a.iter()
            .zip(&b)
            .map(|(a, b)| (a.sqrt() - b.sqrt()).powi(2))
            .sum::<f64>();
    let got = frechet_distance(&first, &second).unwrap();
    assert!(
        (got.distance - expected).abs() < 1e-12 * expected,
        "{got} {expected}"
    );
    assert!(!got.is_singular());
}

#[test]
fn streaming_does_not_depend_on_batches_or_threads() {
    let (a, b) = (noise(1, 700, 24), noise(2, 300, 24));
    let once = frechet_distance(&statistics(&a, 700), &statistics(&b, 300)).unwrap();
    for (batch, threads) in [(1, 1), (17, 2), (256, 3)] {
        let again = in_threads(threads, || {
            frechet_distance(&statistics(&a, batch), &statistics(&b, batch)).unwrap()
        });
        assert_eq!(once, again);
    }
    let mut merged = statistics(&a.slice(s![..333, ..]).to_owned(), 50);
    merged
        .merge(&statistics(&a.slice(s![333.., ..]).to_owned(), 99))
        .unwrap();
    assert_eq!(merged.count(), 700);
    let whole = statistics(&a, 700);
    let off = (&merged.covariance().unwrap() - &whole.covariance().unwrap()).mapv(f64::abs);
    assert!(off.iter().all(|v| *v < 1e-15));
    let two_pass = a.mean_axis(Axis(0)).unwrap();
    let centred = &a - &two_pass;
    let direct = centred.t().dot(&centred) / 699.0;
    let off = (&direct - &whole.covariance().unwrap()).mapv(f64::abs);
    assert!(off.iter().all(|v| *v < 1e-14));
}

#[test]
fn everything_else_is_the_same_bytes_in_any_pool() {
    let (a, b) = (noise(3, 300, 160), noise(4, 280, 160));
    let images = Array3::from_shape_fn((5, 33, 20), |(n, i, j)| ((n * 7 + i * 3 + j * 5) % 11) as f32);
    let settings = KernelSettings {
        subsets: 5,
        subset_size: 200,
        seed: 3,
    };
    let all = || {
        (
            frechet_distance_of(a.view(), b.view()).unwrap(),
            kernel_distance(a.view(), b.view(), &settings).unwrap(),
            polynomial_mmd(a.view(), b.view()).unwrap(),
            precision_recall(a.view(), b.view(), 3).unwrap(),
            nearest_neighbours(a.view(), b.view()).unwrap(),
            RandomFeatures::new(1).extract(images.view(), 10.0).unwrap(),
        )
    };
    assert_eq!(in_threads(1, all), in_threads(3, all));
    let alone = RandomFeatures::new(1)
        .extract(images.slice(s![3..4, .., ..]), 10.0)
        .unwrap();
    let together = RandomFeatures::new(1).extract(images.view(), 10.0).unwrap();
    assert_eq!(alone.row(0), together.row(3));
}

#[test]
fn kernel_distance_matches_a_plain_double_sum_beyond_one_tile() {
    let (a, b) = (noise(5, 530, 7), noise(6, 520, 7) * 1.2);
    let kernel =
        |x: ndarray::ArrayView1<'_, f64>, y: ndarray::ArrayView1<'_, f64>| (x.dot(&y) / 7.0 + 1.0).powi(3);
    let mean = |x: &Array2<f64>, y: &Array2<f64>, same: bool| {
        let mut sum = 0.0;
        for (i, u) in x.rows().into_iter().enumerate() {
            for (j, v) in y.rows().into_iter().enumerate() {
                if !(same && i == j) {
                    sum += kernel(u, v);
                }
            }
        }
        sum / (x.nrows() * (y.nrows() - usize::from(same))) as f64
    };
    let expected = mean(&a, &a, true) + mean(&b, &b, true) - 2.0 * mean(&a, &b, false);
    let got = polynomial_mmd(a.view(), b.view()).unwrap();
    assert!((got - expected).abs() < 1e-10 * expected, "{got} {expected}");
    let biased = mean(&a, &a, false) + mean(&b, &b, false) - 2.0 * mean(&a, &b, false);
    assert!(
        (got - biased).abs() > 1e-3 * expected,
        "the biased control agrees"
    );
}

#[test]
fn kernel_distance_is_unbiased_and_sees_a_shift() {
    let (a, b) = (noise(7, 400, 16), noise(8, 400, 16));
    let settings = KernelSettings {
        subsets: 50,
        subset_size: 100,
        seed: 0,
    };
    let same = kernel_distance(a.view(), b.view(), &settings).unwrap();
    assert!(same.mean.abs() < same.sd, "{same}");
    let shifted = kernel_distance((&a + 0.2).view(), b.view(), &settings).unwrap();
    assert!(shifted.mean > 10.0 * shifted.sd, "{shifted}");
    let reseeded = kernel_distance(a.view(), b.view(), &KernelSettings { seed: 1, ..settings }).unwrap();
    assert_ne!(same.mean, reseeded.mean);
}

#[test]
fn inception_score_has_its_closed_extremes() {
    let settings = InceptionScoreSettings {
        splits: 1,
        shuffle: Some(4),
    };
    let uniform = inception_score(Array2::<f32>::zeros((20, 10)).view(), &settings).unwrap();
    assert!((uniform.mean - 1.0).abs() < 1e-14);
    let certain = Array2::from_shape_fn((20, 10), |(i, j)| if i % 10 == j { 800.0 } else { 0.0 });
    let all_classes = inception_score(certain.view(), &settings).unwrap();
    assert!((all_classes.mean - 10.0).abs() < 1e-12, "{all_classes:?}");
    let alike = inception_score(
        Array2::from_shape_fn((20, 10), |(_, j)| j as f64).view(),
        &settings,
    );
    assert!((alike.unwrap().mean - 1.0).abs() < 1e-14);
}

#[test]
fn precision_recall_matches_a_plain_search() {
    let (a, b) = (noise(9, 150, 5), noise(10, 170, 5) + 0.15);
    let got = precision_recall(a.view(), b.view(), 4).unwrap();
    let distance = |x: ndarray::ArrayView1<'_, f64>, y: ndarray::ArrayView1<'_, f64>| {
        x.iter().zip(y).map(|(u, v)| (u - v).powi(2)).sum::<f64>().sqrt()
    };
    let radii = |set: &Array2<f64>| -> Vec<f64> {
        let own = set.rows().into_iter().map(|x| {
            let mut all: Vec<f64> = set.rows().into_iter().map(|y| distance(x, y)).collect();
            all.sort_by(f64::total_cmp);
            all[4]
        });
        own.collect()
    };
    let (ra, rb) = (radii(&a), radii(&b));
    let within = |x: ndarray::ArrayView1<'_, f64>, set: &Array2<f64>, r: &[f64]| {
        let rows = set.rows();
        rows.into_iter()
            .zip(r)
            .filter(|(y, r)| distance(x, *y) <= **r)
            .count()
    };
    let inside: Vec<usize> = a.rows().into_iter().map(|x| within(x, &b, &rb)).collect();
    assert_eq!(
        got.precision,
        inside.iter().filter(|c| **c > 0).count() as f64 / 150.0
    );
    assert_eq!(got.density, inside.iter().sum::<usize>() as f64 / 600.0);
    let recalled = b.rows().into_iter().filter(|y| within(*y, &a, &ra) > 0).count();
    assert_eq!(got.recall, recalled as f64 / 170.0);
    let covered = b.rows().into_iter().zip(&rb);
    let covered = covered.filter(|(y, r)| a.rows().into_iter().any(|x| distance(x, *y) <= **r));
    assert_eq!(got.coverage, covered.count() as f64 / 170.0);
}

#[test]
fn identical_sets_meet_every_ball_on_its_edge() {
    let set = noise(17, 300, 30) + 100.0;
    let order: Vec<usize> = (0..300).map(|i| (i * 7 + 5) % 300).collect();
    let got = precision_recall(set.select(Axis(0), &order).view(), set.view(), 3).unwrap();
    assert_eq!((got.precision, got.recall, got.coverage), (1.0, 1.0, 1.0));
    // Every ball holds its own sample and its three neighbours, the last on its edge.
    assert!((got.density - 4.0 / 3.0).abs() < 1e-12, "{got:?}");
}

#[test]
fn nearest_neighbours_find_copies_far_from_the_origin() {
    let training = noise(11, 700, 12) + 1e6;
    let mut samples = training.select(Axis(0), &[650, 3, 512]);
    samples.row_mut(1)[0] += 1e-3;
    let found = nearest_neighbours(samples.view(), training.view()).unwrap();
    let indices: Vec<usize> = found.iter().map(|n| n.index).collect();
    assert_eq!(indices, [650, 3, 512]);
    assert_eq!((found[0].distance, found[0].relative), (0.0, 0.0));
    assert!((found[1].distance - 1e-3).abs() < 1e-9, "{:?}", found[1]);
    let norm = training.row(3).dot(&training.row(3)).sqrt();
    assert!((found[1].relative * norm - found[1].distance).abs() < 1e-12);
    let zero = nearest_neighbours(
        arr2(&[[3.0, 4.0], [0.0, 0.0]]).view(),
        arr2(&[[0.0_f32, 0.0]]).view(),
    )
    .unwrap();
    assert_eq!((zero[0].distance, zero[0].relative), (5.0, 1.0));
    assert_eq!((zero[1].distance, zero[1].relative), (0.0, 0.0));
}

#[test]
fn random_features_tell_textures_apart() {
    let extractor = RandomFeatures::new(0);
    let images = |seed: u64, smooth: usize| {
        let mut generator = stream(seed, "texture", smooth as u64);
        let fine = Array3::<f32>::from_shape_simple_fn((60, 32, 32), || generator.random());
        Array3::from_shape_fn(fine.dim(), |(n, i, j)| {
            fine[[n, i / smooth * smooth, j / smooth * smooth]]
        })
    };
    let features = |seed, smooth| extractor.extract(images(seed, smooth).view(), 1.0).unwrap();
    let (reference, same, coarse) = (features(1, 1), features(2, 1), features(3, 2));
    assert_eq!(reference.dim(), (60, RandomFeatures::COUNT));
    let floor = frechet_distance_of(same.view(), reference.view()).unwrap();
    let apart = frechet_distance_of(coarse.view(), reference.view()).unwrap();
    assert!(apart.distance > 3.0 * floor.distance, "{apart} against {floor}");
    assert!(floor.is_singular() && floor.to_string().contains("singular"));
    let settings = KernelSettings {
        subsets: 10,
        subset_size: 50,
        seed: 0,
    };
    let floor = kernel_distance(same.view(), reference.view(), &settings).unwrap();
    let apart = kernel_distance(coarse.view(), reference.view(), &settings).unwrap();
    assert!(apart.mean > 10.0 * floor.mean.abs(), "{apart} against {floor}");
    let doubled = extractor.extract((images(1, 1) * 2.0).view(), 2.0).unwrap();
    assert_eq!(doubled, reference);
    assert!(RandomFeatures::new(1).extract(images(1, 1).view(), 1.0).unwrap() != reference);
}

#[test]
fn degenerate_sets_have_defined_values() {
    let constant = Array2::<f64>::from_elem((6, 4), 0.3);
    let other = noise(12, 6, 4);
    for (a, b) in [(&constant, &constant), (&other, &other)] {
        let distance = frechet_distance_of(a.view(), b.view()).unwrap();
        assert!(distance.distance.abs() < 1e-14, "{distance}");
        let streamed = frechet_distance(&statistics(a, 2), &statistics(b, 6)).unwrap();
        assert!(streamed.distance.abs() < 1e-14, "{streamed}");
        let sharing = precision_recall(a.view(), b.view(), 3).unwrap();
        assert_eq!(
            (sharing.precision, sharing.recall, sharing.coverage),
            (1.0, 1.0, 1.0)
        );
    }
    let zero_kernel = polynomial_mmd(constant.view(), constant.view()).unwrap();
    assert!(zero_kernel.abs() < 1e-14);
    let against_constant = frechet_distance_of(other.view(), constant.view()).unwrap();
    let trace = statistics(&other, 6).covariance().unwrap().diag().sum();
    assert!((against_constant.covariance_term - trace).abs() < 1e-14);
    let few = noise(13, 3, 50);
    let few_against_themselves = frechet_distance_of(few.view(), few.view()).unwrap();
    assert!(few_against_themselves.distance < 1e-13 && few_against_themselves.is_singular());
    let twice = concatenate(Axis(0), &[few.view(), few.view()]).unwrap();
    assert!(
        precision_recall(twice.view(), twice.view(), 1)
            .unwrap()
            .density
            .is_finite()
    );
}

#[test]
fn what_cannot_be_computed_is_one_clear_error() {
    let good = noise(14, 8, 4);
    let mut bad = good.clone();
    bad[[5, 2]] = f64::NAN;
    let says = |error: allpet_metrics::Error, part: &str| {
        let sentence = error.to_string();
        assert!(sentence.contains(part) && !sentence.contains('\n'), "{sentence}");
    };
    let kernel = KernelSettings {
        subsets: 2,
        subset_size: 4,
        seed: 0,
    };
    let score = InceptionScoreSettings::default();
    let images = |value: f32| Array3::from_elem((1, 16, 16), value);
    let extractor = RandomFeatures::new(0);
    says(
        frechet_distance_of(bad.view(), good.view()).unwrap_err(),
        "index [5, 2]",
    );
    says(
        GaussianStatistics::new(4)
            .unwrap()
            .update(bad.view())
            .unwrap_err(),
        "index [5, 2]",
    );
    says(
        kernel_distance(good.view(), bad.view(), &kernel).unwrap_err(),
        "index [5, 2]",
    );
    says(
        precision_recall(bad.view(), good.view(), 3).unwrap_err(),
        "index [5, 2]",
    );
    says(
        nearest_neighbours(good.view(), bad.view()).unwrap_err(),
        "index [5, 2]",
    );
    says(
        inception_score(bad.view(), &score).unwrap_err(),
        "at least 10 samples",
    );
    says(
        inception_score(bad.view(), &InceptionScoreSettings { splits: 2, ..score }).unwrap_err(),
        "[5, 2]",
    );
    says(
        inception_score(good.view(), &InceptionScoreSettings { splits: 0, ..score }).unwrap_err(),
        "splits",
    );
    says(
        extractor.extract(images(f32::INFINITY).view(), 1.0).unwrap_err(),
        "inf",
    );
    says(
        extractor.extract(images(1.0).view(), 0.0).unwrap_err(),
        "data range",
    );
    says(
        extractor.extract(images(1e30).view(), 1e-30).unwrap_err(),
        "finite",
    );
    says(
        extractor
            .extract(Array3::zeros((1, 15, 16)).view(), 1.0)
            .unwrap_err(),
        "16 rows",
    );

    let narrow = noise(15, 8, 3);
    let one = noise(16, 1, 4);
    says(
        frechet_distance_of(narrow.view(), good.view()).unwrap_err(),
        "[8, 3]",
    );
    says(
        frechet_distance_of(one.view(), good.view()).unwrap_err(),
        "at least 2 samples",
    );
    says(
        polynomial_mmd(good.view(), one.view()).unwrap_err(),
        "at least 2 samples",
    );
    says(
        precision_recall(one.view(), good.view(), 3).unwrap_err(),
        "at least 4 samples",
    );
    says(
        precision_recall(good.view(), good.view(), 0).unwrap_err(),
        "neighbours",
    );
    says(
        nearest_neighbours(good.slice(s![..0, ..]), good.view()).unwrap_err(),
        "at least 1 samples",
    );
    says(
        frechet_distance(&statistics(&one, 1), &statistics(&good, 8)).unwrap_err(),
        "at least 2 samples",
    );
    says(
        frechet_distance(&statistics(&narrow, 8), &statistics(&good, 8)).unwrap_err(),
        "[3]",
    );
    says(
        kernel_distance(
            good.view(),
            good.view(),
            &KernelSettings {
                subset_size: 8,
                ..kernel
            },
        )
        .unwrap_err(),
        "at least 9",
    );
    says(
        kernel_distance(
            good.view(),
            good.view(),
            &KernelSettings {
                subset_size: 1,
                ..kernel
            },
        )
        .unwrap_err(),
        "subset size",
    );
    says(
        kernel_distance(good.view(), good.view(), &KernelSettings { subsets: 0, ..kernel }).unwrap_err(),
        "subsets",
    );

    let huge = &good * 1e200;
    says(
        frechet_distance_of(huge.view(), good.view()).unwrap_err(),
        "overflow",
    );
    says(
        frechet_distance(&statistics(&huge, 8), &statistics(&good, 8)).unwrap_err(),
        "overflow",
    );
    says(polynomial_mmd(huge.view(), good.view()).unwrap_err(), "overflow");
    says(
        precision_recall(huge.view(), good.view(), 3).unwrap_err(),
        "overflow",
    );
    let skewed = arr2(&[[1.0, 0.2], [0.0, 1.0]]);
    let mean = Array1::zeros(2);
    says(
        GaussianStatistics::from_moments(9, mean.view(), skewed.view()).unwrap_err(),
        "asymmetry",
    );
}
