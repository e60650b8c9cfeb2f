//! Tracer conversion: a sinogram of 18F-FDG to what 68Ga-PSMA would show in the same slice.
//!
//! Simulates a person whom no model has seen, predicts the other tracer's sinogram with the shipped model, prints a table
//! and writes `tracer_conversion.png`. What only the other tracer binds to cannot be read off the input: there the model
//! has nothing but what is usual, and its uncertainty should say so.
//! `cargo run --release --example tracer_conversion [FOLDER]`

#![allow(clippy::print_stdout)]

mod restoration;

use allpet::prelude::*;
use allpet::sim::tasks::PairedTask;
use std::path::PathBuf;

/// No seed of training or of the published tables.
const SEED: u64 = 104;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let model = pretrained_tasks(&Device::Cpu)?;
    let settings = TaskConfig {
        task: PairedTask::new(Task::Conversion)?,
        regions: vec![Region::Trunk],
        seed: SEED,
        ..TaskConfig::default()
    };
    let cases = restoration::subject(*model.geometry(), settings)?;

    let restored = restoration::restore(&model, &cases, SEED)?;
    restoration::table(&cases, &[("restored", &restored.mean)])?;
    restoration::picture(&cases, &restored, &folder.join("tracer_conversion.png"))
}
