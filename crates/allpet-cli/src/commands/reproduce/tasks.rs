//! The five tasks: data, training, and every way to restore in one harness ([`allpet::tasks::study`]).

use super::Args;
use super::markdown::{difference, spread, table};
use crate::fault::{Fault, Result};
use crate::model_file;
use crate::progress;
use crate::report::{Report, note};
use allpet::candle::Device;
use allpet::core::{Dataset, ParallelGeometry, Task, write_bytes_atomically};
use allpet::foundation::{Ended, MODEL_FILE, Place};
use allpet::sim::tasks::{LowDose, PairedTask};
use allpet::sim::{Split, TaskConfig, simulate_task};
use allpet::tasks::classical::UniformWater;
use allpet::tasks::study::{Cases, Cell, Row, cell};
use allpet::tasks::{Downstream, RestoreRequest, Restored, Restorer, TaskRun, train_tasks};
use allpet::train::{JsonLines, Observer};
use ndarray::{Array4, Axis};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// The configurations of both runs, as they are shipped.
const OURS: &str = include_str!("../../../../../docs/recipes/tasks.toml");
const BASELINE: &str = include_str!("../../../../../docs/recipes/tasks-unet.toml");

const TRAIN_SEED: u64 = 11;
const TEST_SEED: u64 = 12;

/// Evaluations of the network for one sample.
const EVALUATIONS: [usize; 4] = [1, 5, 10, 20];
/// Evaluations and samples of the mean.
const MEAN_OF: (usize, usize) = (5, 8);

const UNET: &str = "U-Net";

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
    let own = model_file::load(None, &device)?.model.config().geometry;
    let sets = sets(&scale, own)?;
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
        let path = args.out.join(format!("tasks-{}.json", set.id));
        let found = args.resume.then(|| std::fs::read(&path).ok()).flatten();
        let value: Value = match found.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(value) => value,
            None => {
                note(&format!("{}: restoring", set.title));
                let value = judge(set, &ours, &unet, &scale, args.quick)?;
                write_json(&path, &value)?;
                value
            }
        };
        text.push_str(value["markdown"].as_str().unwrap_or_default());
        all.insert(set.id.to_owned(), value);
    }
    let markdown = args.out.join("tasks.md");
    write_bytes_atomically(&markdown, text.as_bytes())?;
    let path = args.out.join("tasks.json");
    write_json(&path, &Value::Object(all))?;
    Ok(Report::new(
        json!({ "table": "tasks", "markdown": markdown, "json": path, "quick": args.quick }),
        format!("{}: {} sets", markdown.display(), sets.len()),
    ))
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Fault::Other(e.to_string()))?;
    text.push('\n');
    Ok(write_bytes_atomically(path, text.as_bytes())?)
}

/// The test sets: six of the training's own kind, and six from elsewhere.
fn sets(scale: &Scale, own: ParallelGeometry) -> Result<Vec<Set>> {
    let base = |task: PairedTask| TaskConfig {
        task,
        split: Split::Test,
        count: scale.test,
        subjects: scale.subjects,
        seed: TEST_SEED,
        geometry: own,
        image_size: own.bins,
        ..TaskConfig::default()
    };
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
    recipe: &str,
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
    let folder = args.out.join(name);
    let path = folder.join(MODEL_FILE);
    if args.resume && path.exists() {
        return model_file::load_tasks(Some(&path), device);
    }
    let mut config: TaskRun = toml::from_str(recipe).map_err(|e| Fault::Other(e.message().to_owned()))?;
    if args.quick {
        config.train.steps = 2;
        config.train.warmup = 1;
        config.train.batch = 2;
    }
    note(&format!("{name}: simulating {} pairs for each task", scale.train));
    let data = sets
        .iter()
        .filter(|set| !set.shifted)
        .map(|set| {
            let config = TaskConfig {
                split: Split::Train,
                count: scale.train,
                seed: TRAIN_SEED,
                ..set.config.clone()
            };
            Ok(simulate_task(&config, &|_| {})?)
        })
        .collect::<Result<Vec<Dataset>>>()?;
    note(&format!(
        "{name}: training {} steps of {}",
        config.train.steps, config.train.batch
    ));
    let mut metrics = JsonLines::new(folder.join("metrics.jsonl"));
    let observers: &mut [&mut dyn Observer] = &mut [&mut metrics];
    let place = Place {
        folder: &folder,
        resume: args.resume,
        stop: progress::stop_flag(),
        device,
    };
    let foundation = model_file::load(None, device)?.model;
    match train_tasks(&config, &foundation, &data, place, observers)? {
        Ended::Finished => model_file::load_tasks(Some(&path), device),
        Ended::Interrupted(step) => Err(Fault::Other(format!(
            "interrupted after {step} steps of {name}; the same command with --resume goes on"
        ))),
    }
}

/// Every way to restore a set, and its table.
fn judge(set: &Set, ours: &Restorer, unet: &Restorer, scale: &Scale, quick: bool) -> Result<Value> {
    let data = simulate_task(&set.config, &|_| {})?;
    let cases = Cases::new(&data)?;
    let mut rows = vec![cases.score("input", cases.unrestored().view(), None, 0.0)?];
    if !set.shifted {
        rows.extend(water(&cases)?);
    }
    rows.push(cases.score("first estimate", cases.estimated().view(), None, 0.0)?);
    rows.push(restored(&cases, unet, UNET, 1, 1)?);
    let (steps, samples) = scale.mean_of;
    for steps in scale.evaluations.iter().filter(|n| !set.shifted || **n == 1) {
        rows.push(restored(
            &cases,
            ours,
            &format!("bridge, {steps} eval."),
            *steps,
            1,
        )?);
    }
    rows.push(restored(
        &cases,
        ours,
        &format!("bridge, {steps} eval., mean of {samples}"),
        steps,
        samples,
    )?);
    rows.push(on_range(&cases, ours)?);
    if !set.shifted {
        rows.push(ceiling(&cases, ours)?);
    }
    let markdown = markdown(set, &cases, &rows, quick)?;
    Ok(json!({
        "title": set.title,
        "seed": set.config.seed,
        "cases": cases.len(),
        "rows": rows,
        "markdown": markdown,
    }))
}

fn restored(cases: &Cases, model: &Restorer, name: &str, steps: usize, samples: usize) -> Result<Row> {
    let start = Instant::now();
    let restored = restore(cases, model, steps, samples)?;
    let seconds = start.elapsed().as_secs_f64();
    let uncertainty = (samples > 1).then(|| (restored.sd.view(), samples));
    Ok(cases.score(name, restored.mean.view(), uncertainty, seconds)?)
}

/// One evaluation, moved onto the range of the Radon transform.
fn on_range(cases: &Cases, model: &Restorer) -> Result<Row> {
    let start = Instant::now();
    let mut restored = restore(cases, model, 1, 1)?;
    restored.project_onto_range(&cases.geometry, Restored::RANGE_ITERATIONS)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(cases.score(
        "bridge, 1 eval., onto the range",
        restored.mean.view(),
        None,
        seconds,
    )?)
}

fn restore(cases: &Cases, model: &Restorer, steps: usize, samples: usize) -> Result<Restored> {
    let request = RestoreRequest {
        shown: cases.shown.clone(),
        steps,
        samples,
        first_estimates: (cases.geometry == *model.geometry()).then(|| cases.first_estimates.clone()),
        ..RestoreRequest::new(cases.task)
    };
    Ok(
        model.restore_resampled(cases.inputs.view(), &cases.geometry, &request, &mut |_, _| {
            if progress::stopped() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?,
    )
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

fn markdown(set: &Set, cases: &Cases, rows: &[Row], quick: bool) -> Result<String> {
    let beside = rows.iter().find(|row| row.name == UNET);
    let cells = |values: &[f64], other: &[f64]| -> Result<Cell> { Ok(cell(values, other, set.config.seed)?) };
    let mut lines = vec![
        [
            "",
            "PSNR (dB)",
            "to U-Net",
            "SSIM",
            "NMSE",
            "RMSE",
            "image PSNR (dB)",
            "to U-Net",
            "SSIM",
            "NMSE",
            "RMSE",
            "contrast error",
            "in 90 %",
            "s",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in rows {
        let other = beside.unwrap_or(row);
        let mut line = vec![row.name.clone()];
        for (own, other) in [(&row.sinogram, &other.sinogram), (&row.image, &other.image)] {
            let [psnr, ssim, nmse, rmse] = [
                cells(&own.psnr, &other.psnr)?,
                cells(&own.ssim, &other.ssim)?,
                cells(&own.nmse, &other.nmse)?,
                cells(&own.rmse, &other.rmse)?,
            ];
            line.push(spread(psnr.mean, psnr.sd, 2));
            line.push(match row.name == UNET {
                true => String::new(),
                false => difference(psnr.difference, psnr.interval, 2),
            });
            line.push(spread(ssim.mean, ssim.sd, 3));
            line.push(spread(nmse.mean, nmse.sd, 4));
            line.push(spread(rmse.mean, rmse.sd, 2));
        }
        line.push(match row.contrast.is_empty() {
            true => String::new(),
            false => format!(
                "{:.3}",
                row.contrast.iter().sum::<f64>() / row.contrast.len() as f64
            ),
        });
        line.push(
            row.coverage
                .map(|c| format!("{:.1} %", 100.0 * c))
                .unwrap_or_default(),
        );
        line.push(if row.seconds > 0.0 {
            format!("{:.1}", row.seconds)
        } else {
            String::new()
        });
        lines.push(line);
    }
    let lesions = rows.first().map_or(0, |row| row.contrast.len());
    let warning = if quick {
        " **Quick run: these figures mean nothing.**"
    } else {
        ""
    };
    Ok(format!(
        "### {}\n\n{} subjects, {lesions} lesions, seed {}.{warning}\n\n{}\n",
        set.title,
        cases.len(),
        set.config.seed,
        table(&lines)
    ))
}
