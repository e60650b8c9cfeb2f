//! `allpet synthesize`: sinograms from a prompt, their reconstructions, a picture and where they come from.

use crate::fault::{Fault, Result, given};
use crate::model_file;
use crate::options::{Device, fits_in_memory};
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::core::{ImageGrid, Modality, ParallelGeometry, Prompt, Region, Tracer, write_bytes_atomically};
use allpet::foundation::{Error, Synthesis, SynthesisRequest, resample};
use allpet::io::{Grid, Palette, Tile, Window, write_npz};
use allpet::radon::{Fbp, Filter};
use ndarray::{Array2, Array3, ArrayD, Axis};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Most samples in the picture.
const SHOWN: usize = 64;

/// Generate sinograms from a prompt
///
/// The folder holds sinograms.npz, reconstructions.npz (filtered back-projection, Hann), grid.png and
/// provenance.json. Sample i of a seed does not depend on --count, --first or --batch.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Model, .safetensors [default: the one that ships with allpet]
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
    /// Number of sinograms
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
        let prompts = self.prompts()?;
        output::folder(&self.out)?;
        let loaded = model_file::load(self.model.as_deref(), &device)?;
        let own = loaded.model.config().geometry;
        let geometry = self.geometry(own)?;
        let grid = ImageGrid::square(geometry.bins, geometry.bin_mm)?;
        let fbp = Fbp::new(grid, geometry, Filter::Hann, 1.0)?;
        fits_in_memory("a set of sinograms", &[self.count, geometry.views, geometry.bins])?;
        fits_in_memory("a set of images", &[self.count, geometry.bins, geometry.bins])?;
        fits_in_memory("a set of sinograms", &[self.count, own.views, own.bins])?;
        let request = SynthesisRequest {
            prompts,
            count: self.count,
            first: self.first,
            seed: self.seed,
            sampler: self.sampler.clone().unwrap_or_else(|| {
                let name = if self.eta.is_some() { "ddim" } else { "ddpm" };
                name.to_owned()
            }),
            steps: self.steps,
            eta: self.eta.unwrap_or_default(),
            guidance: self.guidance,
            batch: self.batch,
            masks: self.masks,
        };
        let made = synthesise(&loaded.model, &request)?;
        let sinograms = in_geometry(&made.sinograms, &own, &geometry)?;
        let images = fbp.reconstruct(sinograms.view())?;

        output::make(&self.out)?;
        let path = |name: &str| self.out.join(name);
        // It comes last: with it, everything in the folder belongs together.
        let provenance_path = path("provenance.json");
        if provenance_path.exists() {
            std::fs::remove_file(&provenance_path)
                .map_err(|e| Fault::Other(format!("cannot remove {}: {e}", provenance_path.display())))?;
        }
        write_npz(&path("sinograms.npz"), &[("sinograms", sinograms.view())], true)?;
        write_npz(
            &path("reconstructions.npz"),
            &[("reconstructions", images.view())],
            true,
        )?;
        draw(&path("grid.png"), &sinograms, &images, &made, self.first)?;
        let provenance = self.provenance(&request, &made, &loaded.origin, &geometry, geometry != own);
        let mut text = serde_json::to_string_pretty(&provenance).map_err(|e| Fault::Other(e.to_string()))?;
        text.push('\n');
        write_bytes_atomically(&provenance_path, text.as_bytes())?;

        let files = output::names(
            &[
                "sinograms.npz",
                "reconstructions.npz",
                "grid.png",
                "provenance.json",
            ]
            .map(path),
        );
        let json = json!({
            "out": self.out,
            "files": files,
            "count": self.count,
            "sinograms": sinograms.shape(),
            "reconstructions": images.shape(),
            "inconsistency": made.inconsistency,
        });
        let text = format!(
            "{}: sinograms of {}, reconstructions of {}, grid.png, provenance.json",
            self.out.display(),
            output::by(sinograms.shape()),
            output::by(images.shape())
        );
        Ok(Report::new(json, text))
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

    fn provenance(
        &self,
        request: &SynthesisRequest,
        made: &Synthesis,
        origin: &Value,
        geometry: &ParallelGeometry,
        resampled: bool,
    ) -> Value {
        let samples: Vec<Value> = made
            .prompts
            .iter()
            .zip(&made.inconsistency)
            .enumerate()
            .map(|(i, (prompt, inconsistency))| {
                json!({
                    "index": request.first + i as u64,
                    "prompt": prompt.to_string(),
                    "tracer": prompt.tracer.filter(|_| prompt.modality == Modality::Pet).map(Tracer::id),
                    "region": prompt.region.map(Region::id),
                    "modality": prompt.modality.id(),
                    "inconsistency": inconsistency,
                })
            })
            .collect();
        let units = |pet: &str, ct: &str| {
            let ct_only = made.prompts.iter().all(|p| p.modality == Modality::Ct);
            if ct_only { ct.to_owned() } else { pet.to_owned() }
        };
        json!({
            "program": { "name": "allpet", "version": env!("CARGO_PKG_VERSION") },
            "notice": "Generated by a model; not a measurement of any person.",
            "model": origin,
            "prompt": self.prompt,
            "seed": request.seed,
            "first": request.first,
            "count": request.count,
            "sampler": request.sampler,
            "steps": request.steps,
            "eta": request.eta,
            "guidance": request.guidance,
            "masks": request.masks,
            "geometry": model_file::geometry(geometry),
            "resampled": resampled,
            "reconstruction": {
                "method": "fbp",
                "filter": Filter::Hann.id(),
                "size": geometry.bins,
                "pixel_mm": geometry.bin_mm,
            },
            "units": {
                "sinograms": units("kBq/mL*mm", "1 (line integral of attenuation)"),
                "reconstructions": units("kBq/mL", "1/mm"),
                "inconsistency": "rms of C_pos + C_neg - S over rms of S",
            },
            "samples": samples,
        })
    }
}

fn synthesise(model: &allpet::foundation::Foundation, request: &SynthesisRequest) -> Result<Synthesis> {
    progress::stop_flag();
    let bar = progress::bar(0, "evaluations");
    let made = model.synthesise(request, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
        if progress::stopped() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    bar.finish_and_clear();
    made.map_err(|e| match e {
        Error::Stopped { done, total } => Fault::Other(format!(
            "interrupted after {done} of {total} samples; nothing was written"
        )),
        other => other.into(),
    })
}

fn in_geometry(
    sinograms: &Array3<f32>,
    own: &ParallelGeometry,
    to: &ParallelGeometry,
) -> Result<ArrayD<f32>> {
    if own == to {
        return Ok(sinograms.clone().into_dyn());
    }
    let mut out = Array3::zeros((sinograms.len_of(Axis(0)), to.views, to.bins));
    for (from, mut to_slot) in sinograms.outer_iter().zip(out.outer_iter_mut()) {
        to_slot.assign(&resample(from, own, to)?);
    }
    Ok(out.into_dyn())
}

/// Two samples in a row, each a sinogram beside its reconstruction.
fn draw(
    path: &Path,
    sinograms: &ArrayD<f32>,
    images: &ArrayD<f32>,
    made: &Synthesis,
    first: u64,
) -> Result<()> {
    let slices = |array: &ArrayD<f32>| -> Vec<Array2<f32>> {
        array
            .outer_iter()
            .take(SHOWN)
            .filter_map(|a| a.to_owned().into_dimensionality().ok())
            .collect()
    };
    let (sinograms, images) = (slices(sinograms), slices(images));
    let tiles: Vec<Tile<'_>> = sinograms
        .iter()
        .zip(&images)
        .zip(&made.prompts)
        .enumerate()
        .flat_map(|(i, ((sinogram, image), prompt))| {
            let caption = format!("sample {}", first + i as u64);
            [
                Tile::new(sinogram.view(), caption)
                    .palette(Palette::Magma)
                    .window(Window::Robust),
                Tile::new(image.view(), prompt.to_string())
                    .palette(Palette::InvertedGrey)
                    .window(Window::Robust),
            ]
        })
        .collect();
    let side = sinograms
        .iter()
        .map(|s| s.nrows().max(s.ncols()))
        .max()
        .unwrap_or(1);
    let grid = Grid {
        gap: 16,
        upscale: 256usize.div_ceil(side),
        ..Grid::new(4)
    };
    Ok(grid.write(path, &tiles)?)
}
