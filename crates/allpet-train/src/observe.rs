//! Watching a run: progress and logs.

use crate::checkpoint::remove_leftovers;
use crate::{BoxError, Error};
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A step that has just been done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct StepInfo<'a> {
    /// The step, counted from 0.
    pub step: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The loss before the update.
    pub loss: f64,
    /// The named parts of the loss.
    pub parts: &'a [(&'static str, f64)],
    /// The learning rate used.
    pub rate: f64,
    /// The global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Seconds since this process started or resumed the run.
    pub seconds: f64,
    /// Samples per second over this step.
    pub samples_per_second: f64,
    /// Whether the log is due: every `log_every` steps, and at the last one done.
    pub log: bool,
}

/// Someone who watches a run. Observers see; they cannot change what is learnt.
pub trait Observer {
    /// The run starts or resumes; `start` steps are already done.
    ///
    /// # Errors
    /// Whatever went wrong; the run does not start.
    fn on_start(&mut self, start: u64, steps: u64) -> Result<(), BoxError> {
        let _ = (start, steps);
        Ok(())
    }

    /// A step is done. `Break` stops the run after a checkpoint.
    fn on_step(&mut self, step: &StepInfo<'_>) -> ControlFlow<()>;

    /// A checkpoint of `step` steps lies at `path`.
    ///
    /// # Errors
    /// Whatever went wrong; the run stops.
    fn on_checkpoint(&mut self, step: u64, path: &Path) -> Result<(), BoxError> {
        let _ = (step, path);
        Ok(())
    }
}

/// Appends one JSON object per logged step to a file (`metrics.jsonl`).
///
/// `{"step", "loss", "rate", "grad_norm", "seconds", "samples_per_second", "parts": {…}}`; a value that is no number
/// becomes `null`. When a run resumes, lines of steps that will be done again are dropped first.
#[derive(Debug)]
pub struct JsonLines {
    path: PathBuf,
    file: Option<File>,
    failure: Option<std::io::Error>,
}

impl JsonLines {
    /// A log at `path`; the file is opened when the run starts.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            file: None,
            failure: None,
        }
    }

    fn fail(&self, source: std::io::Error) -> BoxError {
        Error::from(allpet_core::Error::Io {
            action: "write",
            path: self.path.clone(),
            source,
        })
        .into()
    }

    /// Keeps the whole lines of steps before `start`.
    fn truncate(&self, start: u64) -> Result<(), BoxError> {
        // A device or a pipe keeps nothing, and may have no end to read to.
        if !std::fs::metadata(&self.path).is_ok_and(|found| found.is_file()) {
            return Ok(());
        }
        let text = std::fs::read_to_string(&self.path).map_err(|e| self.fail(e))?;
        let kept: String = text
            .split_inclusive('\n')
            .filter(|line| is_before(line, start))
            .collect();
        if kept.len() != text.len() {
            allpet_core::write_bytes_atomically(&self.path, kept.as_bytes())?;
        }
        Ok(())
    }
}

fn is_before(line: &str, start: u64) -> bool {
    // A process killed while writing leaves a part of a line, without its end.
    let object: Option<Value> = line
        .strip_suffix('\n')
        .and_then(|line| serde_json::from_str(line).ok());
    object
        .and_then(|o| o.get("step").and_then(Value::as_u64))
        .is_some_and(|step| step < start)
}

impl Observer for JsonLines {
    fn on_start(&mut self, start: u64, _steps: u64) -> Result<(), BoxError> {
        remove_leftovers(&self.path);
        self.truncate(start)?;
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        self.file = Some(opened.map_err(|e| self.fail(e))?);
        Ok(())
    }

    fn on_step(&mut self, step: &StepInfo<'_>) -> ControlFlow<()> {
        let Some(file) = self.file.as_mut().filter(|_| step.log) else {
            return ControlFlow::Continue(());
        };
        let parts: Map<String, Value> = step
            .parts
            .iter()
            .map(|(name, v)| ((*name).to_owned(), json!(v)))
            .collect();
        let line = json!({
            "step": step.step,
            "loss": step.loss,
            "rate": step.rate,
            "grad_norm": step.grad_norm,
            "seconds": step.seconds,
            "samples_per_second": step.samples_per_second,
            "parts": parts,
        });
        match file.write_all(format!("{line}\n").as_bytes()) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => {
                // Reported with the checkpoint that stopping writes.
                self.failure = Some(e);
                ControlFlow::Break(())
            }
        }
    }

    fn on_checkpoint(&mut self, _step: u64, _path: &Path) -> Result<(), BoxError> {
        self.failure.take().map_or(Ok(()), |e| Err(self.fail(e)))
    }
}
