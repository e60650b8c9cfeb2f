//! What the parts of the method are worth: short runs on two tasks, one part left out of each.
//!
//! The positive/negative loss (eq. 9) acts on the autoencoder, so leaving it out needs another autoencoder and, since the
//! foundation's denoiser knows only the latents of its own, a run from nothing; that is compared with the other run from nothing.

use super::restoration::{UNET, Walks, Workshop, given, recipe, restored, section, test_set, train_set};
use super::{Args, finish, hasten, kept};
use crate::fault::{Fault, Result};
use crate::model_file;
use crate::output;
use crate::progress;
use crate::report::{Report, note};
use allpet::candle::Device;
use allpet::core::{Dataset, Modality, Region, Task};
use allpet::foundation::{
    Foundation, MODEL_FILE, ModelConfig, RunConfig, train_autoencoder, train_foundation,
};
use allpet::sim::tasks::PairedTask;
use allpet::sim::{Split, SynthesisConfig, TaskConfig, simulate_synthesis, simulate_task};
use allpet::tasks::study::Cases;
use allpet::tasks::{Downstream, Method, Restorer, SynthesisOfPairs, TaskRun};
use ndarray::{ArrayView3, s};
use serde_json::{Value, json};

const RECIPE: &str = include_str!("../../../../../docs/recipes/ablation.toml");
const AUTOENCODER: &str = include_str!("../../../../../docs/recipes/small-autoencoder.toml");

/// The row that the others are compared with.
const WHOLE: &str = "whole";
/// The run whose autoencoder did not know the loss.
const UNTIED: &str = "from nothing, without positive/negative loss";

/// The run that also learnt from pairs out of the model of pairs (the paper's "+SD").
const DRAWN: &str = "whole, and drawn pairs of attenuation (+SD)";
/// How they are drawn.
const DRAWN_STEPS: usize = 20;
const DRAWN_SEED: u64 = 61;

/// Name, folder, and what is changed of the recipe.
type Variant = (&'static str, &'static str, fn(&mut TaskRun));

const VARIANTS: [Variant; 7] = [
    (UNET, "unet", |run| run.method = Method::Regression),
    (WHOLE, "whole", |_| {}),
    ("without Radon masks (RMAS, DMM)", "no-masks", |run| {
        run.masks = false
    }),
    ("without attention (TMA)", "no-attention", |run| {
        run.attention = false
    }),
    ("from nothing", "scratch", |run| run.from_scratch = true),
    (UNTIED, "scratch-untied", |run| run.from_scratch = true),
    (DRAWN, "drawn", |_| {}),
];

pub(super) fn run(args: &Args) -> Result<Report> {
    progress::stop_flag();
    let device = args.device.cpu()?;
    let (train, test) = if args.quick { (4, 2) } else { (500, 100) };
    let foundation = model_file::load(None, &device)?.model;
    let geometry = foundation.config().geometry;
    let sets = [
        ("low-dose-4", "Low dose, 1/4", Task::LowDose),
        ("attenuation", "Attenuation correction", Task::Attenuation),
    ]
    .into_iter()
    .map(|(id, title, task)| Ok((id, title, test_set(PairedTask::new(task)?, test, geometry))))
    .collect::<Result<Vec<_>>>()?;
    let workshop = Workshop {
        out: &args.out,
        resume: args.resume,
        device: &device,
    };
    let base = recipe(RECIPE, args.quick)?;
    let data = |name: &str, folder: &str| -> Result<Vec<Dataset>> {
        note(&format!("{folder}: simulating {train} pairs for each task"));
        let mut data = sets
            .iter()
            .map(|(.., set)| train_set(set, train, test))
            .collect::<Result<Vec<_>>>()?;
        if name == DRAWN {
            note(&format!("{folder}: drawing {train} pairs of attenuation"));
            data.push(drawn(&device, train)?);
        }
        Ok(data)
    };
    let mut models = Vec::new();
    for (name, folder, change) in VARIANTS {
        let mut config = base.clone();
        change(&mut config);
        let untied = (name == UNTIED)
            .then(|| untied(&workshop, &foundation, args.quick))
            .transpose()?;
        let start = untied.as_ref().unwrap_or(&foundation);
        models.push((
            name,
            workshop.obtain(folder, &config, start, || data(name, folder))?,
        ));
    }
    let mut text = String::new();
    let mut all = serde_json::Map::new();
    for (id, title, set) in &sets {
        let value = kept(&args.out, args.resume, &format!("ablation-{id}"), || {
            note(&format!("{title}: restoring"));
            judge(title, set, &models, args.quick)
        })?;
        text.push_str(value["markdown"].as_str().unwrap_or_default());
        all.insert((*id).to_owned(), value);
    }
    finish(
        args,
        "ablation",
        &text,
        all,
        &format!("{} variants", models.len()),
    )
}

/// One evaluation of every variant, beside the first estimate.
fn judge(title: &str, set: &TaskConfig, models: &[(&str, Restorer)], quick: bool) -> Result<Value> {
    let cases = Cases::new(&simulate_task(set, &|_| {})?)?;
    let mut rows = vec![given(&cases, "first estimate", cases.estimated().view())?];
    for (name, model) in models {
        rows.push(restored(&cases, model, name, Walks::of(1, 1))?);
    }
    let markdown = section(title, set, &rows, WHOLE, quick)?;
    Ok(json!({ "title": title, "seed": set.seed, "rows": rows, "markdown": markdown }))
}

/// A foundation whose autoencoder never saw the positive/negative loss; its denoiser has taken one step and is not used.
fn untied(workshop: &Workshop<'_>, shipped: &Foundation, quick: bool) -> Result<Foundation> {
    let folder = |name: &str| workshop.out.join(name).join(MODEL_FILE);
    let (autoencoder, path) = (folder("untied-autoencoder"), folder("untied-foundation"));
    if !(workshop.resume && path.exists()) {
        let mut model: ModelConfig = shipped.config().clone();
        model.autoencoder.consistency_weight = 0.0;
        let mut config: RunConfig =
            toml::from_str(AUTOENCODER).map_err(|e| Fault::Other(e.message().to_owned()))?;
        config.model = Some(model);
        if quick {
            hasten(&mut config.train);
        }
        note("untied-autoencoder: simulating its training data");
        let data = synthesis_data(if quick { 50 } else { 1 })?;
        note(&format!(
            "untied-autoencoder: training {} steps",
            config.train.steps
        ));
        output::make(&workshop.out.join("untied-autoencoder"))?;
        workshop.train("untied-autoencoder", |place, observers| {
            Ok(train_autoencoder(&config, &data, place, observers)?)
        })?;
        config.autoencoder = Some(autoencoder);
        config.train.steps = 1;
        config.train.warmup = 0;
        output::make(&workshop.out.join("untied-foundation"))?;
        workshop.train("untied-foundation", |place, observers| {
            Ok(train_foundation(&config, &data, place, observers)?)
        })?;
    }
    Ok(model_file::load(Some(&path), workshop.device)?.model)
}

/// The training data of the shipped autoencoder (docs/recipes/small.sh), fewer by a divisor.
fn synthesis_data(divisor: usize) -> Result<Vec<Dataset>> {
    let torso = [Region::Chest, Region::Abdomen];
    [
        (vec![Region::Brain], Modality::Pet, 400, 1),
        (torso.to_vec(), Modality::Pet, 400, 2),
        (vec![Region::Brain, torso[0], torso[1]], Modality::Ct, 150, 3),
    ]
    .into_iter()
    .map(|(regions, modality, count, seed)| {
        let config = SynthesisConfig {
            regions,
            modality,
            split: Split::Train,
            count: count / divisor,
            subjects: 20,
            seed,
            counts: 1e7,
            ..SynthesisConfig::default()
        };
        Ok(simulate_synthesis(&config, &|_| {})?)
    })
    .collect()
}

/// Pairs of attenuation from the shipped model of pairs, those in which no body can be made out left aside.
fn drawn(device: &Device, count: usize) -> Result<Dataset> {
    let (model, _) = model_file::load_pairs(None, device)?;
    let task = Downstream::new(Task::Attenuation)?;
    let request = SynthesisOfPairs {
        count,
        seed: DRAWN_SEED,
        sampler: "dpm++".into(),
        steps: DRAWN_STEPS,
        batch: 16,
        ..SynthesisOfPairs::new(task)
    };
    let made = model.synthesise_pairs(&request, &mut progress::unless_stopped)?;
    let body = |input: ArrayView3<'_, f32>| task.head().first_estimate(input, &made.geometry).is_ok();
    let inputs = made.inputs.view();
    let usable: Vec<usize> = (0..count)
        .filter(|i| body(inputs.slice(s![*i..i + 1, .., ..])))
        .collect();
    note(&format!("{} of {count} drawn pairs show a body", usable.len()));
    Ok(made.dataset().select(&usable)?)
}
