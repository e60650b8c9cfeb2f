//! Attention between channels (multi-Dconv head transposed attention of Restormer, Zamir et al. 2022):
//! `softmax(t·q̂k̂ᵀ)·v` per head, where the rows of `q̂` and `k̂` are normalised over the pixels and `t` is learned.
//!
//! The matrix is small, `[d, d]`; only products pass over the pixels. Backward, with `P` the weights, `S = q̂k̂ᵀ` and
//! `dP = dO·vᵀ`: `dv = Pᵀ·dO`, `dZ = P∘(dP - Σ_j P∘dP)`, `dt = Σ dZ∘S`, `G = t·dZ`,
//! `dq = (G·k̂ - diag(Σ_j G∘S)·q̂)/|q|` and likewise `dk` with `Gᵀ`.

use crate::cpu::{floats, has_kernels, parameter};
use crate::lanes::{Kernel, Slot, Start, Sum, flipped, transpose, vectorised};
use crate::tape::apply2;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Rows shorter than this are not stretched to length 1.
pub(crate) const LEAST_NORM: f32 = 1e-12;

/// `qkv [B, 3C, H, W]` (queries, keys, values stacked on the channels), `temperature [heads]` → `[B, C, H, W]`.
///
/// # Errors
/// Channels that are not three times a multiple of the heads.
pub fn channel_attention(qkv: &Tensor, temperature: &Tensor) -> Result<Tensor> {
    let (b, c3, h, w) = qkv.dims4()?;
    let heads = temperature.dims1()?;
    if heads == 0 || c3 == 0 || c3 % (3 * heads) != 0 {
        bail!("channel attention: {c3} channels are not queries, keys and values of {heads} heads");
    }
    if has_kernels(qkv) {
        return apply2(&qkv.contiguous()?, &parameter(temperature)?, ChannelAttention);
    }
    let parts = qkv.reshape((b, 3, heads, c3 / 3 / heads, h * w))?;
    let part = |i: usize| parts.narrow(1, i, 1)?.squeeze(1)?.contiguous();
    let hat = |x: Tensor| {
        let norm = x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        x.broadcast_div(&norm.maximum(f64::from(LEAST_NORM))?)
    };
    let cosines = hat(part(0)?)?.matmul(&hat(part(1)?)?.transpose(2, 3)?.contiguous()?)?;
    let scores = cosines.broadcast_mul(&temperature.reshape((1, heads, 1, 1))?)?;
    let scores = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&part(2)?)?.reshape((b, c3 / 3, h, w))
}

struct ChannelAttention;

/// One head of one sample.
struct Head<'a> {
    d: usize,
    n: usize,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    /// Lengths of the rows of q and k.
    lengths: (Vec<f32>, Vec<f32>),
    /// `q̂k̂ᵀ [d, d]`.
    cosines: Vec<f32>,
    /// Softmax weights `[d, d]`.
    weights: Vec<f32>,
}

/// `[rows, n]` with pixels outermost, `[n, step]`, `step` whole registers.
fn pixels_outermost(x: &[f32], rows: usize, n: usize, step: usize) -> Vec<f32> {
    let mut out = vec![0f32; n * step];
    transpose(x, n, (rows, n), &mut out, step);
    out
}

/// `X·Yᵀ [d, d]` over the pixels of `[d, n]` each.
fn over_pixels(x: &[f32], y: &[f32], d: usize, n: usize) -> Vec<f32> {
    let kernel = Kernel::get();
    let step = d.div_ceil(kernel.n()) * kernel.n();
    let (x, y) = (pixels_outermost(x, d, n, step), pixels_outermost(y, d, n, step));
    let mut out = vec![0f32; d * d];
    for left in (0..d).step_by(kernel.n()) {
        for (top, m) in kernel.blocks(d) {
            let size = (m, kernel.n().min(d - left));
            let c = Slot::of(&mut out[top * d + left..]);
            kernel.tile(
                Sum::line(n, step, step),
                size,
                &x[top..],
                &y[left..],
                Start::Zero,
                c,
                d,
            );
        }
    }
    out
}

/// `A·Y [d, n]` for `Aᵀ [d, d]` and `Y [d, n]`.
fn mix(a: &[f32], y: &[f32], d: usize, n: usize, out: &mut [f32]) {
    let kernel = Kernel::get();
    let whole = n - n % kernel.n();
    for (top, m) in kernel.blocks(d) {
        for left in (0..whole).step_by(kernel.n()) {
            let c = Slot::of(&mut out[top * n + left..]);
            let sum = Sum::line(d, d, n);
            kernel.tile(sum, (m, kernel.n()), &a[top..], &y[left..], Start::Zero, c, n);
        }
    }
    // The last pixels do not fill a register.
    for (i, out) in out.chunks_exact_mut(n).enumerate() {
        for (p, to) in out.iter_mut().enumerate().skip(whole) {
            *to = (0..d).map(|j| a[j * d + i] * y[j * n + p]).sum();
        }
    }
}

impl<'a> Head<'a> {
    fn new(sample: &'a [f32], head: usize, channels: usize, d: usize, n: usize, temperature: f32) -> Self {
        let part = |i: usize| &sample[(i * channels + head * d) * n..][..d * n];
        let (q, k, v) = (part(0), part(1), part(2));
        let lengths = |x: &[f32]| -> Vec<f32> {
            let square = |row: &[f32]| crate::elementwise::sum_of_squares(row);
            x.chunks_exact(n)
                .map(|row| square(row).sqrt().max(LEAST_NORM))
                .collect()
        };
        let (of_q, of_k) = (lengths(q), lengths(k));
        let mut cosines = over_pixels(q, k, d, n);
        for (row, q) in cosines.chunks_exact_mut(d).zip(&of_q) {
            row.iter_mut().zip(&of_k).for_each(|(v, k)| *v /= q * k);
        }
        let mut weights = cosines.clone();
        for row in weights.chunks_exact_mut(d) {
            row.iter_mut().for_each(|v| *v *= temperature);
            let largest = row.iter().fold(f32::NEG_INFINITY, |l, v| l.max(*v));
            row.iter_mut().for_each(|v| *v = (*v - largest).exp());
            let total: f32 = row.iter().sum();
            row.iter_mut().for_each(|v| *v /= total);
        }
        Self {
            d,
            n,
            q,
            k,
            v,
            lengths: (of_q, of_k),
            cosines,
            weights,
        }
    }

    fn forward(&self, out: &mut [f32]) {
        mix(
            &flipped(&self.weights, self.d, self.d, self.d),
            self.v,
            self.d,
            self.n,
            out,
        );
    }

    /// Writes dq, dk, dv, each `[d, n]`, and returns the temperature's gradient.
    fn backward(
        &self,
        grad: &[f32],
        temperature: f32,
        dq: &mut [f32],
        dk: &mut [f32],
        dv: &mut [f32],
    ) -> f32 {
        let (d, n) = (self.d, self.n);
        mix(&self.weights, grad, d, n, dv);
        let mut dz = over_pixels(grad, self.v, d, n);
        let mut dt = 0f32;
        let rows = self.weights.chunks_exact(d).zip(self.cosines.chunks_exact(d));
        for (row, (weights, cosines)) in dz.chunks_exact_mut(d).zip(rows) {
            let dot: f32 = row.iter().zip(weights).map(|(v, p)| v * p).sum();
            for ((v, p), s) in row.iter_mut().zip(weights).zip(cosines) {
                *v = p * (*v - dot);
                dt += *v * s;
                *v *= temperature;
            }
        }
        let (dz_flipped, cosines_flipped) = (flipped(&dz, d, d, d), flipped(&self.cosines, d, d, d));
        let (of_q, of_k) = (&self.lengths.0, &self.lengths.1);
        stretch(&dz, &self.cosines, (self.q, of_q), (self.k, of_k), (d, n), dq);
        stretch(
            &dz_flipped,
            &cosines_flipped,
            (self.k, of_k),
            (self.q, of_q),
            (d, n),
            dk,
        );
        dt
    }
}

/// Through the normalisation: `dx = (G·ŷ - diag(Σ_j G∘S)·x̂)/|x|`.
fn stretch(
    g: &[f32],
    cosines: &[f32],
    (x, of_x): (&[f32], &[f32]),
    (y, of_y): (&[f32], &[f32]),
    (d, n): (usize, usize),
    dx: &mut [f32],
) {
    let mut factors = flipped(g, d, d, d);
    for (row, length) in factors.chunks_exact_mut(d).zip(of_y) {
        row.iter_mut().zip(of_x).for_each(|(v, x)| *v /= length * x);
    }
    mix(&factors, y, d, n, dx);
    let rows = g.chunks_exact(d).zip(cosines.chunks_exact(d)).zip(of_x);
    for ((dx, x), ((g, s), length)) in dx.chunks_exact_mut(n).zip(x.chunks_exact(n)).zip(rows) {
        let along: f32 = g.iter().zip(s).map(|(g, s)| g * s).sum::<f32>() / (length * length);
        vectorised(
            #[inline(always)]
            || dx.iter_mut().zip(x).for_each(|(to, x)| *to -= along * x),
        );
    }
}

/// Batch, channels of one operand, channels of a head, pixels.
fn sizes(shape: &[usize], heads: usize) -> Result<(usize, usize, usize, usize)> {
    match shape {
        &[b, c3, h, w] => Ok((b, c3 / 3, c3 / 3 / heads, h * w)),
        _ => bail!("channel attention: input {shape:?}; expected 4 axes"),
    }
}

impl CustomOp2 for ChannelAttention {
    fn name(&self) -> &'static str {
        "allpet-channel-attention"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        t: &CpuStorage,
        lt: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, t) = (
            floats("channel attention", x, lx)?,
            floats("channel attention", t, lt)?,
        );
        let (b, c, d, n) = sizes(lx.dims(), t.len())?;
        let mut out = vec![0f32; b * c * n];
        out.par_chunks_mut(d * n).enumerate().for_each(|(index, out)| {
            let (sample, head) = (index / t.len(), index % t.len());
            Head::new(&x[sample * 3 * c * n..][..3 * c * n], head, c, d, n, t[head]).forward(out);
        });
        let shape = [&[b, c], &lx.dims()[2..]].concat();
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        t: &CudaStorage,
        lt: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::channel_attention([(x, lx), (t, lt)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        t: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let [dx, dt] = crate::cuda::device::channel_attention_gradient([x, t, &grad.contiguous()?])?;
            return Ok((Some(dx), Some(dt)));
        }
        // One operator has one result, so dx comes back with a temperature's gradient for each head behind it.
        let all = x.apply_op3_no_bwd(t, &grad.contiguous()?, &Gradient)?;
        let (length, heads) = (x.elem_count(), t.elem_count());
        let dx = all.narrow(0, 0, length)?.reshape(x.dims())?;
        let dt = all
            .narrow(0, length, x.dim(0)? * heads)?
            .reshape(((), heads))?
            .sum(0)?;
        Ok((Some(dx), Some(dt)))
    }
}

/// `[dqkv, dt of every sample and head]`, flat.
struct Gradient;

impl CustomOp3 for Gradient {
    fn name(&self) -> &'static str {
        "allpet-channel-attention-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        t: &CpuStorage,
        lt: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, t) = (
            floats("channel attention", x, lx)?,
            floats("channel attention", t, lt)?,
        );
        let g = floats("channel attention gradient", g, lg)?;
        let heads = t.len();
        let (b, c, d, n) = sizes(lx.dims(), heads)?;
        let mut out = vec![0f32; x.len() + b * heads];
        let (dx, dt) = out.split_at_mut(x.len());
        let samples = dx.par_chunks_mut(3 * c * n).zip(dt.par_chunks_mut(heads));
        samples
            .zip(x.par_chunks(3 * c * n).zip(g.par_chunks(c * n)))
            .for_each(|((dx, dt), (x, g))| {
                let (dq, rest) = dx.split_at_mut(c * n);
                let (dk, dv) = rest.split_at_mut(c * n);
                let parts = dq.par_chunks_mut(d * n).zip(dk.par_chunks_mut(d * n));
                parts.zip(dv.par_chunks_mut(d * n).zip(dt)).enumerate().for_each(
                    |(head, ((dq, dk), (dv, dt)))| {
                        let grad = &g[head * d * n..][..d * n];
                        *dt = Head::new(x, head, c, d, n, t[head]).backward(grad, t[head], dq, dk, dv);
                    },
                );
            });
        let length = out.len();
        Ok((CpuStorage::F32(out), Shape::from(length)))
    }
}
