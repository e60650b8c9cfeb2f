//! `allpet simulate`: datasets of simulated acquisitions.

use crate::fault::{Result, given};
use crate::options::fits_in_memory;
use crate::output;
use crate::progress;
use crate::report::Report;
use crate::task_settings::TaskSettings;
use allpet::core::{Dataset, Modality, ParallelGeometry, Region, Task, Tracer};
use allpet::io::{Format, write_dataset};
use allpet::sim::tasks::{Attenuation, Conversion, Delayed, DoseMode, LowDose, Separation};
use allpet::sim::{PairedTask, Split, SynthesisConfig, TaskConfig, simulate_synthesis, simulate_task};
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
    /// Tracers, taken in turn: fdg, dopa, psma [default: all; fdg for delayed]; for separation the two, fdg,psma
    #[arg(long, value_delimiter = ',', value_name = "TRACER,..")]
    tracer: Vec<Tracer>,
    /// Regions, taken in turn: brain, trunk, chest, abdomen [default: brain,trunk; trunk for conversion and separation
    /// with psma]
    #[arg(long, value_delimiter = ',', value_name = "REGION,..")]
    region: Vec<Region>,
    /// Emission (pet) or attenuation line integrals (ct, for synthesis)
    #[arg(long, default_value = "pet", value_name = "pet|ct")]
    modality: Modality,
    /// Whose subjects
    #[arg(long, value_enum, default_value_t = Part::Train)]
    split: Part,
    /// Number of samples
    #[arg(long)]
    count: usize,
    /// Number of subjects they are taken from [default: 20; 100 for paired tasks]
    #[arg(long)]
    subjects: Option<usize>,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Typical prompts of a slice at the whole dose; each draws 0.5 to 2 times as many
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
    #[command(flatten)]
    pairs: Pairs,
    /// Dataset, .safetensors: target, image, attenuation, subject, prompt; for paired tasks also input, clean,
    /// lesion_mask, lesions, counts, calibration
    #[arg(long)]
    out: PathBuf,
}

/// Settings of the paired tasks.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Paired tasks")]
struct Pairs {
    #[command(flatten)]
    settings: TaskSettings,
    /// low-dose: a shorter scan or less injected activity [default: time]
    #[arg(long, value_enum, value_name = "time|activity")]
    dose_mode: Option<Mode>,
    /// Factor on the size of every lesion [default: 1]
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    lesion_scale: Option<f64>,
    /// Also keep the input as it was counted: prompts, background, efficiency
    #[arg(long)]
    raw: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Sinograms to learn from and their ground truth
    Synthesis,
    /// A fraction of the counts, and all of them
    LowDose,
    /// Attenuated, and corrected
    Attenuation,
    /// An early frame, and a late one
    Delayed,
    /// One tracer, and another
    Conversion,
    /// Two tracers at once, and each of them
    Separation,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Time,
    Activity,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Part {
    Train,
    Test,
}

impl What {
    fn task(self) -> Task {
        match self {
            Self::Synthesis => Task::Synthesis,
            Self::LowDose => Task::LowDose,
            Self::Attenuation => Task::Attenuation,
            Self::Delayed => Task::Delayed,
            Self::Conversion => Task::Conversion,
            Self::Separation => Task::Separation,
        }
    }
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        self.check_belonging()?;
        let geometry = ParallelGeometry::new(self.views, self.bins, self.bin_mm)?;
        let dataset = match self.task {
            What::Synthesis => self.synthesis(geometry)?,
            _ => self.paired(geometry)?,
        };
        write_dataset(&self.out, &dataset)?;
        let subjects = dataset.distinct_subjects();
        let json = json!({
            "out": self.out,
            "task": self.task.task().id(),
            "samples": dataset.len(),
            "subjects": subjects.len(),
            "views": self.views,
            "bins": self.bins,
            "bin_mm": self.bin_mm,
            "seed": self.seed,
            "counts": self.counts,
        });
        let text = format!(
            "{}: {} {} of {} subjects",
            self.out.display(),
            dataset.len(),
            if self.task == What::Synthesis {
                "sinograms"
            } else {
                "pairs"
            },
            subjects.len()
        );
        Ok(Report::new(json, text))
    }

    /// Options of one task are no options of another.
    fn check_belonging(&self) -> Result<()> {
        let pairs = &self.pairs;
        if let Some((option, tasks)) = pairs.settings.misplaced(self.task.task()) {
            let tasks: Vec<_> = tasks.iter().map(|task| task.id()).collect();
            return given(format!(
                "{option} with --task {}; expected --task {}",
                self.task.task().id(),
                tasks.join(" or ")
            ));
        }
        let paired = &What::value_variants()[1..];
        let groups: [(&str, bool, &[What]); 3] = [
            ("--dose-mode", pairs.dose_mode.is_some(), &[What::LowDose]),
            ("--lesion-scale", pairs.lesion_scale.is_some(), paired),
            ("--raw", pairs.raw, paired),
        ];
        for (option, present, tasks) in groups {
            if present && !tasks.contains(&self.task) {
                let tasks: Vec<_> = tasks.iter().map(|what| what.task().id()).collect();
                return given(format!(
                    "{option} with --task {}; expected --task {}",
                    self.task.task().id(),
                    tasks.join(" or ")
                ));
            }
        }
        if self.modality == Modality::Ct && self.task != What::Synthesis {
            return given(format!(
                "--modality ct with --task {}; expected pet: the tasks are of emission",
                self.task.task().id()
            ));
        }
        if self.modality == Modality::Ct && !self.tracer.is_empty() {
            return given("--tracer with --modality ct; expected one of them: attenuation has no tracer");
        }
        Ok(())
    }

    fn split(&self) -> Split {
        match self.split {
            Part::Train => Split::Train,
            Part::Test => Split::Test,
        }
    }

    fn synthesis(&self, geometry: ParallelGeometry) -> Result<Dataset> {
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
            split: self.split(),
            count: self.count,
            subjects: self.subjects.unwrap_or(all.subjects),
            seed: self.seed,
            counts: self.counts,
            geometry,
            // Pixels of the ground truth measure what the bins do.
            image_size: self.bins,
            ..all
        };
        config.validate()?;
        self.room(self.views + 2 * self.bins)?;
        let bar = progress::bar(self.count as u64, "slices");
        let dataset = simulate_synthesis(&config, &|done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        Ok(dataset)
    }

    fn paired(&self, geometry: ParallelGeometry) -> Result<Dataset> {
        let (task, tracers) = self.paired_task()?;
        let all = TaskConfig::default();
        let config = TaskConfig {
            task,
            tracers,
            regions: self.region.clone(),
            split: self.split(),
            count: self.count,
            subjects: self.subjects.unwrap_or(all.subjects),
            seed: self.seed,
            counts: self.counts,
            geometry,
            image_size: self.bins,
            lesion_scale: self.pairs.lesion_scale.unwrap_or(all.lesion_scale),
            raw: self.pairs.raw,
            ..all
        };
        config.validate()?;
        // Input, raw counts and line integrals; target and its expectation; images, attenuation and labels.
        let (targets, raw) = (task.targets(), if self.pairs.raw { 3 } else { 0 });
        self.room(self.views * (2 + 2 * targets + raw) + self.bins * (2 + targets))?;
        let bar = progress::bar(self.count as u64, "pairs");
        let dataset = simulate_task(&config, &|done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        Ok(dataset)
    }

    /// The task with its settings, and the tracers that it takes in turn.
    fn paired_task(&self) -> Result<(PairedTask, Vec<Tracer>)> {
        let pairs = &self.pairs;
        let turns = self.tracer.clone();
        Ok(match self.task {
            What::Synthesis => (PairedTask::new(Task::Synthesis)?, turns),
            What::LowDose => {
                let usual = LowDose::default();
                let mode = match pairs.dose_mode {
                    None => usual.mode,
                    Some(Mode::Time) => DoseMode::Time,
                    Some(Mode::Activity) => DoseMode::Activity,
                };
                let dose = pairs.settings.dose.unwrap_or(usual.dose);
                (PairedTask::LowDose(LowDose { dose, mode }), turns)
            }
            What::Attenuation => (PairedTask::Attenuation(Attenuation::default()), turns),
            What::Delayed => {
                let minutes = pairs.settings.minutes(Delayed::default().minutes)?;
                (PairedTask::Delayed(Delayed { minutes }), turns)
            }
            What::Conversion => {
                let usual = Conversion::default();
                let conversion = Conversion {
                    from: pairs.settings.from.unwrap_or(usual.from),
                    to: pairs.settings.to.unwrap_or(usual.to),
                };
                (PairedTask::Conversion(conversion), turns)
            }
            What::Separation => {
                let usual = Separation::default().tracers;
                let tracers = match self.tracer[..] {
                    [] => [
                        pairs.settings.from.unwrap_or(usual[0]),
                        pairs.settings.to.unwrap_or(usual[1]),
                    ],
                    [first, second] if pairs.settings.from.is_none() && pairs.settings.to.is_none() => {
                        [first, second]
                    }
                    _ => {
                        return given(
                            "--tracer of a separation; expected two tracers, such as fdg,psma, or --from and --to",
                        );
                    }
                };
                (PairedTask::Separation(Separation { tracers }), Vec::new())
            }
        })
    }

    /// Room for so many rows of bins in each sample, and a place to put them.
    fn room(&self, rows: usize) -> Result<()> {
        output::file(&self.out, &[Format::Safetensors])?;
        fits_in_memory("a dataset", &[self.count, self.bins, rows])
    }
}
