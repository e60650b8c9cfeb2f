//! Sums of tensors, and slice loops shared by the operators: lane-parallel sums and a vectorisable exponential.

use crate::cpu::{floats, has_kernels};
use crate::lanes::{Slot, filled, vectorised};
use crate::tape::apply2;
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
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
    if has_kernels(x) && has_kernels(y) && x.dtype() == y.dtype() {
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
        let out = join(x, y, |x, y| x + y);
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        lx: &Layout,
        y: &CudaStorage,
        ly: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        crate::cuda::device::add([(x, lx), (y, ly)])
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

/// The mean of `(x - y)²` over all values, a scalar.
///
/// # Errors
/// Shapes that differ; the message names both.
pub fn mean_squared_error(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if x.dims() != y.dims() || x.elem_count() == 0 {
        bail!(
            "mean squared error of {:?} and {:?}; expected one shape, not empty",
            x.dims(),
            y.dims()
        );
    }
    if x.device().is_cpu() && x.dtype() == DType::F32 && y.dtype() == DType::F32 {
        apply2(&x.contiguous()?, &y.contiguous()?, MeanSquaredError)
    } else {
        // Halves would lose what the mean is about.
        let wide = |t: &Tensor| match t.dtype() {
            DType::F16 | DType::BF16 => t.to_dtype(DType::F32),
            _ => Ok(t.clone()),
        };
        (wide(x)? - wide(y)?)?.sqr()?.mean_all()
    }
}

struct MeanSquaredError;

impl CustomOp2 for MeanSquaredError {
    fn name(&self) -> &'static str {
        "allpet-mean-squared-error"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (
            floats("mean squared error", x, lx)?,
            floats("mean squared error", y, ly)?,
        );
        let parts: Vec<f64> = x
            .par_chunks(CHUNK)
            .zip(y.par_chunks(CHUNK))
            .map(|(x, y)| {
                vectorised(
                    #[inline(always)]
                    || lane_sum([x, y], |[x, y]| [(x - y) * (x - y)])[0],
                )
            })
            .collect();
        let mean = parts.iter().sum::<f64>() / x.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let factor = 2.0 * grad.to_scalar::<f32>()? / x.elem_count() as f32;
        let slope = |factor| {
            x.contiguous()?
                .apply_op2_no_bwd(&y.contiguous()?, &ScaledDifference(factor))
        };
        let dx = if x.track_op() { Some(slope(factor)?) } else { None };
        let dy = if y.track_op() { Some(slope(-factor)?) } else { None };
        Ok((dx, dy))
    }
}

/// `factor · (x - y)`.
struct ScaledDifference(f32);

impl CustomOp2 for ScaledDifference {
    fn name(&self) -> &'static str {
        "allpet-scaled-difference"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        y: &CpuStorage,
        ly: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (floats("difference", x, lx)?, floats("difference", y, ly)?);
        let out = join(x, y, |x, y| self.0 * (x - y));
        Ok((CpuStorage::F32(out), lx.shape().clone()))
    }
}

/// `f` of the values of two slices of one length.
fn join(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Vec<f32> {
    let fill = |out: &mut [Slot]| {
        out.par_chunks_mut(CHUNK)
            .zip(x.par_chunks(CHUNK).zip(y.par_chunks(CHUNK)))
            .for_each(|(out, (x, y))| {
                for ((to, x), y) in out.iter_mut().zip(x).zip(y) {
                    to.set(f(*x, *y));
                }
            });
    };
    assert_eq!(x.len(), y.len(), "two tensors of one shape");
    // SAFETY: as many values as slots, each written.
    unsafe { filled(x.len(), fill) }
}

/// `sum += term` where both are without gaps and in memory that has kernels; false where they are not, and nothing was done.
///
/// The caller knows that nobody else looks at the storage of `sum`.
pub(crate) fn add_into(sum: &Tensor, term: &Tensor) -> Result<bool> {
    let plain = |t: &Tensor| has_kernels(t) && t.is_contiguous();
    if !plain(sum) || !plain(term) || sum.dims() != term.dims() || sum.dtype() != term.dtype() {
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        sum: &mut CudaStorage,
        layout: &Layout,
        term: &CudaStorage,
        term_layout: &Layout,
    ) -> Result<()> {
        crate::cuda::device::add_into(sum, layout, (term, term_layout))
    }
}

/// Partial sums kept side by side, a few registers of them; fixed, so that the order of a sum depends on its length only.
const LANES: usize = 64;

/// The same where rows are short and the end of a sum is most of it.
const FEW: usize = 16;

/// `Σ f(x, y, …)` over slices of one length, lane-parallel in f32: `L` partial sums, and what was left over.
#[inline(always)]
fn partial_sums<const L: usize, const N: usize, const K: usize>(
    rows: [&[f32]; N],
    f: impl Fn([f32; N]) -> [f32; K],
) -> ([[f32; L]; K], [f32; K]) {
    let mut lanes = [[0f32; L]; K];
    let mut rows = rows.map(|row| row.as_chunks::<L>());
    let count = rows.iter().map(|(chunks, _)| chunks.len()).min().unwrap_or(0);
    for (chunks, _) in &mut rows {
        *chunks = &chunks[..count];
    }
    for i in 0..count {
        let chunks = rows.map(|(chunks, _)| &chunks[i]);
        for lane in 0..L {
            let term = f(chunks.map(|chunk| chunk[lane]));
            for (lanes, term) in lanes.iter_mut().zip(term) {
                lanes[lane] += term;
            }
        }
    }
    let mut rest = [0f32; K];
    let tails = rows.map(|(_, tail)| tail);
    for i in 0..tails[0].len() {
        for (rest, term) in rest.iter_mut().zip(f(tails.map(|tail| tail[i]))) {
            *rest += term;
        }
    }
    (lanes, rest)
}

/// Lanes added up as a tree.
#[inline(always)]
fn tree<const L: usize>(mut lanes: [f32; L], down_to: usize) -> [f32; L] {
    let mut half = L / 2;
    while half >= down_to {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes
}

/// `Σ f(x, y, …)` over slices of one length, lane-parallel in f32 with the last lanes added in f64.
#[inline(always)]
pub(crate) fn lane_sum<const N: usize, const K: usize>(
    rows: [&[f32]; N],
    f: impl Fn([f32; N]) -> [f32; K],
) -> [f64; K] {
    let (lanes, rest) = partial_sums::<LANES, N, K>(rows, f);
    let mut total = rest.map(f64::from);
    for (total, lanes) in total.iter_mut().zip(lanes) {
        *total += tree(lanes, FEW)[..FEW].iter().map(|v| f64::from(*v)).sum::<f64>();
    }
    total
}

/// The same in f32 to the end, for short rows.
#[inline(always)]
pub(crate) fn row_sums<const N: usize, const K: usize>(
    rows: [&[f32]; N],
    f: impl Fn([f32; N]) -> [f32; K],
) -> [f32; K] {
    let (lanes, mut total) = partial_sums::<FEW, N, K>(rows, f);
    for (total, lanes) in total.iter_mut().zip(lanes) {
        *total += tree(lanes, 1)[0];
    }
    total
}

/// Sum of the squares of a slice.
pub(crate) fn sum_of_squares(values: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || lane_sum([values], |[v]| [v * v])[0] as f32,
    )
}

/// Sum of a slice.
pub(crate) fn sum(values: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || lane_sum([values], |[v]| [v])[0] as f32,
    )
}

/// `e^x` to about 2 units in the last place, without a call, so that loops vectorise.
///
/// Range reduction by powers of two and a degree-6 polynomial on |r| ≤ ln 2 / 2 (Cody and Waite 1980).
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding this leaves a rounded integer in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    // Each is one instruction, and lets NaN pass.
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_6e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5e-1);
    let p = p.mul_add(r * r, r) + 1.0;
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
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
        assert!(super::exp(f32::NAN).is_nan());
        assert!((super::sigmoid(-200.0)).abs() < 1e-30 && super::sigmoid(200.0) == 1.0);
    }
}
