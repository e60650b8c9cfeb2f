//! Options that are settings of one task, shared by what simulates pairs and what restores.

use crate::fault::{Result, given};
use allpet::core::{Task, Tracer};
use allpet::tasks::{Conversion, Delayed, Downstream, LowDose, Separation};
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

    /// Every option, whether it was given, and the tasks it belongs to.
    fn given(&self) -> [(&'static str, bool, &'static [Task]); 4] {
        const OF_TWO: &[Task] = &[Task::Conversion, Task::Separation];
        [
            ("--dose", self.dose.is_some(), &[Task::LowDose]),
            ("--minutes", !self.minutes.is_empty(), &[Task::Delayed]),
            ("--from", self.from.is_some(), OF_TWO),
            ("--to", self.to.is_some(), OF_TWO),
        ]
    }

    /// An option that was given and belongs to other tasks than this one, with those tasks.
    pub(crate) fn misplaced(&self, task: Task) -> Option<(&'static str, &'static [Task])> {
        self.given()
            .into_iter()
            .find(|(_, present, tasks)| *present && !tasks.contains(&task))
            .map(|(option, _, tasks)| (option, tasks))
    }

    /// The task with these settings; options of one task are no options of another.
    pub(crate) fn downstream(&self, task: Task) -> Result<Downstream> {
        if let Some((option, tasks)) = self.misplaced(task) {
            let tasks: Vec<_> = tasks.iter().map(|t| t.id()).collect();
            return given(format!(
                "{option} with {}; expected it with {}",
                task.id(),
                tasks.join(" or ")
            ));
        }
        let task = match task {
            Task::LowDose => {
                let usual = LowDose::default();
                Downstream::LowDose(LowDose {
                    dose: self.dose.unwrap_or(usual.dose),
                })
            }
            Task::Delayed => {
                let minutes = self.minutes(Delayed::default().minutes)?;
                Downstream::Delayed(Delayed { minutes })
            }
            Task::Conversion => {
                let usual = Conversion::default();
                Downstream::Conversion(Conversion {
                    from: self.from.unwrap_or(usual.from),
                    to: self.to.unwrap_or(usual.to),
                })
            }
            Task::Separation => {
                let usual = Separation::default().tracers;
                Downstream::Separation(Separation {
                    tracers: [self.from.unwrap_or(usual[0]), self.to.unwrap_or(usual[1])],
                })
            }
            other => Downstream::new(other)?,
        };
        task.validate()?;
        Ok(task)
    }

    /// Refuses any of these options where there is no task; `option` would name one.
    pub(crate) fn none(&self, option: &str) -> Result<()> {
        match self.given().into_iter().find(|(_, present, _)| *present) {
            Some((found, ..)) => given(format!("{found} without {option}; expected both or neither")),
            None => Ok(()),
        }
    }
}
