//! GroupNorm (Wu & He 2018) with a scale and shift per sample and channel, and optional SiLU, in one pass each way.
//!
//! `y = act(scale[b,c]·x̂ + shift[b,c])`, `x̂` normalised over the channels of a group and all pixels. Scale and shift per
//! sample carry both the layer's own affine parameters and the conditioning (FiLM), so that neither costs a pass.

use crate::cpu::{floats, has_kernels, parameter};
use crate::elementwise::{lane_sum, sigmoid};
use crate::lanes::{Slot, filled, vectorised};
use crate::tape::apply3;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

const EPSILON: f64 = 1e-5;

/// `x [B, C, H, W]`, `scale` and `shift` both `[C]` or both `[B, C]` → the normalised, scaled, shifted and (with `silu`) activated tensor.
///
/// # Errors
/// Groups that do not divide the channels, or shapes that do not fit; the message names both.
pub fn group_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, groups: usize, silu: bool) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if groups == 0 || c % groups != 0 {
        bail!("group norm: {groups} groups do not divide {c} channels");
    }
    if x.device().is_cpu() || has_kernels(x) {
        let (scale, shift) = (parameter(scale)?, parameter(shift)?);
        return apply3(&x.contiguous()?, &scale, &shift, GroupNorm { groups, silu });
    }
    let flat = x.reshape((b, groups, ()))?;
    let centred = flat.broadcast_sub(&flat.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let hat = centred
        .broadcast_div(&(variance + EPSILON)?.sqrt()?)?
        .reshape((b, c, h, w))?;
    let y = hat
        .broadcast_mul(&scale.reshape(((), c, 1, 1))?)?
        .broadcast_add(&shift.reshape(((), c, 1, 1))?)?;
    if silu { y.silu() } else { Ok(y) }
}

struct GroupNorm {
    groups: usize,
    silu: bool,
}

struct Sizes {
    batch: usize,
    channels: usize,
    /// Whether every sample has its own scale and shift.
    own: bool,
    per_group: usize,
    pixels: usize,
}

impl GroupNorm {
    fn sizes(&self, x: &[usize], scale: &[usize], shift: &[usize]) -> Result<Sizes> {
        let &[b, c, h, w] = x else {
            bail!("group norm: input {x:?}; expected [B, C, H, W]")
        };
        let own = scale == [b, c];
        if scale != shift || !(own || scale == [c]) {
            bail!(
                "group norm: scale {scale:?} and shift {shift:?}; expected both [{c}] or both [{b}, {c}] for input {x:?}"
            );
        }
        Ok(Sizes {
            batch: b,
            channels: c,
            own,
            per_group: c / self.groups,
            pixels: h * w,
        })
    }
}

#[cfg(feature = "cuda")]
impl GroupNorm {
    fn on_device(&self, s: &Sizes) -> crate::cuda::GroupSizes {
        crate::cuda::GroupSizes {
            batch: s.batch,
            groups: self.groups,
            per_group: s.per_group,
            pixels: s.pixels,
            own: s.own,
            silu: self.silu,
        }
    }
}

impl Sizes {
    /// Where the scales of a group of a sample begin.
    fn first(&self, index: usize, groups: usize) -> usize {
        let (sample, channel) = (index / groups, index % groups * self.per_group);
        if self.own {
            sample * self.channels + channel
        } else {
            channel
        }
    }
}

/// Mean and 1/sd of one group, two passes so that large means cost no digits.
#[inline(always)]
fn moments(x: &[f32]) -> (f32, f32) {
    let n = x.len() as f64;
    let mean = (lane_sum([x], |[x]| [x])[0] / n) as f32;
    let variance = lane_sum([x], |[x]| [(x - mean) * (x - mean)])[0] / n;
    (mean, (1.0 / (variance + EPSILON).sqrt()) as f32)
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "allpet-group-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        scale: &CpuStorage,
        ls: &Layout,
        shift: &CpuStorage,
        lt: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = self.sizes(lx.dims(), ls.dims(), lt.dims())?;
        let (x, scale, shift) = (
            floats("group norm", x, lx)?,
            floats("group norm", scale, ls)?,
            floats("group norm", shift, lt)?,
        );
        let group = s.per_group * s.pixels;
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(group)
                .zip(x.par_chunks(group))
                .enumerate()
                .for_each(|(index, (out, x))| {
                    let first = s.first(index, self.groups);
                    let affine = &scale[first..][..s.per_group];
                    let offset = &shift[first..][..s.per_group];
                    vectorised(
                        #[inline(always)]
                        || {
                            let (mean, inverse) = moments(x);
                            for (c, (out, x)) in out
                                .chunks_exact_mut(s.pixels)
                                .zip(x.chunks_exact(s.pixels))
                                .enumerate()
                            {
                                let (a, b) = (affine[c] * inverse, offset[c] - affine[c] * inverse * mean);
                                if self.silu {
                                    for (y, x) in out.iter_mut().zip(x) {
                                        let u = a * x + b;
                                        y.set(u * sigmoid(u));
                                    }
                                } else {
                                    for (y, x) in out.iter_mut().zip(x) {
                                        y.set(a * x + b);
                                    }
                                }
                            }
                        },
                    );
                });
        };
        // SAFETY: every group writes its part of the output, channel by channel.
        let out = unsafe { filled(x.len(), fill) };
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        scale: &CudaStorage,
        ls: &Layout,
        shift: &CudaStorage,
        lt: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let s = self.sizes(lx.dims(), ls.dims(), lt.dims())?;
        crate::cuda::device::group_norm(&self.on_device(&s), [(x, lx), (scale, ls), (shift, lt)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let s = self.on_device(&self.sizes(x.dims(), scale.dims(), shift.dims())?);
            let tensors = [&x.contiguous()?, scale, shift, &grad.contiguous()?];
            let [dx, dscale, dshift] = crate::cuda::device::group_norm_gradient(&s, tensors)?;
            return Ok((Some(dx), Some(dscale), Some(dshift)));
        }
        let (b, c, h, w) = x.dims4()?;
        // One operator has one result, so dx comes back with the two small gradients behind it.
        let both = Tensor::stack(&[scale, shift], 0)?.contiguous()?;
        let op = GroupNormGradient(Self {
            groups: self.groups,
            silu: self.silu,
        });
        let all = x
            .contiguous()?
            .apply_op3_no_bwd(&both, &grad.contiguous()?, &op)?;
        let image = b * c * h * w;
        let dx = all.narrow(0, 0, image)?.reshape((b, c, h, w))?;
        let small = |at: usize| -> Result<Tensor> {
            let each = all.narrow(0, at, b * c)?.reshape((b, c))?;
            if scale.dims().len() == 1 {
                each.sum(0)
            } else {
                Ok(each)
            }
        };
        let (dscale, dshift) = (small(image)?, small(image + b * c)?);
        Ok((Some(dx), Some(dscale), Some(dshift)))
    }
}

/// `[dx, dscale, dshift]`, flat, from `(x, [scale, shift], dy)`.
struct GroupNormGradient(GroupNorm);

impl CustomOp3 for GroupNormGradient {
    fn name(&self) -> &'static str {
        "allpet-group-norm-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        both: &CpuStorage,
        lb: &Layout,
        grad: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let half = &lb.dims()[1..];
        let s = self.0.sizes(lx.dims(), half, half)?;
        let (x, grad) = (floats("group norm", x, lx)?, floats("group norm", grad, lg)?);
        let (scale, shift) = floats("group norm", both, lb)?.split_at(half.iter().product());
        let group = s.per_group * s.pixels;
        let per_sample = s.batch * s.channels;
        let length = x.len() + 2 * per_sample;
        let fill = |out: &mut [Slot]| {
            let (dx, small) = out.split_at_mut(x.len());
            let (dscale, dshift) = small.split_at_mut(per_sample);
            dx.par_chunks_mut(group)
                .zip(dscale.par_chunks_mut(s.per_group))
                .zip(dshift.par_chunks_mut(s.per_group))
                .zip(x.par_chunks(group).zip(grad.par_chunks(group)))
                .enumerate()
                .for_each_init(Vec::new, |du, (index, (((dx, dscale), dshift), (x, grad)))| {
                    du.resize(group, 0.0);
                    let first = s.first(index, self.0.groups);
                    let (affine, offset) = (&scale[first..][..s.per_group], &shift[first..][..s.per_group]);
                    vectorised(
                        #[inline(always)]
                        || {
                            group_gradient(
                                x,
                                grad,
                                (affine, offset),
                                s.pixels,
                                self.0.silu,
                                du,
                                (dx, dscale, dshift),
                            )
                        },
                    );
                });
        };
        // SAFETY: every group writes its part of dx and the gradients of its channels.
        let out = unsafe { filled(length, fill) };
        Ok((CpuStorage::F32(out), Shape::from(length)))
    }
}

/// With `u = scale·x̂ + shift`, `du = dy·act'(u)`: `dshift = Σ du`, `dscale = Σ du·x̂`, and
/// `dx = (g - mean(g) - x̂·mean(g·x̂))/sd` with `g = du·scale`, means over the group.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn group_gradient(
    x: &[f32],
    grad: &[f32],
    (scale, shift): (&[f32], &[f32]),
    pixels: usize,
    silu: bool,
    du: &mut [f32],
    (dx, dscale, dshift): (&mut [Slot], &mut [Slot], &mut [Slot]),
) {
    let (mean, inverse) = moments(x);
    let (mut sum_g, mut sum_gx) = (0f64, 0f64);
    let planes = x
        .chunks_exact(pixels)
        .zip(grad.chunks_exact(pixels))
        .zip(du.chunks_exact_mut(pixels));
    for (c, ((x, grad), du)) in planes.enumerate() {
        let (a, b) = (scale[c] * inverse, shift[c] - scale[c] * inverse * mean);
        if silu {
            for ((du, x), grad) in du.iter_mut().zip(x).zip(grad) {
                let u = a * x + b;
                let s = sigmoid(u);
                *du = grad * (s + u * s * (1.0 - s));
            }
        } else {
            du.copy_from_slice(grad);
        }
        let [sum, with_hat] = lane_sum([&*du, x], |[du, x]| [du, du * (x - mean) * inverse]);
        dshift[c].set(sum as f32);
        dscale[c].set(with_hat as f32);
        sum_g += sum * f64::from(scale[c]);
        sum_gx += with_hat * f64::from(scale[c]);
    }
    let n = x.len() as f64;
    let (mean_g, mean_gx) = ((sum_g / n) as f32, (sum_gx / n) as f32);
    for (c, (dx, (x, du))) in dx
        .chunks_exact_mut(pixels)
        .zip(x.chunks_exact(pixels).zip(du.chunks_exact(pixels)))
        .enumerate()
    {
        // dx = (du·scale - mean_g - (x - mean)·inverse·mean_gx)·inverse, with one factor for each of du, x and 1.
        let (of_du, of_x) = (scale[c] * inverse, -inverse * inverse * mean_gx);
        let constant = -mean_g * inverse - mean * of_x;
        for ((dx, x), du) in dx.iter_mut().zip(x).zip(du) {
            dx.set(of_du * du + of_x * x + constant);
        }
    }
}
