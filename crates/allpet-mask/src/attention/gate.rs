//! Step 3 of TMA, eq. 12: attention weights features, element by element.

use crate::error::{Error, Result, all_faults, shape_error};
use ndarray::{ArrayD, ArrayView2, ArrayViewD, ArrayViewMutD, Axis, Zip};
use serde::{Deserialize, Serialize};

/// Greatest λ of the residual gate.
const MAX_STRENGTH: f64 = 1e3;

/// How attention `M` (0 to 1) weights features `F`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Gate {
    /// Eq. 12 as printed, `O = M·F`: what lies off the region is erased.
    Printed,
    /// `O = F·(1 + λM)`: the identity, bit for bit, wherever there is no attention. Not in the paper.
    Residual {
        /// λ, 0 to 1000; 1 doubles features where attention is full.
        strength: f64,
    },
}

impl Default for Gate {
    /// The residual gate with λ = 1.
    fn default() -> Self {
        Self::Residual { strength: 1.0 }
    }
}

impl Gate {
    /// Refuses a λ outside 0 to 1000.
    pub fn validate(&self) -> Result<()> {
        let faults = match *self {
            Self::Residual { strength } if !(0.0..=MAX_STRENGTH).contains(&strength) => {
                vec![format!("strength of {strength}; expected 0 to {MAX_STRENGTH}")]
            }
            _ => Vec::new(),
        };
        all_faults("gate", faults)
    }

    /// The factor of a feature under attention `m`.
    pub fn weight(&self, m: f32) -> f32 {
        match *self {
            Self::Printed => m,
            Self::Residual { strength } => m * strength as f32 + 1.0,
        }
    }

    /// Weights features `[.., view, radial]` by attention `[view, radial]`.
    ///
    /// # Errors
    /// Features of other views and bins than the attention; attention not within 0 to 1; a strength outside its range;
    /// [`Error::EmptyAttention`] for the printed gate on attention that is 0 everywhere.
    pub fn apply(
        &self,
        features: ArrayViewD<'_, f32>,
        attention: ArrayView2<'_, f32>,
    ) -> Result<ArrayD<f32>> {
        let mut out = features.to_owned();
        self.apply_in_place(out.view_mut(), attention)?;
        Ok(out)
    }

    /// [`Gate::apply`] on the features themselves; on an error they are as they were.
    pub fn apply_in_place(
        &self,
        mut features: ArrayViewMutD<'_, f32>,
        attention: ArrayView2<'_, f32>,
    ) -> Result<()> {
        self.check(attention, 0)?;
        if !features.shape().ends_with(attention.shape()) {
            let [views, bins] = [attention.nrows(), attention.ncols()];
            return Err(allpet_core::Error::Shape {
                what: "feature map".to_owned(),
                expected: format!("[.., {views}, {bins}] as the attention"),
                got: features.shape().to_vec(),
            }
            .into());
        }
        // The innermost two axes are views and bins; each lane of bins meets its own row of attention.
        let axis = features.ndim() - 2;
        for (mut rows, weights) in features.axis_iter_mut(Axis(axis)).zip(attention.rows()) {
            for mut row in rows.rows_mut() {
                Zip::from(&mut row)
                    .and(weights)
                    .for_each(|f, &m| *f *= self.weight(m));
            }
        }
        Ok(())
    }

    /// Refuses bad settings, attention outside 0 to 1, and erasing everything; `sample` names it in the error.
    pub(crate) fn check(&self, attention: ArrayView2<'_, f32>, sample: usize) -> Result<()> {
        self.validate()?;
        if attention.is_empty() {
            return Err(shape_error("attention", &[1, 1], attention.shape()));
        }
        if let Some(((view, bin), &value)) = attention.indexed_iter().find(|(_, m)| !(0.0..=1.0).contains(*m))
        {
            return Err(Error::MaskRange {
                value,
                index: [view, bin],
            });
        }
        if *self == Self::Printed && attention.iter().all(|m| *m == 0.0) {
            return Err(Error::EmptyAttention { sample });
        }
        Ok(())
    }
}
