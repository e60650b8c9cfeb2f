//! `allpet reproduce`: the tables of docs/results.md, from nothing.

mod ablation;
mod markdown;
mod pac_bayes;
mod restoration;
mod samplers;
mod synthesis;
mod tasks;

use crate::fault::{Fault, Result, given};
use crate::options::Device;
use crate::output;
use crate::report::Report;
use allpet::core::write_bytes_atomically;
use allpet::train::TrainConfig;
use clap::ValueEnum;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Compute a table of docs/results.md from nothing
///
/// The folder holds TABLE.md, TABLE.json and what they were computed from. Finished parts are kept with --resume.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which table
    #[arg(value_enum)]
    table: Table,
    /// A run of seconds that goes through every step; its figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Keep what an earlier run in this folder has finished
    #[arg(long)]
    resume: bool,
    /// tasks, samplers, synthesis: a trained model to judge, instead of training one (`shipped` for the one that ships with
    /// allpet, the default of samplers and synthesis)
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// tasks: a trained regression to compare with, instead of training one
    #[arg(long, value_name = "MODEL")]
    baseline: Option<PathBuf>,
    /// Folder for the results
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    device: Device,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Table {
    /// The five tasks: input, classical, U-Net, bridge, on 100 held-out subjects each
    Tasks,
    /// Samplers of the bridge on the same weights: DBIM beside the 119 evaluations of DDBM's own
    Samplers,
    /// What the masks, the positive/negative loss, the attention and the foundation are worth
    Ablation,
    /// Generated sinograms against held-out ones: Fréchet, KID, precision and recall
    Synthesis,
    /// The PAC-Bayes bound before and after augmentation (Fig. 7)
    PacBayes,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let trains = matches!(self.table, Table::Ablation | Table::PacBayes);
        for (option, present) in [
            ("--model", self.model.is_some() && trains),
            (
                "--baseline",
                self.baseline.is_some() && !matches!(self.table, Table::Tasks),
            ),
        ] {
            if present {
                return given(format!("{option} with a table that does not take it; see --help"));
            }
        }
        output::folder(&self.out)?;
        output::make(&self.out)?;
        match self.table {
            Table::Tasks => tasks::run(self),
            Table::Samplers => samplers::run(self),
            Table::Ablation => ablation::run(self),
            Table::Synthesis => synthesis::run(self),
            Table::PacBayes => pac_bayes::run(self),
        }
    }
}

/// Writes TABLE.md and TABLE.json, the end of every table.
fn finish(args: &Args, table: &str, text: &str, all: Map<String, Value>, said: &str) -> Result<Report> {
    let [markdown, path] = ["md", "json"].map(|ends| args.out.join(format!("{table}.{ends}")));
    write_bytes_atomically(&markdown, text.as_bytes())?;
    write_json(&path, &Value::Object(all))?;
    Ok(Report::new(
        json!({ "table": table, "markdown": markdown, "json": path, "quick": args.quick }),
        format!("{}: {said}", markdown.display()),
    ))
}

/// A training run of seconds.
fn hasten(train: &mut TrainConfig) {
    train.steps = 2;
    train.warmup = 1;
    train.batch = 2;
}

fn write_json(path: &Path, value: &Value) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| Fault::Other(e.to_string()))?;
    text.push('\n');
    Ok(write_bytes_atomically(path, text.as_bytes())?)
}

/// A section that `--resume` found finished, or computed now and kept.
pub(super) fn kept(
    out: &Path,
    resume: bool,
    id: &str,
    compute: impl FnOnce() -> Result<Value>,
) -> Result<Value> {
    let path = out.join(format!("{id}.json"));
    let found = resume.then(|| std::fs::read(&path).ok()).flatten();
    if let Some(value) = found.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(value);
    }
    let value = compute()?;
    write_json(&path, &value)?;
    Ok(value)
}
