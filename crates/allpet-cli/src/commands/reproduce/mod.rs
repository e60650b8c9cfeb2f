//! `allpet reproduce`: the tables of docs/results.md, from nothing.

mod markdown;
mod tasks;

use crate::fault::Result;
use crate::options::Device;
use crate::output;
use crate::report::Report;
use clap::ValueEnum;
use std::path::PathBuf;

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
    /// tasks: a trained model to judge, instead of training one (`shipped` for the one that ships with allpet)
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
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        output::folder(&self.out)?;
        output::make(&self.out)?;
        match self.table {
            Table::Tasks => tasks::run(self),
        }
    }
}
