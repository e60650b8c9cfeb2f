//! Attenuation correction without a CT: a sinogram with attenuation left in to the corrected one.
//!
//! Simulates a person whom no model has seen, restores the sinogram with the shipped model and, for comparison, with
//! uniform water inside the outline of the body, prints a table and writes `attenuation_correction.png`.
//! `cargo run --release --example attenuation_correction [FOLDER]`

#![allow(clippy::print_stdout)]

mod restoration;

use allpet::prelude::*;
use allpet::sim::tasks::PairedTask;
use allpet::tasks::classical::UniformWater;
use ndarray::Axis;
use std::path::PathBuf;

/// No seed of training or of the published tables.
const SEED: u64 = 102;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let model = pretrained_tasks(&Device::Cpu)?;
    let settings = TaskConfig {
        task: PairedTask::new(Task::Attenuation)?,
        tracers: vec![Tracer::Fdg],
        regions: vec![Region::Trunk],
        seed: SEED,
        ..TaskConfig::default()
    };
    let cases = restoration::subject(*model.geometry(), settings)?;

    let restored = restoration::restore(&model, &cases, SEED)?;
    let water = UniformWater::default().restore(cases.inputs.view(), &cases.geometry)?;
    let water = water.insert_axis(Axis(1));
    restoration::table(&cases, &[("uniform water", &water), ("restored", &restored.mean)])?;
    restoration::picture(&cases, &restored, &folder.join("attenuation_correction.png"))
}
