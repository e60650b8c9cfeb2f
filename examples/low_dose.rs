//! Low dose: a sinogram of a fraction of the counts to the one of all of them.
//!
//! Simulates a person whom no model has seen, restores the sinogram with the shipped model and, for comparison, with
//! OSEM and a post-filter, prints a table and writes `low_dose.png`. The input is shown and scored over its dose.
//! `cargo run --release --example low_dose [FOLDER] [DOSE]`; the dose is a fraction of the whole one, 0.25 unless told.

#![allow(clippy::print_stdout)]

mod restoration;

use allpet::prelude::*;
use allpet::sim::tasks::{LowDose, PairedTask};
use allpet::tasks::classical::OsemFiltered;
use ndarray::Axis;
use std::path::PathBuf;

/// No seed of training or of the published tables.
const SEED: u64 = 101;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out".into()));
    let dose = arguments.next().map_or(Ok(0.25), |s| s.parse())?;
    std::fs::create_dir_all(&folder)?;

    let low_dose = LowDose {
        dose,
        ..LowDose::default()
    };
    let model = pretrained_tasks(&Device::Cpu)?;
    let settings = TaskConfig {
        task: PairedTask::LowDose(low_dose),
        tracers: vec![Tracer::Fdg],
        regions: vec![Region::Trunk],
        seed: SEED,
        ..TaskConfig::default()
    };
    let cases = restoration::subject(*model.geometry(), settings)?;

    let restored = restoration::restore(&model, &cases, SEED)?;
    let osem = OsemFiltered::for_dose(dose)?.restore(cases.inputs.view(), &cases.geometry, dose)?;
    let osem = osem.insert_axis(Axis(1));
    restoration::table(&cases, &[("OSEM, filtered", &osem), ("restored", &restored.mean)])?;
    restoration::picture(&cases, &restored, &folder.join("low_dose.png"))
}
