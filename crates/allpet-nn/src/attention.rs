//! Multi-head self-attention over pixels: `softmax(QᵀK/√d)` per head (Vaswani et al. 2017), forward and backward.
//!
//! Queries, keys and values are channel-major `[d, N]`, as a 1×1 convolution leaves them. Scores are kept transposed
//! (`[key, query]`), so that the softmax runs along rows and every product reads its operands in place.

use crate::cpu::floats;
use crate::elementwise::exp;
use crate::lanes::{Kernel, Start, Sum, vectorised};
use crate::tape::apply1;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, D, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// `qkv [B, 3C, H, W]` (queries, keys, values stacked on the channels) → `[B, C, H, W]`.
///
/// # Errors
/// Channels that are not three times a multiple of `heads`.
pub fn attention(qkv: &Tensor, heads: usize) -> Result<Tensor> {
    let (b, c3, h, w) = qkv.dims4()?;
    if heads == 0 || c3 % (3 * heads) != 0 {
        bail!("attention: {c3} channels are not queries, keys and values of {heads} heads");
    }
    if qkv.device().is_cpu() {
        return apply1(&qkv.contiguous()?, Attention { heads });
    }
    let (d, n) = (c3 / 3 / heads, h * w);
    let parts = qkv.reshape((b, 3, heads, d, n))?;
    let part = |i: usize| parts.narrow(1, i, 1)?.squeeze(1)?.contiguous();
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let scores = (q.transpose(2, 3)?.contiguous()?.matmul(&k)? / (d as f64).sqrt())?;
    let scores = scores
        .broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    v.matmul(&weights.transpose(2, 3)?.contiguous()?)?
        .reshape((b, c3 / 3, h, w))
}

struct Attention {
    heads: usize,
}

/// The three operands of one head, pixels padded to whole tiles, and their transposes.
struct Head {
    d: usize,
    n: usize,
    /// Pixels after padding.
    wide: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    /// Softmax weights `[key, query]`, zero for padding.
    weights: Vec<f32>,
}

/// `[rows, cols]` into zero-padded `[rows, wide]`.
fn widen(x: &[f32], rows: usize, cols: usize, wide: usize) -> Vec<f32> {
    let mut out = vec![0f32; rows * wide];
    for (to, from) in out.chunks_exact_mut(wide).zip(x.chunks_exact(cols)).take(rows) {
        to[..cols].copy_from_slice(from);
    }
    out
}

/// `[rows, cols]` (of `stride` floats a row) transposed into zero-padded `[out_rows, wide]`.
fn transpose(x: &[f32], rows: usize, cols: usize, stride: usize, out_rows: usize, wide: usize) -> Vec<f32> {
    let mut out = vec![0f32; out_rows * wide];
    for row in 0..rows {
        for col in 0..cols {
            out[col * wide + row] = x[row * stride + col];
        }
    }
    out
}

/// `C [m, b_stride] = Aᵀ·B` for `A [depth, a_stride]`, `B [depth, b_stride]`; the strides are whole tiles.
fn product(a: &[f32], a_stride: usize, b: &[f32], b_stride: usize, depth: usize, m: usize, c: &mut [f32]) {
    let kernel = Kernel::get();
    let sum = Sum {
        rows: 1,
        cols: depth,
        a_row: 0,
        a_col: a_stride,
        b_row: 0,
        b_col: b_stride,
    };
    for left in (0..b_stride).step_by(kernel.n()) {
        for (top, m) in kernel.blocks(m) {
            let c = &mut c[top * b_stride + left..];
            kernel.tile(sum, (m, kernel.n()), &a[top..], &b[left..], Start::Zero, c, b_stride);
        }
    }
}

/// Pixels and channels are padded to multiples of this: the widest tile.
const TILE: usize = 32;

impl Head {
    fn new(qkv: &[f32], head: usize, channels: usize, d: usize, n: usize) -> Self {
        let wide = n.div_ceil(TILE) * TILE;
        let part = |i: usize| widen(&qkv[(i * channels + head * d) * n..][..d * n], d, n, wide);
        let (q, k, v) = (part(0), part(1), part(2));
        let mut weights = vec![0f32; wide * wide];
        product(&k, wide, &q, wide, d, n, &mut weights);
        let scale = 1.0 / (d as f32).sqrt();
        vectorised(
            #[inline(always)]
            || {
                let mut largest = vec![f32::NEG_INFINITY; wide];
                for row in weights.chunks_exact(wide).take(n) {
                    largest.iter_mut().zip(row).for_each(|(l, v)| *l = l.max(*v));
                }
                let mut total = vec![0f32; wide];
                for row in weights.chunks_exact_mut(wide).take(n) {
                    for ((v, l), t) in row.iter_mut().zip(&largest).zip(&mut total) {
                        *v = exp((*v - l) * scale);
                        *t += *v;
                    }
                }
                for row in weights.chunks_exact_mut(wide).take(n) {
                    row.iter_mut().zip(&total).for_each(|(v, t)| *v /= t);
                }
            },
        );
        Self {
            d,
            n,
            wide,
            q,
            k,
            v,
            weights,
        }
    }

    /// Channels after padding, as the stride of a transposed operand.
    fn tall(&self) -> usize {
        self.d.div_ceil(TILE) * TILE
    }

    fn flip(&self, x: &[f32]) -> Vec<f32> {
        transpose(x, self.d, self.n, self.wide, self.wide, self.tall())
    }

    fn forward(&self, out: &mut [f32]) {
        let mut wide = vec![0f32; self.d * self.wide];
        product(
            &self.flip(&self.v),
            self.tall(),
            &self.weights,
            self.wide,
            self.n,
            self.d,
            &mut wide,
        );
        narrow(&wide, self.wide, self.n, out);
    }

    /// Gradients of queries, keys and values, each `[d, n]`.
    fn backward(&self, grad: &[f32], dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
        let (d, n, wide, tall) = (self.d, self.n, self.wide, self.tall());
        let grad = widen(grad, d, n, wide);
        let mut result = vec![0f32; d * wide];
        let straight = transpose(&self.weights, n, n, wide, wide, wide);
        product(&self.flip(&grad), tall, &straight, wide, n, d, &mut result);
        narrow(&result, wide, n, dv);
        // dS = P∘(dP - Σ_j P·dP)/√d, all transposed.
        let mut ds = vec![0f32; wide * wide];
        product(&self.v, wide, &grad, wide, d, n, &mut ds);
        let scale = 1.0 / (d as f32).sqrt();
        let mut dots = vec![0f32; wide];
        for (row, weights) in ds.chunks_exact(wide).zip(self.weights.chunks_exact(wide)).take(n) {
            dots.iter_mut()
                .zip(row.iter().zip(weights))
                .for_each(|(t, (a, b))| *t += a * b);
        }
        for (row, weights) in ds
            .chunks_exact_mut(wide)
            .zip(self.weights.chunks_exact(wide))
            .take(n)
        {
            for ((v, p), t) in row.iter_mut().zip(weights).zip(&dots) {
                *v = p * (*v - t) * scale;
            }
        }
        product(&self.flip(&self.k), tall, &ds, wide, n, d, &mut result);
        narrow(&result, wide, n, dq);
        let straight = transpose(&ds, n, n, wide, wide, wide);
        product(&self.flip(&self.q), tall, &straight, wide, n, d, &mut result);
        narrow(&result, wide, n, dk);
    }
}

fn narrow(wide: &[f32], stride: usize, n: usize, out: &mut [f32]) {
    for (to, from) in out.chunks_exact_mut(n).zip(wide.chunks_exact(stride)) {
        to.copy_from_slice(&from[..n]);
    }
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "allpet-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout) -> Result<(CpuStorage, Shape)> {
        let &[b, c3, h, w] = lx.dims() else {
            bail!("attention: input {:?}; expected 4 axes", lx.dims())
        };
        let x = floats("attention", x, lx)?;
        let (c, n) = (c3 / 3, h * w);
        let d = c / self.heads;
        let mut out = vec![0f32; b * c * n];
        out.par_chunks_mut(d * n).enumerate().for_each(|(index, out)| {
            let sample = &x[index / self.heads * c3 * n..][..c3 * n];
            Head::new(sample, index % self.heads, c, d, n).forward(out);
        });
        Ok((CpuStorage::F32(out), Shape::from((b, c, h, w))))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let op = AttentionGradient { heads: self.heads };
        Ok(Some(x.contiguous()?.apply_op2_no_bwd(&grad.contiguous()?, &op)?))
    }
}

struct AttentionGradient {
    heads: usize,
}

impl CustomOp2 for AttentionGradient {
    fn name(&self) -> &'static str {
        "allpet-attention-gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        g: &CpuStorage,
        lg: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let &[_, c3, h, w] = lx.dims() else {
            bail!("attention: input {:?}; expected 4 axes", lx.dims())
        };
        let (x, g) = (floats("attention", x, lx)?, floats("attention gradient", g, lg)?);
        let (c, n) = (c3 / 3, h * w);
        let d = c / self.heads;
        let mut out = vec![0f32; x.len()];
        let samples = out
            .par_chunks_mut(c3 * n)
            .zip(x.par_chunks(c3 * n).zip(g.par_chunks(c * n)));
        samples.for_each(|(out, (x, g))| {
            let (dq, rest) = out.split_at_mut(c * n);
            let (dk, dv) = rest.split_at_mut(c * n);
            let heads = dq
                .par_chunks_mut(d * n)
                .zip(dk.par_chunks_mut(d * n))
                .zip(dv.par_chunks_mut(d * n));
            heads.enumerate().for_each(|(head, ((dq, dk), dv))| {
                Head::new(x, head, c, d, n).backward(&g[head * d * n..][..d * n], dq, dk, dv);
            });
        });
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}
