//! Early stopping: the step it ends a run at, by hand and in a run that is interrupted.

use crate::toy::{StopAfter, config, newest, train};
use allpet_train::{
    EarlyStop, JsonLines, Observer, Outcome, Plateau, Result, StepInfo, TrainConfig, checkpoint,
};
use candle_core::Device;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

/// The step (from 1) after which losses end a run, if they do.
fn ends(rule: EarlyStop, losses: impl IntoIterator<Item = f64>) -> Option<u64> {
    let mut plateau = Plateau::default();
    let mut steps = losses.into_iter().zip(1..);
    steps
        .find(|(loss, done)| plateau.see(&rule, *done, *loss))
        .map(|(_, done)| done)
}

#[test]
fn the_step_follows_from_the_losses() {
    let rule = |patience, window, improvement| EarlyStop {
        patience,
        window,
        improvement,
    };
    // Falls by one until step 10, then stays: the mean of three reaches the floor at step 12, twenty steps later all is over.
    let falls = || (1..=100).map(|n| 20.0 - f64::from(n.min(10)));
    assert_eq!(ends(rule(20, 3, 0.0), falls()), Some(32));
    assert_eq!(ends(rule(20, 1, 0.0), falls()), Some(30));
    // The control: as much patience as there are steps left.
    assert_eq!(ends(rule(91, 1, 0.0), falls()), None);
    // An improvement must beat the best by more than the amount; many small ones add up.
    let creeps = || (0..100).map(|n| -0.3 * f64::from(n));
    assert_eq!(ends(rule(3, 1, 1.0), creeps()), Some(4));
    assert_eq!(ends(rule(4, 1, 1.0), creeps()), None);
    // Noise around a level: every second value is lower, but no mean of two is.
    let swings = || (0..100).map(|n| f64::from(n % 2));
    assert_eq!(ends(rule(10, 2, 0.0), swings()), Some(12));
    // A window that is never full never decides.
    assert_eq!(ends(rule(1, 101, 0.0), swings()), None);
}

/// A rule that ends the toy's run somewhere in its middle.
fn early(steps: usize) -> TrainConfig {
    TrainConfig {
        early_stop: Some(EarlyStop {
            patience: 25,
            window: 8,
            improvement: 0.02,
        }),
        ..config(steps)
    }
}

struct Last(Option<(u64, bool)>);

impl Observer for Last {
    fn on_step(&mut self, step: &StepInfo<'_>) -> ControlFlow<()> {
        self.0 = Some((step.step + 1, step.log));
        ControlFlow::Continue(())
    }
}

fn run(folder: &Path, config: &TrainConfig, observers: &mut [&mut dyn Observer]) -> Result<Outcome> {
    train(folder, config, true, Duration::ZERO, observers)
}

fn steps_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Finished { steps, .. } => *steps,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_ends_at_the_step_that_its_log_tells_also_when_interrupted() {
    let [whole, parts, forgetful, control] = [(); 4].map(|()| tempfile::tempdir().unwrap());
    let log = whole.path().join("metrics.jsonl");
    let mut last = Last(None);
    let config = TrainConfig {
        checkpoint_every_steps: 7,
        ..early(400)
    };
    let outcome = run(whole.path(), &config, &mut [&mut JsonLines::new(&log), &mut last]).unwrap();
    let steps = steps_of(&outcome);
    assert!((30..400).contains(&steps), "{steps}");
    assert_eq!(last.0, Some((steps, true)), "the last step is logged");
    let losses = std::fs::read_to_string(&log).unwrap();
    let losses = losses.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["loss"].as_f64().unwrap()
    });
    assert_eq!(ends(config.early_stop.unwrap(), losses), Some(steps));

    // Interrupted in the window, and again within the patience: the same step, the same bytes.
    run(parts.path(), &config, &mut [&mut StopAfter(5)]).unwrap();
    run(parts.path(), &config, &mut [&mut StopAfter(steps as usize - 15)]).unwrap();
    assert_eq!(steps_of(&run(parts.path(), &config, &mut []).unwrap()), steps);
    assert!(newest(parts.path()) == newest(whole.path()));
    // It is over: going on does nothing more.
    assert_eq!(steps_of(&run(parts.path(), &config, &mut []).unwrap()), steps);
    assert!(newest(parts.path()) == newest(whole.path()));

    // The controls: a resume that forgets what was seen goes on for longer; without the rule all steps are done.
    run(
        forgetful.path(),
        &config,
        &mut [&mut StopAfter(steps as usize - 10)],
    )
    .unwrap();
    let path = forgetful.path().join(checkpoint::FILE);
    let mut state = checkpoint::load(&path, &Device::Cpu).unwrap();
    assert!(state.plateau.replace(Plateau::default()).is_some());
    checkpoint::save(forgetful.path(), &state).unwrap();
    assert!(steps_of(&run(forgetful.path(), &config, &mut []).unwrap()) > steps);
    let all = TrainConfig {
        early_stop: None,
        steps: 60,
        ..config.clone()
    };
    assert_eq!(steps_of(&run(control.path(), &all, &mut []).unwrap()), 60);

    // A run with another rule is another run.
    let other = TrainConfig {
        early_stop: Some(EarlyStop::after(25)),
        ..config
    };
    let error = run(whole.path(), &other, &mut []).unwrap_err().to_string();
    assert!(error.contains("config.train.early_stop.improvement"), "{error}");
}
