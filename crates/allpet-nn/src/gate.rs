//! The gate of a gated feed-forward layer (Shazeer 2020; Restormer, Zamir et al. 2022): `gelu(a)·b` for channels `[a, b]`.

use crate::cpu::{floats, has_kernels};
use crate::elementwise::exp;
use crate::lanes::{Slot, filled, vectorised};
use crate::tape::apply1;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// `x [B, 2C, H, W]` → `gelu(first half)·second half`, `[B, C, H, W]`, with the exact GELU `a·Φ(a)`.
///
/// # Errors
/// Channels that two does not divide.
pub fn gelu_gate(x: &Tensor) -> Result<Tensor> {
    let (_, c, _, _) = x.dims4()?;
    if c == 0 || c % 2 != 0 {
        bail!("gelu gate: {c} channels; expected two halves");
    }
    if has_kernels(x) {
        return apply1(&x.contiguous()?, Gate);
    }
    let half = |i: usize| x.narrow(1, i * c / 2, c / 2)?.contiguous();
    half(0)?.gelu_erf()? * half(1)?
}

/// The normal distribution function and `e^(-x²/2)`: `erf` by Abramowitz & Stegun 7.1.26, to 1.5e-7.
#[inline(always)]
fn normal(x: f32) -> (f32, f32) {
    let bell = exp(-0.5 * x * x);
    let t = 1.0 / (1.0 + 0.327_591_1 * std::f32::consts::FRAC_1_SQRT_2 * x.abs());
    let p = 1.061_405_4f32;
    let p = p * t - 1.453_152_1;
    let p = p * t + 1.421_413_8;
    let p = p * t - 0.284_496_72;
    let p = p * t + 0.254_829_6;
    let tail = 0.5 * p * t * bell;
    (if x < 0.0 { tail } else { 1.0 - tail }, bell)
}

struct Gate;

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "allpet-gelu-gate"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[b, c, h, w] = lx.dims() else {
            bail!("gelu gate: input {:?}; expected 4 axes", lx.dims())
        };
        let x = floats("gelu gate", x, lx)?;
        let half = c / 2 * h * w;
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(half)
                .zip(x.par_chunks(2 * half))
                .for_each(|(out, x)| {
                    let (a, b) = x.split_at(half);
                    vectorised(
                        #[inline(always)]
                        || {
                            for ((y, a), b) in out.iter_mut().zip(a).zip(b) {
                                y.set(a * normal(*a).0 * b);
                            }
                        },
                    );
                });
        };
        // SAFETY: every sample writes its half of the channels.
        let out = unsafe { filled(x.len() / 2, fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, c / 2, h, w))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::gelu_gate((x, lx))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(x.apply_op2_no_bwd(&grad.contiguous()?, &Gradient)?))
    }
}

/// With `Φ` and its density `φ`: `da = dy·b·(Φ + a·φ)`, `db = dy·a·Φ`.
struct Gradient;

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "allpet-gelu-gate-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, grad) = (floats("gelu gate", x, lx)?, floats("gelu gate", grad, lg)?);
        let half = lg.dims().iter().skip(1).product::<usize>();
        let density = 0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(2 * half)
                .zip(x.par_chunks(2 * half).zip(grad.par_chunks(half)))
                .for_each(|(out, (x, grad))| {
                    let ((a, b), (da, db)) = (x.split_at(half), out.split_at_mut(half));
                    vectorised(
                        #[inline(always)]
                        || {
                            let inputs = a.iter().zip(b).zip(grad);
                            for (((a, b), g), (da, db)) in inputs.zip(da.iter_mut().zip(db)) {
                                let (below, bell) = normal(*a);
                                da.set(g * b * (below + a * density * bell));
                                db.set(g * a * below);
                            }
                        },
                    );
                });
        };
        // SAFETY: every sample writes both halves of its channels.
        let out = unsafe { filled(x.len(), fill) };
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        grad: &CudaStorage,
        lg: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::gelu_gate_gradient([(x, lx), (grad, lg)])
    }
}
