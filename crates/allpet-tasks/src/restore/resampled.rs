//! Sinograms of another geometry, and the autoencoder's round trip.

use super::{RestoreRequest, Restored, check_counts, of_sample};
use crate::error::Result;
use crate::model::Restorer;
use allpet_autoencoder::sample::split;
use allpet_core::ParallelGeometry;
use allpet_foundation::resample;
use allpet_nn::without_gradients;
use candle_core::Tensor;
use ndarray::{Array3, Array4, Array5, ArrayView3, Axis};
use std::ops::ControlFlow;

impl Restorer {
    /// [`Restorer::restore`] for sinograms of another geometry: resampled to the model's, restored, and resampled back
    /// ([`allpet_foundation::resample`]). A region in `request` lies in mm, so that it stays where it is.
    ///
    /// # Errors
    /// Those of [`Restorer::restore`]; an arc of less than 180°.
    pub fn restore_resampled(
        &self,
        sinograms: ArrayView3<'_, f32>,
        geometry: &ParallelGeometry,
        request: &RestoreRequest,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Restored> {
        let given = request.first_estimates.as_ref();
        through(
            self.geometry(),
            geometry,
            sinograms,
            given,
            |sinograms, first_estimates| {
                let request = RestoreRequest {
                    first_estimates,
                    ..request.clone()
                };
                self.restore(sinograms, &request, progress)
            },
        )
    }

    /// The autoencoder's round trip of sinograms `[n, view, radial]`: what no walk on its latents can go beyond.
    ///
    /// # Errors
    /// Sinograms of another shape or without counts.
    pub fn round_trip(&self, sinograms: ArrayView3<'_, f32>) -> Result<Array3<f32>> {
        let [views, bins] = self.geometry().shape();
        let (intensity, size) = (self.config().intensity, views * bins);
        let mut out = Array3::zeros(sinograms.dim());
        for (i, sinogram) in sinograms.outer_iter().enumerate() {
            self.check_shape(sinogram.shape())?;
            let values: Vec<f32> = sinogram.iter().copied().collect();
            let scale = intensity
                .scale(&values)
                .map_err(|e| of_sample(i, &e.to_string()))?;
            let mut coded = vec![0f32; 3 * size];
            split(&values, &vec![0.0; size], scale, intensity, &mut coded);
            let coded = Tensor::from_vec(coded, (1, 3, views, bins), &self.device)?;
            let decoded = without_gradients(|| -> Result<Tensor> {
                let latent = self.autoencoder.encode(&coded)?.mean;
                Ok(self.autoencoder.decode(&latent)?)
            })?;
            let decoded = decoded.narrow(1, 1, 1)?.flatten_all()?.to_vec1::<f32>()?;
            for (out, value) in out.index_axis_mut(Axis(0), i).iter_mut().zip(decoded) {
                *out = intensity.decode(value, scale);
            }
        }
        Ok(out)
    }
}

/// What `restore` gives for sinograms and first estimates of the geometry `own`, for those of another: resampled there and back.
pub(crate) fn through(
    own: &ParallelGeometry,
    geometry: &ParallelGeometry,
    sinograms: ArrayView3<'_, f32>,
    first_estimates: Option<&Array3<f32>>,
    restore: impl FnOnce(ArrayView3<'_, f32>, Option<Array3<f32>>) -> Result<Restored>,
) -> Result<Restored> {
    if geometry == own {
        return restore(sinograms, first_estimates.cloned());
    }
    // Here, since what is wrong may vanish in an average over wider bins.
    check_counts(sinograms)?;
    let [views, bins] = own.shape();
    let there = |stack: ArrayView3<'_, f32>| -> Result<Array3<f32>> {
        let mut inside = Array3::zeros((stack.len_of(Axis(0)), views, bins));
        for (from, mut to) in stack.outer_iter().zip(inside.outer_iter_mut()) {
            to.assign(&resample(from, geometry, own)?);
        }
        Ok(inside)
    };
    let estimates = first_estimates.map(|given| there(given.view())).transpose()?;
    let restored = restore(there(sinograms)?.view(), estimates)?;
    let back = |stack: &Array4<f32>| -> Result<Array4<f32>> {
        let (n, outputs) = (stack.len_of(Axis(0)), stack.len_of(Axis(1)));
        let mut out = Array4::zeros((n, outputs, geometry.views, geometry.bins));
        for (from, mut to) in stack.outer_iter().zip(out.outer_iter_mut()) {
            for (from, mut to) in from.outer_iter().zip(to.outer_iter_mut()) {
                to.assign(&resample(from, own, geometry)?);
            }
        }
        Ok(out)
    };
    let samples = match &restored.samples {
        None => None,
        Some(all) => {
            let (n, outputs, samples, ..) = all.dim();
            let mut out = Array5::zeros((n, outputs, samples, geometry.views, geometry.bins));
            for (from, mut to) in all.outer_iter().zip(out.outer_iter_mut()) {
                to.assign(&back(&from.to_owned())?);
            }
            Some(out)
        }
    };
    Ok(Restored {
        mean: back(&restored.mean)?,
        sd: back(&restored.sd)?,
        samples,
        inconsistency: restored.inconsistency,
    })
}
