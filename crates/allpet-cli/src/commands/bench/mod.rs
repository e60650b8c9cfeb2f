//! `allpet bench`: how fast this machine is, in simple medians.

mod networks;

use crate::fault::{Fault, Result, given};
use crate::options::{self, fits_in_memory};
use crate::report::Report;
use allpet::candle::{Device, Result as Candle, Tensor};
use allpet::core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet::mask::{MaskConfig, MaskGenerator};
use allpet::radon::{Fbp, Filter, LinearOperator, Projector, tensor};
use clap::ValueEnum;
use ndarray::{ArrayD, IxDyn};
use serde_json::{Value, json};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// Each part runs until it has taken about so long, at least three times.
const SECONDS: f64 = 2.0;
const MOST_RUNS: usize = 50;
/// Batches of masks in a run.
const BATCHES: u64 = 8;

/// Time the projector, the masks or the networks on this machine
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is timed
    #[arg(value_enum)]
    what: What,
    /// Rows and columns of the image
    #[arg(long, default_value_t = 256)]
    size: usize,
    /// Number of views
    #[arg(long, default_value_t = 360)]
    views: usize,
    /// Number of radial bins
    #[arg(long, default_value_t = 367)]
    bins: usize,
    /// Images, or masks, at once
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// For nn: the peak memory of this training step, instead of times
    #[arg(long, value_name = "CASE", value_parser = networks::STEPS)]
    peak: Option<String>,
    /// For nn --peak: the preset that is trained, --batch samples at once
    #[arg(long, default_value = "small", requires = "peak")]
    preset: String,
    /// For nn --peak: compute blocks again on the way back instead of keeping what they computed
    #[arg(long, requires = "peak")]
    recompute: bool,
    /// For nn --peak: count the memory from one smaller sample instead of taking steps
    #[arg(long, requires = "peak")]
    count: bool,
    #[command(flatten)]
    device: options::Device,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Forward projection, adjoint and filtered back-projection
    Projector,
    /// Masks of one block of an eighth of the side (a batch of them)
    Masks,
    /// Operators, whole training steps and a sampling step of the `small` networks, at fixed shapes
    Nn,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = match self.what {
            What::Projector => self.device.open()?,
            What::Masks | What::Nn => self.device.cpu()?,
        };
        if self.batch == 0 {
            return given("--batch is 0; expected at least 1");
        }
        match self.what {
            What::Nn => return self.networks(),
            _ if self.peak.is_some() => return given("--peak belongs to nn"),
            _ => {}
        }
        let grid = ImageGrid::square(self.size, 1.0)?;
        let geometry = ParallelGeometry::new(self.views, self.bins, 1.0)?;
        fits_in_memory("a batch of images", &[self.batch, self.size, self.size])?;
        fits_in_memory("a batch of sinograms", &[self.batch, self.views, self.bins])?;
        let parts = match self.what {
            What::Projector if device.is_cpu() => self.projector(grid, geometry)?,
            What::Projector => self.projector_on(&device, grid, geometry)?,
            _ => self.masks(geometry)?,
        };
        let mut json = json!({
            "size": self.size,
            "views": self.views,
            "bins": self.bins,
            "batch": self.batch,
            "threads": rayon::current_num_threads(),
            "device": self.device.name(),
        });
        let mut lines = vec![format!(
            "{0} x {0} pixels, {1} views x {2} bins, batch {3}, {4} threads, {5}",
            self.size,
            self.views,
            self.bins,
            self.batch,
            rayon::current_num_threads(),
            self.device.name()
        )];
        for (name, timing) in parts {
            lines.push(format!(
                "{name}: median {:.2} ms, shortest {:.2} ms, {} runs",
                timing.median_ms, timing.min_ms, timing.runs
            ));
            json[name] = timing.json();
        }
        Ok(Report::new(json, lines.join("\n")))
    }

    fn counted(case: &str, size: &networks::Size) -> Result<Report> {
        let count = networks::count(case, size)?;
        let text = format!(
            "{case}, {} x {}: {:.0} MiB by count: {:.0} for parameters, the larger of {:.0} kept for the way back and {:.0} for gradients, {:.0} under way",
            size.batch,
            size.preset,
            count.total(),
            count.parameters,
            count.kept,
            count.gradients,
            count.under_way
        );
        let json = json!({
            "case": case,
            "preset": size.preset,
            "batch": size.batch,
            "recompute": size.recompute,
            "count_mib": count.total(),
            "parameters_mib": count.parameters,
            "gradients_mib": count.gradients,
            "kept_mib": count.kept,
            "under_way_mib": count.under_way,
        });
        Ok(Report::new(json, text))
    }

    fn networks(&self) -> Result<Report> {
        if let Some(case) = &self.peak {
            let size = networks::Size {
                preset: self.preset.clone(),
                batch: self.batch,
                recompute: self.recompute,
                shrink: 1,
            };
            if self.count {
                return Self::counted(case, &size);
            }
            let [mib, allocated] = networks::peak(case, &size)?;
            let text = format!(
                "{case}, {} x {}: {mib:.0} MiB resident and {allocated:.0} MiB allocated at the height of three steps, beyond what was there \
                 before the network",
                size.batch, size.preset
            );
            let json = json!({ "case": case, "preset": size.preset, "batch": size.batch, "peak_mib": mib, "allocated_mib": allocated });
            return Ok(Report::new(json, text));
        }
        let cases = networks::cases()?;
        let line = |case: &Value| {
            let parts = ["forward", "train", "step"].into_iter().filter_map(|part| {
                let ms = case[format!("{part}_ms")].as_f64()?;
                Some(format!("{part} {ms:.2} ms"))
            });
            let shape = case["shape"].to_string();
            let name = case["case"].as_str().unwrap_or_default();
            format!("{name} {shape}: {}", parts.collect::<Vec<_>>().join(", "))
        };
        let text: Vec<String> = cases.iter().map(line).collect();
        let json =
            json!({ "threads": rayon::current_num_threads(), "device": self.device.name(), "cases": cases });
        Ok(Report::new(json, text.join("\n")))
    }

    fn projector(&self, grid: ImageGrid, geometry: ParallelGeometry) -> Result<Vec<(&'static str, Timing)>> {
        let projector = Projector::new(grid, geometry)?;
        let fbp = Fbp::new(grid, geometry, Filter::Ramp, 1.0)?;
        let mut image = ArrayD::<f32>::zeros(IxDyn(&[self.batch, self.size, self.size]));
        let mut random = stream(0, "bench", 0);
        if let Some(values) = image.as_slice_mut() {
            fill_normal(&mut random, values);
        }
        let mut sinogram = projector.apply(image.view())?;
        let mut out = image.clone();
        Ok(vec![
            (
                "forward",
                Timing::of(|| Ok(projector.forward(image.view(), sinogram.view_mut())?))?,
            ),
            (
                "adjoint",
                Timing::of(|| Ok(projector.adjoint(sinogram.view(), out.view_mut())?))?,
            ),
            (
                "fbp",
                Timing::of(|| fbp.reconstruct(sinogram.view()).map(drop).map_err(Into::into))?,
            ),
        ])
    }

    /// The same on tensors of a device, which has finished when a run ends; nothing is copied to or from it.
    fn projector_on(
        &self,
        device: &Device,
        grid: ImageGrid,
        geometry: ParallelGeometry,
    ) -> Result<Vec<(&'static str, Timing)>> {
        let projector = Arc::new(Projector::new(grid, geometry)?);
        let fbp = Arc::new(Fbp::new(grid, geometry, Filter::Ramp, 1.0)?);
        let mut values = vec![0.0; self.batch * self.size * self.size];
        fill_normal(&mut stream(0, "bench", 0), &mut values);
        let run = || -> Candle<_> {
            let image = Tensor::from_vec(values, (self.batch, self.size, self.size), device)?;
            let sinogram = tensor::project(&projector, &image)?;
            Ok((image, sinogram))
        };
        let fault = |e: allpet::candle::Error| Fault::Other(e.to_string());
        let (image, sinogram) = run().map_err(fault)?;
        let time = |work: &dyn Fn() -> Candle<Tensor>| {
            Timing::of(|| {
                let done = work().map_err(fault)?;
                device.synchronize().map_err(fault)?;
                drop(done);
                Ok(())
            })
        };
        Ok(vec![
            ("forward", time(&|| tensor::project(&projector, &image))?),
            ("adjoint", time(&|| tensor::back_project(&projector, &sinogram))?),
            ("fbp", time(&|| tensor::reconstruct(&fbp, &sinogram))?),
        ])
    }

    /// RMAS: one block of an eighth of the side, written out in full; passing by, not kept.
    fn masks(&self, geometry: ParallelGeometry) -> Result<Vec<(&'static str, Timing)>> {
        let side = (self.size / 8).max(1);
        let config = MaskConfig {
            size: self.size,
            block: (side, side),
            blocks: (1, 1),
            ..MaskConfig::default()
        };
        let generator = MaskGenerator::new(config, geometry)?;
        let (mut first, many) = (0, BATCHES * self.batch as u64);
        let pass = || {
            first += many;
            Ok(generator.for_each_batch(0, first, many, self.batch, |_, masks| {
                std::hint::black_box(masks);
                ControlFlow::Continue(())
            })?)
        };
        Ok(vec![("masks", Timing::of(pass)?.per(BATCHES))])
    }
}

struct Timing {
    median_ms: f64,
    min_ms: f64,
    runs: usize,
}

impl Timing {
    fn of(mut work: impl FnMut() -> Result<()>) -> Result<Self> {
        // The first run finds cold caches and untouched pages.
        work()?;
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < 3 || (times.len() < MOST_RUNS && began.elapsed().as_secs_f64() < SECONDS) {
            let start = Instant::now();
            work()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let middle = times.len() / 2;
        let median_ms = if times.len() % 2 == 1 {
            times[middle]
        } else {
            f64::midpoint(times[middle - 1], times[middle])
        };
        Ok(Self {
            median_ms,
            min_ms: times[0],
            runs: times.len(),
        })
    }

    /// Of one part, where a run did `parts` of them.
    fn per(mut self, parts: u64) -> Self {
        self.median_ms /= parts as f64;
        self.min_ms /= parts as f64;
        self
    }

    fn json(&self) -> Value {
        json!({ "median_ms": self.median_ms, "min_ms": self.min_ms, "runs": self.runs })
    }
}
