//! The kernels on a CUDA device, through candle.

use super::Packing;
use super::run::{self, Data, Resident};
use crate::{Fbp, Projector};
use allpet_kernel::Element;
use allpet_kernel::device::Program;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice, DeviceId, WrapErr};
use candle_core::{CudaStorage, DType, Error, Layout, Result, Shape, backend::BackendStorage};
use half::f16;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Tables of a plan and where they lie on each device that has seen it. Clones share them.
#[derive(Debug)]
pub(crate) struct OnDevice<T>(Arc<Mutex<HashMap<DeviceId, Arc<Uploaded<T>>>>>);

#[derive(Debug)]
struct Uploaded<T> {
    tables: T,
    words: [CudaSlice<i64>; 3],
}

impl<T> Default for OnDevice<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for OnDevice<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> OnDevice<T> {
    fn get(
        &self,
        device: &CudaDevice,
        make: impl FnOnce() -> crate::Result<T>,
        words: impl FnOnce(&T) -> [&[i64]; 3],
    ) -> Result<Arc<Uploaded<T>>> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = seen.get(&device.id()) {
            return Ok(found.clone());
        }
        let tables = make().map_err(Error::wrap)?;
        let upload = |words: &[i64]| {
            // An empty table still has an address.
            let words = if words.is_empty() { &[0] } else { words };
            device.cuda_stream().clone_htod(words).w()
        };
        let [a, b, c] = words(&tables);
        let words = [upload(a)?, upload(b)?, upload(c)?];
        let uploaded = Arc::new(Uploaded { tables, words });
        seen.insert(device.id(), uploaded.clone());
        Ok(uploaded)
    }
}

impl<T> Uploaded<T> {
    fn resident(&self, device: &CudaDevice) -> Resident<'_, T> {
        let stream = device.cuda_stream();
        let at = self.words.each_ref().map(|w| w.device_ptr(&stream).0);
        Resident {
            tables: &self.tables,
            at,
        }
    }
}

type Run<T> = fn(&Program, &Resident<'_, T>, Data) -> Result<()>;

/// A tensor on the device, and what is to come of it.
pub(crate) struct Work<'a> {
    pub(crate) storage: &'a CudaStorage,
    pub(crate) layout: &'a Layout,
    /// Of the result.
    pub(crate) shape: Shape,
}

/// Line integrals of a tensor on the device, or their transpose.
pub(crate) fn project(
    projector: &Projector,
    transposed: bool,
    work: Work<'_>,
) -> Result<(CudaStorage, Shape)> {
    let uploaded = projector.on_device.get(
        work.storage.device(),
        || projector.tables(),
        |t| [&t.walks, &t.rays, &[]],
    )?;
    if transposed {
        work.run(&uploaded, run::back_project)
    } else {
        work.run(&uploaded, run::project)
    }
}

/// Filtered back-projection of a tensor on the device.
pub(crate) fn reconstruct(fbp: &Fbp, work: Work<'_>) -> Result<(CudaStorage, Shape)> {
    let uploaded = fbp.on_device.get(
        work.storage.device(),
        || fbp.tables(),
        |t| [&t.filter, &t.weights, &t.rays],
    )?;
    work.run(&uploaded, run::reconstruct)
}

impl Work<'_> {
    fn run<T>(self, uploaded: &Uploaded<T>, run: Run<T>) -> Result<(CudaStorage, Shape)> {
        match self.storage.dtype() {
            DType::F32 => self.typed::<f32, T>(uploaded, run, Element::F32),
            DType::F16 => self.typed::<f16, T>(uploaded, run, Element::F16),
            other => Err(Error::Msg(format!(
                "the projector on CUDA needs f32 or f16; the tensor holds {}",
                other.as_str()
            ))),
        }
    }

    fn typed<E: CudaDType + DeviceRepr, T>(
        self,
        uploaded: &Uploaded<T>,
        run: Run<T>,
        element: Element,
    ) -> Result<(CudaStorage, Shape)> {
        let Self {
            storage,
            layout,
            shape,
        } = self;
        let dims = layout.dims();
        let slices = dims[..dims.len().saturating_sub(2)].iter().product();
        let Some((start, end)) = layout.contiguous_offsets() else {
            return Err(Error::Msg("the projector needs a contiguous tensor".to_owned()));
        };
        let device = storage.device();
        let stream = device.cuda_stream();
        let input = storage.as_cuda_slice::<E>()?.slice(start..end);
        // SAFETY: the kernels write every element.
        let mut output = unsafe { device.alloc::<E>(shape.elem_count()) }?;
        if slices > 0 {
            let packing = Packing::of(element, slices);
            let program = Program::new(device, element, &packing.definitions());
            // The guards stand until the kernels are launched: other streams wait for these.
            let (from, _read) = input.device_ptr(&stream);
            let (to, _written) = output.device_ptr_mut(&stream);
            let data = Data {
                from,
                to,
                packing,
                slices,
            };
            run(&program, &uploaded.resident(device), data)?;
        }
        Ok((CudaStorage::wrap_cuda_slice(output, device.clone()), shape))
    }
}
