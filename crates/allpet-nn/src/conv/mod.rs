//! Two-dimensional convolution and its gradients, grouped or not; here on the CPU.
//!
//! Forward: `Y = W · windows(X)` ([`product`]). `dX` is the same product with the weights flipped and their channels
//! exchanged, over the gradient; with a stride it falls into phases ([`polyphase`]). `dW[tap] = Σ dY ⊗ X(shifted by tap)`
//! ([`weight_gradient`]). Where every channel is a group of its own, [`depthwise`] loops over rows instead.
//!
//! Each sample is computed alone, in tiles that depend on its own shape only: results are the same bytes for any
//! batch size and thread count. Weight gradients add samples in a fixed grouping, so they too are the same for any
//! thread count.

mod depthwise;
mod polyphase;
mod product;
mod weight_gradient;

use crate::cpu::{floats, has_kernels, parameter};
use crate::lanes::{Slot, filled};
use crate::tape::apply3;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, bail};
use product::{Packed, Planes, Windows, windows_product};
use rayon::prelude::*;
use weight_gradient::weight_gradient;

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
    grouped_conv2d(x, weight, bias, window, 1)
}

/// [`conv2d`] within `groups` of channels: `weight [C_out, C_in / groups, k, k]`. As many groups as channels make it
/// depthwise.
///
/// # Errors
/// Shapes that do not fit, groups that do not divide the channels; the message names both.
pub fn grouped_conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    window: Window,
    groups: usize,
) -> Result<Tensor> {
    if x.device().is_cpu() || has_kernels(x) {
        let (x, weight, bias) = (x.contiguous()?, parameter(weight)?, parameter(bias)?);
        apply3(&x, &weight, &bias, Conv { window, groups })
    } else {
        Sizes::new(x.dims(), weight.dims(), window, groups)?;
        let y = x.conv2d(weight, window.padding, window.stride, 1, groups)?;
        y.broadcast_add(&bias.reshape((1, (), 1, 1))?)
    }
}

/// The sizes of one convolution; channels are those of one group.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    pub(crate) c_in: usize,
    pub(crate) c_out: usize,
    pub(crate) kernel: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) out_height: usize,
    pub(crate) out_width: usize,
    pub(crate) window: Window,
}

impl Sizes {
    pub(crate) fn new(x: &[usize], weight: &[usize], window: Window, groups: usize) -> Result<Self> {
        let (&[batch, channels, height, width], &[c_out, c_in, kernel, kernel_w]) = (x, weight) else {
            bail!(
                "conv2d: input {x:?} and weight {weight:?}; expected [B, C_in, H, W] and [C_out, C_in / groups, k, k]"
            );
        };
        if groups == 0 || !channels.is_multiple_of(groups) || !c_out.is_multiple_of(groups) {
            bail!("conv2d: {groups} groups do not divide {channels} to {c_out} channels");
        }
        if channels != c_in * groups || kernel != kernel_w || window.stride == 0 {
            bail!(
                "conv2d: input {x:?} does not fit weight {weight:?}, stride {}, {groups} groups",
                window.stride
            );
        }
        if kernel == 0 || kernel <= window.padding {
            bail!(
                "conv2d: padding {} with the kernel {weight:?}; expected less than its side",
                window.padding
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
            groups,
            c_in,
            c_out: c_out / groups,
            kernel,
            height,
            width,
            out_height,
            out_width,
            window,
        })
    }

    pub(crate) fn taps(&self) -> usize {
        self.kernel * self.kernel
    }

    pub(crate) fn pixels(&self) -> usize {
        self.height * self.width
    }

    pub(crate) fn out_pixels(&self) -> usize {
        self.out_height * self.out_width
    }

    fn depthwise(&self) -> bool {
        self.c_in == 1 && self.c_out == 1 && self.window.stride == 1
    }

    fn windows(&self) -> Windows {
        Windows {
            taps: (self.kernel, self.kernel),
            origin: (0, 0),
            stride: self.window.stride,
            height: self.out_height,
            width: self.out_width,
        }
    }
}

/// Every sample and group of `x` (of `inputs` floats) into its part of `out` (of `outputs`), by that group's weights.
#[allow(clippy::too_many_arguments)]
fn each_group(
    packed: &[Packed],
    x: &[f32],
    inputs: usize,
    out: &mut [Slot],
    outputs: usize,
    fill: impl Fn(&mut Planes, &[f32]) + Sync,
    windows: Windows,
    start: Option<&[f32]>,
) {
    // Few samples share their output channels out over the cores; each part packs its own windows.
    let tasks = out.len() / outputs.max(1);
    let parts = (2 * rayon::current_num_threads()).div_ceil(tasks.max(1));
    out.par_chunks_mut(outputs)
        .zip(x.par_chunks(inputs))
        .enumerate()
        .for_each_init(Planes::default, |planes, (index, (out, x))| {
            fill(planes, x);
            let group = index % packed.len();
            let weights = &packed[group];
            let start = start.map(|all| &all[group * weights.rows()..][..weights.rows()]);
            windows_product(weights, planes, windows, start, out, parts);
        });
}

struct Conv {
    window: Window,
    groups: usize,
}

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
        let s = Sizes::new(lx.dims(), lw.dims(), self.window, self.groups)?;
        let (x, w, b) = (
            floats("conv2d", x, lx)?,
            floats("conv2d", w, lw)?,
            floats("conv2d", b, lb)?,
        );
        let channels = s.groups * s.c_out;
        bias_fits(&s, lw, b.len())?;
        let length = s.batch * channels * s.out_pixels();
        let out = if s.depthwise() {
            depthwise::forward(&s, x, w, Some(b))
        } else {
            let (taps, depth) = (s.taps(), s.c_in * s.taps());
            let packed: Vec<_> = w
                .chunks_exact((s.c_out * depth).max(1))
                .map(|w| {
                    Packed::new(s.c_out, (s.c_in, taps), |row, channel, tap| {
                        w[row * depth + channel * taps + tap]
                    })
                })
                .collect();
            let pad = s.window.padding;
            let fill =
                |planes: &mut Planes, x: &[f32]| planes.pad(x, s.c_in, (s.height, s.width), pad, (pad, pad));
            let (inputs, outputs) = (s.c_in * s.pixels(), s.c_out * s.out_pixels());
            // SAFETY: every sample and group writes its part of the output, tile by tile.
            unsafe {
                filled(length, |out| {
                    each_group(&packed, x, inputs, out, outputs, fill, s.windows(), Some(b))
                })
            }
        };
        Ok((
            CpuStorage::F32(out),
            Shape::from((s.batch, channels, s.out_height, s.out_width)),
        ))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        w: &CudaStorage,
        lw: &Layout,
        b: &CudaStorage,
        lb: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let s = Sizes::new(lx.dims(), lw.dims(), self.window, self.groups)?;
        bias_fits(&s, lw, lb.shape().elem_count())?;
        crate::cuda::device::conv2d(&s, [(x, lx), (w, lw), (b, lb)])
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
        let sizes = Sizes::new(x.dims(), w.dims(), self.window, self.groups)?;
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            return cuda_gradients(&sizes, [&x, &w, b], &grad);
        }
        let dx = match x.track_op() {
            true => Some(grad.apply_op2_no_bwd(&w, &InputGradient(sizes))?),
            false => None,
        };
        let dw = match w.track_op() {
            true => Some(x.apply_op2_no_bwd(&grad, &WeightGradient(sizes))?),
            false => None,
        };
        let db = match b.track_op() {
            true => Some(grad.apply_op1_no_bwd(&ChannelSums)?),
            false => None,
        };
        Ok((dx, dw, db))
    }
}

/// `dX`, `dW` and the bias gradient, those that are asked for.
#[cfg(feature = "cuda")]
#[allow(clippy::type_complexity)]
fn cuda_gradients(
    s: &Sizes,
    [x, w, b]: [&Tensor; 3],
    grad: &Tensor,
) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
    let wanted = |t: &Tensor, make: &dyn Fn() -> Result<Tensor>| match t.track_op() {
        true => make().map(Some),
        false => Ok(None),
    };
    Ok((
        wanted(x, &|| crate::cuda::device::conv2d_input_gradient(s, [grad, w]))?,
        wanted(w, &|| crate::cuda::device::conv2d_weight_gradient(s, [x, grad]))?,
        wanted(b, &|| crate::cuda::device::channel_sums(grad))?,
    ))
}

fn bias_fits(s: &Sizes, weight: &Layout, values: usize) -> Result<()> {
    let channels = s.groups * s.c_out;
    if values != channels {
        bail!(
            "conv2d: bias of {values} values; the weight {:?} has {channels} outputs",
            weight.dims(),
        );
    }
    Ok(())
}

/// `dX` from `(dY, W)`.
struct InputGradient(Sizes);

impl CustomOp2 for InputGradient {
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
        let s = self.0;
        let (g, w) = (
            floats("conv2d gradient", g, lg)?,
            floats("conv2d gradient", w, lw)?,
        );
        let (taps, channels) = (s.taps(), s.groups * s.c_in);
        let length = s.batch * channels * s.pixels();
        let out = if s.depthwise() {
            depthwise::input_gradient(&s, g, w)
        } else if s.window.stride > 1 {
            polyphase::input_gradient(&s, g, w)
        } else {
            // Row = input channel, k = (output channel, flipped tap).
            let packed: Vec<_> = w
                .chunks_exact((s.c_out * s.c_in * taps).max(1))
                .map(|w| {
                    Packed::new(s.c_in, (s.c_out, taps), |row, channel, tap| {
                        w[(channel * s.c_in + row) * taps + taps - 1 - tap]
                    })
                })
                .collect();
            let before = s.kernel - 1 - s.window.padding;
            let behind = |size: usize, out: usize| (size + s.kernel - 1).saturating_sub(before + out);
            let after = (behind(s.height, s.out_height), behind(s.width, s.out_width));
            let size = (s.out_height, s.out_width);
            let fill = |planes: &mut Planes, g: &[f32]| planes.pad(g, s.c_out, size, before, after);
            let windows = Windows {
                taps: (s.kernel, s.kernel),
                origin: (0, 0),
                stride: 1,
                height: s.height,
                width: s.width,
            };
            let (inputs, outputs) = (s.c_out * s.out_pixels(), s.c_in * s.pixels());
            // SAFETY: every sample and group writes its part of the output, tile by tile.
            unsafe {
                filled(length, |out| {
                    each_group(&packed, g, inputs, out, outputs, fill, windows, None)
                })
            }
        };
        Ok((
            CpuStorage::F32(out),
            Shape::from((s.batch, channels, s.height, s.width)),
        ))
    }
}

/// `dW` from `(X, dY)`.
struct WeightGradient(Sizes);

impl CustomOp2 for WeightGradient {
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
        let s = &self.0;
        let (x, g) = (
            floats("conv2d gradient", x, lx)?,
            floats("conv2d gradient", g, lg)?,
        );
        let out = if s.depthwise() {
            depthwise::weight_gradient(s, x, g)
        } else {
            weight_gradient(s, x, g)
        };
        Ok((
            CpuStorage::F32(out),
            Shape::from((s.groups * s.c_out, s.c_in, s.kernel, s.kernel)),
        ))
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
