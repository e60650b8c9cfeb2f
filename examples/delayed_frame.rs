//! Delayed frame: what 18F-FDG shows 60 minutes after injection to what it will show after 120.
//!
//! Simulates a person whom no model has seen, predicts the late sinogram with the shipped model, prints a table and
//! writes `delayed_frame.png`. No classical answer exists; the early frame taken for the late one is what there is to beat.
//! `cargo run --release --example delayed_frame [FOLDER]`

#![allow(clippy::print_stdout)]

mod restoration;

use allpet::prelude::*;
use allpet::sim::tasks::PairedTask;
use std::path::PathBuf;

/// No seed of training or of the published tables.
const SEED: u64 = 103;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let model = pretrained_tasks(&Device::Cpu)?;
    let settings = TaskConfig {
        task: PairedTask::new(Task::Delayed)?,
        regions: vec![Region::Trunk],
        seed: SEED,
        ..TaskConfig::default()
    };
    let cases = restoration::subject(*model.geometry(), settings)?;

    let restored = restoration::restore(&model, &cases, SEED)?;
    restoration::table(&cases, &[("restored", &restored.mean)])?;
    restoration::picture(&cases, &restored, &folder.join("delayed_frame.png"))
}
