//! How near generated sinograms are to held-out ones, tracer by tracer and region by region, in both domains.
//!
//! Beside them stand the floor, the training sinograms of the same kind, and a trivial baseline that knows every bin's mean
//! and spread and nothing of their company.

use super::markdown::{table, warning};
use super::{Args, finish, kept};
use crate::fault::{Fault, Result};
use crate::model_file;
use crate::progress;
use crate::report::{Report, note};
use allpet::core::{Dataset, ImageGrid, ParallelGeometry, Prompt, Region, Tracer, fill_normal, stream};
use allpet::foundation::{Foundation, SynthesisRequest};
use allpet::metrics::distribution::{
    KernelSettings, RandomFeatures, frechet_distance_of, kernel_distance, precision_recall,
};
use allpet::radon::{Fbp, Filter};
use allpet::sim::{Split, SynthesisConfig, simulate_synthesis};
use ndarray::{Array3, ArrayView3, Axis, Ix3, stack};
use serde_json::{Value, json};

/// Prompts of a slice in the training data of the shipped weights (docs/recipes/small.sh).
const COUNTS: f64 = 1e7;
const TEST_SEED: u64 = 12;
const SEED: u64 = 5;
/// Neighbours that set the radius of a ball, as published.
const NEIGHBOURS: usize = 3;

const REGIONS: [Region; 3] = [Region::Brain, Region::Chest, Region::Abdomen];

pub(super) fn run(args: &Args) -> Result<Report> {
    progress::stop_flag();
    let device = args.device.cpu()?;
    let counts = if args.quick { (8, 8) } else { (48, 100) };
    let model = match &args.model {
        Some(path) if path.as_os_str() != "shipped" => model_file::load(Some(path), &device)?.model,
        _ => model_file::load(None, &device)?.model,
    };
    let geometry = model.config().geometry;
    let training = training(geometry, args.quick)?;
    let mut all = serde_json::Map::new();
    for prompt in prompts(args.quick) {
        let id = format!("{prompt}").replace(' ', "-").to_lowercase();
        let value = kept(&args.out, args.resume, &format!("synthesis-{id}"), || {
            note(&format!("{prompt}: drawing {} sinograms", counts.0));
            judge(&model, prompt, &training, counts, args.quick)
        })?;
        all.insert(prompt.to_string(), value);
    }
    let text = markdown(&all, counts, args.quick);
    let said = format!("{} prompts", all.len());
    finish(args, "synthesis", &text, all, &said)
}

fn prompts(quick: bool) -> Vec<Prompt> {
    let all = Tracer::ALL
        .iter()
        .flat_map(|t| REGIONS.map(|r| Prompt::pet(*t, r)));
    all.take(if quick { 1 } else { usize::MAX }).collect()
}

/// The training sinograms of the shipped weights.
fn training(geometry: ParallelGeometry, quick: bool) -> Result<Vec<Dataset>> {
    [(&REGIONS[..1], 1), (&REGIONS[1..], 2)]
        .into_iter()
        .map(|(regions, seed)| {
            simulate(&SynthesisConfig {
                regions: regions.to_vec(),
                split: Split::Train,
                count: if quick { 36 } else { 400 },
                subjects: 20,
                seed,
                geometry,
                ..SynthesisConfig::default()
            })
        })
        .collect()
}

fn simulate(config: &SynthesisConfig) -> Result<Dataset> {
    let config = SynthesisConfig {
        counts: COUNTS,
        ..config.clone()
    };
    Ok(simulate_synthesis(&config, &|_| {})?)
}

fn sinograms(data: &Dataset) -> Result<ArrayView3<'_, f32>> {
    let found = data.array("target")?.view();
    found
        .into_dimensionality::<Ix3>()
        .map_err(|e| Fault::Other(e.to_string()))
}

/// Figures of one prompt: generated, floor and baseline, each in both domains.
fn judge(
    model: &Foundation,
    prompt: Prompt,
    training: &[Dataset],
    (count, held_out): (usize, usize),
    quick: bool,
) -> Result<Value> {
    let geometry = model.config().geometry;
    let request = SynthesisRequest {
        prompts: vec![prompt],
        count,
        seed: SEED,
        steps: if quick {
            2
        } else {
            SynthesisRequest::default().steps
        },
        ..SynthesisRequest::default()
    };
    let generated = model.synthesise(&request, &mut progress::unless_stopped)?;
    let held_out_data = simulate(&SynthesisConfig {
        tracers: prompt.tracer.into_iter().collect(),
        regions: prompt.region.into_iter().collect(),
        split: Split::Test,
        count: held_out,
        subjects: held_out,
        seed: TEST_SEED,
        geometry,
        ..SynthesisConfig::default()
    })?;
    let held_out = sinograms(&held_out_data)?;
    let floor = like(training, prompt)?;
    let gaussian = per_bin_gaussian(floor.view(), count);

    let fbp = Fbp::new(
        ImageGrid::square(geometry.bins, geometry.bin_mm)?,
        geometry,
        Filter::Hann,
        1.0,
    )?;
    let images = |sinograms: ArrayView3<'_, f32>| -> Result<Array3<f32>> {
        let reconstructed = fbp.reconstruct(sinograms.into_dyn())?;
        reconstructed
            .into_dimensionality::<Ix3>()
            .map_err(|e| Fault::Other(e.to_string()))
    };
    let mut domains = serde_json::Map::new();
    let candidates = [
        ("generated", generated.sinograms.view()),
        ("training", floor.view()),
        ("gaussian", gaussian.view()),
    ];
    for domain in ["sinogram", "image"] {
        let seen = |stack: ArrayView3<'_, f32>| match domain {
            "image" => images(stack),
            _ => Ok(stack.to_owned()),
        };
        let reference = seen(held_out)?;
        let range = f64::from(reference.iter().fold(0f32, |a, b| a.max(*b)));
        let mut figures = serde_json::Map::new();
        for (name, stack) in candidates {
            figures.insert(
                name.to_owned(),
                compare(seen(stack)?.view(), reference.view(), range)?,
            );
        }
        domains.insert(domain.to_owned(), Value::Object(figures));
    }
    Ok(json!({ "seed": SEED, "count": count, "training": floor.len_of(Axis(0)), "domains": domains }))
}

/// The training sinograms of a prompt's tracer and region.
fn like(training: &[Dataset], prompt: Prompt) -> Result<Array3<f32>> {
    let mut found = Vec::new();
    for data in training {
        let all = sinograms(data)?;
        let fitting = data.prompts.iter().enumerate();
        found.extend(
            fitting
                .filter(|(_, p)| (p.tracer, p.region) == (prompt.tracer, prompt.region))
                .map(|(i, _)| all.index_axis_move(Axis(0), i)),
        );
    }
    stack(Axis(0), &found).map_err(|_| Fault::Other(format!("no training sinogram of {prompt}")))
}

/// Sinograms whose bins are normal with the mean and spread of the given ones, each by itself; never negative.
fn per_bin_gaussian(given: ArrayView3<'_, f32>, count: usize) -> Array3<f32> {
    let (_, views, bins) = given.dim();
    let n = given.len_of(Axis(0)).max(1) as f32;
    let mean = given.sum_axis(Axis(0)) / n;
    let mut variance = mean.mapv(|_| 0.0);
    for sinogram in given.outer_iter() {
        let difference = &sinogram - &mean;
        variance += &(&difference * &difference);
    }
    let sd = variance.mapv(|v: f32| (v / n).sqrt());
    let mut out = Array3::zeros((count, views, bins));
    for (i, mut sinogram) in out.outer_iter_mut().enumerate() {
        let mut noise = vec![0f32; views * bins];
        fill_normal(&mut stream(SEED, "per-bin gaussian", i as u64), &mut noise);
        let values = mean
            .iter()
            .zip(&sd)
            .zip(&noise)
            .map(|((m, s), z)| (m + s * z).max(0.0));
        sinogram
            .iter_mut()
            .zip(values)
            .for_each(|(to, value)| *to = value);
    }
    out
}

fn compare(candidate: ArrayView3<'_, f32>, reference: ArrayView3<'_, f32>, range: f64) -> Result<Value> {
    let bank = RandomFeatures::new(SEED);
    let (x, y) = (bank.extract(candidate, range)?, bank.extract(reference, range)?);
    let frechet = frechet_distance_of(x.view(), y.view())?;
    let settings = KernelSettings {
        subset_size: x.nrows().min(y.nrows()) / 2,
        seed: SEED,
        ..KernelSettings::default()
    };
    let kernel = kernel_distance(x.view(), y.view(), &settings)?;
    let shares = precision_recall(x.view(), y.view(), NEIGHBOURS)?;
    Ok(json!({
        "frechet": frechet.distance,
        "kernel": kernel.mean,
        "kernel_sd": kernel.sd,
        "precision": shares.precision,
        "recall": shares.recall,
    }))
}

fn markdown(all: &serde_json::Map<String, Value>, (count, held_out): (usize, usize), quick: bool) -> String {
    let mut text = format!(
        "{}{count} generated and {held_out} held-out sinograms of each prompt; {}.\n\n",
        warning(quick),
        RandomFeatures::LABEL
    );
    for domain in ["sinogram", "image"] {
        let heading = ["", "", "Fréchet", "KID, 10⁻⁶", "precision", "recall"].map(str::to_owned);
        let mut rows = vec![heading.to_vec()];
        for (prompt, value) in all {
            for (key, name) in [
                ("generated", "generated"),
                ("training", "training (floor)"),
                ("gaussian", "Gaussian bins"),
            ] {
                let figures = &value["domains"][domain][key];
                let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
                rows.push(vec![
                    if key == "generated" {
                        prompt.clone()
                    } else {
                        String::new()
                    },
                    name.to_owned(),
                    format!("{:.4}", number("frechet")),
                    format!("{:.1} ± {:.1}", 1e6 * number("kernel"), 1e6 * number("kernel_sd")),
                    format!("{:.2}", number("precision")),
                    format!("{:.2}", number("recall")),
                ]);
            }
        }
        let title = if domain == "image" { "Images" } else { "Sinograms" };
        text.push_str(&format!("### {title}\n\n{}\n", table(&rows)));
    }
    text
}
