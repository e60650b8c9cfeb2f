//! The executor: it owns the loop.

use crate::checkpoint::{self, Checkpoint};
use crate::{Error, Identity, Learner, Objective, Observer, Plateau, Result, Source, StepInfo, TrainConfig};
use allpet_nn::Params;
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// A run: what is trained, how, and where its checkpoints lie.
#[derive(Debug, Clone)]
pub struct Trainer<'a> {
    /// The parameters, changed in place. The model of the objective must be made from them before the run.
    pub params: &'a Params,
    /// The settings.
    pub config: &'a TrainConfig,
    /// The run folder; made if absent.
    pub folder: &'a Path,
    /// Continue from the folder's checkpoint if there is one. Without it, a folder with a checkpoint is refused.
    pub resume: bool,
    /// What the run is of: architecture, further configuration, data. A checkpoint of another identity is refused.
    pub identity: Identity,
    /// Set from elsewhere (a signal handler) to stop after the current step, with a checkpoint.
    pub stop: &'a AtomicBool,
}

/// How a run ended. The parameters hold the last step's values, the moving average is handed out.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Outcome {
    /// All steps are done, or as many as early stopping wants.
    Finished {
        /// Steps done.
        steps: u64,
        /// The moving average of the parameters, by name.
        ema: BTreeMap<String, Tensor>,
    },
    /// Stopped by the flag or by an observer; a checkpoint was written and the run can be resumed.
    Interrupted {
        /// Steps done.
        step: u64,
        /// The moving average of the parameters, by name.
        ema: BTreeMap<String, Tensor>,
    },
}

impl Trainer<'_> {
    /// Trains until the last step, an early stop, a stop from outside, or an error; a checkpoint is written at the start, at the intervals of
    /// the configuration, and at the end.
    ///
    /// The result is the same for any number of threads, any checkpoint interval and any number of interruptions.
    ///
    /// # Errors
    /// [`Error::Invalid`] for the settings; [`Error::Exists`], [`Error::OtherRun`], [`Error::Damaged`] for the
    /// folder's checkpoint; [`Error::NotFinite`], [`Error::NoGradient`] for a step, before anything is changed by it;
    /// [`Error::Source`], [`Error::Objective`], [`Error::Observer`] for what the others said; [`Error::Core`] when a
    /// checkpoint cannot be written. In every case the last good checkpoint stays.
    pub fn run<B: Send>(
        &self,
        objective: &dyn Objective<Batch = B>,
        source: &dyn Source<Batch = B>,
        observers: &mut [&mut dyn Observer],
    ) -> Result<Outcome> {
        self.config.validate()?;
        let mut run = Run::start(self)?;
        let (start, steps) = (run.step, self.config.steps as u64);
        let accumulate = self.config.accumulate as u64;
        for observer in &mut *observers {
            observer
                .on_start(start, steps)
                .map_err(|source| Error::Observer { step: start, source })?;
        }
        if run.is_new {
            run.save(observers)?;
        }
        if start >= steps || run.is_over() {
            return Ok(run.finished());
        }
        // One batch waits while the next is drawn; the channel keeps the order.
        let (sender, receiver) = sync_channel(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in start * accumulate..steps * accumulate {
                    let (batch, step) = (source.batch(number), number / accumulate);
                    let failed = batch.is_err();
                    if sender
                        .send(batch.map_err(|source| Error::Source { step, source }))
                        .is_err()
                        || failed
                    {
                        break;
                    }
                }
            });
            // The receiver is dropped before the scope waits for the drawing thread, which then stops.
            run.through(objective, receiver, observers)
        })
    }
}

/// A run under way.
struct Run<'a> {
    trainer: &'a Trainer<'a>,
    identity: Identity,
    learner: Learner,
    step: u64,
    plateau: Plateau,
    is_new: bool,
    path: PathBuf,
}

impl<'a> Run<'a> {
    fn start(trainer: &'a Trainer<'a>) -> Result<Self> {
        let folder = trainer.folder;
        std::fs::create_dir_all(folder).map_err(|source| allpet_core::Error::Io {
            action: "make",
            path: folder.to_owned(),
            source,
        })?;
        for name in [checkpoint::FILE, checkpoint::PREVIOUS] {
            checkpoint::remove_leftovers(&folder.join(name));
        }
        let mut identity = trainer.identity.clone();
        identity.config = serde_json::json!({ "model": identity.config, "train": trainer.config.decisive() });
        let mut learner = Learner::new(trainer.config, trainer.params)?;
        let found = checkpoint::find(folder);
        let (mut step, mut plateau) = (0, Plateau::default());
        if let Some(path) = &found {
            if !trainer.resume {
                return Err(Error::Exists { path: path.clone() });
            }
            let checkpoint = checkpoint::load(path, trainer.params.device())?;
            checkpoint.identity.check(&identity, path)?;
            learner
                .adamw_mut()
                .restore(&checkpoint.m, &checkpoint.v, &checkpoint.ema)?;
            trainer.params.load(&checkpoint.model)?;
            (step, plateau) = (checkpoint.step, checkpoint.plateau.unwrap_or_default());
        }
        Ok(Self {
            trainer,
            identity,
            learner,
            step,
            plateau,
            is_new: found.is_none(),
            path: folder.join(checkpoint::FILE),
        })
    }

    fn through<B>(
        &mut self,
        objective: &dyn Objective<Batch = B>,
        batches: Receiver<Result<B>>,
        observers: &mut [&mut dyn Observer],
    ) -> Result<Outcome> {
        let config = self.trainer.config;
        let steps = config.steps as u64;
        let began = Instant::now();
        let (mut last_step, mut last_save) = (began, began);
        let every_minutes =
            Duration::try_from_secs_f64(config.checkpoint_every_minutes * 60.0).unwrap_or(Duration::MAX);
        // The channel closes early only when the drawing thread panicked; the scope passes that panic on.
        while let Ok(batch) = batches.recv() {
            if self.trainer.stop.load(Ordering::Relaxed) {
                return self.interrupted(observers);
            }
            let step = self.step;
            let taken = self.learner.step(
                config,
                objective,
                std::iter::once(batch).chain(batches.iter()),
                step,
            )?;
            self.step += 1;
            let stops_early = config
                .early_stop
                .as_ref()
                .is_some_and(|rule| self.plateau.see(rule, self.step, taken.loss));
            let last = stops_early || self.step == steps;

            let now = Instant::now();
            let lasted = now
                .duration_since(std::mem::replace(&mut last_step, now))
                .as_secs_f64();
            let info = StepInfo {
                step,
                steps,
                loss: taken.loss,
                parts: &taken.parts,
                rate: taken.rate,
                grad_norm: taken.grad_norm,
                seconds: now.duration_since(began).as_secs_f64(),
                samples_per_second: (config.batch * config.accumulate) as f64 / lasted.max(1e-9),
                log: step.is_multiple_of(config.log_every as u64) || last,
            };
            // Every observer sees every step, also the one at which another stops.
            let stops = observers
                .iter_mut()
                .map(|o| o.on_step(&info).is_break())
                .fold(false, |a, b| a | b);
            if last {
                self.save(observers)?;
                return Ok(self.finished());
            }
            if stops {
                return self.interrupted(observers);
            }
            let by_step = config.checkpoint_every_steps as u64;
            let due = by_step > 0 && self.step.is_multiple_of(by_step);
            if due || (!every_minutes.is_zero() && last_save.elapsed() >= every_minutes) {
                self.save(observers)?;
                last_save = Instant::now();
            }
        }
        self.interrupted(observers)
    }

    /// Whether early stopping has ended the run.
    fn is_over(&self) -> bool {
        let rule = self.trainer.config.early_stop.as_ref();
        rule.is_some_and(|rule| self.plateau.is_over(rule, self.step))
    }

    fn finished(&self) -> Outcome {
        Outcome::Finished {
            steps: self.step,
            ema: self.learner.adamw().ema(),
        }
    }

    fn interrupted(&self, observers: &mut [&mut dyn Observer]) -> Result<Outcome> {
        self.save(observers)?;
        Ok(Outcome::Interrupted {
            step: self.step,
            ema: self.learner.adamw().ema(),
        })
    }

    fn save(&self, observers: &mut [&mut dyn Observer]) -> Result<()> {
        let state = Checkpoint {
            step: self.step,
            plateau: (self.trainer.config.early_stop.is_some()).then(|| self.plateau.clone()),
            identity: self.identity.clone(),
            model: self
                .learner
                .adamw()
                .params()
                .map(|(name, var)| (name.to_owned(), var.as_detached_tensor()))
                .collect(),
            m: self.learner.adamw().first_moments(),
            v: self.learner.adamw().second_moments(),
            ema: self.learner.adamw().ema(),
        };
        checkpoint::save(self.trainer.folder, &state)?;
        for observer in observers {
            let told = observer.on_checkpoint(self.step, &self.path);
            told.map_err(|source| Error::Observer {
                step: self.step,
                source,
            })?;
        }
        Ok(())
    }
}
