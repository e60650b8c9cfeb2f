//! Training runs of the tasks: files that load back, the same bytes after an interruption and on any number of threads.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_autoencoder::Autoencoder;
use allpet_core::{Dataset, Task};
use allpet_foundation::{Denoiser, Description, Ended, Foundation, MODEL_FILE, ModelConfig, Place, save};
use allpet_nn::Params;
use allpet_tasks::{Goal, Method, Restorer, TaskRun, train_tasks};
use allpet_train::{Observer, StepInfo, TrainConfig};
use candle_core::Device;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

mod paired;
mod trained;
use paired::{says, simulate};
use trained::{foundation, run, train, train_in, trained};

fn data() -> Vec<Dataset> {
    vec![simulate(Task::LowDose, 6), simulate(Task::Separation, 4)]
}

fn with(method: Method, steps: usize) -> TaskRun {
    TaskRun { method, ..run(steps) }
}

/// Keeps the losses, and stops after as many steps as it is told.
struct Watch {
    losses: Vec<f64>,
    stop_after: Option<u64>,
}

impl Observer for Watch {
    fn on_step(&mut self, info: &StepInfo<'_>) -> ControlFlow<()> {
        self.losses.push(info.loss);
        match self.stop_after {
            Some(steps) if info.step + 1 == steps => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn files_load_back_and_say_what_was_trained() {
    let data = data();
    for (method, moments) in [(Method::Bridge, 3), (Method::Regression, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch {
            losses: Vec::new(),
            stop_after: None,
        };
        let config = with(method, 4);
        let ended = train_in(folder.path(), &config, &foundation(), &data, &mut [&mut watch]).unwrap();
        assert_eq!((ended, watch.losses.len()), (Ended::Finished, 4));
        assert!(watch.losses.iter().all(|loss| loss.is_finite() && *loss > 0.0));
        let path = folder.path().join(MODEL_FILE);
        let model = Restorer::load(&path, &Device::Cpu).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let same = Restorer::from_bytes("memory", &bytes, &Device::Cpu).unwrap();
        assert_eq!(model.tasks(), same.tasks());
        let said = model.tasks();
        assert_eq!(
            (said.method, said.moments.len(), said.tasks.len()),
            (method, moments, 2)
        );
        assert!(said.attention.is_some());
        assert!(model.knows(Task::LowDose) && model.knows(Task::Separation) && !model.knows(Task::Delayed));
        assert_eq!(model.description().kind, "tasks");
        assert_eq!(model.description().training["steps"], "4");
        assert_eq!(*model.geometry(), paired::geometry());
        // Neither is a foundation, nor is a foundation a model of the tasks.
        says(
            Foundation::load(&path, &Device::Cpu).unwrap_err(),
            &["a foundation model", "kind `tasks`"],
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.safetensors");
    says(
        Restorer::load(&missing, &Device::Cpu).unwrap_err(),
        &["none.safetensors"],
    );
    let path = folder.path().join(MODEL_FILE);
    write_foundation(&path, ModelConfig::preset("tiny").unwrap());
    says(
        Restorer::load(&path, &Device::Cpu).unwrap_err(),
        &["a model of the tasks", "kind `foundation`"],
    );
}

#[test]
fn an_interrupted_run_ends_with_the_same_bytes() {
    let data = data();
    for method in [Method::Bridge, Method::Regression] {
        let config = with(method, 5);
        let straight = trained(&config, &data);
        let folder = tempfile::tempdir().unwrap();
        let mut watch = Watch {
            losses: Vec::new(),
            stop_after: Some(2),
        };
        let ended = train_in(folder.path(), &config, &foundation(), &data, &mut [&mut watch]).unwrap();
        assert_eq!(ended, Ended::Interrupted(2));
        assert!(
            !folder.path().join(MODEL_FILE).exists(),
            "no model before the end"
        );
        // The flag stops before a step is taken; the run goes on from where it was.
        let stop = AtomicBool::new(true);
        let place = Place {
            folder: folder.path(),
            resume: true,
            stop: &stop,
            device: &Device::Cpu,
        };
        let ended = train_tasks(&config, &foundation(), &data, place, &mut []).unwrap();
        assert_eq!(ended, Ended::Interrupted(2));
        // A checkpoint is not taken for a new run, nor for one of other settings.
        let anew = Place {
            resume: false,
            ..place
        };
        says(
            train_tasks(&config, &foundation(), &data, anew, &mut []).unwrap_err(),
            &["resume"],
        );
        let other = TaskRun {
            goal: Goal::Target,
            ..config.clone()
        };
        let refused = train_in(folder.path(), &other, &foundation(), &data, &mut []).unwrap_err();
        says(refused, &["goal"]);
        // Computing stages again on the way back changes the memory, not the run.
        let mut again = config.clone();
        again.train.recompute = true;
        let ended = train_in(folder.path(), &again, &foundation(), &data, &mut []).unwrap();
        assert_eq!(ended, Ended::Finished);
        let resumed = std::fs::read(folder.path().join(MODEL_FILE)).unwrap();
        assert!(
            resumed == straight,
            "{}: other bytes after an interruption",
            method.id()
        );
        let reseeded = TaskRun {
            train: TrainConfig { seed: 7, ..train(5) },
            ..config
        };
        assert!(trained(&reseeded, &data) != straight, "the seed changes nothing");
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let data = data();
    for method in [Method::Bridge, Method::Regression] {
        let on = |threads: usize, seed: u64| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let config = TaskRun {
                train: TrainConfig { seed, ..train(3) },
                ..with(method, 3)
            };
            pool.install(|| trained(&config, &data))
        };
        let one = on(1, 6);
        assert!(one == on(2, 6), "{}: other bytes on two threads", method.id());
        assert!(one != on(1, 7));
    }
}

#[test]
fn settings_decide_what_is_trained() {
    let data = data();
    let bytes = |change: &dyn Fn(&mut TaskRun)| {
        let mut config = run(2);
        change(&mut config);
        trained(&config, &data)
    };
    let usual = bytes(&|_| {});
    assert!(usual == bytes(&|_| {}));
    assert!(usual != bytes(&|c| c.from_scratch = true));
    assert!(usual != bytes(&|c| c.masks = false));
    assert!(usual != bytes(&|c| c.goal = Goal::Target));
    assert!(usual != bytes(&|c| c.terminal_fraction = 1.0));
    let without = bytes(&|c| c.attention = false);
    let model = Restorer::from_bytes("without", &without, &Device::Cpu).unwrap();
    assert!(model.tasks().attention.is_none());
    let refused = |change: &dyn Fn(&mut TaskRun), words: &[&str]| {
        let mut config = run(2);
        change(&mut config);
        let folder = tempfile::tempdir().unwrap();
        let error = train_in(folder.path(), &config, &foundation(), &data, &mut []).unwrap_err();
        says(error, words);
    };
    refused(
        &|c| c.terminal_fraction = f64::NAN,
        &["terminal_fraction is NaN", "0 to 1"],
    );
    refused(&|c| c.train.batch = 0, &["batch is 0"]);
    refused(&|c| c.augmentation.prompt_dropout = 2.0, &["prompt_dropout is 2"]);
}

/// A foundation of a configuration with the parameters it begins with.
fn write_foundation(path: &Path, model: ModelConfig) {
    let params = Params::new(1, &Device::Cpu);
    Autoencoder::new(&params.sub("autoencoder"), &model.autoencoder).unwrap();
    Denoiser::new(&params.sub("denoiser"), &model).unwrap();
    let tensors = params
        .named()
        .into_iter()
        .map(|(name, var)| (name, var.as_detached_tensor()));
    let statistics = foundation().statistics().clone();
    let description = Description::new("foundation", model, Some(statistics));
    save(path, &tensors.collect(), &description).unwrap();
}

#[test]
fn a_foundation_of_another_architecture_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let mut model = ModelConfig::preset("tiny").unwrap();
    model.denoiser.images = 2;
    write_foundation(&path, model);
    let other = Foundation::load(&path, &Device::Cpu).unwrap();
    let into = |name: &str, foundation: &Foundation, data: &[Dataset]| {
        train_in(&folder.path().join(name), &run(1), foundation, data, &mut [])
    };
    says(
        into("a", &other, &data()).unwrap_err(),
        &["foundation to start from", "unet", "none"],
    );
    // The control: of the right architecture it starts.
    write_foundation(&path, ModelConfig::preset("tiny").unwrap());
    let fitting = Foundation::load(&path, &Device::Cpu).unwrap();
    assert_eq!(into("b", &fitting, &data()).unwrap(), Ended::Finished);
    // A run is not resumed on other weights of the same architecture.
    says(into("b", &foundation(), &data()).unwrap_err(), &["foundation"]);
    // Data of another geometry than the foundation's.
    let mut wide = data();
    wide[0].geometry.as_mut().unwrap().bin_mm = 8.0;
    says(
        into("c", &fitting, &wide).unwrap_err(),
        &["geometry", "bin_mm: 16.0", "bin_mm: 8.0"],
    );
}
