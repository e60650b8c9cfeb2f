//! Drawn pairs as a dataset, to be looked at or trained on beside simulated ones ("+SD").

use super::sampling::SynthesisedPairs;
use crate::heads::Downstream;
use crate::pairs::Goal;
use allpet_core::Dataset;
use std::collections::BTreeMap;

/// Drawn pairs are numbered as subjects from here on: they are nobody's, and share a number with no simulated one.
pub const FIRST_SYNTHETIC_SUBJECT: u32 = 1 << 31;

impl SynthesisedPairs {
    /// The pairs as [`crate::train_tasks`] takes them: `input`, `target`, a prompt each, the task with its settings, and
    /// that they are synthetic. Every pair is a subject of its own, the same for the same index.
    ///
    /// A separation has two outputs for an input, and a drawn pair has one: its dataset holds `target [n, view, radial]` of
    /// one output each, which can be looked at and measured but is refused for training.
    pub fn dataset(&self) -> Dataset {
        let request = &self.request;
        let n = self.inputs.len_of(ndarray::Axis(0));
        let goal = match self.goal {
            Goal::Clean => "expectation",
            Goal::Target => "as measured",
        };
        let mut metadata = BTreeMap::from(
            [
                ("task", request.task.task().id().to_owned()),
                ("modality", "pet".to_owned()),
                (
                    "description",
                    format!(
                        "{n} synthetic pairs for {}; drawn by a model, no patient data",
                        request.task.task()
                    ),
                ),
                ("synthetic", "true".to_owned()),
                ("target_is", goal.to_owned()),
                ("input_unit", "kBq/mL*mm".to_owned()),
                ("target_unit", "kBq/mL*mm".to_owned()),
                ("seed", request.seed.to_string()),
                ("first", request.first.to_string()),
                ("sampler", request.sampler.clone()),
                ("steps", request.steps.to_string()),
                ("eta", request.eta.to_string()),
            ]
            .map(|(key, word)| (key.to_owned(), word)),
        );
        metadata.extend(
            settings(&request.task)
                .into_iter()
                .map(|(key, word)| (key.to_owned(), word)),
        );
        let subject = |i: u64| FIRST_SYNTHETIC_SUBJECT | (i % u64::from(FIRST_SYNTHETIC_SUBJECT)) as u32;
        Dataset {
            arrays: BTreeMap::from([
                ("input".to_owned(), self.inputs.clone().into_dyn()),
                ("target".to_owned(), self.targets.clone().into_dyn()),
            ]),
            subjects: (request.first..request.first + n as u64).map(subject).collect(),
            prompts: self.prompts.clone(),
            geometry: Some(self.geometry),
            metadata,
        }
    }
}

/// The settings of a task in the words of a dataset's metadata: what [`Downstream::of`] reads.
fn settings(task: &Downstream) -> Vec<(&'static str, String)> {
    match task {
        Downstream::LowDose(head) => vec![("dose", head.dose.to_string())],
        Downstream::Attenuation(_) => Vec::new(),
        Downstream::Delayed(head) => {
            vec![("minutes", format!("{},{}", head.minutes[0], head.minutes[1]))]
        }
        Downstream::Conversion(head) => vec![
            ("from", head.from.id().to_owned()),
            ("to", head.to.id().to_owned()),
        ],
        Downstream::Separation(head) => vec![("tracers", head.tracers.map(|t| t.id()).join(","))],
    }
}
