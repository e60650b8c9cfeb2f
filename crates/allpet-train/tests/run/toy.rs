//! A small regression problem whose batches and noise come from streams keyed by the step.

use allpet_core::{fill_normal, stream};
use allpet_nn::{Init, Params};
use allpet_train::{
    BoxError, Identity, Loss, Objective, Observer, Outcome, Result, Source, TrainConfig, Trainer,
};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub(crate) const SEED: u64 = 11;

/// Inputs `[batch, 16]` and targets `[batch, 4]`, with a pause so that a kill falls anywhere.
pub(crate) struct Data {
    pub(crate) batch: usize,
    pub(crate) pause: Duration,
}

impl Source for Data {
    type Batch = (Tensor, Tensor);

    fn batch(&self, step: u64) -> Result<Self::Batch, BoxError> {
        std::thread::sleep(self.pause);
        let mut x = vec![0f32; self.batch * 16];
        fill_normal(&mut stream(SEED, "inputs", step), &mut x);
        let y: Vec<f32> = x
            .chunks(4)
            .map(|c| (c[0] + 0.5 * c[1] - c[2] * c[3]).tanh())
            .collect();
        let x = Tensor::from_vec(x, (self.batch, 16), &Device::Cpu)?;
        Ok((x, Tensor::from_vec(y, (self.batch, 4), &Device::Cpu)?))
    }
}

/// Two layers and the mean squared error, on inputs with noise of the step.
pub(crate) struct Network {
    layers: [(Tensor, Tensor); 2],
    /// The loss becomes NaN at this step.
    pub(crate) poison: Option<u64>,
}

impl Network {
    pub(crate) fn new(params: &Params, hidden: usize) -> Self {
        let layer = |name: &str, from: usize, to: usize| {
            let p = params.sub(name);
            let weight = p.get((from, to), "weight", Init::LeCun { fan_in: from }).unwrap();
            (weight, p.get(to, "bias", Init::Zeros).unwrap())
        };
        Self {
            layers: [layer("first", 16, hidden), layer("second", hidden, 4)],
            poison: None,
        }
    }
}

impl Objective for Network {
    type Batch = (Tensor, Tensor);

    fn loss(&self, (x, y): &Self::Batch, step: u64) -> Result<Loss, BoxError> {
        let mut noise = vec![0f32; x.elem_count()];
        fill_normal(&mut stream(SEED, "noise", step), &mut noise);
        let noise = (Tensor::from_vec(noise, x.shape(), x.device())? * 0.1)?;
        let [(w1, b1), (w2, b2)] = &self.layers;
        let hidden = (x + noise)?.matmul(w1)?.broadcast_add(b1)?.tanh()?;
        let mut total = (hidden.matmul(w2)?.broadcast_add(b2)? - y)?.sqr()?.mean_all()?;
        if self.poison == Some(step) {
            total = (total * f64::NAN)?;
        }
        let mse = f64::from(total.to_scalar::<f32>()?);
        Ok(Loss {
            total,
            parts: vec![("mse", mse)],
        })
    }
}

pub(crate) fn config(steps: usize) -> TrainConfig {
    TrainConfig {
        steps,
        batch: 8,
        rate: 3e-3,
        warmup: 3,
        ema: 0.99,
        seed: SEED,
        checkpoint_every_steps: 2,
        checkpoint_every_minutes: 0.0,
        log_every: 1,
        ..TrainConfig::default()
    }
}

pub(crate) fn identity() -> Identity {
    Identity {
        architecture: serde_json::json!({ "hidden": 32, "scale": 0.1 }),
        config: serde_json::json!({ "name": "toy" }),
        data: "drawn".into(),
    }
}

/// One process's worth of the run in `folder`.
pub(crate) fn train(
    folder: &Path,
    config: &TrainConfig,
    resume: bool,
    pause: Duration,
    observers: &mut [&mut dyn Observer],
) -> Result<Outcome> {
    let params = Params::new(SEED, &Device::Cpu);
    let network = Network::new(&params, 32);
    let stop = AtomicBool::new(false);
    let trainer = Trainer {
        params: &params,
        config,
        folder,
        resume,
        identity: identity(),
        stop: &stop,
    };
    trainer.run(
        &network,
        &Data {
            batch: config.batch,
            pause,
        },
        observers,
    )
}

pub(crate) fn newest(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join(allpet_train::checkpoint::FILE)).unwrap()
}

/// Stops after so many steps of this process.
pub(crate) struct StopAfter(pub(crate) usize);

impl Observer for StopAfter {
    fn on_step(&mut self, _: &allpet_train::StepInfo<'_>) -> std::ops::ControlFlow<()> {
        self.0 -= 1;
        if self.0 == 0 {
            std::ops::ControlFlow::Break(())
        } else {
            std::ops::ControlFlow::Continue(())
        }
    }
}
