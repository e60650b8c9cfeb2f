//! Noise that belongs to its sample: drawn on the host, keyed by seed, purpose, step and sample index.

use crate::{Error, Result};
use allpet_core::{fill_normal, stream};
use candle_core::{DType, Device, Tensor};

/// The random numbers of a batch: sample `i` of the batch is sample `indices[i]` of `seed`, and has the same noise
/// in any batch, at any place in it, on any device and with any number of threads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleNoise {
    seed: u64,
    indices: Vec<u64>,
}

impl SampleNoise {
    /// The samples `indices` of `seed`, in batch order.
    pub fn new(seed: u64, indices: Vec<u64>) -> Self {
        Self { seed, indices }
    }

    /// The samples `first .. first + count` of `seed`.
    pub fn consecutive(seed: u64, first: u64, count: usize) -> Self {
        Self::new(seed, (first..).take(count).collect())
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Index of each sample of the batch.
    pub fn indices(&self) -> &[u64] {
        &self.indices
    }

    /// Standard normal `[B, sample_dims..]` for `purpose` at `step`, for example `("diffusion noise", 12)`.
    ///
    /// # Errors
    /// candle's own.
    pub fn normal(
        &self,
        purpose: &str,
        step: u64,
        sample_dims: &[usize],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let size: usize = sample_dims.iter().product();
        let mut values = vec![0f32; size * self.indices.len()];
        let name = key(purpose, step);
        for (i, &index) in self.indices.iter().enumerate() {
            fill_normal(
                &mut stream(self.seed, &name, index),
                &mut values[i * size..(i + 1) * size],
            );
        }
        let mut dims = vec![self.indices.len()];
        dims.extend_from_slice(sample_dims);
        Ok(Tensor::from_vec(values, dims, device)?.to_dtype(dtype)?)
    }

    /// Standard normal of the shape, type and device of `x [B, ..]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `x` does not hold one sample per index.
    pub fn normal_like(&self, purpose: &str, step: u64, x: &Tensor) -> Result<Tensor> {
        match x.dims().split_first() {
            Some((&batch, sample)) if batch == self.indices.len() => {
                self.normal(purpose, step, sample, x.dtype(), x.device())
            }
            _ => Err(Error::Shape {
                what: "batch",
                expected: format!("[{}, ..], one sample per noise index", self.indices.len()),
                got: x.dims().to_vec(),
            }),
        }
    }
}

/// Name of the stream of `purpose` at `step`.
pub(crate) fn key(purpose: &str, step: u64) -> String {
    format!("{purpose}/{step}")
}
