//! `allpet task`: sinograms restored by a model of the tasks.

use crate::fault::{Fault, Result, given};
use crate::model_file;
use crate::options::{Device, Geometry, fits_in_memory};
use crate::output;
use crate::progress;
use crate::report::Report;
use crate::task_settings::TaskSettings;
use allpet::candle::Device as Candle;
use allpet::core::{ImageGrid, ParallelGeometry, Region, Task, Tracer};
use allpet::io::{read_array, write_array};
use allpet::mask::attention::Roi;
use allpet::tasks::{
    Downstream, Error, Regions, RestoreRequest, Restored, UnpairedRequest, restore_unpaired,
};
use ndarray::{Array2, Array3, Array4, ArrayD, Ix2};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Restore sinograms: low-dose, attenuation, delayed, conversion or separation
///
/// Each sinogram is restored from noise of its own, so that sample i of a seed does not depend on the others. With several
/// samples the result is their mean. Counts: low-dose keeps the input's total over the dose, separation shares out the
/// input's total, the others keep none. Separation writes [2, ..].
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// low-dose, attenuation, delayed, conversion or separation
    task: Task,
    /// Sinograms [.., view, radial], .npy or .npz, 0 or more; corrected for all but what the task is about
    #[arg(long = "in", value_name = "SINOGRAM")]
    input: PathBuf,
    /// Restored sinograms, .npy or .npz
    #[arg(long, value_name = "SINOGRAM")]
    out: PathBuf,
    /// Model of the tasks, or with --without-pairs a foundation, .safetensors [default: the one that ships with allpet]
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    settings: TaskSettings,
    /// Tracer of the input, where known
    #[arg(long)]
    tracer: Option<Tracer>,
    /// What the input shows: brain or trunk; attenuation and delayed need it
    #[arg(long)]
    region: Option<Region>,
    /// low-dose: by the foundation model alone, which never saw a pair, kept to the input's counts by the projector
    #[arg(long, conflicts_with_all = ["roi", "no_attention", "eta"])]
    without_pairs: bool,
    /// Sampler: dbim2, dbim1, i2sb or ddbm [default: dbim2]; --without-pairs: ddim, ddpm, dpm++, unipc or heun [default: ddim]
    #[arg(long)]
    sampler: Option<String>,
    /// Steps of the sampler; of dbim as many evaluations of the network. One step is the network's mean, the same for all samples
    #[arg(long, default_value_t = 5)]
    steps: usize,
    /// Noise that dbim1 adds, 0 to 1
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    eta: f64,
    /// Samples of each sinogram, whose mean is the result
    #[arg(long, default_value_t = 8)]
    samples: usize,
    /// Standard deviation of the samples, .npy or .npz; takes at least 2
    #[arg(long, value_name = "SINOGRAM")]
    uncertainty: Option<PathBuf>,
    /// Region of interest: an image [row, col] over the radial field of view, 0 outside; by default lesions are looked for
    #[arg(long, value_name = "MASK")]
    roi: Option<PathBuf>,
    /// Pay no attention to any region
    #[arg(long, conflicts_with = "roi")]
    no_attention: bool,
    /// Move the result to the nearest sinogram of a non-negative image: fewer streaks
    #[arg(long)]
    project_onto_range: bool,
    /// Bring sinograms of another geometry to the model's, and the results back
    #[arg(long)]
    resample: bool,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Samples computed at once (memory and speed only)
    #[arg(long, default_value_t = 16)]
    batch: usize,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    geometry: Geometry,
}

/// What came out, on which geometry, by which sampler, and whether it was resampled.
type Done = (Restored, ParallelGeometry, String, bool);

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = self.device.cpu()?;
        let task = self.settings.downstream(self.task)?;
        output::file(&self.out, output::ARRAYS)?;
        if let Some(path) = &self.uncertainty {
            output::file_of("--uncertainty", path, output::ARRAYS)?;
            if self.samples < 2 {
                return given(format!(
                    "--uncertainty with {} sample; expected --samples 2 or more",
                    self.samples
                ));
            }
        }
        let input = read_array(&self.input)?;
        let (&[ref leading @ .., views, bins], false) = (input.shape(), input.is_empty()) else {
            return given(format!(
                "{}: shape {:?}; expected sinograms [.., view, radial] with at least 1 bin",
                self.input.display(),
                input.shape()
            ));
        };
        let leading = leading.to_vec();
        let count: usize = leading.iter().product();
        fits_in_memory(
            "a set of restored sinograms",
            &[count, task.outputs(), 2, views, bins],
        )?;
        let stack = input
            .into_shape_with_order((count, views, bins))
            .map_err(|e| Fault::Other(e.to_string()))?;
        let (mut restored, geometry, sampler, resampled) = match self.without_pairs {
            true => self.without_pairs(task, &stack, &device)?,
            false => self.by_pairs(task, &stack, &device)?,
        };
        if self.project_onto_range {
            restored.project_onto_range(&geometry, Restored::RANGE_ITERATIONS)?;
        }
        let shaped = |values: &Array4<f32>| by_output(values, &leading);
        let mean = shaped(&restored.mean)?;
        if let Some(path) = &self.uncertainty {
            write_array(path, "uncertainty", shaped(&restored.sd)?.view())?;
        }
        write_array(&self.out, "sinograms", mean.view())?;
        let total = |v: f64| output::tidy(v);
        let sum_out: f64 = restored.mean.iter().map(|v| f64::from(*v)).sum();
        let sum_in: f64 = stack.iter().map(|v| f64::from(*v)).sum();
        let json = json!({
            "out": self.out,
            "uncertainty": self.uncertainty,
            "shape": mean.shape(),
            "task": task,
            "sampler": sampler,
            "without_pairs": self.without_pairs,
            "steps": self.steps,
            "samples": self.samples,
            "seed": self.seed,
            "projected_onto_range": self.project_onto_range,
            "resampled": resampled,
            "total": { "input": total(sum_in), "output": total(sum_out) },
            "inconsistency": restored.inconsistency,
        });
        let text = format!(
            "{}: {} of {}, total {:.4} times the input's",
            self.out.display(),
            task.task().label(),
            output::by(mean.shape()),
            sum_out / sum_in
        );
        Ok(Report::new(json, text))
    }

    /// By a model of the tasks: what came out, on which geometry, by which sampler, and whether it was resampled.
    fn by_pairs(&self, task: Downstream, stack: &Array3<f32>, device: &Candle) -> Result<Done> {
        let (_, views, bins) = stack.dim();
        let model = model_file::load_tasks(self.model.as_deref(), device)?;
        let geometry = self.geometry_of(model.geometry(), views, bins)?;
        let defaults = RestoreRequest::new(task);
        let request = RestoreRequest {
            shown: vec![(self.tracer, self.region)],
            sampler: self.sampler.clone().unwrap_or(defaults.sampler),
            eta: self.eta,
            steps: self.steps,
            samples: self.samples,
            seed: self.seed,
            batch: self.batch,
            regions: self.regions(&geometry)?,
            ..RestoreRequest::new(task)
        };
        let restored =
            watched(|progress| model.restore_resampled(stack.view(), &geometry, &request, progress))?;
        Ok((restored, geometry, request.sampler, geometry != *model.geometry()))
    }

    /// By the foundation, kept to the counts.
    fn without_pairs(&self, task: Downstream, stack: &Array3<f32>, device: &Candle) -> Result<Done> {
        let Downstream::LowDose(task) = task else {
            return given(format!(
                "--without-pairs with {}; expected low-dose, the only task whose measurement is known without pairs",
                self.task.label()
            ));
        };
        let (_, views, bins) = stack.dim();
        let model = model_file::load(self.model.as_deref(), device)?.model;
        let geometry = self.geometry_of(&model.config().geometry, views, bins)?;
        let defaults = UnpairedRequest::new(task);
        let request = UnpairedRequest {
            shown: vec![(self.tracer, self.region)],
            sampler: self.sampler.clone().unwrap_or(defaults.sampler),
            steps: self.steps,
            samples: self.samples,
            seed: self.seed,
            batch: self.batch,
            ..UnpairedRequest::new(task)
        };
        let restored =
            watched(|progress| restore_unpaired(&model, stack.view(), &geometry, &request, progress))?;
        let resampled = geometry != model.config().geometry;
        Ok((restored, geometry, request.sampler, resampled))
    }

    /// The model's own geometry, or with --resample the one that the options tell.
    fn geometry_of(&self, own: &ParallelGeometry, views: usize, bins: usize) -> Result<ParallelGeometry> {
        if self.resample {
            let spacing = self
                .geometry
                .bin_mm
                .unwrap_or(own.bins as f64 * own.bin_mm / bins as f64);
            let mut told = self.geometry.clone();
            told.bin_mm = Some(spacing);
            return told.sinogram(views, bins);
        }
        let spacing = self.geometry.bin_mm.is_none_or(|mm| mm == own.bin_mm);
        if [views, bins] != own.shape() || !spacing {
            return given(format!(
                "{}: {views} views x {bins} bins{}; the model takes {} views x {} bins of {} mm, expected these, or --resample \
                 --bin-mm with the spacing of the input's bins",
                self.input.display(),
                self.geometry
                    .bin_mm
                    .map(|mm| format!(" of {mm} mm"))
                    .unwrap_or_default(),
                own.views,
                own.bins,
                own.bin_mm
            ));
        }
        Ok(*own)
    }

    fn regions(&self, geometry: &ParallelGeometry) -> Result<Regions> {
        if self.no_attention {
            return Ok(Regions::Off);
        }
        let Some(path) = &self.roi else {
            return Ok(Regions::Found);
        };
        let mask = read_array(path)?;
        let shape = mask.shape().to_vec();
        let square = shape.len() == 2 && shape[0] == shape[1] && shape[0] > 0;
        let mask: Array2<f32> = match mask.into_dimensionality::<Ix2>() {
            Ok(mask) if square => mask,
            _ => {
                return given(format!(
                    "{}: shape {shape:?}; expected a square image [row, col] over the radial field of view",
                    path.display()
                ));
            }
        };
        let field_mm = geometry.bins as f64 * geometry.bin_mm;
        let grid = ImageGrid::square(shape[0], field_mm / shape[0] as f64)?;
        let named = |e: allpet::mask::Error| Fault::Given(format!("{}: {e}", path.display()));
        let roi = Roi::from_mask(mask.view(), grid)
            .and_then(Roi::non_empty)
            .map_err(named)?;
        Ok(Regions::Given(roi))
    }
}

/// Outputs first where there are several, then the axes that the input had.
fn by_output(values: &Array4<f32>, leading: &[usize]) -> Result<ArrayD<f32>> {
    let (_, outputs, views, bins) = values.dim();
    let turned = values.view().permuted_axes([1, 0, 2, 3]);
    let mut shape = if outputs > 1 { vec![outputs] } else { Vec::new() };
    shape.extend(leading);
    shape.extend([views, bins]);
    turned
        .as_standard_layout()
        .into_owned()
        .into_shape_with_order(shape)
        .map_err(|e| Fault::Other(e.to_string()))
}

/// A restoration with its progress on the terminal.
fn watched(
    work: impl FnOnce(&mut dyn FnMut(usize, usize) -> ControlFlow<()>) -> allpet::tasks::Result<Restored>,
) -> Result<Restored> {
    progress::watched(work).map_err(|e| match e {
        Error::Stopped { done, total } => Fault::Other(format!(
            "interrupted after {done} of {total} sinograms; nothing was written"
        )),
        other => other.into(),
    })
}
