//! Simulated pairs small enough for seconds: 32 views × 32 bins of 16 mm, the geometry of the `tiny` model.

use allpet_core::{Dataset, ParallelGeometry, Task};
use allpet_sim::{PairedTask, TaskConfig, simulate_task};

pub(crate) fn geometry() -> ParallelGeometry {
    ParallelGeometry::new(32, 32, 16.0).unwrap()
}

/// Pairs of one task with its default settings, from four subjects.
pub(crate) fn simulate(task: Task, count: usize) -> Dataset {
    simulate_with(PairedTask::new(task).unwrap(), count)
}

pub(crate) fn simulate_with(task: PairedTask, count: usize) -> Dataset {
    let config = TaskConfig {
        task,
        count,
        subjects: 4,
        seed: 3,
        geometry: geometry(),
        image_size: 32,
        ..TaskConfig::default()
    };
    simulate_task(&config, &|_| {}).unwrap()
}

/// Fails unless the error is one line that holds every word.
pub(crate) fn says(error: impl std::fmt::Display, words: &[&str]) {
    let text = error.to_string();
    assert!(
        !text.contains('\n') && words.iter().all(|word| text.contains(word)),
        "{text}"
    );
}
