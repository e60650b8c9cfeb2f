//! Is what the model generates what was asked for, and is it new?
//!
//! A small classifier learns tracer and region from simulated sinograms of training subjects; its accuracy on generated
//! sinograms stands beside that on held-out subjects. Every generated sinogram is compared with its nearest neighbour in
//! the training set. Prints a table, writes `judge.json` and `judge.png`.
//! `cargo run --release --example judge_synthesis [TRAINING_STEPS] [GENERATED_PER_PROMPT] [FOLDER] [MODEL]`

#![allow(clippy::print_stdout)]

use allpet::autoencoder::Intensity;
use allpet::candle::Tensor;
use allpet::io::{Grid, Palette, Tile};
use allpet::nn::{Conv2d, GroupNorm, Linear, Params, Window};
use allpet::prelude::*;
use allpet::train::{BoxError, Identity, Loss, Objective, Outcome, Source, Trainer};
use ndarray::{ArrayView3, Axis, Ix3};
use rand::seq::SliceRandom;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

const REGIONS: [Region; 3] = [Region::Brain, Region::Chest, Region::Abdomen];
/// Counts a slice of the recipe of the shipped weights.
const COUNTS: f64 = 1e7;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let steps: usize = arguments.next().map_or(Ok(250), |s| s.parse())?;
    let each: usize = arguments.next().map_or(Ok(8), |s| s.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out/judge".into()));
    std::fs::create_dir_all(&folder)?;
    let model = match arguments.next() {
        Some(path) => Foundation::load(&PathBuf::from(path), &Device::Cpu)?,
        None => pretrained(&Device::Cpu)?,
    };
    let geometry = model.config().geometry;

    let simulate = |split, count, seed| {
        let config = SynthesisConfig {
            regions: REGIONS.to_vec(),
            split,
            count,
            seed,
            counts: COUNTS,
            geometry,
            ..Default::default()
        };
        simulate_synthesis(&config, &|_| ())
    };
    let training = simulate(Split::Train, (steps * 4).clamp(90, 720), 11)?;
    let held_out = simulate(Split::Test, (steps * 4).clamp(45, 180), 12)?;

    let prompts: Vec<Prompt> = Tracer::ALL
        .iter()
        .flat_map(|t| REGIONS.map(|r| Prompt::pet(*t, r)))
        .collect();
    let request = SynthesisRequest {
        count: each * prompts.len(),
        prompts,
        seed: 5,
        ..SynthesisRequest::default()
    };
    let generated = model.synthesise(&request, &mut |_, _| ControlFlow::Continue(()))?;

    let classifier = train(&training, steps, &folder.join("classifier"))?;
    let real = classifier.accuracy(sinograms(&held_out)?, &held_out.prompts)?;
    let made = classifier.accuracy(generated.sinograms.view(), &generated.prompts)?;
    println!("accuracy            tracer   region   both");
    for (name, [tracer, region, both]) in [("held-out simulated", real), ("generated", made)] {
        println!(
            "{name:<18} {:>6.1} % {:>6.1} % {:>6.1} %",
            100.0 * tracer,
            100.0 * region,
            100.0 * both
        );
    }

    // The recipe of the shipped weights (docs/model-card-small.md), drawn again: what the model was trained on.
    let recipe = |regions: &[Region], seed| {
        let config = SynthesisConfig {
            regions: regions.to_vec(),
            count: 400,
            seed,
            counts: COUNTS,
            geometry,
            ..Default::default()
        };
        simulate_synthesis(&config, &|_| ())
    };
    let (brains, trunks) = (recipe(&REGIONS[..1], 1)?, recipe(&REGIONS[1..], 2)?);
    let known: Vec<ArrayView3<'_, f32>> = vec![sinograms(&brains)?, sinograms(&trunks)?];
    let near_generated = nearest(generated.sinograms.view(), &known);
    let near_real = nearest(sinograms(&held_out)?, &known);
    let median = |found: &[(f64, usize, usize)]| {
        let mut all: Vec<f64> = found.iter().map(|f| f.0).collect();
        all.sort_by(f64::total_cmp);
        (all[all.len() / 2], all[0])
    };
    let ((m1, l1), (m2, l2)) = (median(&near_generated), median(&near_real));
    println!("distance to the nearest training sinogram (relative L2): median, least");
    println!("generated          {m1:.3}  {l1:.3}");
    println!("held-out simulated {m2:.3}  {l2:.3}");

    let grid = ImageGrid::square(geometry.bins, geometry.bin_mm)?;
    let fbp = Fbp::new(grid, geometry, Filter::Hann, 1.0)?;
    let mut pictures = Vec::new();
    for (i, (distance, set, index)) in near_generated.iter().enumerate().take(9) {
        let neighbour = known[*set].index_axis(Axis(0), *index);
        let own = generated.sinograms.index_axis(Axis(0), i);
        for (sinogram, caption) in [
            (own, generated.prompts[i].to_string()),
            (neighbour, format!("nearest, {distance:.2}")),
        ] {
            let image = fbp
                .reconstruct(sinogram.into_dyn())?
                .into_dimensionality::<ndarray::Ix2>()?;
            pictures.push((image, caption));
        }
    }
    let tiles: Vec<Tile<'_>> = pictures
        .iter()
        .map(|(p, c)| Tile::new(p.view(), c.as_str()).palette(Palette::InvertedGrey))
        .collect();
    Grid::new(6).write(&folder.join("judge.png"), &tiles)?;
    let json = serde_json::json!({
        "held_out": { "count": held_out.len(), "tracer": real[0], "region": real[1], "both": real[2] },
        "generated": { "count": generated.prompts.len(), "tracer": made[0], "region": made[1], "both": made[2] },
        "nearest_training": { "generated": { "median": m1, "least": l1 }, "held_out": { "median": m2, "least": l2 } },
    });
    allpet::core::write_bytes_atomically(
        &folder.join("judge.json"),
        serde_json::to_string_pretty(&json)?.as_bytes(),
    )?;
    println!("{}: judge.json, judge.png", folder.display());
    Ok(())
}

fn sinograms(data: &Dataset) -> Result<ArrayView3<'_, f32>> {
    Ok(data.array("target")?.view().into_dimensionality::<Ix3>()?)
}

/// For each sinogram the relative L2 distance to, and the set and index of, the nearest known one; all of unit norm.
fn nearest(from: ArrayView3<'_, f32>, known: &[ArrayView3<'_, f32>]) -> Vec<(f64, usize, usize)> {
    let unit = |s: ndarray::ArrayView2<'_, f32>| {
        let norm = s
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt()
            .max(f64::MIN_POSITIVE);
        s.mapv(|v| (f64::from(v) / norm) as f32)
    };
    let known: Vec<_> = known
        .iter()
        .enumerate()
        .flat_map(|(set, all)| {
            all.outer_iter()
                .enumerate()
                .map(move |(i, s)| (set, i, unit(s)))
                .collect::<Vec<_>>()
        })
        .collect();
    let distance = |a: &ndarray::Array2<f32>, b: &ndarray::Array2<f32>| {
        a.iter()
            .zip(b)
            .map(|(a, b)| (a - b) * (a - b))
            .sum::<f32>()
            .sqrt()
    };
    from.outer_iter()
        .map(|s| {
            let own = unit(s);
            let all = known
                .iter()
                .map(|(set, i, other)| (f64::from(distance(&own, other)), *set, *i));
            all.min_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap_or((f64::INFINITY, 0, 0))
        })
        .collect()
}

/// Four strided convolutions, a mean over what is left, and logits for tracer and region.
struct Classifier {
    layers: Vec<(Conv2d, GroupNorm)>,
    head: Linear,
}

/// Channels of the layers.
const WIDTHS: [usize; 5] = [1, 16, 32, 48, 64];

impl Classifier {
    fn new(params: &Params) -> Result<Self> {
        let window = Window {
            stride: 2,
            padding: 1,
        };
        let mut layers = Vec::new();
        for (i, pair) in WIDTHS.windows(2).enumerate() {
            let conv = Conv2d::new(&params.sub(format!("conv{i}")), pair[0], pair[1], 3, window)?;
            layers.push((
                conv,
                GroupNorm::new(&params.sub(format!("norm{i}")), pair[1], 8, true)?,
            ));
        }
        let features = WIDTHS[WIDTHS.len() - 1];
        Ok(Self {
            layers,
            head: Linear::new(&params.sub("head"), features, Tracer::ALL.len() + REGIONS.len())?,
        })
    }

    /// `[B, 1, V, R]` → logits `[B, 6]`.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (conv, norm) in &self.layers {
            x = norm.forward(&conv.forward(&x)?)?;
        }
        Ok(self.head.forward(&x.mean(3)?.mean(2)?)?)
    }

    /// Fractions with the right tracer, the right region, and both.
    fn accuracy(&self, sinograms: ArrayView3<'_, f32>, prompts: &[Prompt]) -> Result<[f64; 3]> {
        let mut right = [0f64; 3];
        for (i, prompt) in prompts.iter().enumerate() {
            let x = coded(&[sinograms.index_axis(Axis(0), i)])?;
            let logits = self.forward(&x)?.flatten_all()?.to_vec1::<f32>()?;
            let best = |l: &[f32]| (0..l.len()).max_by(|a, b| l[*a].total_cmp(&l[*b]));
            let (tracer, region) = labels(prompt);
            let hits = [
                best(&logits[..3]) == Some(tracer),
                best(&logits[3..]) == Some(region),
            ];
            right[0] += f64::from(hits[0]);
            right[1] += f64::from(hits[1]);
            right[2] += f64::from(hits[0] && hits[1]);
        }
        Ok(right.map(|r| r / prompts.len() as f64))
    }
}

fn labels(prompt: &Prompt) -> (usize, usize) {
    let region = REGIONS
        .iter()
        .position(|r| prompt.region == Some(*r))
        .unwrap_or(0);
    (prompt.tracer.map_or(0, Tracer::index), region)
}

/// Sinograms coded as the model codes them: only the pattern counts, not the scale.
fn coded(sinograms: &[ndarray::ArrayView2<'_, f32>]) -> Result<Tensor> {
    let intensity = Intensity::default();
    let (views, bins) = sinograms.first().map_or((0, 0), |s| s.dim());
    let mut values = Vec::with_capacity(sinograms.len() * views * bins);
    for sinogram in sinograms {
        let flat: Vec<f32> = sinogram.iter().copied().collect();
        let scale = intensity.scale(&flat)?;
        values.extend(flat.iter().map(|v| intensity.encode(*v, scale)));
    }
    Ok(Tensor::from_vec(
        values,
        (sinograms.len(), 1, views, bins),
        &Device::Cpu,
    )?)
}

struct Labelled<'a> {
    data: ArrayView3<'a, f32>,
    prompts: &'a [Prompt],
}

const BATCH: usize = 16;

impl Source for Labelled<'_> {
    type Batch = (Tensor, Vec<Prompt>);

    fn batch(&self, step: u64) -> std::result::Result<Self::Batch, BoxError> {
        let per_epoch = (self.prompts.len() / BATCH).max(1) as u64;
        let mut order: Vec<usize> = (0..self.prompts.len()).collect();
        order.shuffle(&mut stream(3, "classifier", step / per_epoch));
        let first = (step % per_epoch) as usize * BATCH;
        let chosen = &order[first..(first + BATCH).min(order.len())];
        let views: Vec<_> = chosen.iter().map(|i| self.data.index_axis(Axis(0), *i)).collect();
        Ok((coded(&views)?, chosen.iter().map(|i| self.prompts[*i]).collect()))
    }
}

struct CrossEntropy<'a>(&'a Classifier);

impl Objective for CrossEntropy<'_> {
    type Batch = (Tensor, Vec<Prompt>);

    fn loss(&self, (x, prompts): &Self::Batch, _: u64) -> std::result::Result<Loss, BoxError> {
        let logits = self.0.forward(x)?;
        let mut total = Tensor::zeros((), logits.dtype(), logits.device())?;
        let tracers: Vec<u32> = prompts.iter().map(|p| labels(p).0 as u32).collect();
        let regions: Vec<u32> = prompts.iter().map(|p| labels(p).1 as u32).collect();
        for (first, right) in [(0, tracers), (3, regions)] {
            let part = logits.narrow(1, first, 3)?.contiguous()?;
            let index = Tensor::from_vec(right, (prompts.len(), 1), logits.device())?;
            let hit = part.gather(&index, 1)?.squeeze(1)?;
            total = (total + (part.log_sum_exp(1)? - hit)?.mean_all()?)?;
        }
        Ok(total.into())
    }
}

fn train(data: &Dataset, steps: usize, folder: &std::path::Path) -> Result<Classifier> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    let config = TrainConfig {
        steps,
        batch: BATCH,
        rate: 2e-3,
        warmup: steps.min(20),
        ema: 0.9,
        ..TrainConfig::default()
    };
    let params = Params::new(4, &Device::Cpu);
    let classifier = Classifier::new(&params)?;
    let stop = AtomicBool::new(false);
    let trainer = Trainer {
        params: &params,
        config: &config,
        folder,
        resume: false,
        identity: Identity::default(),
        stop: &stop,
    };
    let source = Labelled {
        data: sinograms(data)?,
        prompts: &data.prompts,
    };
    if let Outcome::Finished { ema, .. } = trainer.run(&CrossEntropy(&classifier), &source, &mut [])? {
        params.load(&ema)?;
    }
    Ok(classifier)
}
