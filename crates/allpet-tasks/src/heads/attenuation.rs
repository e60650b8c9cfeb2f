//! Attenuation correction without a CT: a sinogram with attenuation left in to the corrected one.

use super::{CountRule, Head, Metadata, denoised};
use crate::classical::UniformWater;
use crate::error::Result;
use allpet_core::{ParallelGeometry, Task};
use ndarray::{Array3, ArrayView3};
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

    /// Uniform water within the outline of the body, then as for the others.
    fn first_estimate(
        &self,
        inputs: ArrayView3<'_, f32>,
        geometry: &ParallelGeometry,
    ) -> Result<Array3<f32>> {
        let water = UniformWater {
            size: geometry.bins,
            ..UniformWater::default()
        };
        denoised(water.restore(inputs, geometry)?.view(), geometry, 1.0)
    }

    fn counts(&self) -> CountRule {
        CountRule::Free
    }

    fn from_metadata(_: &Metadata<'_>) -> Result<Self> {
        Ok(Self {})
    }
}
