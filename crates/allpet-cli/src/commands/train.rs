//! `allpet train`: training runs that can be interrupted and resumed.

use super::loss_picture::LossPicture;
use crate::fault::{Fault, Result, given};
use crate::model_file;
use crate::options::Device;
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::core::Dataset;
use allpet::foundation::{Ended, MODEL_FILE, Place, RunConfig, train_autoencoder, train_foundation};
use allpet::io::read_dataset;
use allpet::tasks::{PairRun, TaskRun, train_pairs, train_tasks};
use allpet::train::{BoxError, EarlyStop, JsonLines, Observer, StepInfo, TrainConfig, checkpoint};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Train the autoencoder, the foundation model on its latents, a model of the tasks on pairs, or one that draws pairs
///
/// The run folder holds model.safetensors (at the end), checkpoint.safetensors, metrics.jsonl and loss.png. Ctrl-C
/// writes a checkpoint and stops; --resume goes on and ends in the same model as a run that was not interrupted.
#[derive(Debug, clap::Args)]
#[command(after_help = CONFIGURATION)]
pub(crate) struct Args {
    /// What is trained
    #[arg(value_enum)]
    what: What,
    /// Settings of the run, TOML
    #[arg(long)]
    config: PathBuf,
    /// Datasets, .safetensors, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "DATA,..")]
    data: Vec<PathBuf>,
    /// Run folder
    #[arg(long)]
    out: PathBuf,
    /// End the run when the mean loss of 100 steps has not fallen for so many (early_stop.patience of the configuration)
    #[arg(long, value_name = "STEPS")]
    patience: Option<usize>,
    /// Continue from the run folder's checkpoint, if it holds one
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    device: Device,
}

const CONFIGURATION: &str = "\
A configuration (every entry may be left out, except `autoencoder` for the foundation):
  preset = \"small\"                           # tiny, small, base, paper
  autoencoder = \"../ae/model.safetensors\"    # beside this file
  start = \"first/model.safetensors\"          # a trained file of the same model to go on from
  [train]
  steps = 10000
  batch = 8
  rate = 2e-4
  warmup = 200
  seed = 0
  early_stop = { patience = 500, window = 100, improvement = 1e-3 }    # ends when the mean loss of a window has not fallen so much for so long
  recompute = false                          # true: blocks are computed again on the way back; less memory, a third more time

For `task` (datasets of `allpet simulate --task low-dose` and so on; several tasks make one model of all):
  foundation = \"small/model.safetensors\"    # to start from; by default the shipped one
  from_scratch = false                       # draw the parameters instead
  method = \"bridge\"                         # or regression: a U-Net on sinograms (L1), the baseline
  goal = \"clean\"                            # or target: the noise-free array of the simulation, or the measured one
  masks = true                               # Radon masks (RMAS, DMM)
  attention = true                           # transparent medical attention (TMA)
  [train]                                    # as above

For `pairs` (the same datasets; input and target drawn jointly, for `allpet synthesize --task`): foundation, from_scratch, goal, masks and
[train] as for `task`.";

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum What {
    Autoencoder,
    Foundation,
    Task,
    Pairs,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Autoencoder => "autoencoder",
            Self::Foundation => "foundation",
            Self::Task => "task",
            Self::Pairs => "pairs",
        }
    }
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = self.device.open()?;
        let mut plan = Plan::read(self.what, &self.config)?;
        if let Some(patience) = self.patience {
            let rule = &mut plan.train_mut().early_stop;
            *rule = Some(EarlyStop {
                patience,
                ..rule.unwrap_or(EarlyStop::after(patience))
            });
        }
        output::folder(&self.out)?;
        let train = plan.train_mut().clone();
        train
            .validate()
            .map_err(|e| Fault::Given(format!("{}: {e}", self.config.display())))?;
        let data = self
            .data
            .iter()
            .map(|path| Ok(read_dataset(path)?))
            .collect::<Result<Vec<Dataset>>>()?;
        let place = Place {
            folder: &self.out,
            resume: self.resume,
            stop: progress::stop_flag(),
            device: &device,
        };
        let (log, picture) = (self.out.join("metrics.jsonl"), self.out.join("loss.png"));
        let mut metrics = JsonLines::new(&log);
        let mut picture = LossPicture {
            log,
            picture,
            title: format!("{} training", self.what.word()),
        };
        let mut watch = Watch {
            bar: progress::bar(train.steps as u64, "steps"),
            done: 0,
            last: None,
        };
        let observers: &mut [&mut dyn Observer] = &mut [&mut watch, &mut metrics, &mut picture];
        let ended = plan.run(&data, place, observers);
        watch.bar.finish_and_clear();
        if let Ended::Interrupted(step) = ended? {
            return Err(Fault::Other(format!(
                "interrupted after {step} of {} steps; {} is whole, the same command with --resume goes on",
                train.steps,
                self.out.join(checkpoint::FILE).display()
            )));
        }
        let model = self.out.join(MODEL_FILE);
        let (loss, seconds) = watch.last.unzip();
        let early = watch.done < train.steps as u64;
        let json = json!({
            "model": model,
            "what": self.what.word(),
            "steps": watch.done,
            "stopped_early": early,
            "loss": loss,
            "seconds": seconds,
        });
        let of_all = match early {
            true => format!("{} of {} steps, stopped early", watch.done, train.steps),
            false => format!("{} steps", watch.done),
        };
        let text = match (loss, seconds) {
            (Some(loss), Some(seconds)) => {
                format!(
                    "{}: {of_all} done, last loss {loss:.4}, {seconds:.0} s",
                    model.display()
                )
            }
            _ => format!("{}: {of_all}, all done already", model.display()),
        };
        Ok(Report::new(json, text))
    }
}

/// What is to be trained, as the configuration says.
enum Plan {
    Autoencoder(RunConfig),
    Foundation(RunConfig),
    Task(Box<TaskRun>),
    Pairs(PairRun),
}

impl Plan {
    /// The configuration, with the paths in it relative to the file.
    fn read(what: What, path: &Path) -> Result<Self> {
        let beside = |file: &mut PathBuf| *file = path.parent().unwrap_or(Path::new("")).join(&*file);
        let wrong = |e: allpet::tasks::Error| Fault::Given(format!("{}: {e}", path.display()));
        if what == What::Task {
            let mut config: TaskRun = read_toml(path)?;
            config.foundation.iter_mut().for_each(beside);
            config.validate().map_err(wrong)?;
            return Ok(Self::Task(Box::new(config)));
        }
        if what == What::Pairs {
            let mut config: PairRun = read_toml(path)?;
            config.foundation.iter_mut().for_each(beside);
            config.validate().map_err(wrong)?;
            return Ok(Self::Pairs(config));
        }
        let mut config: RunConfig = read_toml(path)?;
        config.autoencoder.iter_mut().for_each(beside);
        config.start.iter_mut().for_each(beside);
        if what == What::Autoencoder {
            return Ok(Self::Autoencoder(config));
        }
        if config.autoencoder.is_none() {
            return given(format!(
                "{}: no `autoencoder`; expected the file of a trained one",
                path.display()
            ));
        }
        Ok(Self::Foundation(config))
    }

    fn train_mut(&mut self) -> &mut TrainConfig {
        match self {
            Self::Autoencoder(config) | Self::Foundation(config) => &mut config.train,
            Self::Task(config) => &mut config.train,
            Self::Pairs(config) => &mut config.train,
        }
    }

    fn run(&self, data: &[Dataset], place: Place<'_>, observers: &mut [&mut dyn Observer]) -> Result<Ended> {
        let start =
            |path: &Option<PathBuf>| Ok::<_, Fault>(model_file::load(path.as_deref(), place.device)?.model);
        Ok(match self {
            Self::Autoencoder(config) => train_autoencoder(config, data, place, observers)?,
            Self::Foundation(config) => train_foundation(config, data, place, observers)?,
            Self::Task(config) => train_tasks(config, &start(&config.foundation)?, data, place, observers)?,
            Self::Pairs(config) => train_pairs(config, &start(&config.foundation)?, data, place, observers)?,
        })
    }
}

fn read_toml<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Fault::Given(format!(
            "cannot read {}: {e}; expected a TOML file",
            path.display()
        ))
    })?;
    toml::from_str(&text).map_err(|e| {
        let before = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..before].iter().filter(|b| **b == b'\n').count() + 1;
        Fault::Given(format!("{}, line {line}: {}", path.display(), e.message()))
    })
}

/// The bar on the terminal, steps done, and the last loss and time.
struct Watch {
    bar: ProgressBar,
    done: u64,
    last: Option<(f64, f64)>,
}

impl Observer for Watch {
    fn on_start(&mut self, start: u64, _steps: u64) -> std::result::Result<(), BoxError> {
        self.bar.set_position(start);
        self.done = start;
        self.bar.reset_eta();
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo<'_>) -> ControlFlow<()> {
        self.done = step.step + 1;
        self.bar.set_position(self.done);
        self.bar.set_message(format!(
            "loss {:.4}, {:.1} samples/s,",
            step.loss, step.samples_per_second
        ));
        self.last = Some((step.loss, step.seconds));
        ControlFlow::Continue(())
    }
}
