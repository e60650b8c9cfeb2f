//! Clipping by the global norm (Pascanu et al. 2013, arXiv:1211.5063, algorithm 1).

use crate::Result;
use crate::host::{is_host_f32, with_values};
use candle_core::{DType, Tensor};
use rayon::prelude::*;

/// Values per partial sum: fixed, so that the order of additions does not depend on the number of threads.
const CHUNK: usize = 1 << 14;

/// The 2-norm of all gradients together, summed in `f64` in the order given.
///
/// # Errors
/// What candle reports.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a Tensor>) -> Result<f64> {
    let mut sum = 0.0;
    let mut elsewhere = Vec::new();
    #[cfg(feature = "cuda")]
    let mut on_cuda = Vec::new();
    for gradient in gradients {
        if is_host_f32(gradient) {
            sum += with_values(gradient, |values| Ok(sum_of_squares(values)))?;
            continue;
        }
        #[cfg(feature = "cuda")]
        if crate::cuda::device::takes(gradient) {
            on_cuda.push(gradient.detach());
            continue;
        }
        elsewhere.push(gradient.detach().to_dtype(DType::F64)?.sqr()?.sum_all()?);
    }
    #[cfg(feature = "cuda")]
    {
        sum += crate::cuda::device::sum_of_squares(&on_cuda)?;
    }
    if !elsewhere.is_empty() {
        // One transfer for all: each would wait for the device.
        sum += Tensor::stack(&elsewhere, 0)?
            .to_vec1::<f64>()?
            .iter()
            .sum::<f64>();
    }
    Ok(sum.sqrt())
}

/// The factor that brings a gradient of norm `norm` to at most `limit`.
pub fn clip_factor(norm: f64, limit: Option<f64>) -> f64 {
    limit.map_or(1.0, |limit| if norm > limit { limit / norm } else { 1.0 })
}

fn sum_of_squares(values: &[f32]) -> f64 {
    let partial = |chunk: &[f32]| {
        // Eight running sums: the compiler may not reorder additions, so they are reordered here.
        let mut lanes = [0f64; 8];
        let mut eights = chunk.chunks_exact(8);
        for eight in &mut eights {
            for (lane, &v) in lanes.iter_mut().zip(eight) {
                *lane += f64::from(v) * f64::from(v);
            }
        }
        let rest: f64 = eights
            .remainder()
            .iter()
            .map(|&v| f64::from(v) * f64::from(v))
            .sum();
        lanes.iter().sum::<f64>() + rest
    };
    if values.len() <= CHUNK {
        return partial(values);
    }
    values
        .par_chunks(CHUNK)
        .map(partial)
        .collect::<Vec<_>>()
        .iter()
        .sum()
}
