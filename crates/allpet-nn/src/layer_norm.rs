//! LayerNorm (Ba et al. 2016) over the last axis: `y = weight·(x - mean)/√(variance + ε) + bias`, one pass each way.

use crate::cpu::{floats, has_kernels, parameter};
use crate::elementwise::row_sums;
use crate::lanes::{Slot, filled, vectorised};
use crate::tape::apply3;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

const EPSILON: f32 = 1e-5;

/// Rows of a task; fixed, so that sums over rows do not depend on the number of threads.
const ROWS: usize = 128;

/// `x [.., C]`, `weight` and `bias` `[C]` → the same shape.
///
/// # Errors
/// Shapes that do not fit; the message names them.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let channels = x.dims().last().copied().unwrap_or(0);
    if channels == 0 || weight.dims() != [channels] || bias.dims() != [channels] {
        bail!(
            "layer norm: input {:?}, weight {:?}, bias {:?}; expected [.., C], [C] and [C]",
            x.dims(),
            weight.dims(),
            bias.dims()
        );
    }
    if has_kernels(x) {
        return apply3(
            &x.contiguous()?,
            &parameter(weight)?,
            &parameter(bias)?,
            LayerNorm,
        );
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred
        .broadcast_div(&(variance + f64::from(EPSILON))?.sqrt()?)?
        .broadcast_mul(weight)?
        .broadcast_add(bias)
}

struct LayerNorm;

/// Mean and 1/sd of a row.
#[inline(always)]
fn moments(x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = row_sums([x], |[x]| [x])[0] / n;
    let variance = row_sums([x], |[x]| [(x - mean) * (x - mean)])[0] / n;
    (mean, 1.0 / (variance + EPSILON).sqrt())
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "allpet-layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        weight: &CpuStorage,
        lw: &Layout,
        bias: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, bias) = (
            floats("layer norm", x, lx)?,
            floats("layer norm", weight, lw)?,
            floats("layer norm", bias, lb)?,
        );
        let channels = weight.len();
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(ROWS * channels)
                .zip(x.par_chunks(ROWS * channels))
                .for_each(|(out, x)| {
                    vectorised(
                        #[inline(always)]
                        || {
                            for (out, x) in out.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                                let (mean, inverse) = moments(x);
                                for (((y, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                                    y.set((x - mean) * inverse * w + b);
                                }
                            }
                        },
                    );
                });
        };
        // SAFETY: every row writes its part of the output.
        let out = unsafe { filled(x.len(), fill) };
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        weight: &CudaStorage,
        lw: &Layout,
        bias: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::layer_norm([(x, lx), (weight, lw), (bias, lb)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let [dx, dweight, dbias] =
                crate::cuda::device::layer_norm_gradient([x, &grad.contiguous()?, weight])?;
            return Ok((Some(dx), Some(dweight), Some(dbias)));
        }
        // One operator has one result, so dx comes back with the two small gradients behind it.
        let all = x.apply_op3_no_bwd(weight, &grad.contiguous()?, &Gradient)?;
        let (length, channels) = (x.elem_count(), weight.elem_count());
        let dx = all.narrow(0, 0, length)?.reshape(x.dims())?;
        let dweight = all.narrow(0, length, channels)?;
        let dbias = all.narrow(0, length + channels, channels)?;
        Ok((Some(dx), Some(dweight), Some(dbias)))
    }
}

/// `[dx, dweight, dbias]`, flat, from `(x, weight, dy)`.
struct Gradient;

impl CustomOp3 for Gradient {
    fn name(&self) -> &'static str {
        "allpet-layer-norm-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        weight: &CpuStorage,
        lw: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, weight, grad) = (
            floats("layer norm", x, lx)?,
            floats("layer norm", weight, lw)?,
            floats("layer norm", grad, lg)?,
        );
        let channels = weight.len();
        let tasks = x.len().div_ceil(ROWS * channels);
        // Sums over the rows of each task: dweight, then dbias.
        let mut sums = vec![0f32; tasks * 2 * channels];
        let fill = |out: &mut [Slot]| {
            let (dx, small) = out.split_at_mut(x.len());
            dx.par_chunks_mut(ROWS * channels)
                .zip(
                    x.par_chunks(ROWS * channels)
                        .zip(grad.par_chunks(ROWS * channels)),
                )
                .zip(sums.par_chunks_mut(2 * channels))
                .for_each(|((dx, (x, grad)), sums)| {
                    let (dweight, dbias) = sums.split_at_mut(channels);
                    vectorised(
                        #[inline(always)]
                        || {
                            let rows = x.chunks_exact(channels).zip(grad.chunks_exact(channels));
                            for (dx, (x, grad)) in dx.chunks_exact_mut(channels).zip(rows) {
                                row_gradient(x, grad, weight, dx, dweight, dbias);
                            }
                        },
                    );
                });
            for (i, to) in small.iter_mut().enumerate() {
                let column = sums.iter().skip(i).step_by(2 * channels);
                to.set(column.map(|v| f64::from(*v)).sum::<f64>() as f32);
            }
        };
        let length = x.len() + 2 * channels;
        // SAFETY: every row writes its part of dx, and the two small gradients are written at the end.
        let out = unsafe { filled(length, fill) };
        Ok((CpuStorage::F32(out), Shape::from(length)))
    }
}

/// With `g = dy·weight`: `dx = (g - mean(g) - x̂·mean(g·x̂))/sd`, `dweight += dy·x̂`, `dbias += dy`.
#[inline(always)]
fn row_gradient(
    x: &[f32],
    grad: &[f32],
    weight: &[f32],
    dx: &mut [Slot],
    dweight: &mut [f32],
    dbias: &mut [f32],
) {
    let (mean, inverse) = moments(x);
    let n = x.len();
    let [sum, with_hat] = row_sums([x, grad, weight], |[x, grad, weight]| {
        let g = grad * weight;
        [g, g * (x - mean) * inverse]
    });
    let (mean_g, mean_gx) = (sum / n as f32, with_hat / n as f32);
    let inputs = x.iter().zip(grad).zip(weight);
    let outputs = dx.iter_mut().zip(dweight).zip(dbias);
    for (((x, grad), weight), ((dx, dweight), dbias)) in inputs.zip(outputs) {
        let h = (x - mean) * inverse;
        dx.set((grad * weight - mean_g - h * mean_gx) * inverse);
        *dweight += grad * h;
        *dbias += grad;
    }
}
