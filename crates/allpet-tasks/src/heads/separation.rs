//! Dual-tracer separation: two tracers in the body at once to each of them alone.

use super::{CountRule, Head, Metadata, same_tracer};
use crate::error::{Error, Result};
use allpet_core::{Task, Tracer};
use serde::{Deserialize, Serialize};

/// The outputs add up to the input: their totals are scaled by one factor, so that the sum of both is the input's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Separation {
    /// The tracers, in the order of the outputs.
    pub tracers: [Tracer; 2],
}

impl Default for Separation {
    fn default() -> Self {
        Self {
            tracers: [Tracer::Fdg, Tracer::Psma],
        }
    }
}

impl Separation {
    /// Whether both are of the same two tracers, in any order.
    pub(crate) fn same_tracers(&self, other: &Self) -> bool {
        self.tracers.iter().all(|tracer| other.tracers.contains(tracer))
    }
}

impl Head for Separation {
    fn task(&self) -> Task {
        Task::Separation
    }

    fn faults(&self) -> Vec<String> {
        same_tracer(self.tracers[0], self.tracers[1])
    }

    fn outputs(&self) -> Vec<Option<Tracer>> {
        self.tracers.map(Some).to_vec()
    }

    fn counts(&self) -> CountRule {
        CountRule::Total(1.0)
    }

    fn from_metadata(metadata: &Metadata<'_>) -> Result<Self> {
        let words = metadata.word("tracers")?;
        let tracers = words
            .split(',')
            .map(|w| Ok(w.parse()?))
            .collect::<Result<Vec<Tracer>>>()?;
        let tracers = tracers.try_into().map_err(|_| Error::Mismatch {
            what: "`tracers` of the dataset".into(),
            expected: "two tracers".into(),
            got: format!("`{words}`"),
        })?;
        Ok(Self { tracers })
    }
}
