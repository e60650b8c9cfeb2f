//! What the tables of restored sinograms share: training a model once, restoring a test set, the table of the scores.

use super::hasten;
use super::markdown::{difference, spread, table, warning};
use crate::fault::{Fault, Result};
use crate::model_file;
use crate::progress;
use crate::report::note;
use allpet::candle::Device;
use allpet::core::{Dataset, ParallelGeometry};
use allpet::diffusion::BRIDGE_SAMPLER;
use allpet::foundation::{Ended, Foundation, MODEL_FILE, Place};
use allpet::sim::tasks::PairedTask;
use allpet::sim::{Split, TaskConfig, simulate_task};
use allpet::tasks::study::{Cases, Cell, Row, cell};
use allpet::tasks::{RestoreRequest, Restored, Restorer, TaskRun, train_tasks};
use allpet::train::{JsonLines, Observer};
use ndarray::ArrayView4;
use std::path::Path;
use std::time::Instant;

const TRAIN_SEED: u64 = 11;
const TEST_SEED: u64 = 12;

/// The heading of the regression that others are compared with.
pub(super) const UNET: &str = "U-Net";

/// A test set of `count` subjects, one slice each, on the geometry of the models.
pub(super) fn test_set(task: PairedTask, count: usize, geometry: ParallelGeometry) -> TaskConfig {
    TaskConfig {
        task,
        split: Split::Test,
        count,
        subjects: count,
        seed: TEST_SEED,
        geometry,
        image_size: geometry.bins,
        ..TaskConfig::default()
    }
}

/// The training pairs of the same kind.
pub(super) fn train_set(test: &TaskConfig, count: usize, subjects: usize) -> Result<Dataset> {
    let config = TaskConfig {
        split: Split::Train,
        count,
        subjects,
        seed: TRAIN_SEED,
        ..test.clone()
    };
    Ok(simulate_task(&config, &|_| {})?)
}

/// The settings of a run as a recipe gives them; a quick one takes two steps.
pub(super) fn recipe(text: &str, quick: bool) -> Result<TaskRun> {
    let mut config: TaskRun = toml::from_str(text).map_err(|e| Fault::Other(e.message().to_owned()))?;
    if quick {
        hasten(&mut config.train);
    }
    Ok(config)
}

/// Where trained models are kept, and whether those that are there are taken.
pub(super) struct Workshop<'a> {
    pub(super) out: &'a Path,
    pub(super) resume: bool,
    pub(super) device: &'a Device,
}

impl Workshop<'_> {
    /// The model `name`: left by an earlier run, or trained now.
    pub(super) fn obtain(
        &self,
        name: &str,
        config: &TaskRun,
        foundation: &Foundation,
        data: impl FnOnce() -> Result<Vec<Dataset>>,
    ) -> Result<Restorer> {
        let path = self.out.join(name).join(MODEL_FILE);
        if !(self.resume && path.exists()) {
            let data = data()?;
            note(&format!(
                "{name}: training {} steps of {}",
                config.train.steps, config.train.batch
            ));
            self.train(name, |place, observers| {
                Ok(train_tasks(config, foundation, &data, place, observers)?)
            })?;
        }
        model_file::load_tasks(Some(&path), self.device)
    }

    /// A run in the folder `name`; an interruption is an error that says how to go on.
    pub(super) fn train(
        &self,
        name: &str,
        run: impl FnOnce(Place<'_>, &mut [&mut dyn Observer]) -> Result<Ended>,
    ) -> Result<()> {
        let folder = self.out.join(name);
        let mut metrics = JsonLines::new(folder.join("metrics.jsonl"));
        let place = Place {
            folder: &folder,
            resume: self.resume,
            stop: progress::stop_flag(),
            device: self.device,
        };
        match run(place, &mut [&mut metrics])? {
            Ended::Finished => Ok(()),
            Ended::Interrupted(step) => Err(Fault::Other(format!(
                "interrupted after {step} steps of {name}; the same command with --resume goes on"
            ))),
        }
    }
}

/// Scores what was there without a network.
pub(super) fn given(cases: &Cases, name: &str, sinograms: ArrayView4<'_, f32>) -> Result<Row> {
    Ok(cases.score(name, sinograms, None, 0.0)?)
}

/// Scores what `restore` gives, with its time; with several `samples` also the predicted intervals.
pub(super) fn measured(
    cases: &Cases,
    name: &str,
    samples: usize,
    restore: impl FnOnce() -> Result<Restored>,
) -> Result<Row> {
    let start = Instant::now();
    let restored = restore()?;
    let seconds = start.elapsed().as_secs_f64();
    let uncertainty = (samples > 1).then(|| (restored.sd.view(), samples));
    Ok(cases.score(name, restored.mean.view(), uncertainty, seconds)?)
}

/// How a restoration is walked.
#[derive(Clone, Copy)]
pub(super) struct Walks {
    pub(super) sampler: &'static str,
    pub(super) steps: usize,
    pub(super) samples: usize,
}

impl Walks {
    /// The mean of `samples` walks of `steps` evaluations by the sampler of the tasks.
    pub(super) fn of(steps: usize, samples: usize) -> Self {
        Self {
            sampler: BRIDGE_SAMPLER,
            steps,
            samples,
        }
    }
}

/// Scores the mean of several walks.
pub(super) fn restored(cases: &Cases, model: &Restorer, name: &str, walks: Walks) -> Result<Row> {
    measured(cases, name, walks.samples, || restore(cases, model, walks))
}

/// One evaluation, moved onto the range of the Radon transform.
pub(super) fn on_range(cases: &Cases, model: &Restorer, name: &str) -> Result<Row> {
    measured(cases, name, 1, || {
        let mut restored = restore(cases, model, Walks::of(1, 1))?;
        restored.project_onto_range(&cases.geometry, Restored::RANGE_ITERATIONS)?;
        Ok(restored)
    })
}

fn restore(cases: &Cases, model: &Restorer, walks: Walks) -> Result<Restored> {
    let request = RestoreRequest {
        shown: cases.shown.clone(),
        sampler: walks.sampler.into(),
        steps: walks.steps,
        samples: walks.samples,
        first_estimates: (cases.geometry == *model.geometry()).then(|| cases.first_estimates.clone()),
        ..RestoreRequest::new(cases.task)
    };
    Ok(model.restore_resampled(
        cases.inputs.view(),
        &cases.geometry,
        &request,
        &mut progress::unless_stopped,
    )?)
}

/// A section: heading, what was judged, and the table, with differences to the row named `beside`.
pub(super) fn section(
    title: &str,
    config: &TaskConfig,
    rows: &[Row],
    beside: &str,
    quick: bool,
) -> Result<String> {
    let compared = rows.iter().find(|row| row.name == beside);
    let cells = |values: &[f64], other: &[f64]| -> Result<Cell> { Ok(cell(values, other, config.seed)?) };
    let to = format!("to {beside}");
    let mut lines = vec![
        [
            "",
            "PSNR (dB)",
            &to,
            "SSIM",
            "NMSE",
            "RMSE",
            "image PSNR (dB)",
            &to,
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
        let other = compared.unwrap_or(row);
        let mut line = vec![row.name.clone()];
        for (own, other) in [(&row.sinogram, &other.sinogram), (&row.image, &other.image)] {
            let [psnr, ssim, nmse, rmse] = [
                cells(&own.psnr, &other.psnr)?,
                cells(&own.ssim, &other.ssim)?,
                cells(&own.nmse, &other.nmse)?,
                cells(&own.rmse, &other.rmse)?,
            ];
            line.push(spread(psnr.mean, psnr.sd, 2));
            line.push(match row.name == beside {
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
        line.push(match row.seconds > 0.0 {
            true => format!("{:.1}", row.seconds),
            false => String::new(),
        });
        lines.push(line);
    }
    let (subjects, lesions) = (config.count, rows.first().map_or(0, |row| row.contrast.len()));
    Ok(format!(
        "### {title}\n\n{subjects} subjects, {lesions} lesions, seed {}.\n\n{}{}\n",
        config.seed,
        warning(quick),
        table(&lines)
    ))
}
