//! Sums of tensors, and slice loops shared by the operators: lane-parallel sums and a vectorisable exponential.

use crate::cpu::floats;
use crate::lanes::vectorised;
use crate::tape::apply2;
use candle_core::{CpuStorage, CustomOp2, DType, InplaceOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// Floats of a task where every value is computed on its own.
const CHUNK: usize = 1 << 14;

/// `x + y` of one shape.
///
/// # Errors
/// Shapes that differ; the message names both.
pub fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() {
        bail!("sum of {:?} and {:?}; expected one shape", x.dims(), y.dims());
    }
    if x.device().is_cpu() && x.dtype() == DType::F32 && y.dtype() == DType::F32 {
        apply2(&x.contiguous()?, &y.contiguous()?, Add)
    } else {
        x + y
    }
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "allpet-add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (floats("sum", x, lx)?, floats("sum", y, ly)?);
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)))
            .for_each(|(out, (x, y))| {
                for ((to, x), y) in out.iter_mut().zip(x).zip(y) {
                    *to = x + y;
                }
            });
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(grad.clone()), Some(grad.clone())))
    }
}

/// `sum += term` where both are contiguous floats in host memory; false where they are not, and nothing was done.
///
/// The caller knows that nobody else looks at the storage of `sum`.
pub(crate) fn add_into(sum: &Tensor, term: &Tensor) -> Result<bool> {
    let plain = |t: &Tensor| t.device().is_cpu() && t.dtype() == DType::F32 && t.is_contiguous();
    if !plain(sum) || !plain(term) || sum.dims() != term.dims() {
        return Ok(false);
    }
    sum.inplace_op2(term, &AddInto)?;
    Ok(true)
}

struct AddInto;

impl InplaceOp2 for AddInto {
    fn name(&self) -> &'static str {
        "allpet-add-into"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        layout: &Layout,
        term: &CpuStorage,
        term_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(all), Some((from, to))) = (sum, layout.contiguous_offsets()) else {
            bail!("sum of gradients: expected contiguous floats");
        };
        let term = floats("sum of gradients", term, term_layout)?;
        all[from..to]
            .par_chunks_mut(CHUNK)
            .zip(term.par_chunks(CHUNK))
            .for_each(|(sum, term)| sum.iter_mut().zip(term).for_each(|(a, b)| *a += b));
        Ok(())
    }
}

/// Partial sums kept side by side; fixed, so that the order of a sum depends on its length only.
const LANES: usize = 16;

/// `Σ f(i)` over a slice, lane-parallel in f32 with the lanes added in f64.
#[inline(always)]
pub(crate) fn lane_sum<const K: usize>(length: usize, f: impl Fn(usize) -> [f32; K]) -> [f64; K] {
    let mut lanes = [[0f32; LANES]; K];
    let whole = length - length % LANES;
    for first in (0..whole).step_by(LANES) {
        for lane in 0..LANES {
            for (lanes, value) in lanes.iter_mut().zip(f(first + lane)) {
                lanes[lane] += value;
            }
        }
    }
    let mut total = lanes.map(|lanes| lanes.iter().map(|v| f64::from(*v)).sum::<f64>());
    for i in whole..length {
        for (total, value) in total.iter_mut().zip(f(i)) {
            *total += f64::from(value);
        }
    }
    total
}

/// Sum of a slice.
pub(crate) fn sum(values: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || lane_sum(values.len(), |i| [values[i]])[0] as f32,
    )
}

/// `e^x` to about 2 units in the last place, without a call, so that loops vectorise.
///
/// Range reduction by powers of two and a degree-6 polynomial on |r| ≤ ln 2 / 2 (Cody and Waite 1980).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let n = (x * std::f32::consts::LOG2_E + 0.5).floor();
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_1e-4f32;
    let p = p * r + 1.398_199_9e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 5e-1;
    let p = p * r * r + r + 1.0;
    p * f32::from_bits((((n as i32) + 127) as u32) << 23)
}

/// Logistic function.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_close_everywhere() {
        for i in -8600..8700 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(super::exp(x)) - exact).abs() <= 4e-7 * exact, "at {x}");
        }
        assert!((super::sigmoid(-200.0)).abs() < 1e-30 && super::sigmoid(200.0) == 1.0);
    }
}
