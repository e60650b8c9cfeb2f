//! Tracer conversion: what one tracer shows to what another would.

use super::{CountRule, Head, Metadata, same_tracer};
use crate::error::Result;
use allpet_core::{Task, Tracer};
use serde::{Deserialize, Serialize};

/// No counts are kept: two tracers, two injections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conversion {
    /// The input's tracer.
    pub from: Tracer,
    /// The output's tracer.
    pub to: Tracer,
}

impl Default for Conversion {
    fn default() -> Self {
        Self {
            from: Tracer::Fdg,
            to: Tracer::Psma,
        }
    }
}

impl Head for Conversion {
    fn task(&self) -> Task {
        Task::Conversion
    }

    fn faults(&self) -> Vec<String> {
        same_tracer(self.from, self.to)
    }

    fn outputs(&self) -> Vec<Option<Tracer>> {
        vec![Some(self.to)]
    }

    fn counts(&self) -> CountRule {
        CountRule::Free
    }

    fn from_metadata(metadata: &Metadata<'_>) -> Result<Self> {
        Ok(Self {
            from: metadata.word("from")?.parse()?,
            to: metadata.word("to")?.parse()?,
        })
    }
}
