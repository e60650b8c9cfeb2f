//! `allpet train`: training runs that can be interrupted and resumed.

use super::loss_picture::LossPicture;
use crate::fault::{Fault, Result, given};
use crate::options::Device;
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::core::Dataset;
use allpet::foundation::{Ended, MODEL_FILE, Place, RunConfig, train_autoencoder, train_foundation};
use allpet::io::read_dataset;
use allpet::train::{BoxError, JsonLines, Observer, StepInfo, checkpoint};
use clap::ValueEnum;
use indicatif::ProgressBar;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Train the autoencoder, or the foundation model on its latents
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
  seed = 0";

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum What {
    Autoencoder,
    Foundation,
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Autoencoder => "autoencoder",
            Self::Foundation => "foundation",
        }
    }
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = self.device.cpu()?;
        let config = read_config(&self.config)?;
        output::folder(&self.out)?;
        if self.what == What::Foundation && config.autoencoder.is_none() {
            return given(format!(
                "{}: no `autoencoder`; expected the file of a trained one",
                self.config.display()
            ));
        }
        config
            .train
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
            bar: progress::bar(config.train.steps as u64, "steps"),
            last: None,
        };
        let observers: &mut [&mut dyn Observer] = &mut [&mut watch, &mut metrics, &mut picture];
        let ended = match self.what {
            What::Autoencoder => train_autoencoder(&config, &data, place, observers),
            What::Foundation => train_foundation(&config, &data, place, observers),
        };
        watch.bar.finish_and_clear();
        if let Ended::Interrupted(step) = ended? {
            return Err(Fault::Other(format!(
                "interrupted after {step} of {} steps; {} is whole, the same command with --resume goes on",
                config.train.steps,
                self.out.join(checkpoint::FILE).display()
            )));
        }
        let model = self.out.join(MODEL_FILE);
        let (loss, seconds) = watch.last.unzip();
        let json = json!({
            "model": model,
            "what": self.what.word(),
            "steps": config.train.steps,
            "loss": loss,
            "seconds": seconds,
        });
        let text = match (loss, seconds) {
            (Some(loss), Some(seconds)) => {
                format!(
                    "{}: {} steps done, last loss {loss:.4}, {seconds:.0} s",
                    model.display(),
                    config.train.steps
                )
            }
            _ => format!(
                "{}: all {} steps were done already",
                model.display(),
                config.train.steps
            ),
        };
        Ok(Report::new(json, text))
    }
}

/// The configuration, with the autoencoder's path relative to the file.
fn read_config(path: &Path) -> Result<RunConfig> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Fault::Given(format!(
            "cannot read {}: {e}; expected a TOML file",
            path.display()
        ))
    })?;
    let mut config: RunConfig = toml::from_str(&text).map_err(|e| {
        let before = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = text.as_bytes()[..before].iter().filter(|b| **b == b'\n').count() + 1;
        Fault::Given(format!("{}, line {line}: {}", path.display(), e.message()))
    })?;
    for file in [&mut config.autoencoder, &mut config.start].into_iter().flatten() {
        *file = path.parent().unwrap_or(Path::new("")).join(&*file);
    }
    Ok(config)
}

/// The bar on the terminal, and the last loss and time.
struct Watch {
    bar: ProgressBar,
    last: Option<(f64, f64)>,
}

impl Observer for Watch {
    fn on_start(&mut self, start: u64, _steps: u64) -> std::result::Result<(), BoxError> {
        self.bar.set_position(start);
        self.bar.reset_eta();
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo<'_>) -> ControlFlow<()> {
        self.bar.set_position(step.step + 1);
        self.bar.set_message(format!(
            "loss {:.4}, {:.1} samples/s,",
            step.loss, step.samples_per_second
        ));
        self.last = Some((step.loss, step.seconds));
        ControlFlow::Continue(())
    }
}
