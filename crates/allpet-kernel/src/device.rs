//! The kernels' text compiled for a CUDA device and launched on candle's stream.

use crate::{ARGUMENTS, BLOCK, Element, Machine, Unit};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, LaunchConfig, PushKernelArg, SyncOnDrop,
};
use candle_core::cuda_backend::cudarc::nvrtc::compile_ptx;
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use candle_core::{CudaStorage, Error, Layout, Result, bail};
use half::{bf16, f16};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// A module: its name, which depends on its whole text because candle keeps modules by name alone, and its code.
#[derive(Clone)]
struct Compiled {
    name: Arc<str>,
    ptx: Arc<str>,
}

type Key = (&'static str, Element, String);

/// What was compiled, for every device.
static COMPILED: Mutex<Option<HashMap<Key, Compiled>>> = Mutex::new(None);

/// Kernels on a device, for one way in which elements lie in memory; they run one after the other.
#[derive(Debug)]
pub struct Program {
    device: CudaDevice,
    element: Element,
    definitions: String,
}

impl Program {
    /// For elements of a type, with further definitions of the text.
    pub fn new(device: &CudaDevice, element: Element, definitions: &str) -> Self {
        Self {
            device: device.clone(),
            element,
            definitions: definitions.to_owned(),
        }
    }

    /// Where the kernels run.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    fn compiled(&self, unit: &Unit) -> Result<Compiled> {
        let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = compiled.get_or_insert_default();
        let key = (unit.name, self.element, self.definitions.clone());
        if let Some(found) = compiled.get(&key) {
            return Ok(found.clone());
        }
        let definitions = self.element.definition().to_owned() + &self.definitions;
        let text = definitions + include_str!("device.h") + crate::COMMON + unit.text;
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let made = Compiled {
            name: format!("{}-{:016x}", unit.name, hasher.finish()).into(),
            ptx: compile_ptx(text).w()?.to_src().into(),
        };
        compiled.insert(key, made.clone());
        Ok(made)
    }
}

/// Where a contiguous tensor of such elements begins; the guard stands until the kernels are launched.
///
/// # Errors
/// Another type, or strides that leave gaps.
pub fn address<'a>(
    storage: &'a CudaStorage,
    layout: &Layout,
    element: Element,
    stream: &'a CudaStream,
) -> Result<(u64, SyncOnDrop<'a>)> {
    let Some((start, _)) = layout.contiguous_offsets() else {
        bail!(
            "an operator on CUDA was given strides {:?}; expected a contiguous tensor",
            layout.stride()
        );
    };
    let (at, guard) = match element {
        Element::F32 => storage.as_cuda_slice::<f32>()?.device_ptr(stream),
        Element::F16 => storage.as_cuda_slice::<f16>()?.device_ptr(stream),
        Element::BF16 => storage.as_cuda_slice::<bf16>()?.device_ptr(stream),
    };
    Ok((at + (start * element.bytes()) as u64, guard))
}

impl Machine for Program {
    type Memory = CudaSlice<u64>;
    type Error = Error;

    fn element(&self) -> Element {
        self.element
    }

    fn scratch(&self, bytes: usize) -> Result<CudaSlice<u64>> {
        // SAFETY: the kernels write every word before they read it.
        unsafe { self.device.alloc(bytes.div_ceil(8).max(1)) }
    }

    fn address(&self, memory: &CudaSlice<u64>) -> u64 {
        memory.device_ptr(&self.device.cuda_stream()).0
    }

    fn launch(
        &self,
        unit: &'static Unit,
        kernel: &'static str,
        blocks: [usize; 3],
        arguments: [u64; ARGUMENTS],
    ) -> Result<()> {
        let [x, y, z] = blocks;
        // What a grid can have.
        if x > i32::MAX as usize || y > 65_535 || z > 65_535 {
            return Err(Error::Msg(format!(
                "{kernel} of {x} x {y} x {z} blocks; expected at most 2147483647 x 65535 x 65535: a smaller batch"
            )));
        }
        if x * y * z == 0 {
            return Ok(());
        }
        let module = self.compiled(unit)?;
        let function = self
            .device
            .get_or_load_custom_func(kernel, &module.name, &module.ptx)?;
        let mut builder = function.builder();
        builder.arg(&arguments);
        // SAFETY: every kernel takes one structure of at most this size; the caller passes addresses of memory of this
        // stream and of the sizes it states.
        unsafe {
            builder.launch(LaunchConfig {
                grid_dim: (x as u32, y as u32, z as u32),
                block_dim: (BLOCK[0] as u32, BLOCK[1] as u32, 1),
                shared_mem_bytes: 0,
            })
        }
        .w()?;
        Ok(())
    }
}
