//! Low dose: a sinogram of few counts to the one of the whole dose.

use super::{CountRule, Head, Metadata, denoised};
use crate::error::Result;
use allpet_core::{ParallelGeometry, Task};
use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};

/// The input's total is `dose` times the whole one's; the output's total is the input's over `dose`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LowDose {
    /// Fraction of the dose, more than 0 and at most 1.
    pub dose: f64,
}

impl Default for LowDose {
    fn default() -> Self {
        Self { dose: 0.25 }
    }
}

impl Head for LowDose {
    fn task(&self) -> Task {
        Task::LowDose
    }

    fn faults(&self) -> Vec<String> {
        if self.dose > 0.0 && self.dose <= 1.0 {
            return Vec::new();
        }
        vec![format!(
            "dose of {}; expected a fraction of more than 0 and at most 1",
            self.dose
        )]
    }

    fn gain(&self) -> f64 {
        1.0 / self.dose
    }

    fn first_estimate(
        &self,
        inputs: ArrayView3<'_, f32>,
        geometry: &ParallelGeometry,
    ) -> Result<Array3<f32>> {
        denoised(inputs, geometry, self.dose)
    }

    fn counts(&self) -> CountRule {
        CountRule::Total(1.0 / self.dose)
    }

    fn from_metadata(metadata: &Metadata<'_>) -> Result<Self> {
        let [dose] = metadata.numbers("dose")?;
        Ok(Self { dose })
    }
}
