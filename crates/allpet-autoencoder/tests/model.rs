//! The autoencoder starts faithful, its coding inverts, its batches are a function of the step, its rotation is exact.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_autoencoder::{
    Augmentation, Autoencoder, AutoencoderConfig, AutoencoderObjective, Bottleneck, Intensity, SinogramSource,
};
use allpet_core::{Dataset, ParallelGeometry, Prompt, Region, Tracer};
use allpet_nn::Params;
use allpet_radon::analytic::{Ellipse, project};
use allpet_train::{Objective, Source};
use candle_core::{Device, Tensor};
use ndarray::{Array3, Axis};

const SIDE: usize = 64;

fn geometry() -> ParallelGeometry {
    ParallelGeometry::new(SIDE, SIDE, 4.0).unwrap()
}

/// Heads of one large and two small ellipses, turned by `turn` radians.
fn head(i: usize, turn: f64) -> Vec<Ellipse> {
    let ellipse = |value, x: f64, y: f64, a_mm, b_mm, tilt: f64| Ellipse {
        value,
        x_mm: x * turn.cos() - y * turn.sin(),
        y_mm: x * turn.sin() + y * turn.cos(),
        a_mm,
        b_mm,
        tilt_rad: tilt + turn,
    };
    let shift = 4.0 * i as f64;
    vec![
        ellipse(1.0, 0.0, 5.0, 70.0, 90.0, 0.2),
        ellipse(3.0, 30.0 - shift, 20.0, 14.0, 18.0, 0.7),
        ellipse(-0.7, -20.0, -25.0 + shift, 20.0, 10.0, -0.3),
    ]
}

fn dataset(count: usize) -> Dataset {
    let mut target = Array3::zeros((count, SIDE, SIDE));
    for (i, mut out) in target.outer_iter_mut().enumerate() {
        out.assign(&project(&head(i, 0.0), &geometry()));
    }
    Dataset {
        arrays: [("target".to_owned(), target.into_dyn())].into(),
        subjects: (0..count as u32).collect(),
        prompts: vec![Prompt::pet(Tracer::Fdg, Region::Brain); count],
        geometry: Some(geometry()),
        ..Dataset::default()
    }
}

fn source(rotate_deg: f64, empty: f64) -> SinogramSource {
    let augmentation = Augmentation {
        rotate_deg,
        empty,
        ..Augmentation::for_geometry(&geometry())
    };
    SinogramSource::new(
        &[dataset(5)],
        &geometry(),
        &augmentation,
        Intensity::default(),
        4,
        3,
        &Device::Cpu,
    )
    .unwrap()
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn mean_square(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum::<f64>()
        / a.len() as f64
}

#[test]
fn the_coding_inverts_and_the_channels_add_up() {
    for exponent in [0.5, 0.4, 1.0] {
        let intensity = Intensity {
            exponent,
            ..Intensity::default()
        };
        for value in [0.0f32, 0.01, 1.0, 7.5, 40.0] {
            let back = intensity.decode(intensity.encode(value, 10.0), 10.0);
            assert!(
                (back - value).abs() <= 2e-5 * value.max(1.0),
                "{exponent}: {value} to {back}"
            );
            let tensor = Tensor::new(&[intensity.encode(value, 10.0)], &Device::Cpu).unwrap();
            let linear = intensity
                .decode_tensor(&tensor)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()[0];
            assert!((10.0 * linear - value).abs() <= 1e-4 * value.max(1.0));
        }
    }
    let batch = source(0.0, 0.3).draw(1).unwrap();
    let (c_all, mask) = (values(&batch.c_all), values(&batch.mask));
    let (intensity, size) = (Intensity::default(), SIDE * SIDE);
    for sample in 0..4 {
        for at in 0..size {
            let [positive, full, negative] =
                [0, 1, 2].map(|c| intensity.decode(c_all[(3 * sample + c) * size + at], 1.0));
            assert!((positive + negative - full).abs() < 1e-5);
            assert!((positive - mask[sample * size + at] * full).abs() < 1e-5);
        }
    }
    assert!(Intensity::default().scale(&[0.0; 10]).is_err());
}

#[test]
fn an_untrained_model_already_passes_sinograms() {
    let batch = source(0.0, 0.5).draw(0).unwrap();
    let params = Params::new(1, &Device::Cpu);
    let model = Autoencoder::new(&params, &AutoencoderConfig::small()).unwrap();
    let latent = model.encode(&batch.c_all).unwrap();
    assert_eq!(latent.mean.dims(), [4, 16, SIDE / 4, SIDE / 4]);
    let out = model.decode(&latent.mean).unwrap();
    let full = |t: &Tensor| values(&t.narrow(1, 1, 1).unwrap().contiguous().unwrap());
    let (truth, got) = (full(&batch.c_all), full(&out));
    let error = mean_square(&truth, &got);
    // The control: one coefficient a block (the mean) is far worse.
    let coarse = batch.c_all.narrow(1, 1, 1).unwrap().avg_pool2d(4).unwrap();
    let coarse = allpet_nn::upsample_nearest(&allpet_nn::upsample_nearest(&coarse).unwrap()).unwrap();
    let blocks = mean_square(&truth, &values(&coarse));
    println!("mean square error: start {error:.1e}, block means {blocks:.1e}");
    assert!(error < 2e-3 && error < 0.1 * blocks, "{error} against {blocks}");
}

#[test]
fn both_bottlenecks_give_gradients_to_every_parameter() {
    let batch = source(3.0, 0.3).draw(0).unwrap();
    for bottleneck in [
        Bottleneck::Kl { weight: 1e-6 },
        Bottleneck::Vq {
            codes: 32,
            commitment: 0.25,
        },
    ] {
        let params = Params::new(1, &Device::Cpu);
        let config = AutoencoderConfig {
            bottleneck,
            ..AutoencoderConfig::tiny()
        };
        let model = Autoencoder::new(&params, &config).unwrap();
        // The last layers start at zero, so that what lies before them has a zero gradient: move them off it.
        for (name, var) in params.named() {
            if name.ends_with("leave.weight") || name.ends_with("conv_out.weight") {
                let noise = Tensor::randn(0f32, 0.05, var.shape(), &Device::Cpu).unwrap();
                var.set(&noise).unwrap();
            }
        }
        let objective = AutoencoderObjective {
            model,
            intensity: Intensity::default(),
            seed: 1,
        };
        let loss = objective.loss(&batch, 0).unwrap();
        let parts: f64 = loss
            .parts
            .iter()
            .map(|p| if p.0 == "consistency" { 0.1 * p.1 } else { p.1 })
            .sum();
        let total = f64::from(loss.total.to_scalar::<f32>().unwrap());
        assert!((total - parts).abs() < 1e-4 * total);
        let grads = loss.total.backward().unwrap();
        for (name, var) in params.named() {
            let size = values(
                grads
                    .get(&var)
                    .unwrap_or_else(|| panic!("{name} has no gradient")),
            );
            assert!(
                size.iter().any(|v| *v != 0.0) && size.iter().all(|v| v.is_finite()),
                "{name}"
            );
        }
    }
}

#[test]
fn batches_are_a_function_of_the_step() {
    let source = source(5.0, 0.25);
    let later = source.draw(7).unwrap();
    source.draw(2).unwrap();
    let again = source.batch(7).unwrap();
    assert_eq!(values(&later.c_all), values(&again.c_all));
    assert_eq!(values(&later.mask), values(&again.mask));
    assert_ne!(values(&later.mask), values(&source.draw(8).unwrap().mask));
}

#[test]
fn an_epoch_shows_every_sinogram_once() {
    let source = source(0.0, 1.0);
    let first = |t: &Tensor, i: usize| {
        values(
            &t.narrow(0, i, 1)
                .unwrap()
                .narrow(1, 1, 1)
                .unwrap()
                .contiguous()
                .unwrap(),
        )
    };
    let mut seen: Vec<Vec<u32>> = Vec::new();
    for step in 0..5 {
        let batch = source.draw(step).unwrap();
        seen.extend((0..4).map(|i| first(&batch.c_all, i).into_iter().map(f32::to_bits).collect()));
    }
    for epoch in seen.chunks(5) {
        let mut distinct = epoch.to_vec();
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 5);
    }
}

#[test]
fn rotation_is_exact_in_whole_views() {
    // Turned by k views, a closed-form sinogram is that of the turned object, also across the end of the half turn.
    let source = source(30.0, 1.0);
    let step = geometry().arc_rad / SIDE as f64;
    let intensity = Intensity::default();
    let mut shifts = Vec::new();
    for step_index in 0..6 {
        let batch = source.draw(step_index).unwrap();
        for i in 0..4 {
            let full = values(
                &batch
                    .c_all
                    .narrow(0, i, 1)
                    .unwrap()
                    .narrow(1, 1, 1)
                    .unwrap()
                    .contiguous()
                    .unwrap(),
            );
            let best = (0..5)
                .flat_map(|object| (-11i32..=11).map(move |k| (object, k)))
                .map(|(object, k)| {
                    let exact = project(&head(object, f64::from(k) * step), &geometry());
                    let original: Vec<f32> = project(&head(object, 0.0), &geometry())
                        .into_iter()
                        .map(|v| v.max(0.0))
                        .collect();
                    let scale = intensity.scale(&original).unwrap();
                    let coded: Vec<f32> = exact.iter().map(|v| intensity.encode(*v, scale)).collect();
                    (mean_square(&coded, &full), k)
                })
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap();
            assert!(best.0 < 1e-6, "no turned object fits: {best:?}");
            shifts.push(best.1);
        }
    }
    assert!(
        shifts.iter().any(|k| *k > 2) && shifts.iter().any(|k| *k < -2),
        "{shifts:?}"
    );
}

#[test]
fn misfits_and_faults_are_one_clear_error() {
    let faults = AutoencoderConfig {
        latent: 0,
        groups: 5,
        ..AutoencoderConfig::tiny()
    };
    let text = faults.validate().unwrap_err().to_string();
    assert!(text.contains("latent") && text.contains("5 groups"), "{text}");
    let other = ParallelGeometry::new(SIDE, SIDE, 2.0).unwrap();
    let augmentation = Augmentation::for_geometry(&other);
    let make = |data: Dataset| {
        SinogramSource::new(
            &[data],
            &other,
            &augmentation,
            Intensity::default(),
            4,
            3,
            &Device::Cpu,
        )
        .unwrap_err()
    };
    let text = make(dataset(2)).to_string();
    assert!(text.contains("4 mm") && text.contains("2 mm"), "{text}");
    let mut empty = dataset(3);
    empty.geometry = None;
    if let Some(target) = empty.arrays.get_mut("target") {
        target.index_axis_mut(Axis(0), 1).fill(0.0);
    }
    let text = make(empty).to_string();
    assert!(text.contains("sample 1 of 3"), "{text}");
    let params = Params::new(1, &Device::Cpu);
    let model = Autoencoder::new(&params, &AutoencoderConfig::tiny()).unwrap();
    let x = Tensor::zeros((1, 3, 30, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(model.encode(&x).unwrap_err().to_string().contains("30 views"));
}
