//! Image metrics against the anchors, against values of scikit-image, torchmetrics and pytorch-msssim, and at the edges.

#![allow(clippy::unwrap_used)]

use allpet_metrics::image::{
    MS_SSIM_SIDE, MsSsimConvention, SsimConvention, mae, ms_ssim, mse, nmse, nrmse, psnr, rmse, ssim,
};
use allpet_metrics::{Error, Result};
use ndarray::{Array2, Array4, ArrayD, ArrayView2, s};
use serde_json::Value;

fn anchor(rows: usize, cols: usize, range: f64) -> (Array2<f64>, Array2<f64>) {
    let x = Array2::from_shape_fn((rows, cols), |(i, j)| ((37 * i + 17 * j) % 101) as f64 / 100.0);
    let y = Array2::from_shape_fn((rows, cols), |(i, j)| {
        (x[[i, j]] + 0.1 * (0.7 * i as f64 + 0.3 * j as f64).sin()).clamp(0.0, 1.0)
    });
    (x * range, y * range)
}

/// Knuth's MMIX generator, its upper 53 bits in [0, 1).
fn uniforms(seed: u64) -> impl Iterator<Item = f64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 11) as f64 / 2f64.powi(53)
    })
}

fn noisy(seed: u64, rows: usize, cols: usize, range: f64) -> (Array2<f64>, Array2<f64>) {
    let (height, width) = (rows as f64, cols as f64);
    let blob = Array2::from_shape_fn((rows, cols), |(i, j)| {
        let (down, across) = (i as f64 - 0.4 * height, j as f64 - 0.6 * width);
        (-(down * down + across * across) / (0.05 * height * width)).exp()
    });
    let mut noise = uniforms(seed);
    let x = blob.map(|b| range * (b + 0.2 * (noise.next().unwrap() - 0.5)));
    (x, blob * range)
}

fn unrelated(seed: u64, rows: usize, cols: usize, range: f64) -> (Array2<f64>, Array2<f64>) {
    let mut draws = uniforms(seed);
    let mut image = || Array2::from_shape_simple_fn((rows, cols), || range * draws.next().unwrap());
    (image(), image())
}

fn only(values: Result<ArrayD<f64>>) -> f64 {
    let values = values.unwrap();
    assert_eq!(values.shape(), [0usize; 0]);
    values[[]]
}

fn close(name: &str, got: f64, expected: f64, relative: f64) {
    let error = (got - expected).abs() / expected.abs();
    assert!(
        error <= relative,
        "{name}: {got} instead of {expected}, off by {error:.1e}"
    );
}

#[test]
fn anchors() {
    let (x, y) = anchor(64, 64, 1.0);
    let of = |convention| only(ssim(x.view(), y.view(), 1.0, convention));
    // Half a unit of the last digit that the anchors are written to, at most.
    let near =
        |got: f64, expected: f64, within: f64| assert!((got - expected).abs() <= within, "{got} {expected}");
    near(only(psnr(x.view(), y.view(), 1.0)), 23.281_082_3, 5e-8);
    near(only(nmse(x.view(), y.view())), 0.013_935_492_2, 5e-11);
    near(of(SsimConvention::SkimageDefault), 0.973_585_383_6, 5e-11);
    near(of(SsimConvention::Wang), 0.977_377_772_5, 5e-11);
    near(of(SsimConvention::Torchmetrics), 0.977_664_067_7, 5e-11);
    // The control: with the reference swapped, NMSE is another figure, and a known one.
    near(only(nmse(y.view(), x.view())), 0.014_020_486_0, 5e-11);
    // f32 pixels move the inputs by 6e-8; the f64 arithmetic adds nothing to that.
    let (x, y) = (x.mapv(|v| v as f32), y.mapv(|v| v as f32));
    near(only(psnr(x.view(), y.view(), 1.0)), 23.281_082_3, 5e-7);
    near(
        only(ssim(x.view(), y.view(), 1.0, SsimConvention::Wang)),
        0.977_377_772_5,
        1e-8,
    );
}

#[test]
fn golden_values() {
    let golden: Value = serde_json::from_str(include_str!("golden/image_metrics.json")).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    let mut compared = 0;
    for case in cases {
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let (rows, cols, seed) = (size("rows"), size("cols"), case["seed"].as_u64().unwrap());
        let range = case["data_range"].as_f64().unwrap();
        let (x, y) = match case["kind"].as_str().unwrap() {
            "anchor" => anchor(rows, cols, range),
            "noisy" => noisy(seed, rows, cols, range),
            "unrelated" => unrelated(seed, rows, cols, range),
            other => panic!("unknown kind {other}"),
        };
        let (x, y) = (x.view(), y.view());
        for (key, expected) in case["values"].as_object().unwrap() {
            let of = |convention| ssim(x, y, range, convention);
            let of_scales = |convention| ms_ssim(x, y, range, convention);
            let (got, relative) = match key.as_str() {
                "mse" => (mse(x, y), 1e-13),
                "psnr" => (psnr(x, y, range), 1e-13),
                "psnr_torchmetrics" => (psnr(x, y, range), 1e-13),
                "nrmse" => (nrmse(x, y), 1e-13),
                "mae" => (mae(x, y), 1e-13),
                "ssim_wang" => (of(SsimConvention::Wang), 1e-11),
                "ssim_skimage" => (of(SsimConvention::SkimageDefault), 1e-11),
                "ssim_torchmetrics" => (of(SsimConvention::Torchmetrics), 1e-11),
                "ms_ssim_torchmetrics" => (of_scales(MsSsimConvention::Torchmetrics), 1e-11),
                "ms_ssim_wang" => (of_scales(MsSsimConvention::Wang), 1e-11),
                other => panic!("unknown value {other}"),
            };
            let name = format!("{key} of {} {rows} x {cols}", case["kind"]);
            close(&name, only(got), expected.as_f64().unwrap(), relative);
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared} golden values");
}

#[test]
fn a_wrong_convention_fails_the_golden_tolerance() {
    let (x, y) = noisy(8, 192, 208, 255.0);
    let by = SsimConvention::ALL.map(|c| only(ssim(x.view(), y.view(), 255.0, c)));
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        assert!((by[a] - by[b]).abs() > 1e-4 * by[a], "{by:?}");
    }
    let scales = [MsSsimConvention::Wang, MsSsimConvention::Torchmetrics];
    let [wang, torchmetrics] = scales.map(|c| only(ms_ssim(x.view(), y.view(), 255.0, c)));
    assert!((wang - torchmetrics).abs() > 1e-5 * wang, "{wang} {torchmetrics}");
    // Twice the range is 20·log10(2) dB, and another SSIM.
    let twice = only(psnr(x.view(), y.view(), 510.0)) - only(psnr(x.view(), y.view(), 255.0));
    close("range doubled", twice, 20.0 * 2f64.log10(), 1e-12);
    assert!(only(ssim(x.view(), y.view(), 510.0, SsimConvention::Wang)) > by[0] + 1e-3);
}

#[test]
fn errors_are_one_formula() {
    let (x, y) = noisy(20, 17, 23, 3.0);
    let (x, y) = (x.view(), y.view());
    close("RMSE", only(rmse(x, y)), only(mse(x, y)).sqrt(), 1e-15);
    close("NRMSE", only(nrmse(x, y)), only(nmse(x, y)).sqrt(), 1e-15);
    let power = y.iter().map(|v| v * v).sum::<f64>() / y.len() as f64;
    close("NMSE", only(nmse(x, y)), only(mse(x, y)) / power, 1e-13);
    let expected = x.iter().zip(y).map(|(x, y)| (x - y).abs()).sum::<f64>() / y.len() as f64;
    close("MAE", only(mae(x, y)), expected, 1e-13);
}

/// Every metric by name, with the range 1 where one is needed.
fn every(
    x: ndarray::ArrayViewD<'_, f64>,
    y: ndarray::ArrayViewD<'_, f64>,
) -> Vec<(String, Result<ArrayD<f64>>)> {
    let mut all = vec![
        ("MSE".to_owned(), mse(x.view(), y.view())),
        ("RMSE".to_owned(), rmse(x.view(), y.view())),
        ("MAE".to_owned(), mae(x.view(), y.view())),
        ("NMSE".to_owned(), nmse(x.view(), y.view())),
        ("NRMSE".to_owned(), nrmse(x.view(), y.view())),
        ("PSNR".to_owned(), psnr(x.view(), y.view(), 1.0)),
    ];
    for convention in SsimConvention::ALL {
        all.push((
            format!("SSIM {convention}"),
            ssim(x.view(), y.view(), 1.0, convention),
        ));
    }
    for convention in [MsSsimConvention::Wang, MsSsimConvention::Torchmetrics] {
        all.push((
            format!("MS-SSIM {convention}"),
            ms_ssim(x.view(), y.view(), 1.0, convention),
        ));
    }
    all
}

fn batch() -> (Array4<f64>, Array4<f64>) {
    let mut x = Array4::zeros((2, 3, 180, 177));
    let mut y = x.clone();
    for (seed, (mut x, mut y)) in x.outer_iter_mut().zip(y.outer_iter_mut()).enumerate() {
        for (number, (mut x, mut y)) in x.outer_iter_mut().zip(y.outer_iter_mut()).enumerate() {
            let (a, b) = noisy(30 + 3 * seed as u64 + number as u64, 180, 177, 1.0);
            x.assign(&a);
            y.assign(&b);
        }
    }
    (x, y)
}

#[test]
fn a_batch_is_its_images_in_any_layout() {
    let (x, y) = batch();
    let together = every(x.view().into_dyn(), y.view().into_dyn());
    // The same numbers as a strided view: rows and columns exchanged in memory.
    let (tx, ty) = (
        x.view().permuted_axes([0, 1, 3, 2]),
        y.view().permuted_axes([0, 1, 3, 2]),
    );
    let (tx, ty) = (
        tx.as_standard_layout().to_owned(),
        ty.as_standard_layout().to_owned(),
    );
    let strided = every(
        tx.view().permuted_axes([0, 1, 3, 2]).into_dyn(),
        ty.view().permuted_axes([0, 1, 3, 2]).into_dyn(),
    );
    for ((name, together), (_, strided)) in together.into_iter().zip(strided) {
        let together = together.unwrap();
        assert_eq!(together.shape(), [2, 3], "{name}");
        assert_eq!(together, strided.unwrap(), "{name}");
        let alone = every(
            x.slice(s![1, 2, .., ..]).into_dyn(),
            y.slice(s![1, 2, .., ..]).into_dyn(),
        );
        let (_, alone) = alone.into_iter().find(|(other, _)| *other == name).unwrap();
        assert_eq!(together[[1, 2]], only(alone), "{name}");
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (x, y) = batch();
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| every(x.view().into_dyn(), y.view().into_dyn()))
    };
    let one = on(1);
    for threads in [2, 5] {
        for ((name, one), (_, many)) in one.iter().zip(on(threads)) {
            let bits = |values: &ArrayD<f64>| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(
                bits(one.as_ref().unwrap()),
                bits(&many.unwrap()),
                "{name} on {threads} threads"
            );
        }
    }
}

#[test]
fn f32_is_its_value_in_f64() {
    let (x, y) = noisy(40, 60, 70, 1.0);
    let (x, y) = (x.mapv(|v| v as f32), y.mapv(|v| v as f32));
    let (wide_x, wide_y) = (x.mapv(f64::from), y.mapv(f64::from));
    for convention in SsimConvention::ALL {
        let narrow = ssim(x.view(), y.view(), 1.0, convention).unwrap();
        assert_eq!(
            narrow,
            ssim(wide_x.view(), wide_y.view(), 1.0, convention).unwrap()
        );
    }
    assert_eq!(
        psnr(x.view(), y.view(), 1.0).unwrap(),
        psnr(wide_x.view(), wide_y.view(), 1.0).unwrap()
    );
}

#[test]
fn identical_images() {
    let (x, _) = noisy(41, 180, 200, 1.0);
    for (name, value) in every(x.view().into_dyn(), x.view().into_dyn()) {
        let value = only(value);
        match name.split(' ').next().unwrap() {
            "PSNR" => assert_eq!(value, f64::INFINITY),
            "SSIM" | "MS-SSIM" => assert!((value - 1.0).abs() < 1e-12, "{name} {value}"),
            _ => assert_eq!(value, 0.0, "{name}"),
        }
    }
}

#[test]
fn constant_images_have_the_luminance_term_alone() {
    for (a, b) in [
        (0.0, 0.0),
        (0.3, 0.3),
        (0.2, 0.7),
        (0.0, 1.0),
        (0.4, -0.4),
        (1e6, 1e6),
    ] {
        let (x, y) = (Array2::from_elem((200, 190), a), Array2::from_elem((200, 190), b));
        let expected = (2.0 * a * b + 1e-4) / (a * a + b * b + 1e-4);
        for convention in SsimConvention::ALL {
            let value = only(ssim(x.view(), y.view(), 1.0, convention));
            assert!(
                (value - expected).abs() < 1e-10,
                "{convention} {a} {b}: {value} {expected}"
            );
        }
        let scales = only(ms_ssim(x.view(), y.view(), 1.0, MsSsimConvention::Wang));
        assert!((0.0..=1.0 + 1e-9).contains(&scales), "{a} {b}: {scales}");
    }
    // A negative factor counts as 0.
    let x = Array2::from_shape_fn((176, 176), |(i, j)| ((i + j) % 2) as f64);
    assert_eq!(
        only(ms_ssim(
            x.view(),
            x.mapv(|v| 1.0 - v).view(),
            1.0,
            MsSsimConvention::Wang
        )),
        0.0
    );
}

#[test]
fn far_from_zero_the_variances_keep_their_digits() {
    let (x, y) = noisy(42, 64, 90, 1.0);
    // Far up the luminance term is 1 and the rest does not move; filtering the squares as they stand would lose
    // 1e12 times 1e-16 of them, as much as C2.
    let at = |level: f64, convention| only(ssim((&x + level).view(), (&y + level).view(), 1.0, convention));
    for convention in SsimConvention::ALL {
        let (near, far) = (at(1e4, convention), at(1e6, convention));
        assert!((near - far).abs() < 1e-8, "{convention} {near} {far}");
        assert!((at(0.0, convention) - near).abs() > 1e-3);
    }
}

#[test]
fn a_reference_of_zeros_has_no_normalised_error() {
    let (x, y) = (Array2::<f64>::ones((4, 4)), Array2::<f64>::zeros((4, 4)));
    let message = nmse(x.view(), y.view()).unwrap_err().to_string();
    assert_eq!(
        message,
        "NMSE of image 0 is undefined: the reference is zero everywhere"
    );
    assert!(nrmse(y.view(), y.view()).is_err());
    assert_eq!(only(nmse(y.view(), x.view())), 1.0);
}

#[test]
fn faults_are_named() {
    let (x, y) = batch();
    let mut broken = x.clone();
    broken[[1, 0, 170, 3]] = f64::NAN;
    broken[[1, 2, 0, 0]] = f64::INFINITY;
    for (name, value) in every(broken.view().into_dyn(), y.view().into_dyn()) {
        let message = value.unwrap_err().to_string();
        let metric = name.split(' ').next().unwrap();
        let expected =
            format!("candidate of {metric} holds NaN at index [1, 0, 170, 3]; every value must be finite");
        assert_eq!(message, expected, "{name}");
    }
    for (name, value) in every(y.view().into_dyn(), broken.view().into_dyn()) {
        let message = value.unwrap_err().to_string();
        assert!(
            message.starts_with("reference of") && message.contains("[1, 0, 170, 3]"),
            "{name}: {message}"
        );
    }
    // The same infinity in both is no agreement.
    for (name, value) in every(broken.view().into_dyn(), broken.view().into_dyn()) {
        assert!(matches!(value, Err(Error::Core(_))), "{name}");
    }
    for (name, value) in every(x.view().into_dyn(), y.slice(s![.., .., ..179, ..]).into_dyn()) {
        let message = value.unwrap_err().to_string();
        assert!(
            message.contains("[2, 3, 180, 177]") && message.contains("[2, 3, 179, 177]"),
            "{name}: {message}"
        );
    }
    for shape in [vec![200], vec![], vec![0, 180, 180], vec![3, 0, 180]] {
        let nothing = ArrayD::<f64>::zeros(shape.clone());
        for (name, value) in every(nothing.view(), nothing.view()) {
            assert!(value.is_err(), "{name} of {shape:?}");
        }
    }
}

#[test]
fn data_ranges_must_be_ranges() {
    let (x, y) = noisy(50, 180, 180, 1.0);
    let of = |x: ArrayView2<'_, f64>, range| {
        [
            psnr(x, y.view(), range),
            ssim(x, y.view(), range, SsimConvention::Wang),
            ms_ssim(x, y.view(), range, MsSsimConvention::Wang),
        ]
    };
    for range in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        for value in of(x.view(), range) {
            let error = value.unwrap_err();
            assert!(matches!(error, Error::Setting { .. }), "{range}: {error}");
            assert!(error.to_string().contains("data range"), "{error}");
        }
    }
    // Ranges whose squares leave f64 give a number or an error, never NaN.
    for range in [1e-300, 1e-160, 1e160, 1e300] {
        for value in of(x.view(), range).into_iter().chain(of(y.view(), range)) {
            assert!(value.map_or(true, |v| !v[[]].is_nan()), "{range}");
        }
    }
}

#[test]
fn windows_must_fit() {
    for convention in SsimConvention::ALL {
        let least = convention.least_side();
        for (rows, cols, fits) in [
            (least, least, true),
            (least - 1, 50, false),
            (50, least - 1, false),
            (1, 1, false),
        ] {
            let (x, y) = noisy(60, rows, cols, 1.0);
            let value = ssim(x.view(), y.view(), 1.0, convention);
            assert_eq!(value.is_ok(), fits, "{convention} {rows} x {cols}");
            if let Err(error) = value {
                let expected = format!(
                    "SSIM needs at least {least} pixels per side; got {}",
                    rows.min(cols)
                );
                assert_eq!(error.to_string(), expected);
            }
        }
        assert_eq!(convention.name().parse::<SsimConvention>().unwrap(), convention);
    }
    assert!("gauss".parse::<SsimConvention>().is_err());
    for convention in [MsSsimConvention::Wang, MsSsimConvention::Torchmetrics] {
        for (side, fits) in [(MS_SSIM_SIDE, true), (MS_SSIM_SIDE - 1, false)] {
            let (x, y) = noisy(61, side, 180, 1.0);
            assert_eq!(ms_ssim(x.view(), y.view(), 1.0, convention).is_ok(), fits);
        }
    }
}

#[test]
fn huge_values_are_an_error_and_no_nan() {
    let (x, y) = noisy(70, 180, 180, 1e200);
    for (name, value) in every(x.view().into_dyn(), y.view().into_dyn()) {
        match value {
            Ok(value) => assert!(value[[]].is_finite(), "{name}"),
            Err(error) => assert!(matches!(error, Error::UndefinedImage { .. }), "{name}: {error}"),
        }
    }
    // The largest f32 squares well inside f64.
    let (x, y) = (
        Array2::from_elem((180, 180), f32::MAX),
        Array2::from_elem((180, 180), -f32::MAX),
    );
    assert!(only(psnr(x.view(), y.view(), 1.0)).is_finite());
    assert!(only(ssim(x.view(), y.view(), 1.0, SsimConvention::Wang)).is_finite());
}
