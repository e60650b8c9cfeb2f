//! Multi-head self-attention over pixels: `softmax(QᵀK/√d)` per head (Vaswani et al. 2017), forward and backward.
//!
//! Queries, keys and values are channel-major `[d, N]`, as a 1×1 convolution leaves them. Scores exist for a few queries
//! at a time and transposed (`[key, query]`), so that the softmax runs along the lanes; the backward pass computes them
//! again (Dao et al. 2022).

use crate::cpu::{floats, has_kernels};
use crate::elementwise::exp;
use crate::lanes::{Aligned, Kernel, Slot, Start, Sum, flipped, transpose, vectorised};
use crate::tape::apply1;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
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
    if qkv.device().is_cpu() || has_kernels(qkv) {
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

/// Queries that are worked on together: the columns of the widest tile.
const QUERIES: usize = 32;

/// `[rows, cols]` into zero-padded `[rows, wide]`.
fn widen(x: &[f32], rows: usize, cols: usize, wide: usize) -> Vec<f32> {
    let mut out = vec![0f32; rows * wide];
    for (to, from) in out.chunks_exact_mut(wide).zip(x.chunks_exact(cols)).take(rows) {
        to[..cols].copy_from_slice(from);
    }
    out
}

/// `C [rows, columns] (+)= Aᵀ·B` for `A [depth, a_stride]`, `B [depth, b_stride]`.
///
/// B must reach a whole register beyond the columns.
#[derive(Clone, Copy)]
struct Product {
    depth: usize,
    rows: usize,
    columns: usize,
    a_stride: usize,
    b_stride: usize,
    c_stride: usize,
}

impl Product {
    fn of(self, a: &[f32], b: &[f32], start: Start<'_>, c: &mut [f32]) {
        let kernel = Kernel::get();
        let sum = Sum::line(self.depth, self.a_stride, self.b_stride);
        for left in (0..self.columns).step_by(kernel.n()) {
            let columns = kernel.n().min(self.columns - left);
            for (top, m) in kernel.blocks(self.rows) {
                let c = Slot::of(&mut c[top * self.c_stride + left..]);
                kernel.tile(sum, (m, columns), &a[top..], &b[left..], start, c, self.c_stride);
            }
        }
    }
}

/// The operands of one head, pixels padded to whole tiles.
struct Head {
    d: usize,
    n: usize,
    /// Pixels after padding.
    wide: usize,
    /// Floats from row to row: rows a power of two apart would push one another out of the first-level cache.
    stride: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

impl Head {
    fn new(qkv: &[f32], head: usize, channels: usize, d: usize, n: usize) -> Self {
        let wide = n.div_ceil(QUERIES) * QUERIES;
        let stride = wide + 16;
        let part = |i: usize| widen(&qkv[(i * channels + head * d) * n..][..d * n], d, n, stride);
        Self {
            d,
            n,
            wide,
            stride,
            q: part(0),
            k: part(1),
            v: part(2),
        }
    }

    /// First queries of the tiles.
    fn tiles(&self) -> impl Iterator<Item = usize> {
        (0..self.wide).step_by(QUERIES)
    }

    /// `Xᵀ·Y [keys, QUERIES]` for `X, Y [d, pixels]`, Y from pixel `first` on.
    fn scores(&self, x: &[f32], y: &[f32], first: usize, out: &mut [f32]) {
        let product = Product {
            depth: self.d,
            rows: self.n,
            columns: QUERIES,
            a_stride: self.stride,
            b_stride: self.stride,
            c_stride: QUERIES,
        };
        product.of(x, &y[first..], Start::Zero, out);
    }

    /// `X·Y [d, QUERIES]` for `Xᵀ [keys, d]` and `Y [keys, QUERIES]`, into the columns from `first` on.
    fn mix(&self, x: &[f32], y: &[f32], first: usize, out: &mut [f32]) {
        let product = Product {
            depth: self.n,
            rows: self.d,
            columns: QUERIES,
            a_stride: self.d,
            b_stride: QUERIES,
            c_stride: self.stride,
        };
        product.of(x, y, Start::Zero, &mut out[first..]);
    }

    /// Softmax weights of the queries from `first` on, `[keys, QUERIES]`, before the division by their sums, whose
    /// inverses are returned.
    fn weights(&self, first: usize, out: &mut [f32]) -> [f32; QUERIES] {
        self.scores(&self.k, &self.q, first, out);
        let scale = 1.0 / (self.d as f32).sqrt();
        vectorised(
            #[inline(always)]
            || {
                let (rows, _) = out.as_chunks_mut::<QUERIES>();
                let mut largest = [f32::MIN; QUERIES];
                for row in &*rows {
                    for i in 0..QUERIES {
                        largest[i] = if row[i] > largest[i] { row[i] } else { largest[i] };
                    }
                }
                let mut total = [0f32; QUERIES];
                for row in &mut *rows {
                    for i in 0..QUERIES {
                        row[i] = exp((row[i] - largest[i]) * scale);
                        total[i] += row[i];
                    }
                }
                total.map(|t| 1.0 / t)
            },
        )
    }

    fn forward(&self, out: &mut [f32]) {
        let values = flipped(&self.v, self.d, self.n, self.stride);
        let mut weights = Aligned::zeros(self.n * QUERIES);
        let mut wide = vec![0f32; self.d * self.stride];
        for first in self.tiles() {
            let inverse = self.weights(first, &mut weights);
            self.mix(&values, &weights, first, &mut wide);
            for row in wide.chunks_exact_mut(self.stride) {
                row[first..].iter_mut().zip(&inverse).for_each(|(v, i)| *v *= i);
            }
        }
        narrow(&wide, self.stride, self.n, out);
    }

    /// Gradients of queries, keys and values, each `[d, n]`.
    ///
    /// With `P` the weights and `dP = Vᵀ·dO`: `dV = dO·Pᵀ`, `dS = P∘(dP - Σ_keys P∘dP)/√d`, `dQ = K·dS`, `dK = Q·dSᵀ`.
    fn backward(&self, grad: &[f32], dq: &mut [f32], dk: &mut [f32], dv: &mut [f32]) {
        let (d, n, wide, stride) = (self.d, self.n, self.wide, self.stride);
        let grad = widen(grad, d, n, stride);
        let keys = flipped(&self.k, d, n, stride);
        let (queries, mut gradients) = (flipped(&self.q, d, wide, stride), flipped(&grad, d, wide, stride));
        let (mut weights, mut ds) = (Aligned::zeros(n * QUERIES), Aligned::zeros(n * QUERIES));
        let mut turned = vec![0f32; QUERIES * stride];
        let (mut dq_wide, mut dk_wide, mut dv_wide) = (
            vec![0f32; d * stride],
            vec![0f32; d * stride],
            vec![0f32; d * stride],
        );
        // Sums over queries: of a tile's transposed weights, added to what the tiles before left.
        let over_queries = Product {
            depth: QUERIES,
            rows: d,
            columns: wide,
            a_stride: d,
            b_stride: stride,
            c_stride: stride,
        };
        for first in self.tiles() {
            let mut inverse = self.weights(first, &mut weights);
            // Queries that are padding have weights too; nothing may come of them.
            inverse[QUERIES.min(n - first)..].fill(0.0);
            transpose(&weights, QUERIES, (n, QUERIES), &mut turned, stride);
            for (gradient, inverse) in gradients[first * d..].chunks_exact_mut(d).zip(&inverse) {
                gradient.iter_mut().for_each(|v| *v *= inverse);
            }
            over_queries.of(&gradients[first * d..], &turned, Start::C, &mut dv_wide);
            self.scores(&self.v, &grad, first, &mut ds);
            let scale = 1.0 / (d as f32).sqrt();
            vectorised(
                #[inline(always)]
                || {
                    let (rows, _) = ds.as_chunks_mut::<QUERIES>();
                    let (weights, _) = weights.as_chunks::<QUERIES>();
                    let mut dots = [0f32; QUERIES];
                    for (row, p) in rows.iter().zip(weights) {
                        for i in 0..QUERIES {
                            dots[i] += row[i] * p[i];
                        }
                    }
                    let (mut dots, mut factors) = (dots, inverse);
                    for i in 0..QUERIES {
                        dots[i] *= inverse[i];
                        factors[i] *= scale;
                    }
                    for (row, p) in rows.iter_mut().zip(weights) {
                        for i in 0..QUERIES {
                            row[i] = (p[i] * factors[i]) * (row[i] - dots[i]);
                        }
                    }
                },
            );
            self.mix(&keys, &ds, first, &mut dq_wide);
            transpose(&ds, QUERIES, (n, QUERIES), &mut turned, stride);
            over_queries.of(&queries[first * d..], &turned, Start::C, &mut dk_wide);
        }
        narrow(&dq_wide, stride, n, dq);
        narrow(&dk_wide, stride, n, dk);
        narrow(&dv_wide, stride, n, dv);
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, lx: &Layout) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::attention(self.heads, (x, lx))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        #[cfg(feature = "cuda")]
        if x.device().is_cuda() {
            let tensors = [&x.contiguous()?, &grad.contiguous()?];
            return crate::cuda::device::attention_gradient(self.heads, tensors).map(Some);
        }
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
