//! Blocks that are computed again on the way back: fewer operators are written down, and training gives the same bytes.

#![allow(clippy::unwrap_used)]

use allpet_autoencoder::{Autoencoder, AutoencoderObjective, CAllBatch};
use allpet_core::{Prompt, fill_normal, stream};
use allpet_diffusion::Conditioning;
use allpet_foundation::{Denoiser, ModelConfig, Statistics, UNet};
use allpet_nn::{Params, mean_squared_error, record};
use allpet_train::{BoxError, Learner, Loss, Objective, TrainConfig};
use candle_core::{Device, Tensor};

const BATCH: usize = 2;
const STEPS: usize = 3;

fn draw(name: &str, shape: &[usize]) -> Tensor {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(8, name, 0), &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn share(name: &str, shape: &[usize]) -> Tensor {
    draw(name, shape).tanh().unwrap().affine(0.5, 0.5).unwrap()
}

/// Operators written down in one forward pass, and every parameter after some steps.
fn train<B: Clone>(
    params: &Params,
    objective: &dyn Objective<Batch = B>,
    batch: &B,
    rate: f64,
) -> (usize, Vec<Vec<f32>>) {
    // Layers that start at zero would hide what lies before them.
    for (name, var) in params.named() {
        let moved = (var.as_detached_tensor() + (draw(&name, var.dims()) * 0.03).unwrap()).unwrap();
        var.set(&moved).unwrap();
    }
    let (loss, tape) = record(|| objective.loss(batch, 0));
    drop(loss.unwrap());
    let written = format!("{tape:?}");
    let written = written.split(' ').find_map(|word| word.parse().ok()).unwrap();
    let config = TrainConfig {
        steps: STEPS,
        rate,
        warmup: 1,
        ..TrainConfig::default()
    };
    let mut learner = Learner::new(&config, params).unwrap();
    for step in 0..STEPS as u64 {
        learner
            .step(&config, objective, [Ok(batch.clone())], step)
            .unwrap();
    }
    let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let named = params.named();
    (written, named.values().map(|v| values(v)).collect())
}

/// Runs with and without are told apart by their tapes and by nothing else; another rate gives other bytes.
fn same_bytes(name: &str, run: impl Fn(bool, f64) -> (usize, Vec<Vec<f32>>)) {
    let (kept, again, control) = (run(false, 1e-3), run(true, 1e-3), run(false, 1.001e-3));
    assert!(
        2 * again.0 < kept.0,
        "{name}: {} operators written down, {} without",
        again.0,
        kept.0
    );
    assert!(again.1 == kept.1, "{name}: other bytes");
    assert!(control.1 != kept.1, "{name}: another rate is noticed");
}

fn model(images: usize) -> ModelConfig {
    let mut config = ModelConfig::preset("tiny").unwrap();
    config.denoiser.images = images;
    config.denoiser.blocks = 2;
    config
}

/// A denoiser of either kind on noise.
struct Denoising {
    denoiser: Denoiser,
    autoencoder: Autoencoder,
    statistics: Statistics,
}

impl Objective for Denoising {
    type Batch = (Tensor, Tensor, Tensor);

    fn loss(&self, (x, mask, target): &Self::Batch, _: u64) -> Result<Loss, BoxError> {
        let prompts = ["brain with 18F-FDG", "chest"].map(|p| Prompt::parse(p).unwrap()[0]);
        let conditioning = self.denoiser.condition(&prompts, mask, 4)?;
        let times = Tensor::new(&[40f32, 700.0], x.device())?;
        let output = self
            .denoiser
            .predict(x, &times, &conditioning, &self.autoencoder, &self.statistics)?;
        Ok(mean_squared_error(&output, target)?.into())
    }
}

#[test]
fn both_denoisers_train_to_the_same_bytes() {
    for images in [0, 2] {
        let config = model(images);
        let [channels, height, width] = config.latent_shape();
        let batch = (
            draw("x", &[BATCH, channels, height, width]),
            share("mask", &[BATCH, 1, 4 * height, 4 * width]),
            draw("target", &[BATCH, channels, height, width]),
        );
        same_bytes(&format!("denoiser with {images} images"), |again, rate| {
            let params = Params::new(3, &Device::Cpu);
            let frozen = Params::new(4, &Device::Cpu);
            let objective = Denoising {
                denoiser: Denoiser::new(&params, &config).unwrap().recomputing(again),
                autoencoder: Autoencoder::new(&frozen, &config.autoencoder).unwrap(),
                statistics: Statistics {
                    latent_mean: vec![0.0; channels],
                    latent_sd: vec![1.0; channels],
                    scales: Vec::new(),
                },
            };
            train(&params, &objective, &batch, rate)
        });
    }
}

/// A U-Net whose features are weighted by attention: candle's own operators stand between its stages.
struct Attending(UNet);

impl Objective for Attending {
    type Batch = (Tensor, Tensor, Tensor);

    fn loss(&self, (x, attention, target): &Self::Batch, _: u64) -> Result<Loss, BoxError> {
        let conditioning = Conditioning {
            embedding: Some(draw("prompt", &[BATCH, 32])),
            ..Conditioning::default()
        };
        let times = Tensor::new(&[40f32, 700.0], x.device())?;
        let embedding = self.0.embedding(&times, &conditioning)?;
        let output = self.0.body(x, &embedding, Some(attention))?;
        Ok(mean_squared_error(&output, target)?.into())
    }
}

#[test]
fn stages_behind_candles_operators_train_to_the_same_bytes() {
    let batch = (
        draw("x", &[BATCH, 5, 8, 12]),
        share("attention", &[BATCH, 1, 8, 12]),
        draw("target", &[BATCH, 3, 8, 12]),
    );
    same_bytes("attention", |again, rate| {
        let params = Params::new(3, &Device::Cpu);
        let network = UNet::between(&params, &model(0).denoiser, 5, 3).unwrap();
        train(&params, &Attending(network.recomputing(again)), &batch, rate)
    });
}

#[test]
fn the_autoencoder_trains_to_the_same_bytes() {
    let mut config = model(0).autoencoder;
    config.blocks = 3;
    let batch = CAllBatch {
        c_all: share("c_all", &[BATCH, 3, 16, 24]),
        mask: share("mask", &[BATCH, 1, 16, 24]),
        prompts: vec![Prompt::default(); BATCH],
    };
    same_bytes("autoencoder", |again, rate| {
        let params = Params::new(5, &Device::Cpu);
        let objective = AutoencoderObjective {
            model: Autoencoder::new(&params, &config).unwrap().recomputing(again),
            intensity: model(0).intensity,
            seed: 9,
        };
        train(&params, &objective, &batch, rate)
    });
}
