//! Named parameters, initialised from keyed random streams.

use crate::{Error, Result};
use allpet_core::{fill_normal, stream};
use candle_core::{DType, Device, Shape, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// How a parameter starts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros: biases, and the last convolution of a residual branch.
    Zeros,
    /// All ones: the scales of normalisation layers.
    Ones,
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal with variance `2 / fan_in` (He et al. 2015), for layers followed by a rectifying nonlinearity.
    He {
        /// Number of inputs that reach one output.
        fan_in: usize,
    },
    /// Normal with variance `1 / fan_in`.
    LeCun {
        /// Number of inputs that reach one output.
        fan_in: usize,
    },
}

/// The parameters of a model, by dotted name.
///
/// A name and the seed alone decide a parameter's start, so adding a layer does not change the others. Clones and
/// [`Params::sub`] share one store; iteration is in name order, so that nothing depends on the order of creation.
#[derive(Debug, Clone)]
pub struct Params {
    store: Arc<Mutex<BTreeMap<String, Var>>>,
    prefix: String,
    seed: u64,
    device: Device,
    activations: DType,
}

impl Params {
    /// An empty store whose parameters will be drawn from `seed` and live on `device`.
    pub fn new(seed: u64, device: &Device) -> Self {
        Self {
            store: Arc::default(),
            prefix: String::new(),
            seed,
            device: device.clone(),
            activations: DType::F32,
        }
    }

    /// The same store, whose networks hold what passes through them as `dtype`: `f32`, or on a CUDA device `bf16`. The
    /// parameters, their gradients and what enters and leaves a network stay `f32`.
    ///
    /// # Errors
    /// [`Error::Setting`] for another type, or for `bf16` without kernels on the parameters' device.
    pub fn with_activations(self, dtype: DType) -> Result<Self> {
        let kernels = cfg!(feature = "cuda") && self.device.is_cuda();
        if dtype != DType::F32 && !(dtype == DType::BF16 && kernels) {
            let place = if self.device.is_cuda() {
                "on CUDA"
            } else {
                "on the CPU"
            };
            return Err(Error::Setting {
                what: "activations".into(),
                expected: "f32, or bf16 on a CUDA device".into(),
                got: format!("{} {place}", dtype.as_str()),
            });
        }
        Ok(Self {
            activations: dtype,
            ..self
        })
    }

    /// What networks hold between their ends.
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// The same store, with `name.` before every name asked for.
    pub fn sub(&self, name: impl std::fmt::Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            ..self.clone()
        }
    }

    /// Creates a parameter, or hands out the one that already has this name.
    ///
    /// # Errors
    /// [`Error::Parameter`] when the name exists with another shape.
    pub fn get(&self, shape: impl Into<Shape>, name: &str, init: Init) -> Result<Tensor> {
        let (shape, key) = (shape.into(), format!("{}{name}", self.prefix));
        let count = shape.elem_count();
        self.get_from(shape, name, || {
            let mut values = vec![0f32; count];
            let sd = match init {
                Init::Zeros => 0.0,
                Init::Ones => {
                    values.fill(1.0);
                    0.0
                }
                Init::Normal(sd) => sd,
                Init::He { fan_in } => (2.0 / fan_in.max(1) as f64).sqrt(),
                Init::LeCun { fan_in } => (1.0 / fan_in.max(1) as f64).sqrt(),
            };
            if sd > 0.0 {
                fill_normal(&mut stream(self.seed, &key, 0), &mut values);
                values.iter_mut().for_each(|v| *v = (f64::from(*v) * sd) as f32);
            }
            values
        })
    }

    /// The same, with starting values of the caller's (row-major, one for every element of `shape`).
    ///
    /// # Errors
    /// As [`Params::get`], and values of another number than the shape has.
    pub fn get_from(
        &self,
        shape: impl Into<Shape>,
        name: &str,
        start: impl FnOnce() -> Vec<f32>,
    ) -> Result<Tensor> {
        let (shape, name) = (shape.into(), format!("{}{name}", self.prefix));
        let mut store = self.lock();
        if let Some(var) = store.get(&name) {
            if var.shape() != &shape {
                return Err(Error::Parameter {
                    name,
                    expected: format!("{:?}", var.dims()),
                    got: format!("{:?}", shape.dims()),
                });
            }
            return Ok(var.as_tensor().clone());
        }
        let var = Var::from_tensor(&Tensor::from_vec(start(), shape, &self.device)?)?;
        let tensor = var.as_tensor().clone();
        store.insert(name, var);
        Ok(tensor)
    }

    /// Every parameter, sorted by name.
    pub fn named(&self) -> BTreeMap<String, Var> {
        self.lock().clone()
    }

    /// Number of scalar parameters.
    pub fn count(&self) -> usize {
        self.lock().values().map(|v| v.elem_count()).sum()
    }

    /// The device the parameters live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Overwrites every parameter, in place. `tensors` must hold exactly these names and shapes (any float type).
    ///
    /// # Errors
    /// [`Error::Names`] listing what is missing and what is foreign; [`Error::Parameter`] for a shape.
    /// Nothing is changed when an error comes back.
    pub fn load(&self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        let store = self.lock();
        let missing: Vec<_> = store
            .keys()
            .filter(|n| !tensors.contains_key(*n))
            .cloned()
            .collect();
        let foreign: Vec<_> = tensors
            .keys()
            .filter(|n| !store.contains_key(*n))
            .cloned()
            .collect();
        if !missing.is_empty() || !foreign.is_empty() {
            return Err(Error::Names { missing, foreign });
        }
        for (name, var) in store.iter() {
            if tensors[name].dims() != var.dims() {
                return Err(Error::Parameter {
                    name: name.clone(),
                    expected: format!("{:?}", var.dims()),
                    got: format!("{:?}", tensors[name].dims()),
                });
            }
        }
        for (name, var) in store.iter() {
            var.set(
                &tensors[name]
                    .to_device(&self.device)?
                    .to_dtype(DType::F32)?
                    .contiguous()?,
            )?;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Var>> {
        // A panic elsewhere cannot leave the map half-changed: every change is one insertion.
        self.store
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
