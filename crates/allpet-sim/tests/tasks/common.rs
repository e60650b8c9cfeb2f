//! Small settings, and distances between arrays.

use allpet_core::{Dataset, ParallelGeometry};
use allpet_sim::tasks::{DoseMode, LowDose};
use allpet_sim::{PairedTask, TaskConfig, simulate_task};
use ndarray::ArrayD;

pub(crate) fn small(task: PairedTask, count: usize) -> TaskConfig {
    TaskConfig {
        task,
        count,
        subjects: 3,
        seed: 11,
        geometry: ParallelGeometry::new(32, 64, 8.0).expect("a valid geometry"),
        image_size: 64,
        ..TaskConfig::default()
    }
}

pub(crate) fn low(dose: f64, mode: DoseMode) -> PairedTask {
    PairedTask::LowDose(LowDose { dose, mode })
}

pub(crate) fn clean(config: TaskConfig) -> TaskConfig {
    TaskConfig {
        noise: false,
        ..config
    }
}

pub(crate) fn simulate(config: &TaskConfig) -> Dataset {
    simulate_task(config, &|_| ()).expect("a valid configuration")
}

pub(crate) fn sum(values: &ArrayD<f32>) -> f64 {
    values.iter().map(|&v| f64::from(v)).sum()
}

pub(crate) fn far(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| square(a - b)).sum();
    (difference / b.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}
