//! Two-dimensional convolution and its gradients on the CPU.
//!
//! Forward: `Y = W · cols(X)` with the columns packed tile by tile straight into the register kernel's layout, so
//! that the im2col matrix never exists as a whole. `dX` is the same product with the weights flipped and their
//! channels exchanged, over a gradient that is spread out by the stride. `dW[tap] = Σ dY ⊗ X(shifted by tap)` runs on
//! channel-innermost copies, in which every shifted window is a strided view.
//!
//! Each sample is computed alone, in tiles that depend on its own shape only: results are the same bytes for any
//! batch size and thread count. Weight gradients add samples in a fixed grouping, so they too are the same for any
//! thread count.

use crate::cpu::floats;
use crate::lanes::{Kernel, Sum};
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Stride and zero padding of a convolution, the same on both axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Step between windows.
    pub stride: usize,
    /// Zeros added on each side.
    pub padding: usize,
}

impl Window {
    /// Keeps the size for an odd kernel.
    pub fn same(kernel: usize) -> Self {
        Self {
            stride: 1,
            padding: kernel / 2,
        }
    }

    fn output(self, size: usize, kernel: usize) -> Option<usize> {
        (size + 2 * self.padding)
            .checked_sub(kernel)
            .map(|rest| rest / self.stride + 1)
    }
}

/// `x [B, C_in, H, W]` convolved with `weight [C_out, C_in, k, k]` plus `bias [C_out]` → `[B, C_out, H', W']`.
///
/// # Errors
/// Shapes that do not fit; the message names both.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: &Tensor, window: Window) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.contiguous()?
            .apply_op3(&weight.contiguous()?, &bias.contiguous()?, Conv(window))
    } else {
        let y = x.conv2d(weight, window.padding, window.stride, 1, 1)?;
        y.broadcast_add(&bias.reshape((1, (), 1, 1))?)
    }
}

/// The sizes of one convolution.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    c_in: usize,
    c_out: usize,
    kernel: usize,
    height: usize,
    width: usize,
    out_height: usize,
    out_width: usize,
    window: Window,
}

impl Sizes {
    fn new(x: &[usize], weight: &[usize], window: Window) -> Result<Self> {
        let (&[batch, channels, height, width], &[c_out, c_in, kernel, kernel_w]) = (x, weight) else {
            bail!(
                "conv2d: input {x:?} and weight {weight:?}; expected [B, C_in, H, W] and [C_out, C_in, k, k]"
            );
        };
        if channels != c_in || kernel != kernel_w || window.stride == 0 {
            bail!(
                "conv2d: input {x:?} does not fit weight {weight:?}, stride {}",
                window.stride
            );
        }
        let (Some(out_height), Some(out_width)) =
            (window.output(height, kernel), window.output(width, kernel))
        else {
            bail!(
                "conv2d: input {x:?} is smaller than the kernel {weight:?} with padding {}",
                window.padding
            );
        };
        Ok(Self {
            batch,
            c_in,
            c_out,
            kernel,
            height,
            width,
            out_height,
            out_width,
            window,
        })
    }
}

/// A zero-padded copy of one sample's planes, from which windows are read without bounds.
struct Planes {
    data: Vec<f32>,
    height: usize,
    width: usize,
}

impl Planes {
    /// Planes `[c, h, w]` spread out by `spread` (zeros between), with `before` zeros in front and `after` behind.
    fn padded(
        x: &[f32],
        channels: usize,
        size: (usize, usize),
        spread: usize,
        before: usize,
        after: (usize, usize),
    ) -> Self {
        let (h, w) = size;
        let height = before + (h - 1) * spread + 1 + after.0;
        let width = before + (w - 1) * spread + 1 + after.1;
        let mut data = vec![0f32; channels * height * width];
        for (plane, from) in data.chunks_mut(height * width).zip(x.chunks(h * w)) {
            for (row, from) in from.chunks(w).enumerate() {
                let to = &mut plane[(before + row * spread) * width + before..];
                if spread == 1 {
                    to[..w].copy_from_slice(from);
                } else {
                    for (col, value) in from.iter().enumerate() {
                        to[col * spread] = *value;
                    }
                }
            }
        }
        Self { data, height, width }
    }
}

/// Weights `[rows][k]` (k runs over channel, tap row, tap column) packed as panels of `m` rows, k outermost inside.
fn pack_weights(rows: usize, depth: usize, m: usize, weight: impl Fn(usize, usize) -> f32) -> Vec<f32> {
    let mut packed = vec![0f32; rows.div_ceil(m) * m * depth];
    for (panel, to) in packed.chunks_mut(m * depth).enumerate() {
        for row in 0..m.min(rows - panel * m) {
            for k in 0..depth {
                to[k * m + row] = weight(panel * m + row, k);
            }
        }
    }
    packed
}

/// `out[rows, pixels] = start + weights · windows(planes)`, for the windows of stride `stride`.
#[allow(clippy::too_many_arguments)]
fn windows_product(
    kernel: Kernel,
    packed: &[f32],
    rows: usize,
    taps: usize,
    planes: &Planes,
    channels: usize,
    out_size: (usize, usize),
    stride: usize,
    start: &[f32],
    out: &mut [f32],
    panel: &mut Vec<f32>,
) {
    let depth = channels * taps * taps;
    let (height, width) = out_size;
    let pixels = height * width;
    let n = kernel.n;
    panel.clear();
    panel.resize(depth * n, 0.0);
    let sum = Sum {
        rows: 1,
        cols: depth,
        a_row: 0,
        a_col: kernel.m,
        b_row: 0,
        b_col: n,
    };
    for first in (0..pixels).step_by(n) {
        let count = n.min(pixels - first);
        // Runs of pixels that stay in one image row: offset in the panel, start in the plane, length.
        let mut at = 0;
        while at < count {
            let (row, col) = ((first + at) / width, (first + at) % width);
            let run = (width - col).min(count - at);
            let mut k = 0;
            for plane in planes
                .data
                .chunks_exact(planes.height * planes.width)
                .take(channels)
            {
                for tap_row in 0..taps {
                    let line = &plane[(row * stride + tap_row) * planes.width + col * stride..];
                    for tap_col in 0..taps {
                        let to = &mut panel[k * n + at..k * n + at + run];
                        copy_run(to, &line[tap_col..], stride);
                        k += 1;
                    }
                }
            }
            at += run;
        }
        for (block, weights) in packed.chunks_exact(kernel.m * depth).enumerate() {
            let top = block * kernel.m;
            let valid = (rows - top, count);
            kernel.tile(
                sum,
                weights,
                panel,
                &start[top..],
                &mut out[top * pixels + first..],
                pixels,
                valid,
                false,
            );
        }
    }
}

/// Copies a run of pixels; the common lengths are fixed copies, which the compiler turns into register moves.
#[inline(always)]
fn copy_run(to: &mut [f32], from: &[f32], stride: usize) {
    if stride != 1 {
        for (to, from) in to.iter_mut().zip(from.iter().step_by(stride)) {
            *to = *from;
        }
        return;
    }
    match to.len() {
        32 => to.copy_from_slice(&from[..32]),
        16 => to.copy_from_slice(&from[..16]),
        8 => to.copy_from_slice(&from[..8]),
        length => to.copy_from_slice(&from[..length]),
    }
}

struct Conv(Window);

impl CustomOp3 for Conv {
    fn name(&self) -> &'static str {
        "allpet-conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Sizes::new(lx.dims(), lw.dims(), self.0)?;
        let (x, w, b) = (
            floats("conv2d", x, lx)?,
            floats("conv2d", w, lw)?,
            floats("conv2d", b, lb)?,
        );
        if b.len() != s.c_out {
            bail!(
                "conv2d: bias of {} values; the weight {:?} has {} outputs",
                b.len(),
                lw.dims(),
                s.c_out
            );
        }
        let kernel = Kernel::get();
        let depth = s.c_in * s.kernel * s.kernel;
        let packed = pack_weights(s.c_out, depth, kernel.m, |row, k| w[row * depth + k]);
        let mut start = b.to_vec();
        start.resize(s.c_out.div_ceil(kernel.m) * kernel.m, 0.0);
        let pixels = s.out_height * s.out_width;
        let mut out = vec![0f32; s.batch * s.c_out * pixels];
        let pad = s.window.padding;
        out.par_chunks_mut(s.c_out * pixels)
            .zip(x.par_chunks(s.c_in * s.height * s.width))
            .for_each_init(Vec::new, |panel, (out, x)| {
                let planes = Planes::padded(x, s.c_in, (s.height, s.width), 1, pad, (pad, pad));
                let size = (s.out_height, s.out_width);
                windows_product(
                    kernel,
                    &packed,
                    s.c_out,
                    s.kernel,
                    &planes,
                    s.c_in,
                    size,
                    s.window.stride,
                    &start,
                    out,
                    panel,
                );
            });
        Ok((
            CpuStorage::F32(out),
            Shape::from((s.batch, s.c_out, s.out_height, s.out_width)),
        ))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (x, w, grad) = (x.contiguous()?, w.contiguous()?, grad.contiguous()?);
        let (_, _, height, width) = x.dims4()?;
        let dx = match x.track_op() {
            true => Some(grad.apply_op2_no_bwd(
                &w,
                &ConvInputGradient {
                    window: self.0,
                    height,
                    width,
                },
            )?),
            false => None,
        };
        let dw = match w.track_op() {
            true => Some(x.apply_op2_no_bwd(
                &grad,
                &ConvWeightGradient {
                    window: self.0,
                    kernel: w.dims()[2],
                },
            )?),
            false => None,
        };
        let db = match b.track_op() {
            true => Some(grad.apply_op1_no_bwd(&ChannelSums)?),
            false => None,
        };
        Ok((dx, dw, db))
    }
}

/// `dX` from `(dY, W)`.
struct ConvInputGradient {
    window: Window,
    height: usize,
    width: usize,
}

impl CustomOp2 for ConvInputGradient {
    fn name(&self) -> &'static str {
        "allpet-conv2d-dx"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        lg: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let &[batch, c_out, ..] = lg.dims() else {
            bail!("conv2d gradient of shape {:?}; expected 4 axes", lg.dims())
        };
        let &[_, c_in, ..] = lw.dims() else {
            bail!("conv2d weight of shape {:?}; expected 4 axes", lw.dims())
        };
        let s = Sizes::new(&[batch, c_in, self.height, self.width], lw.dims(), self.window)?;
        let (g, w) = (
            floats("conv2d gradient", g, lg)?,
            floats("conv2d gradient", w, lw)?,
        );
        let (kernel, taps) = (Kernel::get(), s.kernel);
        // Row = input channel, k = (output channel, flipped tap).
        let packed = pack_weights(c_in, c_out * taps * taps, kernel.m, |row, k| {
            let (channel, tap) = (k / (taps * taps), taps * taps - 1 - k % (taps * taps));
            w[(channel * c_in + row) * taps * taps + tap]
        });
        let start = vec![0f32; c_in.div_ceil(kernel.m) * kernel.m];
        if taps <= s.window.padding {
            bail!(
                "conv2d gradient: padding {} needs a kernel larger than {taps}",
                s.window.padding
            );
        }
        let before = taps - 1 - s.window.padding;
        let behind = |size: usize, out: usize| {
            (size + taps - 1).saturating_sub(before + (out - 1) * s.window.stride + 1)
        };
        let after = (behind(s.height, s.out_height), behind(s.width, s.out_width));
        let mut out = vec![0f32; batch * c_in * s.height * s.width];
        out.par_chunks_mut(c_in * s.height * s.width)
            .zip(g.par_chunks(c_out * s.out_height * s.out_width))
            .for_each_init(Vec::new, |panel, (out, g)| {
                let planes = Planes::padded(
                    g,
                    c_out,
                    (s.out_height, s.out_width),
                    s.window.stride,
                    before,
                    after,
                );
                let size = (s.height, s.width);
                windows_product(
                    kernel, &packed, c_in, taps, &planes, c_out, size, 1, &start, out, panel,
                );
            });
        Ok((
            CpuStorage::F32(out),
            Shape::from((batch, c_in, s.height, s.width)),
        ))
    }
}

/// `dW` from `(X, dY)`.
struct ConvWeightGradient {
    window: Window,
    kernel: usize,
}

/// Groups of samples whose weight gradients are summed apart: fixed, so that threads never change the order of a sum.
const GROUPS: usize = 8;

impl CustomOp2 for ConvWeightGradient {
    fn name(&self) -> &'static str {
        "allpet-conv2d-dw"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let &[_, c_in, ..] = lx.dims() else {
            bail!("conv2d input of shape {:?}; expected 4 axes", lx.dims())
        };
        let &[_, c_out, ..] = lg.dims() else {
            bail!("conv2d gradient of shape {:?}; expected 4 axes", lg.dims())
        };
        let s = Sizes::new(lx.dims(), &[c_out, c_in, self.kernel, self.kernel], self.window)?;
        let (x, g) = (
            floats("conv2d gradient", x, lx)?,
            floats("conv2d gradient", g, lg)?,
        );
        let (x_size, g_size) = (c_in * s.height * s.width, c_out * s.out_height * s.out_width);
        let taps = s.kernel * s.kernel;
        let per_group = s.batch.div_ceil(GROUPS).max(1);
        let mut groups: Vec<Vec<f32>> = Vec::new();
        x.par_chunks(per_group * x_size)
            .zip(g.par_chunks(per_group * g_size))
            .map(|(x, g)| weight_gradient_of_group(&s, x, g))
            .collect_into_vec(&mut groups);
        let mut total = vec![0f32; taps * c_out * c_in];
        for group in &groups {
            total.iter_mut().zip(group).for_each(|(t, g)| *t += g);
        }
        // From [tap][out][in] to [out][in][tap].
        let mut out = vec![0f32; total.len()];
        for (tap, plane) in total.chunks_exact(c_out * c_in).enumerate() {
            for (pair, value) in plane.iter().enumerate() {
                out[pair * taps + tap] = *value;
            }
        }
        Ok((
            CpuStorage::F32(out),
            Shape::from((c_out, c_in, s.kernel, s.kernel)),
        ))
    }
}

/// `[tap][out][in]` summed over the samples of one group.
fn weight_gradient_of_group(s: &Sizes, x: &[f32], g: &[f32]) -> Vec<f32> {
    let kernel = Kernel::get();
    let (m, n) = (kernel.m, kernel.n);
    // Channel-innermost copies, channels padded to whole tiles.
    let (a_step, b_step) = (s.c_out.div_ceil(m) * m, s.c_in.div_ceil(n) * n);
    let (pad, stride) = (s.window.padding, s.window.stride);
    let (padded_h, padded_w) = (s.height + 2 * pad, s.width + 2 * pad);
    let mut a = vec![0f32; s.out_height * s.out_width * a_step];
    let mut b = vec![0f32; padded_h * padded_w * b_step];
    let start = vec![0f32; m];
    let mut total = vec![0f32; s.kernel * s.kernel * s.c_out * s.c_in];
    let sum = Sum {
        rows: s.out_height,
        cols: s.out_width,
        a_row: s.out_width * a_step,
        a_col: a_step,
        b_row: stride * padded_w * b_step,
        b_col: stride * b_step,
    };
    for (x, g) in x
        .chunks(s.c_in * s.height * s.width)
        .zip(g.chunks(s.c_out * s.out_height * s.out_width))
    {
        channels_innermost(
            g,
            s.c_out,
            (s.out_height, s.out_width),
            &mut a,
            a_step,
            (0, s.out_width),
        );
        channels_innermost(x, s.c_in, (s.height, s.width), &mut b, b_step, (pad, padded_w));
        for tap in 0..s.kernel * s.kernel {
            let shift = ((tap / s.kernel) * padded_w + tap % s.kernel) * b_step;
            let plane = &mut total[tap * s.c_out * s.c_in..][..s.c_out * s.c_in];
            for inner in (0..s.c_in).step_by(n) {
                for outer in (0..s.c_out).step_by(m) {
                    let valid = (s.c_out - outer, s.c_in - inner);
                    let c = &mut plane[outer * s.c_in + inner..];
                    kernel.tile(
                        sum,
                        &a[outer..],
                        &b[shift + inner..],
                        &start,
                        c,
                        s.c_in,
                        valid,
                        true,
                    );
                }
            }
        }
    }
    total
}

/// `[c, h, w]` → `[h + pad, w + pad, step]` with channels innermost; the border and the channels beyond `c` stay zero.
fn channels_innermost(
    x: &[f32],
    channels: usize,
    size: (usize, usize),
    out: &mut [f32],
    step: usize,
    at: (usize, usize),
) {
    const BLOCK: usize = 8;
    let (height, width) = size;
    let (pad, out_width) = at;
    for row in 0..height {
        let line = ((row + pad) * out_width + pad) * step;
        for first in (0..channels).step_by(BLOCK) {
            let last = (first + BLOCK).min(channels);
            for col in 0..width {
                let to = &mut out[line + col * step + first..line + col * step + last];
                for (channel, to) in (first..last).zip(to) {
                    *to = x[(channel * height + row) * width + col];
                }
            }
        }
    }
}

/// `[B, C, H, W]` summed to `[C]`, in f64 and in a fixed order.
struct ChannelSums;

impl CustomOp1 for ChannelSums {
    fn name(&self) -> &'static str {
        "allpet-channel-sums"
    }

    fn cpu_fwd(&self, g: &CpuStorage, lg: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[_, channels, h, w] = lg.dims() else {
            bail!("bias gradient of shape {:?}; expected 4 axes", lg.dims())
        };
        let g = floats("bias gradient", g, lg)?;
        let sums: Vec<f32> = (0..channels)
            .into_par_iter()
            .map(|channel| {
                let planes = g.chunks_exact(h * w).skip(channel).step_by(channels);
                planes
                    .map(|plane| f64::from(crate::elementwise::sum(plane)))
                    .sum::<f64>() as f32
            })
            .collect();
        Ok((CpuStorage::F32(sums), Shape::from(channels)))
    }
}
