//! How far a measured mean is from the truth.

use super::ratio;
use crate::error::Result;

/// Relative bias, `(measured - truth) / truth`: 0 is right, -0.1 is 10 % too little.
///
/// # Errors
/// A value that is not finite, a truth of zero.
pub fn bias(measured: f64, truth: f64) -> Result<f64> {
    ratio("bias", measured - truth, truth, "the truth is zero")
}

/// Recovery coefficient, `measured / truth`: 1 is full recovery.
///
/// # Errors
/// A value that is not finite, a truth of zero.
pub fn recovery_coefficient(measured: f64, truth: f64) -> Result<f64> {
    ratio("recovery coefficient", measured, truth, "the truth is zero")
}
