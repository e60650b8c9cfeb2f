//! The `allpet` command line: arguments in, library calls, files and pictures out.

mod commands;
mod efficiencies;
mod fault;
mod memory;
mod model_file;
mod on_device;
mod options;
mod output;
mod planned;
mod progress;
mod report;
mod task_settings;

use clap::{CommandFactory, FromArgMatches};
use commands::Cli;
use fault::Fault;
use std::process::ExitCode;

fn main() -> ExitCode {
    memory::keep_freed_pages();
    let words: Vec<_> = std::env::args_os().collect();
    if let Some(fault) = planned::asked_for(&words) {
        return fault.tell();
    }
    let parsed = Cli::command()
        .try_get_matches_from(words)
        .and_then(|m| Cli::from_arg_matches(&m));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(usage) => return fault::usage(&usage),
    };
    // A bug must not look like a fault of the user's: one line and exit 1, like everything unforeseen.
    std::panic::set_hook(Box::new(|info| {
        report::complain(&format!("a bug in allpet: {info}"))
    }));
    let done = std::panic::catch_unwind(|| cli.run()).unwrap_or(Err(Fault::Told));
    match done.and_then(|report| report.print(cli.json)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => fault.tell(),
    }
}
