//! How counts become network values: each sinogram divided by its own scale, raised to a power, centred.
//!
//! A square root evens out Poisson noise (its variance no longer grows with the mean) and keeps a hot bladder from
//! hiding everything else. It acts on the channels of `C_all` after the masks have multiplied S, because eqs. 7-9
//! hold between linear channels.

use crate::error::{Error, Result, all_faults};
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of the intensity coding: `x = 2·(S/scale)^exponent - 1`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intensity {
    /// 0.5 for a square root, 1 for none.
    pub exponent: f64,
    /// The quantile of a sinogram's values that becomes its scale.
    pub quantile: f64,
}

impl Default for Intensity {
    fn default() -> Self {
        Self {
            exponent: 0.5,
            quantile: 0.995,
        }
    }
}

impl Intensity {
    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if !(self.exponent > 0.0 && self.exponent <= 1.0) {
            faults.push(format!(
                "exponent {}; expected more than 0 and at most 1",
                self.exponent
            ));
        }
        if !(self.quantile > 0.0 && self.quantile <= 1.0) {
            faults.push(format!(
                "quantile {}; expected more than 0 and at most 1",
                self.quantile
            ));
        }
        all_faults("intensity coding", faults)
    }

    /// The scale of a sinogram: its quantile.
    ///
    /// # Errors
    /// A sinogram without positive values at that quantile: it shows nothing and cannot be scaled.
    pub fn scale(&self, sinogram: &[f32]) -> Result<f32> {
        let mut sorted = sinogram.to_vec();
        let at = ((sorted.len() as f64 * self.quantile).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
        if sorted.is_empty() {
            return Err(Error::Invalid {
                what: "sinogram",
                faults: vec!["it has no values".into()],
            });
        }
        let (_, value, _) = sorted.select_nth_unstable_by(at, f32::total_cmp);
        if *value > 0.0 && value.is_finite() {
            return Ok(*value);
        }
        Err(Error::Invalid {
            what: "sinogram",
            faults: vec![format!(
                "its {} quantile is {value}; expected a positive value",
                self.quantile
            )],
        })
    }

    /// One value coded.
    pub fn encode(&self, value: f32, scale: f32) -> f32 {
        let ratio = (value / scale).max(0.0);
        let coded = if self.exponent == 0.5 {
            ratio.sqrt()
        } else {
            ratio.powf(self.exponent as f32)
        };
        2.0 * coded - 1.0
    }

    /// One value decoded; below the code of zero is zero.
    pub fn decode(&self, coded: f32, scale: f32) -> f32 {
        let ratio = ((coded + 1.0) * 0.5).max(0.0);
        scale
            * if self.exponent == 0.5 {
                ratio * ratio
            } else {
                ratio.powf(1.0 / self.exponent as f32)
            }
    }

    /// A coded tensor back to linear values in units of the scale, differentiably.
    pub fn decode_tensor(&self, coded: &Tensor) -> Result<Tensor> {
        let ratio = coded.affine(0.5, 0.5)?.relu()?;
        Ok(if self.exponent == 0.5 {
            ratio.sqr()?
        } else {
            ratio.powf(1.0 / self.exponent)?
        })
    }
}
