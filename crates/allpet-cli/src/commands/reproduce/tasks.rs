//! The five tasks: data, training, and every way to restore in one harness ([`allpet::tasks::study`]).

use super::restoration::{
    UNET, Walks, Workshop, given, measured, on_range, recipe, restored, section, test_set, train_set,
};
use super::{Args, finish, kept};
use crate::fault::Result;
use crate::model_file;
use crate::progress;
use crate::report::{Report, note};
use allpet::candle::Device;
use allpet::core::{ParallelGeometry, Task};
use allpet::foundation::Foundation;
use allpet::sim::TaskConfig;
use allpet::sim::simulate_task;
use allpet::sim::tasks::{LowDose, PairedTask};
use allpet::tasks::classical::UniformWater;
use allpet::tasks::study::{Cases, Row};
use allpet::tasks::{Downstream, Restorer, UnpairedRequest, restore_unpaired};
use ndarray::{Array4, Axis};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// The configurations of both runs, as they are shipped.
const OURS: &str = include_str!("../../../../../docs/recipes/tasks.toml");
const BASELINE: &str = include_str!("../../../../../docs/recipes/tasks-unet.toml");

/// Evaluations of the network for one sample.
const EVALUATIONS: [usize; 4] = [1, 5, 10, 20];
/// Evaluations and samples of the mean.
const MEAN_OF: (usize, usize) = (5, 8);

/// How much is computed.
struct Scale {
    train: usize,
    test: usize,
    shifted: usize,
    subjects: usize,
    evaluations: Vec<usize>,
    mean_of: (usize, usize),
}

impl Scale {
    fn of(quick: bool) -> Self {
        if quick {
            Self {
                train: 4,
                test: 2,
                shifted: 2,
                subjects: 2,
                evaluations: vec![1, 2],
                mean_of: (2, 2),
            }
        } else {
            Self {
                train: 500,
                test: 100,
                shifted: 50,
                subjects: 100,
                evaluations: EVALUATIONS.to_vec(),
                mean_of: MEAN_OF,
            }
        }
    }
}

/// A test set.
struct Set {
    id: &'static str,
    title: &'static str,
    config: TaskConfig,
    /// Beside the full table, a set from elsewhere: fewer cases, fewer rows.
    shifted: bool,
}

pub(super) fn run(args: &Args) -> Result<Report> {
    progress::stop_flag();
    let device = args.device.cpu()?;
    let scale = Scale::of(args.quick);
    let foundation = model_file::load(None, &device)?.model;
    let sets = sets(&scale, foundation.config().geometry)?;
    let ours = obtain(args, "ours", OURS, args.model.as_deref(), &scale, &sets, &device)?;
    let unet = obtain(
        args,
        "unet",
        BASELINE,
        args.baseline.as_deref(),
        &scale,
        &sets,
        &device,
    )?;
    let mut text = String::new();
    let mut all = serde_json::Map::new();
    for set in &sets {
        let value = kept(&args.out, args.resume, &format!("tasks-{}", set.id), || {
            note(&format!("{}: restoring", set.title));
            let models = Models {
                ours: &ours,
                unet: &unet,
                foundation: &foundation,
            };
            judge(set, &models, &scale, args.quick)
        })?;
        text.push_str(value["markdown"].as_str().unwrap_or_default());
        all.insert(set.id.to_owned(), value);
    }
    finish(args, "tasks", &text, all, &format!("{} sets", sets.len()))
}

/// The test sets: six of the training's own kind, and six from elsewhere.
fn sets(scale: &Scale, own: ParallelGeometry) -> Result<Vec<Set>> {
    let base = |task: PairedTask| test_set(task, scale.test, own);
    let dose = |dose: f64| {
        PairedTask::LowDose(LowDose {
            dose,
            ..LowDose::default()
        })
    };
    let quarter = dose(0.25);
    let attenuation = PairedTask::new(Task::Attenuation)?;
    let mut sets = vec![
        ("low-dose-4", "Low dose, 1/4", quarter),
        ("low-dose-100", "Low dose, 1/100", dose(0.01)),
        ("attenuation", "Attenuation correction", attenuation),
        (
            "delayed",
            "Delayed frame, 60 to 120 min",
            PairedTask::new(Task::Delayed)?,
        ),
        (
            "conversion",
            "Conversion, 18F-FDG to 68Ga-PSMA",
            PairedTask::new(Task::Conversion)?,
        ),
        (
            "separation",
            "Separation, 18F-FDG and 68Ga-PSMA",
            PairedTask::new(Task::Separation)?,
        ),
    ]
    .into_iter()
    .map(|(id, title, task)| Set {
        id,
        title,
        config: base(task),
        shifted: false,
    })
    .collect::<Vec<_>>();
    // 160 bins of 3.2 mm span the same field.
    let finer = ParallelGeometry {
        bins: own.bins * 5 / 4,
        bin_mm: own.bin_mm * 4.0 / 5.0,
        ..own
    };
    for (ids, titles, task) in [
        (
            ["low-dose-4-counts", "low-dose-4-bins", "low-dose-4-lesions"],
            [
                "Low dose, 1/4: a third of the counts",
                "Low dose, 1/4: bins of 3.2 mm",
                "Low dose, 1/4: lesions twice as large",
            ],
            quarter,
        ),
        (
            ["attenuation-counts", "attenuation-bins", "attenuation-lesions"],
            [
                "Attenuation correction: a third of the counts",
                "Attenuation correction: bins of 3.2 mm",
                "Attenuation correction: lesions twice as large",
            ],
            attenuation,
        ),
    ] {
        let few = TaskConfig {
            count: scale.shifted,
            ..base(task)
        };
        let shifted = [
            TaskConfig {
                counts: few.counts / 3.0,
                ..few.clone()
            },
            TaskConfig {
                geometry: finer,
                image_size: finer.bins,
                ..few.clone()
            },
            TaskConfig {
                lesion_scale: 2.0,
                ..few.clone()
            },
        ];
        for ((id, title), config) in ids.into_iter().zip(titles).zip(shifted) {
            sets.push(Set {
                id,
                title,
                config,
                shifted: true,
            });
        }
    }
    Ok(sets)
}

/// A trained model: given, left by an earlier run, or trained now on all tasks together.
fn obtain(
    args: &Args,
    name: &str,
    text: &str,
    given: Option<&Path>,
    scale: &Scale,
    sets: &[Set],
    device: &Device,
) -> Result<Restorer> {
    if given == Some(Path::new("shipped")) {
        return model_file::load_tasks(None, device);
    }
    if let Some(path) = given {
        return model_file::load_tasks(Some(path), device);
    }
    let workshop = Workshop {
        out: &args.out,
        resume: args.resume,
        device,
    };
    let foundation = model_file::load(None, device)?.model;
    workshop.obtain(name, &recipe(text, args.quick)?, &foundation, || {
        note(&format!("{name}: simulating {} pairs for each task", scale.train));
        sets.iter()
            .filter(|set| !set.shifted)
            .map(|set| train_set(&set.config, scale.train, scale.subjects))
            .collect()
    })
}

/// What restores.
struct Models<'a> {
    ours: &'a Restorer,
    unet: &'a Restorer,
    foundation: &'a Foundation,
}

/// Every way to restore a set, and its table.
fn judge(set: &Set, models: &Models<'_>, scale: &Scale, quick: bool) -> Result<Value> {
    let Models { ours, unet, .. } = *models;
    let data = simulate_task(&set.config, &|_| {})?;
    let cases = Cases::new(&data)?;
    let mut rows = vec![given(&cases, "input", cases.unrestored().view())?];
    if !set.shifted {
        rows.extend(water(&cases)?);
    }
    rows.push(given(&cases, "first estimate", cases.estimated().view())?);
    rows.push(restored(&cases, unet, UNET, Walks::of(1, 1))?);
    rows.push(on_range(&cases, unet, "U-Net, onto the range")?);
    let (steps, samples) = scale.mean_of;
    for steps in scale.evaluations.iter().filter(|n| !set.shifted || **n == 1) {
        rows.push(restored(
            &cases,
            ours,
            &format!("bridge, {steps} eval."),
            Walks::of(*steps, 1),
        )?);
    }
    rows.push(restored(
        &cases,
        ours,
        &format!("bridge, {steps} eval., mean of {samples}"),
        Walks::of(steps, samples),
    )?);
    rows.push(on_range(&cases, ours, "bridge, 1 eval., onto the range")?);
    if !set.shifted {
        rows.extend(without_pairs(&cases, models.foundation, quick)?);
        rows.push(ceiling(&cases, ours)?);
    }
    let markdown = section(set.title, &set.config, &rows, UNET, quick)?;
    Ok(json!({
        "title": set.title,
        "seed": set.config.seed,
        "cases": cases.len(),
        "rows": rows,
        "markdown": markdown,
    }))
}

/// Attenuation by uniform water, before the noise is taken out as well.
fn water(cases: &Cases) -> Result<Option<Row>> {
    if !matches!(cases.task, Downstream::Attenuation(_)) {
        return Ok(None);
    }
    let start = Instant::now();
    let restored = UniformWater::default().restore(cases.inputs.view(), &cases.geometry)?;
    let seconds = start.elapsed().as_secs_f64();
    let restored: Array4<f32> = restored.insert_axis(Axis(1));
    Ok(Some(cases.score(
        "uniform water",
        restored.view(),
        None,
        seconds,
    )?))
}

/// Low dose by the foundation alone, kept to the counts.
fn without_pairs(cases: &Cases, foundation: &Foundation, quick: bool) -> Result<Option<Row>> {
    let Downstream::LowDose(task) = cases.task else {
        return Ok(None);
    };
    let all = UnpairedRequest::new(task);
    let request = UnpairedRequest {
        shown: cases.shown.clone(),
        samples: if quick { 2 } else { all.samples },
        steps: if quick { 2 } else { all.steps },
        first_estimates: Some(cases.first_estimates.clone()),
        ..all
    };
    let row = measured(cases, "without pairs, mean of 8", request.samples, || {
        let inputs = cases.inputs.view();
        Ok(restore_unpaired(
            foundation,
            inputs,
            &cases.geometry,
            &request,
            &mut progress::unless_stopped,
        )?)
    })?;
    Ok(Some(row))
}

/// The autoencoder's round trip of the truth.
fn ceiling(cases: &Cases, model: &Restorer) -> Result<Row> {
    let mut out = Array4::zeros(cases.truth.dim());
    for output in 0..cases.truth.len_of(Axis(1)) {
        let truth = cases.truth.index_axis(Axis(1), output);
        out.index_axis_mut(Axis(1), output)
            .assign(&model.round_trip(truth)?);
    }
    Ok(cases.score("round trip of the truth", out.view(), None, 0.0)?)
}
