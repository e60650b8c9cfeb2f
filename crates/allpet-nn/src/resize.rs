//! Changes of resolution and channel joins with right gradients: nearest ×2 upsampling, space-to-depth, concatenation.

use crate::cpu::{floats, has_kernels};
use crate::lanes::{Slot, filled};
use crate::tape::{apply1, apply2};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Repeats every pixel 2×2: `[B, C, H, W]` → `[B, C, 2H, 2W]`; its gradient sums the four.
pub fn upsample_nearest(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        return apply1(&x.contiguous()?, Upsample);
    }
    let (b, c, h, w) = x.dims4()?;
    x.reshape((b, c, h, 1, w, 1))?
        .broadcast_as((b, c, h, 2, w, 2))?
        .reshape((b, c, 2 * h, 2 * w))
}

/// Moves each `f × f` block of pixels into channels, losslessly: `[B, C, H, W]` → `[B, C·f², H/f, W/f]`.
///
/// # Errors
/// Sides that `f` does not divide.
pub fn space_to_depth(x: &Tensor, f: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if f == 0 || h % f != 0 || w % f != 0 {
        bail!("space to depth: blocks of {f} do not divide {h} x {w}");
    }
    if has_kernels(x) {
        return apply1(&x.contiguous()?, SpaceToDepth(f));
    }
    let blocks = x
        .reshape((b, c, h / f, f, w / f, f))?
        .permute((0, 1, 3, 5, 2, 4))?;
    blocks.reshape((b, c * f * f, h / f, w / f))
}

/// The inverse of [`space_to_depth`]: `[B, C·f², H, W]` → `[B, C, H·f, W·f]`.
///
/// # Errors
/// Channels that `f²` does not divide.
pub fn depth_to_space(x: &Tensor, f: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if f == 0 || c % (f * f) != 0 {
        bail!("depth to space: blocks of {f} x {f} do not divide {c} channels");
    }
    if has_kernels(x) {
        return apply1(&x.contiguous()?, DepthToSpace(f));
    }
    let blocks = x
        .reshape((b, c / (f * f), f, f, h, w))?
        .permute((0, 1, 4, 2, 5, 3))?;
    blocks.reshape((b, c / (f * f), h * f, w * f))
}

/// Joins two tensors on the channel axis; both must agree in every other axis.
pub fn concat_channels(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) && has_kernels(y) {
        apply2(&x.contiguous()?, &y.contiguous()?, Concat)
    } else {
        Tensor::cat(&[x, y], 1)
    }
}

struct Upsample;

impl CustomOp1 for Upsample {
    fn name(&self) -> &'static str {
        "allpet-upsample"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[b, c, h, w] = lx.dims() else {
            bail!("upsampling: input {:?}; expected 4 axes", lx.dims())
        };
        let x = floats("upsampling", x, lx)?;
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(4 * w * h)
                .zip(x.par_chunks(w * h))
                .for_each(|(out, x)| {
                    for (two, row) in out.chunks_exact_mut(4 * w).zip(x.chunks_exact(w)) {
                        let (first, second) = two.split_at_mut(2 * w);
                        for line in [first, second] {
                            for (pair, v) in line.chunks_exact_mut(2).zip(row) {
                                pair[0].set(*v);
                                pair[1].set(*v);
                            }
                        }
                    }
                });
        };
        // SAFETY: every row of the input writes two rows of twice its length.
        let out = unsafe { filled(4 * x.len(), fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, c, 2 * h, 2 * w))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::upsample((x, lx))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&SumOfFour)?))
    }
}

struct SumOfFour;

impl CustomOp1 for SumOfFour {
    fn name(&self) -> &'static str {
        "allpet-sum-of-four"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[b, c, h, w] = lg.dims() else {
            bail!("upsampling: gradient {:?}; expected 4 axes", lg.dims())
        };
        let g = floats("upsampling", g, lg)?;
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(w / 2 * (h / 2))
                .zip(g.par_chunks(w * h))
                .for_each(|(out, g)| {
                    for (row, two) in out.chunks_exact_mut(w / 2).zip(g.chunks_exact(2 * w)) {
                        let (first, second) = two.split_at(w);
                        let pairs = first.chunks_exact(2).zip(second.chunks_exact(2));
                        for (to, (a, b)) in row.iter_mut().zip(pairs) {
                            to.set((a[0] + a[1]) + (b[0] + b[1]));
                        }
                    }
                });
        };
        // SAFETY: a gradient of upsampling has even sides, so that its fours are the slots.
        let out = unsafe { filled(g.len() / 4, fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, c, h / 2, w / 2))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::sum_of_four((x, lx))
    }
}

struct Concat;

/// Samples, channels of both, height and width.
fn joined(x: &[usize], y: &[usize]) -> Result<[usize; 5]> {
    let (&[b, cx, h, w], &[by, cy, hy, wy]) = (x, y) else {
        bail!("concatenation of {x:?} and {y:?}; expected 4 axes");
    };
    if (b, h, w) != (by, hy, wy) {
        bail!("concatenation of {x:?} and {y:?}; only the channels may differ");
    }
    Ok([b, cx, cy, h, w])
}

impl CustomOp2 for Concat {
    fn name(&self) -> &'static str {
        "allpet-concat"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let [b, cx, cy, h, w] = joined(lx.dims(), ly.dims())?;
        let (x, y) = (floats("concatenation", x, lx)?, floats("concatenation", y, ly)?);
        let (nx, ny) = (cx * h * w, cy * h * w);
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(nx + ny)
                .zip(x.par_chunks(nx).zip(y.par_chunks(ny)))
                .for_each(|(out, (x, y))| {
                    let (first, second) = out.split_at_mut(nx);
                    Slot::copy(first, x);
                    Slot::copy(second, y);
                });
        };
        // SAFETY: every sample writes its channels of both.
        let out = unsafe { filled(x.len() + y.len(), fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, cx + cy, h, w))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        y: &CudaStorage,
        ly: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        joined(lx.dims(), ly.dims())?;
        crate::cuda::device::concat([(x, lx), (y, ly)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (cx, cy) = (x.dim(1)?, y.dim(1)?);
        let part = |wanted: bool, first, count| match wanted {
            true => Ok::<_, candle_core::Error>(Some(
                grad.contiguous()?.apply_op1_no_bwd(&Channels { first, count })?,
            )),
            false => Ok(None),
        };
        Ok((part(x.track_op(), 0, cx)?, part(y.track_op(), cx, cy)?))
    }
}

/// Some channels of `[B, C, H, W]`.
struct Channels {
    first: usize,
    count: usize,
}

impl CustomOp1 for Channels {
    fn name(&self) -> &'static str {
        "allpet-channels"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[b, c, h, w] = lx.dims() else {
            bail!("channels of {:?}; expected 4 axes", lx.dims())
        };
        let x = floats("channels", x, lx)?;
        let (all, some) = (c * h * w, self.count * h * w);
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(some)
                .zip(x.par_chunks(all))
                .for_each(|(out, x)| Slot::copy(out, &x[self.first * h * w..][..some]));
        };
        // SAFETY: every sample writes as many channels as asked for.
        let out = unsafe { filled(b * some, fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, self.count, h, w))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::channels((self.first, self.count), (x, lx))
    }
}

/// Blocks of pixels into channels; the caller has checked that they fit.
struct SpaceToDepth(usize);

impl CustomOp1 for SpaceToDepth {
    fn name(&self) -> &'static str {
        "allpet-space-to-depth"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let (&[b, c, h, w], f) = (lx.dims(), self.0) else {
            bail!("space to depth: input {:?}; expected 4 axes", lx.dims())
        };
        let x = floats("space to depth", x, lx)?;
        let (height, width) = (h / f, w / f);
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(f * f * height * width)
                .zip(x.par_chunks(h * w))
                .for_each(|(out, x)| {
                    for (block, out) in out.chunks_exact_mut(height * width).enumerate() {
                        for (row, out) in out.chunks_exact_mut(width).enumerate() {
                            let line = &x[(row * f + block / f) * w + block % f..];
                            for (to, from) in out.iter_mut().zip(line.iter().step_by(f)) {
                                to.set(*from);
                            }
                        }
                    }
                });
        };
        // SAFETY: each of the f² places in a block writes one plane, row by row.
        let out = unsafe { filled(x.len(), fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, c * f * f, height, width))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::space_to_depth(self.0, (x, lx))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&DepthToSpace(self.0))?))
    }
}

/// The inverse of [`SpaceToDepth`], and its transpose.
struct DepthToSpace(usize);

impl CustomOp1 for DepthToSpace {
    fn name(&self) -> &'static str {
        "allpet-depth-to-space"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let (&[b, c, h, w], f) = (lx.dims(), self.0) else {
            bail!("depth to space: input {:?}; expected 4 axes", lx.dims())
        };
        let x = floats("depth to space", x, lx)?;
        let fill = |out: &mut [Slot]| {
            out.par_chunks_mut(f * f * h * w)
                .zip(x.par_chunks(f * f * h * w))
                .for_each(|(out, x)| {
                    for (block, x) in x.chunks_exact(h * w).enumerate() {
                        for (row, x) in x.chunks_exact(w).enumerate() {
                            let line = &mut out[(row * f + block / f) * w * f + block % f..];
                            for (to, from) in line.iter_mut().step_by(f).zip(x) {
                                to.set(*from);
                            }
                        }
                    }
                });
        };
        // SAFETY: every value is written to its own place, and there are as many as places.
        let out = unsafe { filled(x.len(), fill) };
        Ok((CpuStorage::F32(out), Shape::from((b, c / (f * f), h * f, w * f))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::depth_to_space(self.0, (x, lx))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.contiguous()?.apply_op1_no_bwd(&SpaceToDepth(self.0))?))
    }
}
