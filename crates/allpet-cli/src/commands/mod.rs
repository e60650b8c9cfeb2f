//! The commands, one file each.

mod adjoint;
mod bench;
mod convert;
mod evaluate;
mod info;
mod loss_picture;
mod mask;
mod plot;
mod project;
mod reconstruct;
mod reproduce;
mod simulate;
mod synthesize;
mod task;
mod train;

use crate::fault::Result;
use crate::report::Report;
use clap::{Parser, Subcommand};

/// ALL-PET: PET in the projection domain, from phantoms and scanner files to synthetic sinograms.
///
/// Arrays are .npy or .npz (float32 or float64 in, float32 out); datasets and models are .safetensors. Images are
/// [.., row, col], sinograms [.., view, radial]; lengths in mm, angles in degrees. Ranges a..b include b.
#[derive(Debug, Parser)]
#[command(name = "allpet", version, max_term_width = 110)]
#[command(after_help = "Exit status: 0 done, 2 for a fault in what was given, 1 for anything else.")]
pub(crate) struct Cli {
    /// Print one JSON object on standard output and nothing else there
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Project(project::Args),
    Adjoint(adjoint::Args),
    Reconstruct(reconstruct::Args),
    Mask(mask::Args),
    Simulate(simulate::Args),
    Train(train::Args),
    Synthesize(synthesize::Args),
    Task(Box<task::Args>),
    Evaluate(evaluate::Args),
    Reproduce(reproduce::Args),
    Convert(convert::Args),
    Info(info::Args),
    Plot(plot::Args),
    Bench(bench::Args),
}

impl Cli {
    pub(crate) fn run(&self) -> Result<Report> {
        match &self.command {
            Command::Project(args) => args.run(),
            Command::Adjoint(args) => args.run(),
            Command::Reconstruct(args) => args.run(),
            Command::Mask(args) => args.run(),
            Command::Simulate(args) => args.run(),
            Command::Train(args) => args.run(),
            Command::Synthesize(args) => args.run(),
            Command::Task(args) => args.run(),
            Command::Evaluate(args) => args.run(),
            Command::Reproduce(args) => args.run(),
            Command::Convert(args) => args.run(),
            Command::Info(args) => args.run(),
            Command::Plot(args) => args.run(),
            Command::Bench(args) => args.run(),
        }
    }
}
