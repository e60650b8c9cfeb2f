//! Runs: they learn, resume to the same bytes, and stop with one clear error.

use crate::toy::{Data, Network, SEED, StopAfter, config, identity, newest, train};
use allpet_nn::Params;
use allpet_train::{
    Checkpoint, Error, JsonLines, Loss, Objective, Observer, Outcome, Source, TrainConfig, Trainer,
    checkpoint,
};
use candle_core::{Device, Tensor};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const NO_PAUSE: Duration = Duration::ZERO;

fn run(
    folder: &Path,
    config: &TrainConfig,
    resume: bool,
    observers: &mut [&mut dyn Observer],
) -> allpet_train::Result<Outcome> {
    train(folder, config, resume, NO_PAUSE, observers)
}

fn state(folder: &Path) -> Checkpoint {
    checkpoint::load(&folder.join(checkpoint::FILE), &Device::Cpu).unwrap()
}

#[test]
fn the_loss_falls_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("metrics.jsonl");
    let config = TrainConfig {
        rate: 1e-2,
        ..config(400)
    };
    let outcome = run(folder.path(), &config, false, &mut [&mut JsonLines::new(&log)]).unwrap();
    let Outcome::Finished { ema, steps: 400 } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(
        ema.keys().collect::<Vec<_>>(),
        ["first.bias", "first.weight", "second.bias", "second.weight"]
    );
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(log)
        .unwrap()
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 400);
    let mean = |lines: &[serde_json::Value]| {
        lines
            .iter()
            .map(|l| l["parts"]["mse"].as_f64().unwrap())
            .sum::<f64>()
            / lines.len() as f64
    };
    let (first, last) = (mean(&lines[..20]), mean(&lines[380..]));
    assert!(last < 0.6 * first, "{first} {last}");
    assert_eq!(lines[3]["rate"].as_f64().unwrap(), config.rate_at(3));
    assert_eq!(state(folder.path()).step, 400);
}

#[test]
fn seven_steps_and_thirteen_are_twenty() {
    let [whole, parts, broken] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    run(whole.path(), &config(20), false, &mut []).unwrap();

    let stopped = run(parts.path(), &config(20), false, &mut [&mut StopAfter(7)]).unwrap();
    assert!(matches!(stopped, Outcome::Interrupted { step: 7, .. }));
    assert_ne!(newest(parts.path()), newest(whole.path()));
    // The control: a resume that forgets the moments must not end in the same bytes.
    let mut forgetful = state(parts.path());
    forgetful
        .m
        .values_mut()
        .for_each(|m| *m = m.zeros_like().unwrap());
    checkpoint::save(broken.path(), &forgetful).unwrap();

    run(parts.path(), &config(20), true, &mut []).unwrap();
    assert!(newest(parts.path()) == newest(whole.path()));
    run(broken.path(), &config(20), true, &mut []).unwrap();
    assert!(newest(broken.path()) != newest(whole.path()));

    // A finished run resumes to itself.
    let again = run(parts.path(), &config(20), true, &mut []).unwrap();
    assert!(matches!(again, Outcome::Finished { .. }));
    assert!(newest(parts.path()) == newest(whole.path()));
}

#[test]
fn checkpoint_and_log_intervals_do_not_change_the_result() {
    let [a, b] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    run(a.path(), &config(12), false, &mut []).unwrap();
    let often = TrainConfig {
        checkpoint_every_steps: 0,
        checkpoint_every_minutes: 1e-7,
        log_every: 5,
        ..config(12)
    };
    run(b.path(), &often, false, &mut []).unwrap();
    assert!(newest(a.path()) == newest(b.path()));
    let previous = checkpoint::load(&b.path().join(checkpoint::PREVIOUS), &Device::Cpu).unwrap();
    assert_eq!(previous.step, 11);
}

#[test]
fn the_stop_flag_saves_and_returns() {
    struct Raise<'a>(&'a AtomicBool);
    impl Observer for Raise<'_> {
        fn on_step(&mut self, step: &allpet_train::StepInfo<'_>) -> std::ops::ControlFlow<()> {
            self.0.store(step.step == 4, Ordering::Relaxed);
            std::ops::ControlFlow::Continue(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let params = Params::new(SEED, &Device::Cpu);
    let network = Network::new(&params, 32);
    let stop = AtomicBool::new(false);
    let config = TrainConfig {
        checkpoint_every_steps: 0,
        ..config(50)
    };
    let trainer = Trainer {
        params: &params,
        config: &config,
        folder: folder.path(),
        resume: false,
        identity: identity(),
        stop: &stop,
    };
    let outcome = trainer
        .run(
            &network,
            &Data {
                batch: 8,
                pause: NO_PAUSE,
            },
            &mut [&mut Raise(&stop)],
        )
        .unwrap();
    assert!(matches!(outcome, Outcome::Interrupted { step: 5, .. }));
    assert_eq!(state(folder.path()).step, 5);
}

#[test]
fn another_run_is_not_resumed_nor_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), &config(4), false, &mut []).unwrap();
    let before = newest(folder.path());
    let error = run(folder.path(), &config(4), false, &mut []).unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");

    let other = TrainConfig {
        rate: 5e-3,
        ..config(4)
    };
    let error = run(folder.path(), &other, true, &mut []).unwrap_err().to_string();
    assert!(
        error.ends_with("config.train.rate is 0.003 there and 0.005 in this run"),
        "{error}"
    );

    let params = Params::new(SEED, &Device::Cpu);
    let network = Network::new(&params, 32);
    let stop = AtomicBool::new(false);
    let mut trainer = Trainer {
        params: &params,
        config: &config(4),
        folder: folder.path(),
        resume: true,
        identity: identity(),
        stop: &stop,
    };
    trainer.identity.data = "measured".into();
    let data = Data {
        batch: 8,
        pause: NO_PAUSE,
    };
    let error = trainer.run(&network, &data, &mut []).unwrap_err().to_string();
    assert!(
        error.ends_with("data is \"drawn\" there and \"measured\" in this run"),
        "{error}"
    );
    trainer.identity = identity();
    trainer.identity.architecture["hidden"] = 64.into();
    let error = trainer.run(&network, &data, &mut []).unwrap_err().to_string();
    assert!(
        error.ends_with("architecture.hidden is 32 there and 64 in this run"),
        "{error}"
    );
    assert!(newest(folder.path()) == before);
}

#[test]
fn a_damaged_checkpoint_is_one_clear_error_and_the_one_before_it_resumes() {
    let [folder, whole] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    run(whole.path(), &config(12), false, &mut []).unwrap();
    run(folder.path(), &config(12), false, &mut [&mut StopAfter(7)]).unwrap();
    let path = folder.path().join(checkpoint::FILE);
    let bytes = newest(folder.path());
    std::fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    let error = run(folder.path(), &config(12), true, &mut [])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("checkpoint.safetensors is damaged") && error.contains("(step 6) is whole"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);

    // Nor is a checkpoint without its checksum taken.
    let key = bytes.windows(8).position(|w| w == b"checksum").unwrap();
    let mut unnamed = bytes.clone();
    unnamed[key] ^= 1;
    std::fs::write(&path, unnamed).unwrap();
    let error = run(folder.path(), &config(12), true, &mut [])
        .unwrap_err()
        .to_string();
    assert!(error.contains("it has no checksum"), "{error}");

    std::fs::remove_file(&path).unwrap();
    run(folder.path(), &config(12), true, &mut []).unwrap();
    assert!(newest(folder.path()) == newest(whole.path()));
}

#[test]
fn a_loss_that_is_no_number_stops_before_anything_changes() {
    let folder = tempfile::tempdir().unwrap();
    let params = Params::new(SEED, &Device::Cpu);
    let mut network = Network::new(&params, 32);
    network.poison = Some(5);
    let stop = AtomicBool::new(false);
    let config = TrainConfig {
        checkpoint_every_steps: 5,
        ..config(20)
    };
    let trainer = Trainer {
        params: &params,
        config: &config,
        folder: folder.path(),
        resume: false,
        identity: identity(),
        stop: &stop,
    };
    let error = trainer
        .run(
            &network,
            &Data {
                batch: 8,
                pause: NO_PAUSE,
            },
            &mut [],
        )
        .unwrap_err();
    assert!(matches!(error, Error::NotFinite { step: 5, .. }), "{error}");
    assert!(
        error.to_string().starts_with("the loss is NaN at step 5"),
        "{error}"
    );
    let last = state(folder.path());
    assert_eq!(last.step, 5);
    for (name, var) in params.named() {
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(&var), values(&last.model[&name]));
    }
}

#[test]
fn gradients_that_are_absent_or_infinite_and_failing_sources_are_named() {
    struct Constant;
    impl Objective for Constant {
        type Batch = (Tensor, Tensor);
        fn loss(&self, batch: &Self::Batch, _: u64) -> Result<Loss, allpet_train::BoxError> {
            Ok(batch.1.mean_all()?.into())
        }
    }
    /// The root of 0: its value is finite, its slope is not.
    struct Edge(Tensor);
    impl Objective for Edge {
        type Batch = (Tensor, Tensor);
        fn loss(&self, _: &Self::Batch, _: u64) -> Result<Loss, allpet_train::BoxError> {
            Ok((&self.0 - 1.0)?.sqrt()?.sum_all()?.into())
        }
    }
    struct Failing;
    impl Source for Failing {
        type Batch = (Tensor, Tensor);
        fn batch(&self, step: u64) -> Result<Self::Batch, allpet_train::BoxError> {
            if step == 3 {
                Err("no more subjects".into())
            } else {
                Data {
                    batch: 8,
                    pause: NO_PAUSE,
                }
                .batch(step)
            }
        }
    }
    type Boxed = Box<dyn Objective<Batch = (Tensor, Tensor)>>;
    let stop = AtomicBool::new(false);
    let attempt = |objective: &dyn Fn(&Params) -> Boxed, fails: bool| {
        let folder = tempfile::tempdir().unwrap();
        let params = Params::new(SEED, &Device::Cpu);
        let objective = objective(&params);
        let config = &config(9);
        let trainer = Trainer {
            params: &params,
            config,
            folder: folder.path(),
            resume: false,
            identity: identity(),
            stop: &stop,
        };
        let data = Data {
            batch: 8,
            pause: NO_PAUSE,
        };
        let source: &dyn Source<Batch = (Tensor, Tensor)> = if fails { &Failing } else { &data };
        trainer
            .run(objective.as_ref(), source, &mut [])
            .unwrap_err()
            .to_string()
    };
    let error = attempt(
        &|p| {
            Network::new(p, 32);
            Box::new(Constant)
        },
        false,
    );
    assert_eq!(
        error,
        "none of the 4 parameters has a gradient at step 0; the loss does not depend on them"
    );
    let error = attempt(
        &|p| Box::new(Edge(p.get((2, 2), "w", allpet_nn::Init::Ones).unwrap())),
        false,
    );
    assert!(
        error.starts_with("the gradient norm is") && error.contains("at step 0"),
        "{error}"
    );
    let error = attempt(&|p| Box::new(Network::new(p, 32)), true);
    assert_eq!(error, "the batch of step 3: no more subjects");
}

#[test]
fn the_log_forgets_steps_that_are_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("metrics.jsonl");
    run(
        folder.path(),
        &config(10),
        false,
        &mut [&mut JsonLines::new(&log), &mut StopAfter(4)],
    )
    .unwrap();
    // A process that was killed after its checkpoint had logged more, the last line in part.
    let mut text = std::fs::read_to_string(&log).unwrap();
    text += "{\"step\":4,\"loss\":77.0}\n{\"step\":5,\"lo";
    std::fs::write(&log, text).unwrap();
    run(folder.path(), &config(10), true, &mut [&mut JsonLines::new(&log)]).unwrap();
    let text = std::fs::read_to_string(&log).unwrap();
    let steps: Vec<u64> = text
        .lines()
        .map(|l| {
            serde_json::from_str::<serde_json::Value>(l).unwrap()["step"]
                .as_u64()
                .unwrap()
        })
        .collect();
    assert_eq!(steps, (0..10).collect::<Vec<_>>());
    assert!(!text.contains("\"loss\":77.0"));
}

#[cfg(unix)]
#[test]
fn a_log_on_a_full_disk_stops_the_run_after_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("metrics.jsonl");
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    let error = run(
        folder.path(),
        &config(10),
        false,
        &mut [&mut JsonLines::new(&log)],
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("metrics.jsonl: No space left on device"),
        "{error}"
    );
    assert_eq!(state(folder.path()).step, 1);
}
