//! Delayed frame: an early frame to a late one, both decay-corrected to injection.

use super::{CountRule, Head, Metadata};
use crate::error::Result;
use allpet_core::Task;
use serde::{Deserialize, Serialize};

/// No counts are kept: tissues take up and wash out at rates of their own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delayed {
    /// Minutes after injection of the input and of the output. A model predicts the times it was trained for.
    pub minutes: [f64; 2],
}

impl Default for Delayed {
    fn default() -> Self {
        Self {
            minutes: [60.0, 120.0],
        }
    }
}

impl Head for Delayed {
    fn task(&self) -> Task {
        Task::Delayed
    }

    fn faults(&self) -> Vec<String> {
        let [early, late] = self.minutes;
        if early > 0.0 && late > early && late.is_finite() {
            return Vec::new();
        }
        vec![format!(
            "frames at {early} and {late} min; expected two times after injection, the earlier first"
        )]
    }

    fn counts(&self) -> CountRule {
        CountRule::Free
    }

    fn from_metadata(metadata: &Metadata<'_>) -> Result<Self> {
        Ok(Self {
            minutes: metadata.numbers("minutes")?,
        })
    }
}
