//! Arrays through operators on the CPU or another device.

use crate::fault::{Fault, Result};
use allpet::candle::{Device, Result as Candle, Tensor};
use allpet::radon::{Fbp, LinearOperator, Projector, tensor};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use std::sync::Arc;

/// Line integrals `[.., view, radial]` of images `[.., row, col]`.
pub(crate) fn project(
    device: &Device,
    projector: Projector,
    image: ArrayViewD<'_, f32>,
) -> Result<ArrayD<f32>> {
    if device.is_cpu() {
        return Ok(projector.apply(image)?);
    }
    let projector = Arc::new(projector);
    through(device, image, |x| tensor::project(&projector, x))
}

/// The transpose of [`project`].
pub(crate) fn back_project(
    device: &Device,
    projector: Projector,
    sinogram: ArrayViewD<'_, f32>,
) -> Result<ArrayD<f32>> {
    if device.is_cpu() {
        return Ok(projector.apply_adjoint(sinogram)?);
    }
    let projector = Arc::new(projector);
    through(device, sinogram, |y| tensor::back_project(&projector, y))
}

/// Images `[.., row, col]` of sinograms `[.., view, radial]`.
pub(crate) fn reconstruct(device: &Device, fbp: Fbp, sinogram: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
    if device.is_cpu() {
        return Ok(fbp.reconstruct(sinogram)?);
    }
    let fbp = Arc::new(fbp);
    through(device, sinogram, |y| tensor::reconstruct(&fbp, y))
}

fn through(
    device: &Device,
    array: ArrayViewD<'_, f32>,
    work: impl FnOnce(&Tensor) -> Candle<Tensor>,
) -> Result<ArrayD<f32>> {
    let fault = |e: &dyn std::fmt::Display| Fault::Other(e.to_string());
    let run = || -> Candle<(Vec<f32>, Vec<usize>)> {
        let values: Vec<f32> = array.iter().copied().collect();
        let done = work(&Tensor::from_vec(values, array.shape(), device)?)?;
        Ok((done.flatten_all()?.to_vec1()?, done.dims().to_vec()))
    };
    let (values, shape) = run().map_err(|e| fault(&e))?;
    ArrayD::from_shape_vec(IxDyn(&shape), values).map_err(|e| fault(&e))
}
