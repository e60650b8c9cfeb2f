//! AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2) with its state in the open.
//!
//! With gradient `g` of update `n = 1, 2, …`, rate `η`, decay `λ` and `ĝ = c·g` clipped by the factor `c`:
//! `m ← β₁m + (1-β₁)ĝ`, `v ← β₂v + (1-β₂)ĝ²`,
//! `w ← (1 - ηλ)w - η·(m/(1-β₁ⁿ)) / (√(v/(1-β₂ⁿ)) + ε)`, and then `ē ← d·ē + (1-d)w`.
//! In host memory and on CUDA devices one pass over each parameter does all of it: 5 reads and 4 writes per value.

use crate::host::{is_host_f32, with_values, with_values_mut};
use crate::{Error, Result};
use candle_core::{DType, Tensor, Var};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Values per task. Every value is updated on its own, so the split cannot change a result.
const CHUNK: usize = 1 << 15;

/// The constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; parameters of at most one dimension (biases, scales) have none.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
        }
    }
}

/// What one update is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Number of updates before this one.
    pub step: u64,
    /// Learning rate.
    pub rate: f64,
    /// Factor on the gradient, from clipping.
    pub gradient_factor: f64,
    /// Decay of the moving average for this update.
    pub ema_decay: f64,
}

/// The optimiser: the parameters, their moments and their moving average, each a tensor of the parameter's shape
/// and device.
#[derive(Debug)]
pub struct AdamW {
    config: AdamWConfig,
    slots: BTreeMap<String, Slot>,
}

#[derive(Debug)]
struct Slot {
    var: Var,
    m: Tensor,
    v: Tensor,
    ema: Tensor,
}

/// The scalars of one update, ready for `f32` arithmetic.
#[derive(Clone, Copy)]
pub(crate) struct Scalars {
    pub(crate) factor: f32,
    pub(crate) beta1: f32,
    pub(crate) one_minus_beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) one_minus_beta2: f32,
    pub(crate) keep: f32,
    pub(crate) step_size: f32,
    pub(crate) inverse_correction2: f32,
    pub(crate) eps: f32,
    pub(crate) ema: f32,
    pub(crate) one_minus_ema: f32,
}

impl AdamW {
    /// Moments at zero, the moving average at the parameters.
    ///
    /// # Errors
    /// [`Error::Invalid`] for constants outside their range, [`Error::Tensor`] for a parameter that is not `f32`.
    pub fn new(config: AdamWConfig, params: &BTreeMap<String, Var>) -> Result<Self> {
        let mut faults = Vec::new();
        for (name, beta) in [("beta1", config.beta1), ("beta2", config.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                faults.push(format!("{name} is {beta}; expected at least 0 and below 1"));
            }
        }
        for (name, value) in [("eps", config.eps), ("weight_decay", config.weight_decay)] {
            if !(value >= 0.0 && value.is_finite()) {
                faults.push(format!("{name} is {value}; expected 0 or more"));
            }
        }
        if !faults.is_empty() {
            return Err(Error::Invalid {
                what: "optimiser",
                faults,
            });
        }
        let mut slots = BTreeMap::new();
        for (name, var) in params {
            if var.dtype() != DType::F32 || !var.is_contiguous() {
                return Err(Error::Tensor {
                    what: format!("parameter `{name}`"),
                    expected: "contiguous f32".into(),
                    got: format!("{:?}", var.dtype()),
                });
            }
            let slot = Slot {
                var: var.clone(),
                m: owned_zeros(var)?,
                v: owned_zeros(var)?,
                ema: var.as_detached_tensor().copy()?,
            };
            slots.insert(name.clone(), slot);
        }
        Ok(Self { config, slots })
    }

    /// Names and parameters, in name order.
    pub fn params(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.slots.iter().map(|(name, slot)| (name.as_str(), &slot.var))
    }

    /// The first moments, by parameter name. They share storage with the optimiser.
    pub fn first_moments(&self) -> BTreeMap<String, Tensor> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.clone(), slot.m.clone()))
            .collect()
    }

    /// The second moments, by parameter name. They share storage with the optimiser.
    pub fn second_moments(&self) -> BTreeMap<String, Tensor> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.clone(), slot.v.clone()))
            .collect()
    }

    /// The moving average, by parameter name. It shares storage with the optimiser.
    pub fn ema(&self) -> BTreeMap<String, Tensor> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.clone(), slot.ema.clone()))
            .collect()
    }

    /// Replaces moments and moving average, each a set of tensors with exactly the parameters' names and shapes.
    ///
    /// # Errors
    /// [`Error::Tensor`] naming what does not fit; nothing is changed then.
    pub fn restore(
        &mut self,
        m: &BTreeMap<String, Tensor>,
        v: &BTreeMap<String, Tensor>,
        ema: &BTreeMap<String, Tensor>,
    ) -> Result<()> {
        for (kind, set) in [("first moment", m), ("second moment", v), ("moving average", ema)] {
            for (name, slot) in &self.slots {
                let got = set.get(name).map(|t| t.dims());
                if got != Some(slot.var.dims()) {
                    return Err(Error::Tensor {
                        what: format!("the {kind} of `{name}`"),
                        expected: format!("of shape {:?}", slot.var.dims()),
                        got: got.map_or("missing".into(), |dims| format!("of shape {dims:?}")),
                    });
                }
            }
            if let Some(name) = set.keys().find(|name| !self.slots.contains_key(*name)) {
                return Err(Error::Tensor {
                    what: format!("the {kind} of `{name}`"),
                    expected: "absent: the model has no such parameter".into(),
                    got: "present".into(),
                });
            }
        }
        for (name, slot) in &mut self.slots {
            let take = |set: &BTreeMap<String, Tensor>| -> Result<Tensor> {
                Ok(set[name]
                    .detach()
                    .to_dtype(DType::F32)?
                    .to_device(slot.var.device())?
                    .force_contiguous()?)
            };
            (slot.m, slot.v, slot.ema) = (take(m)?, take(v)?, take(ema)?);
        }
        Ok(())
    }

    /// One update of every parameter, in place. A parameter without a gradient is updated as if it were zero.
    ///
    /// # Errors
    /// [`Error::Tensor`] when a gradient has another shape than its parameter (nothing is changed then), or what
    /// candle reports.
    pub fn update(&mut self, gradients: &BTreeMap<String, Tensor>, update: &Update) -> Result<()> {
        for (name, slot) in &self.slots {
            if let Some(gradient) = gradients.get(name)
                && (gradient.dims() != slot.var.dims() || gradient.dtype() != DType::F32)
            {
                return Err(Error::Tensor {
                    what: format!("the gradient of `{name}`"),
                    expected: format!("f32 {:?}", slot.var.dims()),
                    got: format!("{:?} {:?}", gradient.dtype(), gradient.dims()),
                });
            }
        }
        for (name, slot) in &mut self.slots {
            let scalars = Scalars::new(&self.config, update, slot.var.dims().len() > 1);
            // A gradient remembers what it was made from; detached, that memory is freed.
            let gradient = gradients.get(name).map(|g| g.detach().contiguous()).transpose()?;
            let tensors = [slot.var.as_tensor(), &slot.m, &slot.v, &slot.ema];
            #[cfg(feature = "cuda")]
            if tensors
                .into_iter()
                .chain(&gradient)
                .all(crate::cuda::device::takes)
            {
                crate::cuda::device::adamw(tensors, gradient.as_ref(), scalars)?;
                continue;
            }
            if tensors.into_iter().all(is_host_f32) {
                slot.update_on_host(gradient.as_ref(), scalars)
            } else {
                slot.update_by_tensors(gradient, scalars)
            }?;
        }
        Ok(())
    }

    /// [`AdamW::update`] by candle's tensor operators: the path of other devices, and its check on this one.
    ///
    /// # Errors
    /// What candle reports.
    #[doc(hidden)]
    pub fn update_by_tensors(&mut self, gradients: &BTreeMap<String, Tensor>, update: &Update) -> Result<()> {
        for (name, slot) in &mut self.slots {
            let scalars = Scalars::new(&self.config, update, slot.var.dims().len() > 1);
            slot.update_by_tensors(gradients.get(name).map(Tensor::detach), scalars)?;
        }
        Ok(())
    }
}

impl Scalars {
    pub(crate) fn new(config: &AdamWConfig, update: &Update, decays: bool) -> Self {
        let n = (update.step + 1) as f64;
        let decay = if decays { config.weight_decay } else { 0.0 };
        Self {
            factor: update.gradient_factor as f32,
            beta1: config.beta1 as f32,
            one_minus_beta1: (1.0 - config.beta1) as f32,
            beta2: config.beta2 as f32,
            one_minus_beta2: (1.0 - config.beta2) as f32,
            keep: (1.0 - update.rate * decay) as f32,
            step_size: (update.rate / (1.0 - config.beta1.powf(n))) as f32,
            inverse_correction2: (1.0 / (1.0 - config.beta2.powf(n))) as f32,
            eps: config.eps as f32,
            ema: update.ema_decay as f32,
            one_minus_ema: (1.0 - update.ema_decay) as f32,
        }
    }
}

impl Slot {
    fn update_on_host(&self, gradient: Option<&Tensor>, s: Scalars) -> Result<()> {
        with_values_mut(&self.var, |w| {
            with_values_mut(&self.m, |m| {
                with_values_mut(&self.v, |v| {
                    with_values_mut(&self.ema, |e| match gradient {
                        Some(gradient) => with_values(gradient, |g| {
                            let zip = w.par_chunks_mut(CHUNK).zip(m.par_chunks_mut(CHUNK));
                            let zip = zip.zip(v.par_chunks_mut(CHUNK)).zip(e.par_chunks_mut(CHUNK));
                            zip.zip(g.par_chunks(CHUNK))
                                .for_each(|((((w, m), v), e), g)| fused(w, m, v, e, g, s));
                            Ok(())
                        }),
                        None => {
                            let zero = vec![0f32; w.len()];
                            fused(w, m, v, e, &zero, s);
                            Ok(())
                        }
                    })
                })
            })
        })?;
        Ok(())
    }

    fn update_by_tensors(&mut self, gradient: Option<Tensor>, s: Scalars) -> Result<()> {
        let f = f64::from;
        let g = match gradient {
            Some(gradient) => (gradient * f(s.factor))?,
            None => self.var.as_detached_tensor().zeros_like()?,
        };
        self.m = ((&self.m * f(s.beta1))? + (&g * f(s.one_minus_beta1))?)?;
        self.v = ((&self.v * f(s.beta2))? + (g.sqr()? * f(s.one_minus_beta2))?)?;
        let root = ((&self.v * f(s.inverse_correction2))?.sqrt()? + f(s.eps))?;
        let moved = ((self.var.as_detached_tensor() * f(s.keep))? - ((&self.m / root)? * f(s.step_size))?)?;
        self.var.set(&moved)?;
        self.ema = ((&self.ema * f(s.ema))? + (moved * f(s.one_minus_ema))?)?;
        Ok(())
    }
}

/// One pass over a piece of a parameter; equal lengths.
fn fused(w: &mut [f32], m: &mut [f32], v: &mut [f32], e: &mut [f32], g: &[f32], s: Scalars) {
    for ((((w, m), v), e), g) in w.iter_mut().zip(m).zip(v).zip(e).zip(g) {
        let g = g * s.factor;
        *m = s.beta1 * *m + s.one_minus_beta1 * g;
        *v = s.beta2 * *v + s.one_minus_beta2 * g * g;
        *w = s.keep * *w - s.step_size * *m / ((*v * s.inverse_correction2).sqrt() + s.eps);
        *e = s.ema * *e + s.one_minus_ema * *w;
    }
}

/// Zeros in storage of their own: `zeros_like` of an empty-strided tensor may share.
fn owned_zeros(var: &Var) -> Result<Tensor> {
    Ok(Tensor::zeros(var.shape(), DType::F32, var.device())?)
}
