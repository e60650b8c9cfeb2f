//! Operators of the networks, whole training steps of the `small` preset and one sampling step: the cases of
//! `benches/peers/networks.py`, which times PyTorch beside them.

use super::Timing;
use crate::fault::{Fault, Result};
use crate::memory::{most_taken, taken_from_now};
use allpet::autoencoder::{Autoencoder, AutoencoderObjective, CAllBatch};
use allpet::candle::{self, Device, Tensor, Var};
use allpet::core::{Prompt, fill_normal, stream};
use allpet::diffusion::Conditioning;
use allpet::foundation::{ModelConfig, UNet};
use allpet::nn::{self, Params, Window, record, without_gradients};
use allpet::train::{
    AdamW, BoxError, Learner, Loss, Objective, TrainConfig, Update, clip_factor, global_norm,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Samples of the whole steps.
const BATCH: usize = 16;

/// Nothing here is the user's fault.
fn other(e: impl std::fmt::Display) -> Fault {
    Fault::Other(e.to_string())
}

fn draw(name: &str, shape: &[usize]) -> Result<Tensor> {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(0, name, 0), &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).map_err(other)
}

fn uniform(name: &str, shape: &[usize]) -> Result<Tensor> {
    // Only its range matters here: 0 to 1, as masks and intensities have.
    draw(name, shape)?
        .tanh()
        .and_then(|t| t.affine(0.5, 0.5))
        .map_err(other)
}

fn var(name: &str, shape: &[usize]) -> Result<Var> {
    Var::from_tensor(&draw(name, shape)?).map_err(other)
}

/// An operator on its inputs and parameters.
type Operator = Box<dyn Fn(&[Tensor]) -> candle::Result<Tensor>>;

struct Case {
    name: &'static str,
    shape: Vec<usize>,
    inputs: Vec<Var>,
    operator: Operator,
}

impl Case {
    fn new(
        name: &'static str,
        shapes: &[&[usize]],
        operator: impl Fn(&[Tensor]) -> candle::Result<Tensor> + 'static,
    ) -> Result<Self> {
        let inputs = shapes
            .iter()
            .enumerate()
            .map(|(i, s)| var(&format!("{name}{i}"), s));
        Ok(Self {
            name,
            shape: shapes[0].to_vec(),
            inputs: inputs.collect::<Result<_>>()?,
            operator: Box::new(operator),
        })
    }

    fn conv(
        name: &'static str,
        x: [usize; 4],
        (outputs, kernel): (usize, usize),
        window: Window,
        groups: usize,
    ) -> Result<Self> {
        let weight = [outputs, x[1] / groups, kernel, kernel];
        Self::new(name, &[&x, &weight, &[outputs]], move |t| {
            nn::grouped_conv2d(&t[0], &t[1], &t[2], window, groups)
        })
    }

    /// Median milliseconds of the operator alone, and with the gradients of everything it takes.
    fn time(&self) -> Result<Value> {
        let plain: Vec<Tensor> = self.inputs.iter().map(|v| v.as_detached_tensor()).collect();
        let forward = Timing::of(|| {
            without_gradients(|| (self.operator)(&plain)).map_err(other)?;
            Ok(())
        })?;
        let zero = (self.operator)(&plain)
            .and_then(|y| y.zeros_like())
            .map_err(other)?;
        let tracked: Vec<Tensor> = self.inputs.iter().map(|v| v.as_tensor().clone()).collect();
        let train = Timing::of(|| {
            let (loss, tape) = record(|| {
                let y = (self.operator)(&tracked)?;
                nn::mean_squared_error(&y, &zero)
            });
            let loss = loss.map_err(other)?;
            tape.backward(&loss).map_err(other)?;
            Ok(())
        })?;
        Ok(json!({
            "case": self.name,
            "shape": self.shape,
            "forward_ms": forward.median_ms,
            "train_ms": train.median_ms,
        }))
    }
}

fn operators() -> Result<Vec<Case>> {
    let same = Window::same(3);
    let halve = Window {
        stride: 2,
        padding: 1,
    };
    let mut cases = Vec::new();
    for x in [
        [4, 64, 64, 64],
        [4, 128, 32, 32],
        [4, 32, 128, 128],
        [16, 64, 32, 32],
    ] {
        cases.push(Case::conv("conv3x3", x, (x[1], 3), same, 1)?);
    }
    cases.push(Case::conv("conv3x3_stride2", [4, 64, 64, 64], (64, 3), halve, 1)?);
    cases.push(Case::conv(
        "conv1x1",
        [4, 128, 32, 32],
        (128, 1),
        Window::same(1),
        1,
    )?);
    cases.push(Case::conv("depthwise3x3", [4, 64, 64, 64], (64, 3), same, 64)?);
    for x in [[4, 64, 64, 64], [4, 32, 128, 128]] {
        cases.push(Case::new("groupnorm_silu", &[&x, &[x[1]], &[x[1]]], |t| {
            nn::group_norm(&t[0], &t[1], &t[2], 8, true)
        })?);
    }
    cases.push(Case::new("layernorm", &[&[4, 4096, 64], &[64], &[64]], |t| {
        nn::layer_norm(&t[0], &t[1], &t[2])
    })?);
    // Four samples, eight heads of 16 channels, 1024 pixels.
    let attention = Case::new("attention", &[&[4, 3 * 8 * 16, 32, 32]], |t| {
        nn::attention(&t[0], 8)
    })?;
    cases.push(Case {
        shape: vec![4, 8, 1024, 16],
        ..attention
    });
    cases.push(Case::new("channel_attention", &[&[4, 192, 64, 64], &[4]], |t| {
        nn::channel_attention(&t[0], &t[1])
    })?);
    cases.push(Case::new("gelu_gate", &[&[4, 128, 64, 64]], |t| {
        nn::gelu_gate(&t[0])
    })?);
    cases.push(Case::new("upsample_nearest2", &[&[4, 64, 32, 32]], |t| {
        nn::upsample_nearest(&t[0])
    })?);
    Ok(cases)
}

/// AdamW, clipping and moving average on five million parameters.
fn optimiser() -> Result<Value> {
    let vars: BTreeMap<String, Var> = (0..5)
        .map(|i| Ok((format!("p{i}"), var(&format!("p{i}"), &[1_000_000])?)))
        .collect::<Result<_>>()?;
    let gradients: BTreeMap<String, Tensor> = vars
        .keys()
        .map(|name| Ok((name.clone(), draw(&format!("g{name}"), &[1_000_000])?)))
        .collect::<Result<_>>()?;
    let mut adamw = AdamW::new(TrainConfig::default().adamw(), &vars).map_err(other)?;
    let mut step = 0;
    let timing = Timing::of(|| {
        let norm = global_norm(gradients.values()).map_err(other)?;
        let update = Update {
            step,
            rate: 1e-4,
            gradient_factor: clip_factor(norm, Some(1.0)),
            ema_decay: 0.99,
        };
        step += 1;
        adamw.update(&gradients, &update).map_err(other)
    })?;
    Ok(json!({ "case": "adamw_clip_ema", "shape": [5_000_000], "step_ms": timing.median_ms }))
}

/// The denoiser against a fixed target.
struct Denoising {
    network: UNet,
    x: Tensor,
    times: Tensor,
    conditioning: Conditioning,
    target: Tensor,
}

/// What is trained, on how many samples of the preset's sides divided by `shrink`, and whether stages are computed again on
/// the way back.
pub(super) struct Size {
    pub(super) preset: String,
    pub(super) batch: usize,
    pub(super) recompute: bool,
    pub(super) shrink: usize,
}

impl Size {
    /// The cases of the table.
    fn small() -> Self {
        Self {
            preset: "small".into(),
            batch: BATCH,
            recompute: false,
            shrink: 1,
        }
    }
}

impl Denoising {
    fn new(size: &Size) -> Result<(Self, Params)> {
        let model = ModelConfig::preset(&size.preset)?;
        let ([channels, views, bins], config) = (model.latent_shape(), model.denoiser);
        let ([views, bins], batch) = ([views, bins].map(|side| side / size.shrink), size.batch);
        let params = Params::new(0, &Device::Cpu);
        let network = UNet::new(&params, &config, channels).map_err(other)?;
        let this = Self {
            network: network.recomputing(size.recompute),
            x: draw("x", &[batch, channels, views, bins])?,
            times: (uniform("t", &[batch])? * 1000.0).map_err(other)?,
            conditioning: Conditioning {
                embedding: Some(draw("prompt", &[batch, config.embedding])?),
                spatial: Some(uniform("mask", &[batch, 1, views, bins])?),
                ..Conditioning::default()
            },
            target: draw("target", &[batch, channels, views, bins])?,
        };
        Ok((this, params))
    }

    fn predict(&self) -> std::result::Result<Tensor, BoxError> {
        Ok(self.network.forward(&self.x, &self.times, &self.conditioning)?)
    }
}

impl Objective for Denoising {
    type Batch = ();

    fn loss(&self, (): &(), _: u64) -> std::result::Result<Loss, BoxError> {
        Ok(nn::mean_squared_error(&self.predict()?, &self.target)?.into())
    }
}

fn autoencoding(size: &Size) -> Result<(AutoencoderObjective, CAllBatch, Params)> {
    let params = Params::new(0, &Device::Cpu);
    let model = ModelConfig::preset(&size.preset)?;
    let [views, bins] = model.geometry.shape().map(|side| side / size.shrink);
    let batch = size.batch;
    let objective = AutoencoderObjective {
        model: Autoencoder::new(&params, &model.autoencoder)
            .map_err(other)?
            .recomputing(size.recompute),
        intensity: model.intensity,
        seed: 0,
    };
    let batch = CAllBatch {
        c_all: uniform("c_all", &[batch, 3, views, bins])?,
        mask: uniform("mask", &[batch, 1, views, bins])?,
        prompts: vec![Prompt::default(); batch],
    };
    Ok((objective, batch, params))
}

/// One training step after another.
type Step = Box<dyn FnMut() -> Result<()>>;

/// The training steps by name with the shape of their data, each ready to be taken over and over.
fn training_step(case: &str, size: &Size) -> Result<(Vec<usize>, Step)> {
    let config = TrainConfig {
        steps: 1_000_000,
        ..TrainConfig::default()
    };
    let mut step = 0;
    let mut next = move || {
        step += 1;
        step - 1
    };
    match case {
        "denoiser_training_step" => {
            let (objective, params) = Denoising::new(size)?;
            let mut learner = Learner::new(&config, &params).map_err(other)?;
            let shape = objective.x.dims().to_vec();
            let take = move || {
                let taken = learner.step(&config, &objective, [Ok(())], next());
                taken.map(drop).map_err(other)
            };
            Ok((shape, Box::new(take)))
        }
        _ => {
            let (objective, batch, params) = autoencoding(size)?;
            let mut learner = Learner::new(&config, &params).map_err(other)?;
            let shape = batch.c_all.dims().to_vec();
            let take = move || {
                let taken = learner.step(&config, &objective, [Ok(batch.clone())], next());
                taken.map(drop).map_err(other)
            };
            Ok((shape, Box::new(take)))
        }
    }
}

/// Names of the whole training steps.
pub(super) const STEPS: [&str; 2] = ["denoiser_training_step", "autoencoder_training_step"];

/// Every case, as JSON objects.
pub(super) fn cases() -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for case in operators()? {
        found.push(case.time()?);
    }
    found.push(optimiser()?);
    let (objective, _params) = Denoising::new(&Size::small())?;
    let sampling = Timing::of(|| {
        without_gradients(|| objective.predict()).map_err(other)?;
        Ok(())
    })?;
    found
        .push(json!({ "case": "sampling_step", "shape": objective.x.dims(), "step_ms": sampling.median_ms }));
    for case in STEPS {
        let (shape, mut take) = training_step(case, &Size::small())?;
        found.push(json!({ "case": case, "shape": shape, "step_ms": Timing::of(&mut take)?.median_ms }));
    }
    Ok(found)
}

/// Steps that a peak is looked for in: the second already finds everything allocated.
const STEPS_OF_PEAK: usize = 3;

/// Memory at its height during three steps, beyond what there was before the network was made, in MiB: resident (Linux), which
/// includes freed pages that were kept, and taken from the allocator.
pub(super) fn peak(case: &str, size: &Size) -> Result<[f64; 2]> {
    let read = |key: &str| -> Result<f64> {
        let status = std::fs::read_to_string("/proc/self/status").ok();
        let line = status
            .as_deref()
            .and_then(|s| s.lines().find(|l| l.starts_with(key)));
        let kib = line.and_then(|l| l.split_whitespace().nth(1)?.parse::<f64>().ok());
        kib.map(|k| k / 1024.0).ok_or_else(|| {
            Fault::Other("this system does not tell a program's peak memory; Linux does".into())
        })
    };
    let (before, taken) = (read("VmRSS:")?, taken_from_now());
    let (_, mut take) = training_step(case, size)?;
    for _ in 0..STEPS_OF_PEAK {
        take()?;
    }
    let allocated = most_taken().saturating_sub(taken) as f64 / f64::from(1 << 20);
    Ok([read("VmHWM:")? - before, allocated])
}

/// What a training step needs, in MiB, by the sizes of what its tape keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Count {
    /// Parameters, two moments and the moving average.
    pub(super) parameters: f64,
    /// Gradients of all parameters.
    pub(super) gradients: f64,
    /// Activations that the way back needs, of the most that are needed at once.
    pub(super) kept: f64,
    /// Gradients and copies of operators under way.
    pub(super) under_way: f64,
}

impl Count {
    /// The larger of the two ends of the walk back: everything kept and no parameter's gradient yet, or the reverse.
    pub(super) fn total(&self) -> f64 {
        self.parameters + self.kept.max(self.gradients) + self.under_way
    }
}

/// Arrays of the size of the parameters: values, two moments, moving average.
const COPIES: usize = 4;
/// Tensors of the largest size at work at once: the gradient that comes, the one that goes, and that of another branch or an
/// operator's copy of its input.
const UNDER_WAY: usize = 3;
/// The forward pass that is counted has one sample, and its sides are shorter by this.
const SHRINK: usize = 4;

/// Counts a training step's memory from a forward pass of one smaller sample: everything that is kept grows with the number of
/// pixels, but for the parameters.
pub(super) fn count(case: &str, size: &Size) -> Result<Count> {
    let small = Size {
        preset: size.preset.clone(),
        batch: 1,
        recompute: size.recompute,
        shrink: SHRINK,
    };
    let (tape, params) = match case {
        "denoiser_training_step" => {
            let (objective, params) = Denoising::new(&small)?;
            let (loss, tape) = record(|| objective.loss(&(), 0));
            loss.map_err(other)?;
            (tape, params)
        }
        _ => {
            let (objective, batch, params) = autoencoding(&small)?;
            let (loss, tape) = record(|| objective.loss(&batch, 0));
            loss.map_err(other)?;
            (tape, params)
        }
    };
    let found = tape.size().map_err(other)?;
    let values: usize = params.named().values().map(|v| v.elem_count()).sum();
    let (mib, pixels) = (f64::from(1 << 20), (size.batch * SHRINK * SHRINK) as f64);
    Ok(Count {
        parameters: (COPIES * size_of::<f32>() * values) as f64 / mib,
        gradients: (size_of::<f32>() * values) as f64 / mib,
        kept: found.kept as f64 * pixels / mib,
        under_way: (UNDER_WAY * found.largest) as f64 * pixels / mib,
    })
}
