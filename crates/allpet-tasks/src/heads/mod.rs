//! The five tasks: what goes in, what comes out, and what happens to the counts.

mod attenuation;
mod conversion;
mod delayed;
mod low_dose;
mod separation;

pub use attenuation::Attenuation;
pub use conversion::Conversion;
pub use delayed::Delayed;
pub use low_dose::LowDose;
pub use separation::Separation;

use crate::classical::OsemFiltered;
use crate::error::{Error, Result};
use allpet_core::{Dataset, Modality, ParallelGeometry, Prompt, Region, Task, Tracer};
use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a restored sinogram's counts are held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CountRule {
    /// The sum over the outputs of an input is this many times the sum of the input.
    Total(f64),
    /// Nothing is kept: the task itself changes the counts by what only it can tell.
    Free,
}

/// A task.
pub trait Head: Send + Sync {
    /// Which.
    fn task(&self) -> Task;

    /// Settings outside their range.
    fn faults(&self) -> Vec<String>;

    /// The tracer of every output; `None` is that of the input.
    fn outputs(&self) -> Vec<Option<Tracer>> {
        vec![None]
    }

    /// What an input is multiplied by to stand in the unit of the outputs.
    fn gain(&self) -> f64 {
        1.0
    }

    /// A first estimate of the outputs by classical means, sinograms `[n, view, radial]` in the outputs' unit: what the walk
    /// starts from. By default what expectation maximisation with a post-filter makes of the input: the noise goes, and what
    /// is left is the sinogram of an image.
    ///
    /// # Errors
    /// Sinograms of another geometry, with negative values, or that show nothing, the sample named.
    fn first_estimate(
        &self,
        inputs: ArrayView3<'_, f32>,
        geometry: &ParallelGeometry,
    ) -> Result<Array3<f32>> {
        denoised(inputs, geometry, 1.0)
    }

    /// What happens to the counts.
    fn counts(&self) -> CountRule;

    /// The settings as a dataset's metadata says them.
    ///
    /// # Errors
    /// A setting that is missing or no number.
    fn from_metadata(metadata: &Metadata<'_>) -> Result<Self>
    where
        Self: Sized;
}

/// A task with its settings; in a file `{ task = "low-dose", dose = 0.25 }`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum Downstream {
    /// Few counts to all of them.
    LowDose(LowDose),
    /// Attenuated to corrected, without a CT.
    Attenuation(Attenuation),
    /// Early frame to late frame.
    Delayed(Delayed),
    /// One tracer to another.
    Conversion(Conversion),
    /// Two tracers at once to each of them.
    Separation(Separation),
}

impl Downstream {
    /// A task with its default settings.
    ///
    /// # Errors
    /// [`Task::Synthesis`], which restores nothing.
    pub fn new(task: Task) -> Result<Self> {
        Ok(match task {
            Task::LowDose => Self::LowDose(LowDose::default()),
            Task::Attenuation => Self::Attenuation(Attenuation {}),
            Task::Delayed => Self::Delayed(Delayed::default()),
            Task::Conversion => Self::Conversion(Conversion::default()),
            Task::Separation => Self::Separation(Separation::default()),
            Task::Synthesis => return Err(not_a_pair(task.id())),
        })
    }

    /// The task that a dataset's metadata name, as `allpet-sim` writes them.
    ///
    /// # Errors
    /// A dataset of no paired task; settings that are missing or outside their range.
    pub fn of(dataset: &Dataset) -> Result<Self> {
        let metadata = Metadata(dataset);
        let task: Task = metadata.word("task")?.parse()?;
        let found = match task {
            Task::LowDose => Self::LowDose(LowDose::from_metadata(&metadata)?),
            Task::Attenuation => Self::Attenuation(Attenuation::from_metadata(&metadata)?),
            Task::Delayed => Self::Delayed(Delayed::from_metadata(&metadata)?),
            Task::Conversion => Self::Conversion(Conversion::from_metadata(&metadata)?),
            Task::Separation => Self::Separation(Separation::from_metadata(&metadata)?),
            Task::Synthesis => return Err(not_a_pair(task.id())),
        };
        found.validate()?;
        Ok(found)
    }

    /// The task itself.
    pub fn head(&self) -> &dyn Head {
        match self {
            Self::LowDose(head) => head,
            Self::Attenuation(head) => head,
            Self::Delayed(head) => head,
            Self::Conversion(head) => head,
            Self::Separation(head) => head,
        }
    }

    /// Which task.
    pub fn task(&self) -> Task {
        self.head().task()
    }

    /// Number of outputs of an input.
    pub fn outputs(&self) -> usize {
        self.head().outputs().len()
    }

    /// The prompts of the outputs of an input that shows `tracer` in `region`.
    pub fn prompts(&self, tracer: Option<Tracer>, region: Option<Region>) -> Vec<Prompt> {
        self.head()
            .outputs()
            .into_iter()
            .map(|output| Prompt {
                tracer: output.or(tracer),
                region,
                modality: Modality::Pet,
                task: self.task(),
            })
            .collect()
    }

    /// Reports every fault at once.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn validate(&self) -> Result<()> {
        let faults = self.head().faults();
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: self.task().label().to_owned(),
                faults,
            })
        }
    }
}

impl fmt::Display for Downstream {
    /// The task's word with the settings that a model is bound to, such as `delayed (60 to 120 min)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.task().id())?;
        match self {
            Self::LowDose(head) => write!(f, " ({})", head.dose),
            Self::Attenuation(_) => Ok(()),
            Self::Delayed(head) => write!(f, " ({} to {} min)", head.minutes[0], head.minutes[1]),
            Self::Conversion(head) => write!(f, " ({} to {})", head.from.id(), head.to.id()),
            Self::Separation(head) => write!(f, " ({} and {})", head.tracers[0].id(), head.tracers[1].id()),
        }
    }
}

fn not_a_pair(got: &str) -> Error {
    Error::Mismatch {
        what: "task".into(),
        expected: "low-dose, attenuation, delayed, conversion or separation".into(),
        got: got.into(),
    }
}

/// A dataset's metadata, read with errors that name the key.
#[derive(Debug, Clone, Copy)]
pub struct Metadata<'a>(pub &'a Dataset);

impl<'a> Metadata<'a> {
    /// The value of a key.
    ///
    /// # Errors
    /// A key that is absent.
    pub fn word(&self, key: &str) -> Result<&'a str> {
        self.0
            .metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| Error::Mismatch {
                what: "metadata of the dataset".into(),
                expected: format!("`{key}`, as `allpet simulate --task` writes it"),
                got: format!("no `{key}`"),
            })
    }

    /// The numbers of a key, separated by commas.
    ///
    /// # Errors
    /// A key that is absent, or holds something else than `N` numbers.
    pub fn numbers<const N: usize>(&self, key: &str) -> Result<[f64; N]> {
        let word = self.word(key)?;
        let numbers: Option<Vec<f64>> = word.split(',').map(|v| v.trim().parse().ok()).collect();
        numbers
            .and_then(|v| <[f64; N]>::try_from(v).ok())
            .ok_or_else(|| Error::Mismatch {
                what: format!("`{key}` of the dataset"),
                expected: format!("{N} numbers"),
                got: format!("`{word}`"),
            })
    }
}

/// Expectation maximisation with the post-filter of a dose, projected again and brought to the whole dose.
fn denoised(inputs: ArrayView3<'_, f32>, geometry: &ParallelGeometry, dose: f64) -> Result<Array3<f32>> {
    let setting = OsemFiltered {
        size: geometry.bins,
        ..OsemFiltered::for_dose(dose)?
    };
    setting.restore(inputs, geometry, dose)
}

/// The fault of a pair of tracers that is none.
fn same_tracer(first: Tracer, second: Tracer) -> Vec<String> {
    if first == second {
        vec![format!("{first} and {second}; expected two tracers")]
    } else {
        Vec::new()
    }
}
