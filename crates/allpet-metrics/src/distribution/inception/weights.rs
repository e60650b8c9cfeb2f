//! The tensors of the network as a user's safetensors file holds them, each name and shape checked.

use crate::error::{Error, Result};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// ε of every batch normalisation, as TensorFlow's network was trained.
const EPSILON: f64 = 1e-3;

pub(super) struct Weights<'a> {
    tensors: SafeTensors<'a>,
    path: &'a Path,
}

impl<'a> Weights<'a> {
    pub(super) fn new(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let tensors = SafeTensors::deserialize(bytes)
            .map_err(|why| fault(path, format!("is not a safetensors file ({why})")))?;
        Ok(Self { tensors, path })
    }

    /// The values of one tensor, all finite.
    pub(super) fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let wrong = |what: String| fault(self.path, format!("{what}; expected f32 {shape:?}"));
        let tensor = self
            .tensors
            .tensor(name)
            .map_err(|_| wrong(format!("holds no `{name}`")))?;
        if tensor.dtype() != Dtype::F32 || tensor.shape() != shape {
            return Err(wrong(format!(
                "`{name}` is {} {:?}",
                tensor.dtype().to_string().to_lowercase(),
                tensor.shape()
            )));
        }
        let values: Vec<f32> = tensor
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        match values.iter().position(|v| !v.is_finite()) {
            None => Ok(values),
            Some(at) => Err(fault(
                self.path,
                format!(
                    "`{name}` holds {} at element {at}; expected finite numbers",
                    values[at]
                ),
            )),
        }
    }

    /// The convolution `name` of shape `[out, in, rows, columns]` with its normalisation folded into it: weights
    /// `w·γ/√(σ² + ε)` and bias `β - μ·γ/√(σ² + ε)` of shape `[1, out, 1, 1]`.
    pub(super) fn convolution(&self, name: &str, shape: [usize; 4]) -> Result<(Tensor, Tensor)> {
        let out = shape[0];
        let mut weight = self.values(&format!("{name}.conv.weight"), &shape)?;
        let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| self.values(&format!("{name}.bn.{part}"), &[out]));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        if let Some(at) = variance.iter().position(|v| *v < 0.0) {
            return Err(fault(
                self.path,
                format!(
                    "`{name}.bn.running_var` holds {} at element {at}; expected no negative variance",
                    variance[at]
                ),
            ));
        }
        let taps = weight.len() / out;
        let mut bias = Vec::with_capacity(out);
        for (channel, taps) in weight.chunks_exact_mut(taps).enumerate() {
            let scale = f64::from(gamma[channel]) / (f64::from(variance[channel]) + EPSILON).sqrt();
            for tap in taps {
                *tap = (f64::from(*tap) * scale) as f32;
            }
            bias.push((f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32);
        }
        Ok((
            Tensor::from_vec(weight, &shape, &Device::Cpu)?,
            Tensor::from_vec(bias, (1, out, 1, 1), &Device::Cpu)?,
        ))
    }
}

pub(super) fn fault(path: &Path, what: String) -> Error {
    Error::Weights {
        path: path.to_owned(),
        what,
    }
}
