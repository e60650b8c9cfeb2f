//! Attenuation correction without a CT: a sinogram with attenuation left in to the corrected one.

use super::{CountRule, Head, Metadata};
use crate::error::Result;
use allpet_core::Task;
use serde::{Deserialize, Serialize};

/// No counts are kept: how many were lost is what has to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Attenuation {}

impl Head for Attenuation {
    fn task(&self) -> Task {
        Task::Attenuation
    }

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }

    fn counts(&self) -> CountRule {
        CountRule::Free
    }

    fn from_metadata(_: &Metadata<'_>) -> Result<Self> {
        Ok(Self {})
    }
}
