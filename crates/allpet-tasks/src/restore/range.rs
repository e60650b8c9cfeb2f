//! Onto the range of the Radon transform: a result moved to the sinogram of a non-negative image.
//!
//! Networks give arrays that are nearly sinograms; what is not one (the Helgason-Ludwig conditions say which part) becomes
//! streaks in the image. Many iterations of expectation maximisation find the non-negative image whose projection fits best,
//! and its projection is the result: the conditions in their constructive form.

use super::Restored;
use crate::classical::OsemFiltered;
use crate::error::Result;
use allpet_core::ParallelGeometry;
use ndarray::Axis;

impl Restored {
    /// Iterations that were found to do: more take longer and change little.
    pub const RANGE_ITERATIONS: usize = 40;

    /// Moves the mean of every output onto the range of the Radon transform by so many iterations; totals stay, and so do
    /// deviations and samples.
    ///
    /// # Errors
    /// No iterations, another geometry than the result's, or a result without counts.
    pub fn project_onto_range(&mut self, geometry: &ParallelGeometry, iterations: usize) -> Result<()> {
        let fit = OsemFiltered {
            iterations,
            subsets: 1,
            fwhm_mm: 0.0,
            size: geometry.bins,
        };
        for mut output in self.mean.axis_iter_mut(Axis(1)) {
            let fitted = fit.restore(output.view(), geometry, 1.0)?;
            for (mut before, after) in output.outer_iter_mut().zip(fitted.outer_iter()) {
                let total = |a: ndarray::ArrayView2<'_, f32>| a.iter().map(|v| f64::from(*v)).sum::<f64>();
                let scale = (total(before.view()) / total(after)) as f32;
                before.assign(&after.mapv(|v| v * scale));
            }
        }
        Ok(())
    }
}
