//! Step 1 of TMA against scikit-image and scipy (`golden/attention.py`), closed cases, and what is refused.

#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_mask::attention::{
    Body, CoarseConfig, CoarseMethod, Connectivity, Lesions, RoiConfig, Threshold, find_lesions,
    find_lesions_in, label_components, otsu_threshold,
};
use allpet_radon::analytic::{Ellipse, project_bin_means};
use ndarray::{Array2, s};
use serde_json::Value;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/attention.json")).unwrap()
}

fn cases(golden: &Value, kind: &str) -> Vec<Value> {
    golden[kind].as_array().unwrap().clone()
}

fn number(case: &Value, name: &str) -> f64 {
    case[name].as_f64().unwrap()
}

fn whole(case: &Value, name: &str) -> usize {
    case[name].as_u64().unwrap() as usize
}

/// Knuth's MMIX linear congruential generator, its upper 53 bits in [0, 1).
fn field(seed: usize, rows: usize, cols: usize) -> Array2<f64> {
    let mut state = seed as u64;
    Array2::from_shape_simple_fn((rows, cols), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    })
}

fn image(case: &Value) -> Array2<f64> {
    let (rows, cols) = (whole(case, "rows"), whole(case, "cols"));
    let noise = field(whole(case, "seed"), rows, cols);
    let radius = 0.4 * rows.min(cols) as f64;
    let mut x = Array2::from_shape_fn((rows, cols), |(r, c)| {
        let (dr, dc) = (r as f64 - rows as f64 / 2.0, c as f64 - cols as f64 / 2.0);
        let base = if dr * dr + dc * dc < radius * radius {
            4.0
        } else {
            0.5
        };
        base + noise[[r, c]] + 0.01 * r as f64
    });
    let (r, c) = (rows / 2, cols / 2);
    x.slice_mut(s![r - 6..r - 2, c - 6..c - 2])
        .map_inplace(|v| *v += 4.0);
    x.slice_mut(s![r + 3..r + 7, c + 3..c + 7])
        .map_inplace(|v| *v -= 3.0);
    x.mapv(|v| f64::from(v as f32))
}

fn mask_of(lines: &Value) -> Array2<bool> {
    let lines: Vec<&str> = lines
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l.as_str().unwrap())
        .collect();
    Array2::from_shape_fn((lines.len(), lines[0].len()), |(r, c)| {
        lines[r].as_bytes()[c] == b'#'
    })
}

fn grid(image: &Array2<f64>) -> ImageGrid {
    ImageGrid::new(image.nrows(), image.ncols(), 1.0).unwrap()
}

fn find(image: &Array2<f64>, config: &RoiConfig) -> Lesions {
    find_lesions(image.mapv(|v| v as f32).view(), &grid(image), config).unwrap()
}

fn nothing() -> RoiConfig {
    RoiConfig {
        hot: None,
        ..RoiConfig::default()
    }
}

/// A body that is the whole image.
fn everywhere() -> Option<Body> {
    Some(Body {
        level: Threshold::Value { value: -1e9 },
        margin_mm: 0.0,
    })
}

#[test]
fn otsu_agrees_with_scikit_image() {
    for case in cases(&golden(), "otsu") {
        let power = whole(&case, "power") as i32;
        let values = image(&case).mapv(|v| f64::from(v.powi(power) as f32));
        let found = otsu_threshold(values.iter().copied(), whole(&case, "bins")).unwrap();
        let expected = number(&case, "threshold");
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} {expected}");
        // Control: one value more at the far end moves it.
        let other = otsu_threshold(values.iter().copied().chain([1e4]), whole(&case, "bins")).unwrap();
        assert!((other / expected - 1.0).abs() > 1e-3);
    }
}

#[test]
fn otsu_splits_two_spikes_and_three() {
    // Two values: any level between is as good, the lowest bin's centre is given.
    for (low, high, below, above) in [(1.0, 5.0, 30, 7), (-3.0, 0.5, 1, 1), (0.0, 1e-3, 5, 900)] {
        let values = std::iter::repeat_n(low, below).chain(std::iter::repeat_n(high, above));
        let found = otsu_threshold(values, 256).unwrap();
        assert!((found - (low + (high - low) / 512.0)).abs() < 1e-12 * high.max(1.0));
        assert!(low < found && found < high);
    }
    // Three spikes 0, 4, 10 with 6, 3, 3: variances ω₀ω₁Δ² are 6·6·7² = 1764 below 4 and 9·3·(10-4/3)² = 2028 above.
    let values = [(0.0, 6), (4.0, 3), (10.0, 3)].map(|(v, n)| vec![v; n]).concat();
    let found = otsu_threshold(values.iter().copied(), 1000).unwrap();
    assert!((4.0..10.0).contains(&found), "{found}");
    // Control: the mean, 3.5, splits them elsewhere.
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    assert!(mean < 4.0);
    assert_eq!(otsu_threshold([2.5; 9], 256), Some(2.5));
    assert_eq!(otsu_threshold([], 256), None);
    assert_eq!(otsu_threshold([1.0, f64::NAN], 256), None);
    assert_eq!(otsu_threshold([1.0, 2.0], 0), None);
}

#[test]
fn local_thresholds_agree_with_scikit_image_away_from_the_border() {
    for case in cases(&golden(), "local") {
        let image = image(&case);
        let (window, k, factor) = (
            whole(&case, "window"),
            number(&case, "k"),
            number(&case, "factor"),
        );
        let window_mm = window as f64;
        let inner = s![
            (window / 2) as isize..-((window / 2) as isize),
            (window / 2) as isize..-((window / 2) as isize)
        ];
        let search = |hot, cold| {
            find(
                &image,
                &RoiConfig {
                    hot: Some(hot),
                    cold: Some(cold),
                    body: everywhere(),
                    ..RoiConfig::default()
                },
            )
        };
        let mean = search(
            Threshold::LocalMean { window_mm, factor },
            Threshold::LocalMean {
                window_mm,
                factor: 1.0 / factor,
            },
        );
        let sauvola = search(
            Threshold::Sauvola { window_mm, k },
            Threshold::Sauvola { window_mm, k },
        );
        for (name, found) in [
            ("hot_mean", &mean.hot),
            ("cold_mean", &mean.cold),
            ("hot_sauvola", &sauvola.hot),
            ("cold_sauvola", &sauvola.cold),
        ] {
            let expected = mask_of(&case[name]);
            assert_eq!(found.slice(inner), expected.slice(inner), "{name}");
            assert!(expected.slice(inner).iter().any(|v| *v));
        }
        // Control: another window finds something else.
        let wider = search(
            Threshold::Sauvola {
                window_mm: window_mm + 4.0,
                k,
            },
            Threshold::Sauvola { window_mm, k },
        );
        assert_ne!(wider.hot.slice(inner), mask_of(&case["hot_sauvola"]).slice(inner));
    }
}

#[test]
fn components_agree_with_scipy() {
    for case in cases(&golden(), "components") {
        let share = number(&case, "share");
        let mask =
            field(whole(&case, "seed"), whole(&case, "rows"), whole(&case, "cols")).mapv(|v| v < share);
        let mut counts = Vec::new();
        for (name, connectivity) in [("four", Connectivity::Four), ("eight", Connectivity::Eight)] {
            let found = label_components(mask.view(), connectivity);
            let expected = &case[name];
            assert_eq!(found.pixels.len(), whole(expected, "count"), "{name}");
            let pixels: Vec<usize> = expected["pixels"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64().unwrap() as usize)
                .collect();
            assert_eq!(found.pixels, pixels);
            let sum: u64 = found
                .labels
                .iter()
                .zip(0_u64..)
                .map(|(&l, i)| u64::from(l) * i)
                .sum();
            assert_eq!(sum % 1_000_003, expected["checksum"].as_u64().unwrap());
            // Each label's pixels are those counted.
            let most = *pixels.iter().max().unwrap();
            assert_eq!(found.largest().iter().filter(|v| **v).count(), most);
            assert_eq!(found.keep(|_| true), mask);
            counts.push(found.pixels.len());
        }
        // Control: the two kinds of neighbours are told apart wherever there is more than one row.
        assert_eq!(counts[0] == counts[1], mask.nrows() == 1);
    }
    let empty = label_components(Array2::from_elem((4, 5), false).view(), Connectivity::Four);
    assert!(empty.pixels.is_empty() && !empty.largest().iter().any(|v| *v));
}

#[test]
fn body_outline_agrees_with_scipy() {
    for case in cases(&golden(), "outlines") {
        let (rows, cols) = (whole(&case, "rows"), whole(&case, "cols"));
        let noise = field(whole(&case, "seed"), rows, cols);
        let base = image(&case);
        let smooth = Array2::from_shape_fn((rows, cols), |(r, c)| {
            let mut sum = 0.0;
            for i in r.saturating_sub(1)..(r + 2).min(rows) {
                for j in c.saturating_sub(1)..(c + 2).min(cols) {
                    sum += noise[[i, j]];
                }
            }
            sum / 9.0 + 0.35 * base[[r, c]] / 4.0
        });
        let search = |margin_mm| {
            let level = Threshold::Value {
                value: number(&case, "level"),
            };
            find(
                &smooth,
                &RoiConfig {
                    body: Some(Body { level, margin_mm }),
                    ..RoiConfig::default()
                },
            )
            .body
        };
        let margin = number(&case, "margin");
        let expected = mask_of(&case["body"]);
        assert_eq!(search(margin), expected);
        // Control: one pixel more of margin is noticed.
        assert_ne!(search(margin + 1.0), expected);
    }
}

/// A body of 10 with a hot disc of 20 and a cold one of 2, air around it.
fn subject() -> (Array2<f32>, ImageGrid, Array2<bool>, Array2<bool>) {
    let grid = ImageGrid::square(96, 2.0).unwrap();
    let disc = |x: f64, y: f64, r: f64| {
        Array2::from_shape_fn((96, 96), |(row, col)| {
            (grid.x_mm(col as f64) - x).hypot(grid.y_mm(row as f64) - y) < r
        })
    };
    let (body, hot, cold) = (
        disc(0.0, 0.0, 70.0),
        disc(30.0, 10.0, 9.0),
        disc(-25.0, -20.0, 11.0),
    );
    let image = Array2::from_shape_fn((96, 96), |at| {
        if hot[at] {
            20.0
        } else if cold[at] {
            2.0
        } else if body[at] {
            10.0
        } else {
            0.1
        }
    });
    (image, grid, hot, cold)
}

#[test]
fn every_threshold_finds_hot_and_cold_discs_inside_the_body() {
    let (image, grid, hot, cold) = subject();
    let window_mm = 41.0;
    for (above, below) in [
        (Threshold::Value { value: 15.0 }, Threshold::Value { value: 6.0 }),
        (
            Threshold::OfMax { fraction: 0.75 },
            Threshold::OfMax { fraction: 0.3 },
        ),
        (
            Threshold::OfMean { fraction: 1.5 },
            Threshold::OfMean { fraction: 0.6 },
        ),
        (
            Threshold::Suv {
                suv: 3.0,
                image_per_suv: 5.0,
            },
            Threshold::Suv {
                suv: 1.2,
                image_per_suv: 5.0,
            },
        ),
        (
            Threshold::LocalMean {
                window_mm,
                factor: 1.3,
            },
            Threshold::LocalMean {
                window_mm,
                factor: 0.6,
            },
        ),
        (
            Threshold::Sauvola { window_mm, k: 0.5 },
            Threshold::Sauvola { window_mm, k: 0.5 },
        ),
    ] {
        let config = RoiConfig {
            hot: Some(above),
            cold: Some(below),
            body: Some(Body::default()),
            ..RoiConfig::default()
        };
        let found = find_lesions(image.view(), &grid, &config).unwrap();
        assert_eq!(found.hot, hot, "{above:?}");
        assert_eq!(found.cold, cold, "{below:?}");
        let both = found.roi().unwrap();
        assert_eq!(
            both.mask().iter().filter(|v| **v).count(),
            hot.iter().chain(&cold).filter(|v| **v).count()
        );
        let local = matches!(above, Threshold::LocalMean { .. } | Threshold::Sauvola { .. });
        assert_eq!(found.hot_level.is_none(), local);
    }
    // Otsu splits the three levels of the body once.
    let config = RoiConfig {
        hot: Some(Threshold::Otsu { bins: 256 }),
        body: Some(Body::default()),
        ..RoiConfig::default()
    };
    let level = find_lesions(image.view(), &grid, &config)
        .unwrap()
        .hot_level
        .unwrap();
    assert!((2.0..20.0).contains(&level));
}

#[test]
fn cold_lesions_need_the_body() {
    let (image, grid, _, cold) = subject();
    let config = RoiConfig {
        cold: Some(Threshold::Value { value: 6.0 }),
        ..nothing()
    };
    let error = find_lesions(image.view(), &grid, &config)
        .unwrap_err()
        .to_string();
    assert!(error.contains("body outline"), "{error}");
    // A known body serves as well; eq. 10 with the sign turned, on the whole image, would take the air.
    let body = image.mapv(|v| v > 1.0);
    let found = find_lesions_in(image.view(), &grid, body.view(), &config).unwrap();
    assert_eq!(found.cold, cold);
    let everywhere = Array2::from_elem(body.dim(), true);
    let air = find_lesions_in(image.view(), &grid, everywhere.view(), &config).unwrap();
    assert!(air.cold.iter().filter(|v| **v).count() > 10 * cold.iter().filter(|v| **v).count());
}

#[test]
fn area_limits_are_inclusive_and_in_square_millimetres() {
    let mut image = Array2::<f32>::zeros((40, 40));
    for (row, col, side) in [(2, 2, 1), (2, 10, 2), (10, 10, 4), (20, 20, 8)] {
        image.slice_mut(s![row..row + side, col..col + side]).fill(1.0);
    }
    // Pixels of 9 mm²: 9, 36, 144 and 576 mm².
    let grid = ImageGrid::square(40, 3.0).unwrap();
    let count = |least: f64, greatest: Option<f64>| {
        let config = RoiConfig {
            least_area_mm2: least,
            greatest_area_mm2: greatest,
            ..RoiConfig::default()
        };
        find_lesions(image.view(), &grid, &config)
            .unwrap()
            .hot
            .iter()
            .filter(|v| **v)
            .count()
    };
    assert_eq!(count(0.0, None), 1 + 4 + 16 + 64);
    assert_eq!(count(36.0, Some(144.0)), 4 + 16);
    assert_eq!(count(36.1, Some(143.9)), 0);
    assert_eq!(count(9.1, None), 4 + 16 + 64);
}

#[test]
fn smoothing_removes_specks_and_zero_leaves_the_image() {
    let (mut image, grid, hot, _) = subject();
    image[[20, 50]] = 30.0;
    let config = |smooth_mm| RoiConfig {
        hot: Some(Threshold::Value { value: 15.0 }),
        smooth_mm,
        ..RoiConfig::default()
    };
    let raw = find_lesions(image.view(), &grid, &config(0.0)).unwrap().hot;
    assert!(raw[[20, 50]] && raw.iter().filter(|v| **v).count() == hot.iter().filter(|v| **v).count() + 1);
    let smooth = find_lesions(image.view(), &grid, &config(6.0)).unwrap().hot;
    assert!(!smooth[[20, 50]] && smooth[[43, 62]]);
}

#[test]
fn coarse_images_by_fbp_and_osem_show_the_lesion_where_it_is() {
    let geometry = ParallelGeometry::new(96, 96, 4.0).unwrap();
    let ellipse = |value, x_mm, y_mm, a_mm, b_mm| Ellipse {
        value,
        x_mm,
        y_mm,
        a_mm,
        b_mm,
        tilt_rad: 0.0,
    };
    let truth = ellipse(5.0, 50.0, -30.0, 16.0, 12.0);
    let sinogram = project_bin_means(&[ellipse(1.0, 0.0, 0.0, 120.0, 90.0), truth], &geometry);
    for method in [
        CoarseConfig::default().method,
        CoarseMethod::Osem {
            iterations: 4,
            subsets: 8,
        },
    ] {
        let coarse = CoarseConfig { size: 64, method };
        let grid = coarse.grid(&geometry).unwrap();
        assert_eq!((grid.rows, grid.pixel_mm), (64, 6.0));
        let image = coarse.reconstruct(sinogram.view(), &geometry).unwrap();
        let found = find_lesions(image.view(), &grid, &RoiConfig::default())
            .unwrap()
            .hot;
        let (mut inside, mut missed, mut wrong) = (0, 0, 0);
        for ((row, col), &hot) in found.indexed_iter() {
            let (x, y) = (grid.x_mm(col as f64), grid.y_mm(row as f64));
            let lesion = truth.contains(x, y);
            inside += usize::from(lesion && hot);
            missed += usize::from(lesion && !hot);
            wrong += usize::from(hot && !lesion);
        }
        assert!(
            inside >= 10 && missed <= 2 && wrong <= 6,
            "{inside} {missed} {wrong}"
        );
    }
}

#[test]
fn faults_are_one_clear_line() {
    let (mut image, grid, ..) = subject();
    let fails = |config: RoiConfig| config.validate().unwrap_err().to_string();
    for threshold in [
        Threshold::Value { value: f64::NAN },
        Threshold::OfMax { fraction: 0.0 },
        Threshold::OfMax { fraction: 1.0 },
        Threshold::OfMean { fraction: -1.0 },
        Threshold::Suv {
            suv: 2.5,
            image_per_suv: 0.0,
        },
        Threshold::Otsu { bins: 1 },
        Threshold::LocalMean {
            window_mm: 0.0,
            factor: 1.0,
        },
        Threshold::Sauvola {
            window_mm: 20.0,
            k: 1.5,
        },
    ] {
        let hot = fails(RoiConfig {
            hot: Some(threshold),
            ..RoiConfig::default()
        });
        assert!(
            hot.contains("hot lesions") && hot.contains("expected") && !hot.contains('\n'),
            "{hot}"
        );
    }
    assert!(fails(nothing()).contains("neither hot nor cold"));
    let several = fails(RoiConfig {
        hot: Some(Threshold::OfMax { fraction: 2.0 }),
        smooth_mm: -1.0,
        least_area_mm2: 9.0,
        greatest_area_mm2: Some(4.0),
        ..RoiConfig::default()
    });
    assert_eq!(
        several.matches("; ").count() - several.matches("; expected").count(),
        2,
        "{several}"
    );

    let error = |e: allpet_mask::Error| e.to_string();
    let small = image.slice(s![..95, ..]);
    let shape = error(find_lesions(small, &grid, &RoiConfig::default()).unwrap_err());
    assert_eq!(shape, "coarse image has shape [95, 96]; expected [96, 96]");
    let body = Array2::from_elem((3, 96), true);
    let shape = error(find_lesions_in(image.view(), &grid, body.view(), &RoiConfig::default()).unwrap_err());
    assert_eq!(shape, "body mask has shape [3, 96]; expected [96, 96]");
    image[[7, 9]] = f32::NAN;
    let nan = error(find_lesions(image.view(), &grid, &RoiConfig::default()).unwrap_err());
    assert_eq!(
        nan,
        "coarse image holds NaN at index [7, 9]; every value must be finite"
    );
    let geometry = ParallelGeometry::new(4, 96, 2.0).unwrap();
    let mut sinogram = Array2::<f32>::zeros((4, 96));
    let none = CoarseConfig {
        size: 0,
        ..CoarseConfig::default()
    };
    assert!(error(none.grid(&geometry).unwrap_err()).contains("0 x 0"));
    sinogram[[1, 2]] = f32::INFINITY;
    let bad = CoarseConfig::default().reconstruct(sinogram.view(), &geometry);
    assert!(error(bad.unwrap_err()).contains("[1, 2]"));
}

#[test]
fn settings_survive_a_file() {
    let text = r#"
        hot = { by = "suv", suv = 2.5, image-per-suv = 5.0 }
    "#;
    assert!(
        toml::from_str::<RoiConfig>(text).is_err(),
        "an unknown key is refused"
    );
    let text = r#"
        hot = { by = "suv", suv = 2.5, image_per_suv = 5.0 }
        cold = { by = "sauvola", window_mm = 40.0, k = 0.3 }
        least_area_mm2 = 30.0
        connectivity = "four"
        [body]
        level = { by = "of-mean", fraction = 0.3 }
        margin_mm = 4.0
    "#;
    let config: RoiConfig = toml::from_str(text).unwrap();
    config.validate().unwrap();
    assert_eq!(config.connectivity, Connectivity::Four);
    let again: RoiConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
    assert_eq!(again, config);
    let coarse: CoarseConfig =
        toml::from_str("size = 64\nmethod = { by = \"fbp\", filter = \"hamming\", cutoff = 0.8 }").unwrap();
    let again: CoarseConfig = toml::from_str(&toml::to_string(&coarse).unwrap()).unwrap();
    assert_eq!(again, coarse);
    assert!(
        toml::from_str::<CoarseConfig>("method = { by = \"fbp\", filter = \"none\", cutoff = 1.0 }").is_err()
    );
}
