//! Models of the `tiny` preset, trained for a few steps: what they restore is poor, how they do it is the same as ever.

use crate::paired::simulate;
use allpet_core::{Dataset, Task};
use allpet_foundation::{
    Ended, Foundation, MODEL_FILE, Place, RunConfig, train_autoencoder, train_foundation,
};
use allpet_tasks::{Error, PairAugmentation, TaskRun, train_tasks};
use allpet_train::{Observer, TrainConfig};
use candle_core::Device;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

pub(crate) fn train(steps: usize) -> TrainConfig {
    TrainConfig {
        steps,
        batch: 4,
        rate: 1e-3,
        warmup: 1,
        seed: 6,
        checkpoint_every_steps: 0,
        checkpoint_every_minutes: 0.0,
        ..TrainConfig::default()
    }
}

pub(crate) fn run(steps: usize) -> TaskRun {
    TaskRun {
        augmentation: PairAugmentation::default(),
        train: train(steps),
        ..TaskRun::default()
    }
}

/// The bytes of a foundation model, made once.
fn foundation_bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let data = [simulate(Task::LowDose, 8)];
        let stop = AtomicBool::new(false);
        let (first, second) = (
            folder.path().join("autoencoder"),
            folder.path().join("foundation"),
        );
        let config = |autoencoder: Option<&Path>| RunConfig {
            preset: "tiny".into(),
            model: None,
            autoencoder: autoencoder.map(|folder| folder.join(MODEL_FILE)),
            start: None,
            train: train(12),
        };
        let place = |folder| Place {
            folder,
            resume: false,
            stop: &stop,
            device: &Device::Cpu,
        };
        train_autoencoder(&config(None), &data, place(&first), &mut []).unwrap();
        train_foundation(&config(Some(&first)), &data, place(&second), &mut []).unwrap();
        std::fs::read(second.join(MODEL_FILE)).unwrap()
    })
}

pub(crate) fn foundation() -> Foundation {
    Foundation::from_bytes("tiny", foundation_bytes(), &Device::Cpu).unwrap()
}

/// Trains in `folder`, which is made or resumed.
pub(crate) fn train_in(
    folder: &Path,
    config: &TaskRun,
    foundation: &Foundation,
    data: &[Dataset],
    observers: &mut [&mut dyn Observer],
) -> Result<Ended, Error> {
    let stop = AtomicBool::new(false);
    let place = Place {
        folder,
        resume: true,
        stop: &stop,
        device: &Device::Cpu,
    };
    train_tasks(config, foundation, data, place, observers)
}

/// The bytes of the model that a run writes.
pub(crate) fn trained(config: &TaskRun, data: &[Dataset]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let ended = train_in(folder.path(), config, &foundation(), data, &mut []).unwrap();
    assert_eq!(ended, Ended::Finished);
    std::fs::read(folder.path().join(MODEL_FILE)).unwrap()
}
