//! The loss in the unit interval that eqs. 4 and 8 need: `min(ℓ/C, 1)`.

use crate::error::{Error, Result};

/// Scales a natural loss (a mean squared error, say) by `C` and clips it to at most 1.
///
/// `C` is fixed before the sample is seen; a `C` read off the sample voids the bound.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BoundedLoss {
    scale: f64,
}

impl BoundedLoss {
    /// The loss that reaches 1 at `scale`, in the natural loss's unit.
    ///
    /// # Errors
    /// A scale that is not positive and finite.
    pub fn new(scale: f64) -> Result<Self> {
        if scale > 0.0 && scale.is_finite() {
            return Ok(Self { scale });
        }
        Err(Error::Setting {
            what: "loss scale C",
            expected: "positive and finite",
            got: scale,
        })
    }

    /// The scale C.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// The bounded loss in `[0, 1]` of a natural loss at least 0.
    ///
    /// # Errors
    /// A loss that is negative or not finite.
    pub fn apply(&self, natural: f64) -> Result<f64> {
        if natural >= 0.0 && natural.is_finite() {
            return Ok((natural / self.scale).min(1.0));
        }
        Err(Error::Setting {
            what: "natural loss",
            expected: "at least 0 and finite",
            got: natural,
        })
    }
}
