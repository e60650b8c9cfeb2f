//! Options that are settings of one task, shared by what simulates pairs and what restores.

use crate::fault::{Result, given};
use allpet::core::{Task, Tracer};
use clap::Args;

/// Settings of the tasks; each belongs to one or two of them.
#[derive(Debug, Args)]
pub(crate) struct TaskSettings {
    /// low-dose: fraction of the dose that the input has [default: 0.25]
    #[arg(long, value_name = "FRACTION", allow_negative_numbers = true)]
    pub(crate) dose: Option<f64>,
    /// delayed: minutes after injection of the input and of the target [default: 60,120]
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "EARLY,LATE",
        allow_negative_numbers = true
    )]
    minutes: Vec<f64>,
    /// conversion: the input's tracer; separation: the first [default: fdg]
    #[arg(long, value_name = "TRACER")]
    pub(crate) from: Option<Tracer>,
    /// conversion: the target's tracer; separation: the second [default: psma]
    #[arg(long, value_name = "TRACER")]
    pub(crate) to: Option<Tracer>,
}

impl TaskSettings {
    /// The two frames of a delayed one, or the usual ones.
    pub(crate) fn minutes(&self, usual: [f64; 2]) -> Result<[f64; 2]> {
        match self.minutes[..] {
            [] => Ok(usual),
            [early, late] => Ok([early, late]),
            _ => given(format!(
                "--minutes holds {}; expected two times, such as 60,120",
                self.minutes.len()
            )),
        }
    }

    /// An option that was given and belongs to other tasks than this one, with those tasks.
    pub(crate) fn misplaced(&self, task: Task) -> Option<(&'static str, &'static [Task])> {
        const OF_TWO: &[Task] = &[Task::Conversion, Task::Separation];
        let options: [(&str, bool, &[Task]); 4] = [
            ("--dose", self.dose.is_some(), &[Task::LowDose]),
            ("--minutes", !self.minutes.is_empty(), &[Task::Delayed]),
            ("--from", self.from.is_some(), OF_TWO),
            ("--to", self.to.is_some(), OF_TWO),
        ];
        options
            .into_iter()
            .find(|(_, present, tasks)| *present && !tasks.contains(&task))
            .map(|(option, _, tasks)| (option, tasks))
    }
}
