//! Twenty training steps of the denoiser and of the autoencoder beside PyTorch's, from the same parameters, data and noise.
//!
//! `golden/training.json` holds PyTorch's losses. To make it again:
//!
//! ```text
//! ALLPET_GOLDEN=FOLDER cargo test --release -p allpet-foundation --test golden_training
//! python3 benches/peers/networks.py --golden FOLDER > crates/allpet-foundation/tests/golden/training.json
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_autoencoder::{
    Autoencoder, AutoencoderConfig, AutoencoderObjective, Bottleneck, CAllBatch, Intensity,
};
use allpet_core::{Prompt, fill_normal, stream};
use allpet_diffusion::Conditioning;
use allpet_foundation::{DenoiserConfig, UNet};
use allpet_nn::{Params, mean_squared_error};
use allpet_train::{BoxError, Learner, Loss, Objective, TrainConfig, ema_decay};
use candle_core::{Device, Tensor};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};

const STEPS: usize = 20;
const BATCH: usize = 4;

fn draw(name: &str, shape: &[usize]) -> Tensor {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(5, name, 0), &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn share(name: &str, shape: &[usize]) -> Tensor {
    draw(name, shape).tanh().unwrap().affine(0.5, 0.5).unwrap()
}

/// Parameters away from where they start: layers that start at zero would hide what lies before them.
fn move_away(params: &Params) {
    for (name, var) in params.named() {
        let moved = (var.as_detached_tensor() + (draw(&name, var.dims()) * 0.03).unwrap()).unwrap();
        var.set(&moved).unwrap();
    }
}

fn config() -> TrainConfig {
    TrainConfig {
        steps: STEPS,
        batch: BATCH,
        rate: 1e-3,
        warmup: 3,
        ema: 0.99,
        ..TrainConfig::default()
    }
}

/// What PyTorch is told beside the tensors.
fn settings(model: Value) -> Value {
    let config = config();
    let mut all = json!({
        "steps": STEPS,
        "rates": (0..STEPS).map(|i| config.rate_at(i as u64)).collect::<Vec<_>>(),
        "averages": (0..STEPS).map(|i| ema_decay(config.ema, i as u64)).collect::<Vec<_>>(),
        "decay": config.weight_decay,
        "clip": config.clip_norm,
    });
    for (key, value) in model.as_object().unwrap() {
        all[key] = value.clone();
    }
    all
}

fn export(name: &str, params: &Params, batches: &BTreeMap<&str, Tensor>, settings: &Value) {
    let Some(folder) = std::env::var_os("ALLPET_GOLDEN") else {
        return;
    };
    let folder = std::path::Path::new(&folder);
    std::fs::create_dir_all(folder).unwrap();
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    for (key, var) in params.named() {
        tensors.insert(format!("model.{key}"), var.as_detached_tensor());
    }
    for (key, tensor) in batches {
        tensors.insert(format!("batch.{key}"), tensor.clone());
    }
    candle_core::safetensors::save(&tensors, folder.join(format!("{name}.safetensors"))).unwrap();
    std::fs::write(folder.join(format!("{name}.json")), settings.to_string()).unwrap();
}

/// Losses of all steps, and the norm of the moving average after them.
fn train<B>(
    params: &Params,
    objective: &dyn Objective<Batch = B>,
    config: &TrainConfig,
    batch: impl Fn(usize) -> B,
) -> (Vec<f64>, f64) {
    let mut learner = Learner::new(config, params).unwrap();
    let parts = config.accumulate;
    let losses = (0..config.steps)
        .map(|step| {
            let batches = (0..parts).map(|i| Ok(batch(step * parts + i)));
            learner
                .step(config, objective, batches, step as u64)
                .unwrap()
                .loss
        })
        .collect();
    let square = |t: &Tensor| {
        let t = t.to_dtype(candle_core::DType::F64).unwrap();
        t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
    };
    let norm = learner.adamw().ema().values().map(square).sum::<f64>().sqrt();
    (losses, norm)
}

fn agree(name: &str, (losses, norm): &(Vec<f64>, f64)) {
    if std::env::var_os("ALLPET_GOLDEN").is_some() {
        return;
    }
    let golden: Value = serde_json::from_str(include_str!("golden/training.json")).unwrap();
    let theirs: Vec<f64> = serde_json::from_value(golden[name].clone()).unwrap();
    assert_eq!(losses.len(), theirs.len());
    let off: Vec<f64> = losses
        .iter()
        .zip(&theirs)
        .map(|(a, b)| (a / b - 1.0).abs())
        .collect();
    let worst = off.iter().fold(0f64, |m, v| m.max(*v));
    println!("{name}: first step {:.1e}, worst of {STEPS} {worst:.1e}", off[0]);
    assert!(off[0] < 1e-5 && worst < 1e-3, "{name}: {off:?}");
    assert!(losses[STEPS - 1] < 0.9 * losses[0], "{name} learns: {losses:?}");
    let average = golden[format!("{name}_average_norm")].as_f64().unwrap();
    assert!(
        (norm / average - 1.0).abs() < 1e-5,
        "{name}: average {norm} beside {average}"
    );
}

struct Denoising(UNet);

struct Noisy {
    x: Tensor,
    t: Tensor,
    conditioning: Conditioning,
    target: Tensor,
}

impl Objective for Denoising {
    type Batch = Noisy;

    fn loss(&self, batch: &Noisy, _: u64) -> Result<Loss, BoxError> {
        let output = self.0.forward(&batch.x, &batch.t, &batch.conditioning)?;
        Ok(mean_squared_error(&output, &batch.target)?.into())
    }
}

fn denoiser() -> (Params, Denoising, BTreeMap<&'static str, Tensor>) {
    let config = DenoiserConfig::tiny();
    let params = Params::new(1, &Device::Cpu);
    let network = UNet::new(&params, &config, 4).unwrap();
    move_away(&params);
    let image = [STEPS, BATCH, 4, 16, 16];
    // The target follows from the input, so that there is something to learn.
    let x = draw("x", &image);
    let target = (x.affine(0.5, 0.2).unwrap() + x.sqr().unwrap() * 0.1).unwrap();
    let batches = BTreeMap::from([
        ("x", x),
        ("t", (share("t", &[STEPS, BATCH]) * 1000.0).unwrap()),
        ("prompt", draw("prompt", &[STEPS, BATCH, config.embedding])),
        ("mask", share("mask", &[STEPS, BATCH, 1, 16, 16])),
        ("target", target),
    ]);
    (params, Denoising(network), batches)
}

fn noisy(batches: &BTreeMap<&str, Tensor>, step: usize, from: usize, count: usize) -> Noisy {
    let part = |name: &str| batches[name].get(step).unwrap().narrow(0, from, count).unwrap();
    Noisy {
        x: part("x"),
        t: part("t"),
        conditioning: Conditioning {
            embedding: Some(part("prompt")),
            spatial: Some(part("mask")),
            ..Conditioning::default()
        },
        target: part("target"),
    }
}

#[test]
fn the_denoiser_trains_as_in_pytorch() {
    let (params, objective, batches) = denoiser();
    let c = DenoiserConfig::tiny();
    let model = json!({
        "widths": c.widths, "blocks": c.blocks, "attention": c.attention, "heads": c.heads,
        "groups": c.groups, "embedding": c.embedding,
    });
    export("denoiser", &params, &batches, &settings(model));
    let found = train(&params, &objective, &config(), |step| {
        noisy(&batches, step, 0, BATCH)
    });
    agree("denoiser", &found);
}

#[test]
fn the_autoencoder_trains_as_in_pytorch() {
    let c = AutoencoderConfig::tiny();
    let params = Params::new(2, &Device::Cpu);
    let objective = AutoencoderObjective {
        model: Autoencoder::new(&params, &c).unwrap(),
        intensity: Intensity::default(),
        seed: 9,
    };
    move_away(&params);
    // Smooth stripes with a part of them masked, as sinograms are.
    let stripes = share("c_all", &[STEPS, BATCH, 3, 32, 1])
        .broadcast_as((STEPS, BATCH, 3, 32, 32))
        .unwrap();
    let noise: Vec<f32> = (0..(STEPS * BATCH) as u64)
        .flat_map(|number| {
            let mut values = vec![0f32; c.latent * 8 * 8];
            fill_normal(&mut stream(objective.seed, "latent noise", number), &mut values);
            values
        })
        .collect();
    let batches = BTreeMap::from([
        ("c_all", stripes.affine(2.0, -1.0).unwrap().contiguous().unwrap()),
        ("mask", share("mask", &[STEPS, BATCH, 1, 32, 32])),
        (
            "noise",
            Tensor::from_vec(noise, (STEPS, BATCH, c.latent, 8, 8), &Device::Cpu).unwrap(),
        ),
    ]);
    let Bottleneck::Kl { weight } = c.bottleneck else {
        panic!("the tiny autoencoder has a KL bottleneck");
    };
    let model = json!({
        "patch": c.patch, "widths": c.widths, "blocks": c.blocks, "latent": c.latent, "groups": c.groups,
        "kl_weight": weight, "consistency_weight": c.consistency_weight,
    });
    export("autoencoder", &params, &batches, &settings(model));
    let found = train(&params, &objective, &config(), |step| CAllBatch {
        c_all: batches["c_all"].get(step).unwrap(),
        mask: batches["mask"].get(step).unwrap(),
        prompts: vec![Prompt::default(); BATCH],
    });
    agree("autoencoder", &found);
}

/// Two halves whose gradients are added up are one batch, to rounding; without the division by two they are not.
#[test]
fn accumulated_gradients_are_those_of_the_whole_batch() {
    let run = |parts: usize, rate: f64| {
        let (params, objective, batches) = denoiser();
        let config = TrainConfig {
            accumulate: parts,
            rate,
            clip_norm: None,
            ..config()
        };
        let count = BATCH / parts;
        let found = train(&params, &objective, &config, |number| {
            noisy(&batches, number / parts, number % parts * count, count)
        });
        found.0
    };
    let off = |a: &[f64], b: &[f64]| {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a / b - 1.0).abs())
            .fold(0.0, f64::max)
    };
    let whole = run(1, 1e-3);
    let found = off(&run(2, 1e-3), &whole);
    println!("two halves: losses within {found:.1e}");
    assert!(found < 1e-4, "{found}");
    assert!(off(&run(2, 1.2e-3), &whole) > 1e-3, "another rate is noticed");
}

/// The same bytes for one thread and two.
#[test]
fn bytes_of_a_step_do_not_depend_on_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let (params, objective, batches) = denoiser();
            let config = TrainConfig { steps: 3, ..config() };
            train(&params, &objective, &config, |step| {
                noisy(&batches, step, 0, BATCH)
            });
            let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            params.named().values().map(|v| values(v)).collect::<Vec<_>>()
        })
    };
    assert!(run(1) == run(2));
}
