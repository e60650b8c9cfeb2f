//! The linear layer `y = x·Wᵀ + b`, each row computed alone: the batch never enters a sum or the choice of a kernel.

use crate::cpu::floats;
use crate::lanes::{Kernel, Slot, Start, Sum};
use crate::tape::apply3;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// `x [B, in]`, `weight [out, in]`, `bias [out]` → `[B, out]`.
///
/// # Errors
/// Shapes that do not fit; the message names them.
pub fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        apply3(
            &x.contiguous()?,
            &weight.contiguous()?,
            &bias.contiguous()?,
            Linear,
        )
    } else {
        let (weight, bias) = (weight.to_dtype(x.dtype())?, bias.to_dtype(x.dtype())?);
        x.matmul(&weight.t()?)?.broadcast_add(&bias)
    }
}

struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "allpet-linear"
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
        let (&[batch, inputs], &[outputs, depth]) = (lx.dims(), lw.dims()) else {
            bail!(
                "linear: input {:?} and weight {:?}; expected [B, in] and [out, in]",
                lx.dims(),
                lw.dims()
            );
        };
        if inputs != depth || lb.dims() != [outputs] {
            bail!(
                "linear: input {:?}, weight {:?}, bias {:?} do not fit",
                lx.dims(),
                lw.dims(),
                lb.dims()
            );
        }
        let (x, w, b) = (
            floats("linear", x, lx)?,
            floats("linear", w, lw)?,
            floats("linear", b, lb)?,
        );
        let kernel = Kernel::get();
        let n = kernel.n();
        let mut out = vec![0f32; batch * outputs];
        let (mut rows, mut panel, mut tile) = (
            vec![0f32; depth * kernel.most],
            vec![0f32; depth * n],
            vec![0f32; kernel.most * n],
        );
        for first in (0..batch).step_by(n) {
            let samples = n.min(batch - first);
            panel.fill(0.0);
            for (j, row) in x.chunks_exact(depth).skip(first).take(samples).enumerate() {
                row.iter().enumerate().for_each(|(k, v)| panel[k * n + j] = *v);
            }
            for (top, m) in kernel.blocks(outputs) {
                for (i, row) in w.chunks_exact(depth).skip(top).take(m).enumerate() {
                    row.iter().enumerate().for_each(|(k, v)| rows[k * m + i] = *v);
                }
                let sum = Sum::line(depth, m, n);
                kernel.tile(
                    sum,
                    (m, n),
                    &rows,
                    &panel,
                    Start::Rows(&b[top..]),
                    Slot::of(&mut tile),
                    n,
                );
                for i in 0..m {
                    for j in 0..samples {
                        out[(first + j) * outputs + top + i] = tile[i * n + j];
                    }
                }
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((batch, outputs))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        Ok((
            Some(grad.matmul(w)?),
            Some(grad.t()?.contiguous()?.matmul(x)?),
            Some(grad.sum(0)?),
        ))
    }
}
