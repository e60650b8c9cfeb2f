//! Dual-tracer separation: a sinogram of 18F-FDG and 68Ga-PSMA together to each of them alone.
//!
//! Simulates a person whom no model has seen, separates the sinogram with the shipped model, prints a table and writes
//! `tracer_separation.png`. The sum of both outputs keeps the input's total. A photon does not say which tracer it is from:
//! what tells the two apart is where each of them goes.
//! `cargo run --release --example tracer_separation [FOLDER]`

#![allow(clippy::print_stdout)]

mod restoration;

use allpet::prelude::*;
use allpet::sim::tasks::PairedTask;
use std::path::PathBuf;

/// No seed of training or of the published tables.
const SEED: u64 = 105;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let model = pretrained_tasks(&Device::Cpu)?;
    let settings = TaskConfig {
        task: PairedTask::new(Task::Separation)?,
        regions: vec![Region::Trunk],
        seed: SEED,
        ..TaskConfig::default()
    };
    let cases = restoration::subject(*model.geometry(), settings)?;

    let restored = restoration::restore(&model, &cases, SEED)?;
    restoration::table(&cases, &[("restored", &restored.mean)])?;
    restoration::picture(&cases, &restored, &folder.join("tracer_separation.png"))
}
