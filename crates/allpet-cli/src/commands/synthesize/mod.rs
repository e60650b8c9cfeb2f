//! `allpet synthesize`: sinograms from a prompt, or pairs of a task, their reconstructions, a picture and where they come from.

mod pairs;
mod results;
mod single;

use crate::fault::{Fault, Result, given};
use crate::options::{Device, fits_in_memory};
use crate::output;
use crate::report::Report;
use crate::task_settings::TaskSettings;
use allpet::core::{ImageGrid, Modality, ParallelGeometry, Prompt, Region, Task, Tracer};
use allpet::radon::{Fbp, Filter};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Generate sinograms from a prompt
///
/// The folder holds sinograms.npz, reconstructions.npz (filtered back-projection, Hann), grid.png and
/// provenance.json. Sample i of a seed does not depend on --count, --first or --batch. With --task, input and target of
/// the task are drawn jointly, [count, 2, ..], and the folder also holds pairs.safetensors for `allpet train task`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model, .safetensors; with --task one of `allpet train pairs` [default: the one that ships with allpet]
    #[arg(long)]
    model: Option<PathBuf>,
    /// What to show, such as "brain with 18F-FDG", "chest or abdomen with 68Ga-PSMA", "CT of the abdomen"
    #[arg(long, conflicts_with_all = ["tracer", "region", "modality"])]
    prompt: Option<String>,
    /// Tracers, taken in turn: fdg, dopa, psma
    #[arg(long, value_delimiter = ',', value_name = "TRACER,..")]
    tracer: Vec<Tracer>,
    /// Regions, taken in turn: brain, trunk, chest, abdomen
    #[arg(long, value_delimiter = ',', value_name = "REGION,..")]
    region: Vec<Region>,
    /// pet or ct
    #[arg(long, value_name = "pet|ct")]
    modality: Option<Modality>,
    /// Draw pairs of low-dose, attenuation, delayed, conversion or separation; tracer and region are the target's, and
    /// what is left open is drawn
    #[arg(long)]
    task: Option<Task>,
    #[command(flatten)]
    settings: TaskSettings,
    /// Number of sinograms, or of pairs
    #[arg(long, default_value_t = 16)]
    count: usize,
    /// Number of the first one
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Sampler: ddpm, ddim, dpm++, unipc or heun [default: ddpm, or ddim with --eta]
    #[arg(long)]
    sampler: Option<String>,
    /// Steps of the sampler
    #[arg(long, default_value_t = 100)]
    steps: usize,
    /// Noise that DDIM adds, 0 to 1 [default: 0]
    #[arg(long, allow_negative_numbers = true)]
    eta: Option<f64>,
    /// Classifier-free guidance; 1 is none
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    guidance: f64,
    /// Draw a Radon mask for each sample
    #[arg(long)]
    masks: bool,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of views [default: the model's]
    #[arg(long)]
    views: Option<usize>,
    /// Number of radial bins [default: the model's]
    #[arg(long)]
    bins: Option<usize>,
    /// Spacing of the radial bins in mm [default: the model's]
    #[arg(long, value_name = "MM", allow_negative_numbers = true)]
    bin_mm: Option<f64>,
    /// Samples computed at once (memory and speed only)
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Folder for the results
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    device: Device,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = self.device.cpu()?;
        match self.task {
            Some(task) => pairs::run(self, task, &device),
            None => {
                self.settings.none("--task")?;
                single::run(self, &device)
            }
        }
    }

    fn prompts(&self) -> Result<Vec<Prompt>> {
        if let Some(text) = &self.prompt {
            return Ok(Prompt::parse(text)?);
        }
        if self.tracer.is_empty() && self.region.is_empty() && self.modality.is_none() {
            return given(
                "nothing to show; expected --prompt \"brain with 18F-FDG\", or --tracer and --region",
            );
        }
        let modality = self.modality.unwrap_or(Modality::Pet);
        if modality == Modality::Ct && !self.tracer.is_empty() {
            return given("--tracer with --modality ct; expected one of them: attenuation has no tracer");
        }
        let open = |n: usize| n.max(1);
        let prompt = |i: usize| {
            let (tracer, region) = (i / open(self.region.len()), i % open(self.region.len()));
            Prompt {
                tracer: self.tracer.get(tracer).copied(),
                region: self.region.get(region).copied(),
                modality,
                ..Prompt::default()
            }
        };
        Ok((0..open(self.tracer.len()) * open(self.region.len()))
            .map(prompt)
            .collect())
    }

    /// The model's geometry, or one of other views and bins over the same arc.
    fn geometry(&self, own: ParallelGeometry) -> Result<ParallelGeometry> {
        let geometry = ParallelGeometry {
            views: self.views.unwrap_or(own.views),
            bins: self.bins.unwrap_or(own.bins),
            bin_mm: self.bin_mm.unwrap_or(own.bin_mm),
            ..own
        };
        geometry.validate()?;
        Ok(geometry)
    }

    /// The sampler's name and its noise.
    fn sampler(&self) -> (String, f64) {
        let usual = if self.eta.is_some() { "ddim" } else { "ddpm" };
        let name = self.sampler.clone().unwrap_or_else(|| usual.to_owned());
        (name, self.eta.unwrap_or_default())
    }

    /// Everything that must fit before anything is drawn: folder, sizes, and the reconstruction.
    fn prepare(&self, own: &ParallelGeometry, members: usize) -> Result<(ParallelGeometry, Fbp)> {
        output::folder(&self.out)?;
        let geometry = self.geometry(*own)?;
        let grid = ImageGrid::square(geometry.bins, geometry.bin_mm)?;
        let count = self.count.saturating_mul(members);
        fits_in_memory("a set of sinograms", &[count, geometry.views, geometry.bins])?;
        fits_in_memory("a set of images", &[count, geometry.bins, geometry.bins])?;
        fits_in_memory("a set of sinograms", &[count, own.views, own.bins])?;
        Ok((geometry, Fbp::new(grid, geometry, Filter::Hann, 1.0)?))
    }
}

/// A provenance, with what every one says of the program and of the reconstructions.
fn provenance_of(geometry: &ParallelGeometry, resampled: bool, mut said: Value) -> Value {
    said["program"] = json!({ "name": "allpet", "version": env!("CARGO_PKG_VERSION") });
    said["notice"] = "Generated by a model; not a measurement of any person.".into();
    said["geometry"] = crate::model_file::geometry(geometry);
    said["resampled"] = resampled.into();
    said["reconstruction"] = json!({
        "method": "fbp",
        "filter": Filter::Hann.id(),
        "size": geometry.bins,
        "pixel_mm": geometry.bin_mm,
    });
    said
}

/// What a provenance says of each sample: its number, its prompt, and how far its channels disagree.
fn samples<T: Serialize>(first: u64, prompts: &[Prompt], inconsistency: &[T]) -> Vec<Value> {
    let numbered = (first..).zip(prompts).zip(inconsistency);
    numbered
        .map(|((index, prompt), inconsistency)| {
            json!({
                "index": index,
                "prompt": prompt.to_string(),
                "tracer": prompt.tracer.filter(|_| prompt.modality == Modality::Pet).map(Tracer::id),
                "region": prompt.region.map(Region::id),
                "modality": prompt.modality.id(),
                "inconsistency": inconsistency,
            })
        })
        .collect()
}

fn stopped(done: usize, total: usize, what: &str) -> Fault {
    Fault::Other(format!(
        "interrupted after {done} of {total} {what}; nothing was written"
    ))
}
