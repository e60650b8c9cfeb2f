//! The pieces hang together: a model trained in seconds, its file, its prompts, its samples, and a kill in between.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet::candle::Device;
use allpet::foundation::{
    Ended, Foundation, MODEL_FILE, Place, RunConfig, SynthesisRequest, describe, resample, save,
    train_autoencoder, train_foundation,
};
use allpet::prelude::*;
use ndarray::Array2;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

fn data() -> Dataset {
    let config = SynthesisConfig {
        regions: vec![Region::Brain, Region::Chest],
        count: 12,
        subjects: 3,
        seed: 3,
        counts: 1e7,
        geometry: ParallelGeometry::new(32, 32, 16.0).unwrap(),
        image_size: 32,
        ..SynthesisConfig::default()
    };
    simulate_synthesis(&config, &|_| ()).unwrap()
}

fn config(steps: usize) -> RunConfig {
    let train = TrainConfig {
        steps,
        batch: 4,
        rate: 2e-3,
        warmup: 5,
        ema: 0.8,
        seed: 9,
        ..TrainConfig::default()
    };
    RunConfig {
        preset: "tiny".into(),
        model: None,
        autoencoder: None,
        start: None,
        train,
    }
}

fn run(
    folder: &Path,
    kind: &str,
    config: &RunConfig,
    resume: bool,
    observers: &mut [&mut dyn Observer],
) -> Ended {
    let stop = AtomicBool::new(false);
    let place = Place {
        folder,
        resume,
        stop: &stop,
        device: &Device::Cpu,
    };
    let data = [data()];
    match kind {
        "autoencoder" => train_autoencoder(config, &data, place, observers).unwrap(),
        _ => train_foundation(config, &data, place, observers).unwrap(),
    }
}

/// One tiny model for all tests: 30 steps of autoencoder, 30 of denoiser.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let root = tempfile::tempdir().unwrap();
            let mut settings = config(30);
            assert_eq!(
                run(&root.path().join("a"), "autoencoder", &settings, false, &mut []),
                Ended::Finished
            );
            settings.autoencoder = Some(root.path().join("a").join(MODEL_FILE));
            assert_eq!(
                run(&root.path().join("f"), "foundation", &settings, false, &mut []),
                Ended::Finished
            );
            root
        })
        .path()
}

fn model_path() -> std::path::PathBuf {
    folder().join("f").join(MODEL_FILE)
}

fn samples(model: &Foundation, request: &SynthesisRequest) -> Vec<f32> {
    let made = model
        .synthesise(request, &mut |_, _| ControlFlow::Continue(()))
        .unwrap();
    assert!(made.sinograms.iter().all(|v| v.is_finite() && *v >= 0.0));
    made.sinograms.into_raw_vec_and_offset().0
}

fn request(text: &str) -> SynthesisRequest {
    SynthesisRequest {
        prompts: Prompt::parse(text).unwrap(),
        count: 3,
        steps: 4,
        seed: 2,
        ..SynthesisRequest::default()
    }
}

#[test]
fn same_seed_same_bytes_whatever_the_batch_threads_or_first_index() {
    let model = Foundation::load(&model_path(), &Device::Cpu).unwrap();
    let asked = request("brain with 18F-FDG");
    let whole = samples(&model, &asked);
    assert_eq!(whole, samples(&model, &asked));
    assert_eq!(
        whole,
        samples(
            &model,
            &SynthesisRequest {
                batch: 1,
                ..asked.clone()
            }
        )
    );
    let last = samples(
        &model,
        &SynthesisRequest {
            first: 2,
            count: 1,
            ..asked.clone()
        },
    );
    assert_eq!(whole[2 * 32 * 32..], last);
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        assert_eq!(pool.install(|| samples(&model, &asked)), whole);
    }
    for (sampler, eta) in [("ddim", 0.0), ("ddim", 0.5)] {
        let noisy = SynthesisRequest {
            sampler: sampler.into(),
            eta,
            ..asked.clone()
        };
        assert_eq!(
            samples(&model, &noisy),
            samples(
                &model,
                &SynthesisRequest {
                    batch: 2,
                    ..noisy.clone()
                }
            )
        );
        assert_ne!(samples(&model, &noisy), whole);
    }
    assert_ne!(whole, samples(&model, &SynthesisRequest { seed: 3, ..asked }));
}

#[test]
fn prompt_guidance_and_mask_matter() {
    let model = Foundation::load(&model_path(), &Device::Cpu).unwrap();
    // The scale of a prompt is drawn apart, so shapes are compared at unit norm.
    let shape = |request: &SynthesisRequest| {
        let values = samples(&model, request);
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        values.into_iter().map(|v| v / norm).collect::<Vec<_>>()
    };
    let asked = request("brain with 18F-FDG");
    let base = shape(&asked);
    let change = |other: Vec<f32>| {
        base.iter()
            .zip(&other)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f32>()
            .sqrt()
    };
    assert!(change(shape(&request("chest with 18F-FDG"))) > 1e-4);
    assert!(change(shape(&request("brain with 68Ga-PSMA"))) > 1e-4);
    assert!(
        change(shape(&SynthesisRequest {
            guidance: 3.0,
            ..asked.clone()
        })) > 1e-4
    );
    assert!(change(shape(&SynthesisRequest { masks: true, ..asked })) > 1e-4);
}

#[test]
fn shuffled_weights_change_the_output() {
    let path = model_path();
    let (mut tensors, metadata) = allpet::train::load_model(&path, &Device::Cpu).unwrap();
    let description = describe("test", &metadata).unwrap();
    let model = Foundation::load(&path, &Device::Cpu).unwrap();
    for part in [
        "autoencoder.decoder.level1.block0.conv_in.weight",
        "denoiser.unet.down0.stage0.residual.conv_in.weight",
    ] {
        let before = tensors[part].clone();
        let mut values = before.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        values.reverse();
        let shuffled = allpet::candle::Tensor::from_vec(values, before.dims(), &Device::Cpu).unwrap();
        tensors.insert(part.to_owned(), shuffled);
        let other = folder().join("shuffled.safetensors");
        save(&other, &tensors, &description).unwrap();
        let other = Foundation::load(&other, &Device::Cpu).unwrap();
        let asked = request("brain with 18F-FDG");
        assert_ne!(
            samples(&model, &asked),
            samples(&other, &asked),
            "{part} does not matter"
        );
        tensors.insert(part.to_owned(), before);
    }
}

#[test]
fn foreign_files_are_refused_in_one_line() {
    let device = Device::Cpu;
    let autoencoder = Foundation::load(&folder().join("a").join(MODEL_FILE), &device)
        .unwrap_err()
        .to_string();
    assert!(
        autoencoder.contains("foundation") && autoencoder.contains("autoencoder"),
        "{autoencoder}"
    );
    let (mut tensors, metadata) = allpet::train::load_model(&model_path(), &device).unwrap();
    let description = describe("test", &metadata).unwrap();
    let gone = tensors.remove("denoiser.unet.enter.weight").unwrap();
    tensors.insert("denoiser.unet.other.weight".into(), gone);
    let path = folder().join("renamed.safetensors");
    save(&path, &tensors, &description).unwrap();
    let text = Foundation::load(&path, &device).unwrap_err().to_string();
    assert!(
        text.contains("denoiser.unet.enter.weight") && text.contains("denoiser.unet.other.weight"),
        "{text}"
    );
    assert!(!text.contains('\n'));
    let mut settings = config(5);
    settings.autoencoder = Some(model_path());
    settings.model = Some(ModelConfig {
        autoencoder: allpet::autoencoder::AutoencoderConfig::small(),
        ..ModelConfig::preset("tiny").unwrap()
    });
    let stop = AtomicBool::new(false);
    let place = Place {
        folder: &folder().join("other"),
        resume: false,
        stop: &stop,
        device: &device,
    };
    let text = train_foundation(&settings, &[data()], place, &mut [])
        .unwrap_err()
        .to_string();
    assert!(text.contains("autoencoder"), "{text}");
}

#[test]
fn a_prompt_outside_the_training_data_is_an_error_that_lists_what_is_known() {
    let model = Foundation::load(&model_path(), &Device::Cpu).unwrap();
    let asked = request("abdomen with 18F-FDG");
    let text = model
        .synthesise(&asked, &mut |_, _| ControlFlow::Continue(()))
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("abdomen") && text.contains("brain with 18F-FDG"),
        "{text}"
    );
    let stopped = model.synthesise(&request("brain with 18F-FDG"), &mut |_, _| ControlFlow::Break(()));
    assert!(stopped.unwrap_err().to_string().contains("stopped"));
}

struct StopAt(u64);

impl Observer for StopAt {
    fn on_step(&mut self, s: &StepInfo<'_>) -> ControlFlow<()> {
        if s.step == self.0 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

#[test]
fn interrupted_and_resumed_is_uninterrupted() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = config(8);
    settings.autoencoder = Some(folder().join("a").join(MODEL_FILE));
    for kind in ["autoencoder", "foundation"] {
        let (straight, broken) = (
            root.path().join(format!("{kind}1")),
            root.path().join(format!("{kind}2")),
        );
        assert_eq!(run(&straight, kind, &settings, false, &mut []), Ended::Finished);
        let mut stop = StopAt(4);
        let ended = run(&broken, kind, &settings, false, &mut [&mut stop]);
        assert!(matches!(ended, Ended::Interrupted(step) if step < 8), "{ended:?}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(
            pool.install(|| run(&broken, kind, &settings, true, &mut [])),
            Ended::Finished
        );
        for file in [MODEL_FILE, "checkpoint.safetensors"] {
            let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
            assert!(read(&straight) == read(&broken), "{kind}: {file} differs");
        }
    }
}

/// The same run with a denoiser that draws images.
fn with_images(mut settings: RunConfig, images: usize) -> RunConfig {
    let mut model = settings.model_for(&[data()]).unwrap();
    model.denoiser.images = images;
    settings.model = Some(model);
    settings
}

#[test]
fn a_denoiser_of_two_domains_trains_saves_loads_and_samples_alike() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = with_images(config(8), 2);
    settings.autoencoder = Some(folder().join("a").join(MODEL_FILE));
    assert_eq!(
        run(root.path(), "foundation", &settings, false, &mut []),
        Ended::Finished
    );
    let model = Foundation::load(&root.path().join(MODEL_FILE), &Device::Cpu).unwrap();
    assert_eq!(model.config().denoiser.images, 2);
    let asked = request("brain with 18F-FDG");
    let whole = samples(&model, &asked);
    let single = SynthesisRequest { batch: 1, ..asked };
    assert_eq!(whole, samples(&model, &single));
    // An arc from which nothing can be reconstructed is refused.
    let mut narrow = model.config().clone();
    narrow.geometry = narrow.geometry.with_arc_deg(120.0);
    assert!(
        narrow
            .validate()
            .unwrap_err()
            .to_string()
            .contains("an arc of 120.00°")
    );
}

/// Steps too small to change anything: what comes out is what the run started from, and not what it would have drawn.
#[test]
fn a_run_goes_on_from_a_trained_file() {
    let root = tempfile::tempdir().unwrap();
    let mut settings = config(2);
    settings.train.warmup = 0;
    settings.train.rate = 1e-30;
    settings.train.weight_decay = 0.0;
    settings.autoencoder = Some(folder().join("a").join(MODEL_FILE));
    let tensors = |folder: &Path| {
        let (tensors, _) = allpet::train::load_model(&folder.join(MODEL_FILE), &Device::Cpu).unwrap();
        tensors
            .into_iter()
            .filter(|(name, _)| name.starts_with("denoiser."))
            .map(|(name, t)| (name, t.flatten_all().unwrap().to_vec1::<f32>().unwrap()))
            .collect::<Vec<_>>()
    };
    run(
        &root.path().join("drawn"),
        "foundation",
        &settings,
        false,
        &mut [],
    );
    settings.start = Some(model_path());
    run(
        &root.path().join("started"),
        "foundation",
        &settings,
        false,
        &mut [],
    );
    let trained = tensors(&folder().join("f"));
    assert!(tensors(&root.path().join("started")) == trained);
    assert!(tensors(&root.path().join("drawn")) != trained);
    // A file of another model is refused by name, before anything is written.
    let other = with_images(settings, 2);
    let stop = AtomicBool::new(false);
    let place = Place {
        folder: &root.path().join("other"),
        resume: false,
        stop: &stop,
        device: &Device::Cpu,
    };
    let error = train_foundation(&other, &[data()], place, &mut [])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(MODEL_FILE) && error.contains("another model"),
        "{error}"
    );
    assert!(!root.path().join("other").exists());
}

#[test]
fn training_lowers_the_loss() {
    struct Losses(Vec<f64>);
    impl Observer for Losses {
        fn on_step(&mut self, s: &StepInfo<'_>) -> ControlFlow<()> {
            self.0.push(s.loss);
            ControlFlow::Continue(())
        }
    }
    let root = tempfile::tempdir().unwrap();
    let learned = |kind: &str, images: usize, rate: f64| {
        let mut settings = with_images(config(60), images);
        settings.autoencoder = Some(folder().join("a").join(MODEL_FILE));
        settings.train.rate = rate;
        settings.train.weight_decay = 0.0;
        let mut losses = Losses(Vec::new());
        let folder = root.path().join(format!("{kind}{images}{rate}"));
        run(&folder, kind, &settings, false, &mut [&mut losses]);
        losses.0[40..].iter().sum::<f64>() / 20.0
    };
    for (kind, images, factor) in [
        ("autoencoder", 0, 0.6),
        ("foundation", 0, 0.85),
        ("foundation", 2, 0.85),
    ] {
        // The control sees the same batches, masks, times and noise, and learns nothing.
        let (trained, control) = (learned(kind, images, 2e-3), learned(kind, images, 1e-12));
        println!("{kind}, {images} images: {trained} beside {control}");
        assert!(
            trained < factor * control,
            "{kind}, {images} images: {trained} beside {control}"
        );
    }
}

#[test]
fn resampling_keeps_line_integrals() {
    use allpet::radon::analytic::{Ellipse, project};
    let disc = Ellipse {
        value: 0.7,
        x_mm: 20.0,
        y_mm: -12.0,
        a_mm: 70.0,
        b_mm: 45.0,
        tilt_rad: 0.4,
    };
    let from = ParallelGeometry::new(180, 200, 1.5).unwrap();
    let sinogram = project(&[disc], &from);
    for to in [
        ParallelGeometry::new(128, 90, 3.5).unwrap(),
        ParallelGeometry::new(97, 256, 1.0)
            .unwrap()
            .with_start_deg(13.0)
            .with_offset_bins(3.25),
        ParallelGeometry::new(300, 128, 2.0).unwrap().with_arc_deg(360.0),
    ] {
        let expected = project(&[disc], &to);
        let got = resample(sinogram.view(), &from, &to).unwrap();
        let norm = |a: &Array2<f32>| a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let error = norm(&(&got - &expected)) / norm(&expected);
        assert!(error < 0.015, "{to:?}: {error}");
        // The control: the same without the half turn's mirror would be far off.
        let mirrored = resample(sinogram.slice(ndarray::s![.., ..;-1]), &from, &to).unwrap();
        assert!(norm(&(&mirrored - &expected)) / norm(&expected) > 0.1);
    }
}
