//! `allpet simulate`: datasets of simulated acquisitions.

use crate::fault::{Result, given};
use crate::options::fits_in_memory;
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::core::{Modality, ParallelGeometry, Region, Tracer};
use allpet::io::{Format, write_dataset};
use allpet::sim::{Split, SynthesisConfig, simulate_synthesis};
use clap::ValueEnum;
use serde_json::json;
use std::path::PathBuf;

/// Simulate a dataset: procedural people, tracers, acquisition with noise
///
/// Sample i depends on the settings and the seed, not on --count. The splits never share a subject.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What the samples are for
    #[arg(long, value_enum, default_value_t = What::Synthesis)]
    task: What,
    /// Tracers, taken in turn: fdg, dopa, psma [default: all]
    #[arg(long, value_delimiter = ',', value_name = "TRACER,..")]
    tracer: Vec<Tracer>,
    /// Regions, taken in turn: brain, trunk, chest, abdomen [default: brain,trunk]
    #[arg(long, value_delimiter = ',', value_name = "REGION,..")]
    region: Vec<Region>,
    /// Emission (pet) or attenuation line integrals (ct)
    #[arg(long, default_value = "pet", value_name = "pet|ct")]
    modality: Modality,
    /// Whose subjects
    #[arg(long, value_enum, default_value_t = Part::Train)]
    split: Part,
    /// Number of samples
    #[arg(long)]
    count: usize,
    /// Number of subjects they are taken from
    #[arg(long, default_value_t = 20)]
    subjects: usize,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Typical prompts of a slice; each draws 0.5 to 2 times as many
    #[arg(long, default_value_t = 1e6, allow_negative_numbers = true)]
    counts: f64,
    /// Number of views
    #[arg(long, default_value_t = 128)]
    views: usize,
    /// Number of radial bins
    #[arg(long, default_value_t = 128)]
    bins: usize,
    /// Spacing of the radial bins in mm
    #[arg(long, default_value_t = 4.0, value_name = "MM", allow_negative_numbers = true)]
    bin_mm: f64,
    /// Dataset, .safetensors: target, image, attenuation, subject, prompt
    #[arg(long)]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    /// Sinograms to learn from and their ground truth
    Synthesis,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Train,
    Test,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        if self.modality == Modality::Ct && !self.tracer.is_empty() {
            return given("--tracer with --modality ct; expected one of them: attenuation has no tracer");
        }
        let geometry = ParallelGeometry::new(self.views, self.bins, self.bin_mm)?;
        let all = SynthesisConfig::default();
        let config = SynthesisConfig {
            tracers: if self.tracer.is_empty() {
                all.tracers
            } else {
                self.tracer.clone()
            },
            regions: if self.region.is_empty() {
                all.regions
            } else {
                self.region.clone()
            },
            modality: self.modality,
            split: match self.split {
                Part::Train => Split::Train,
                Part::Test => Split::Test,
            },
            count: self.count,
            subjects: self.subjects,
            seed: self.seed,
            counts: self.counts,
            geometry,
            // Pixels of the ground truth measure what the bins do.
            image_size: self.bins,
            ..all
        };
        config.validate()?;
        output::file(&self.out, &[Format::Safetensors])?;
        fits_in_memory("a dataset", &[self.count, self.bins, self.views + 2 * self.bins])?;
        let bar = progress::bar(self.count as u64, "slices");
        let dataset = match self.task {
            What::Synthesis => simulate_synthesis(&config, &|done| bar.set_position(done as u64))?,
        };
        bar.finish_and_clear();
        write_dataset(&self.out, &dataset)?;
        let subjects = dataset.distinct_subjects();
        let json = json!({
            "out": self.out,
            "samples": dataset.len(),
            "subjects": subjects.len(),
            "views": self.views,
            "bins": self.bins,
            "bin_mm": self.bin_mm,
            "seed": self.seed,
            "counts": self.counts,
        });
        let text = format!(
            "{}: {} sinograms of {} subjects",
            self.out.display(),
            dataset.len(),
            subjects.len()
        );
        Ok(Report::new(json, text))
    }
}
