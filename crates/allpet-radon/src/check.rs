//! Conformance checks that every [`LinearOperator`] must pass, built in or a user's own.

mod registry;

#[cfg(test)]
pub(crate) use registry::layouts;
pub use registry::{Case, registry};

use crate::{LinearOperator, Result};
use allpet_core::{Stream, fill_normal, stream};
use ndarray::{ArrayD, Axis, IxDyn};
use rand::Rng;
use std::fmt;

/// Batch elements in the batch check (as many as an operator may handle in another way than single ones).
const BATCH: usize = 7;
/// Unit impulses tried on each side.
const IMPULSES: u64 = 24;

/// Part of the typical gain below which an impulse's response is what rounding left, and the gain its scale.
const WEAK: f64 = 1e-3;

/// What [`check_operator`] measured; every figure but `scale` is 0 for a perfect operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// `|⟨Ax,y⟩ - ⟨x,Aᵀy⟩| / (‖Ax‖‖y‖)` with random signed `x` and `y`; blind to errors of scale.
    pub adjoint_random: f64,
    /// The same with `y = Ax`: sees errors of scale.
    pub adjoint_image: f64,
    /// Largest `|⟨A e_i, y⟩ - (Aᵀy)_i| / (‖A e_i‖‖y‖)` and its mirror image over impulses, ends included: sees errors in
    /// single elements. An `‖A e_i‖` below a thousandth of the typical gain is what rounding left, and counts as
    /// that gain.
    pub adjoint_impulses: f64,
    /// `⟨Ax,Ax⟩ / ⟨x,AᵀAx⟩`; 1 when the adjoint has the operator's scale.
    pub scale: f64,
    /// Largest `‖A(ax + bz) - aAx - bAz‖ / (‖A‖‖(ax, bz)‖)`, forward and adjoint, with `‖A‖² ≈ ‖AᵀAx‖/‖x‖`.
    pub linearity: f64,
    /// Elements that differ when the output buffer was full of NaN before.
    pub dirty: usize,
    /// Elements of a batch that differ in any bit from the same element computed alone.
    pub batch: usize,
}

impl Report {
    /// Whether the adjoint is exact to `tolerance`, the operator linear to it, and buffers and batches do not matter.
    pub fn passes(&self, tolerance: f64) -> bool {
        // Written so that a NaN fails.
        self.adjoint_random <= tolerance
            && self.adjoint_image <= tolerance
            && self.adjoint_impulses <= tolerance
            && (self.scale - 1.0).abs() <= tolerance
            && self.linearity <= tolerance
            && self.dirty == 0
            && self.batch == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "adjoint {:.1e} (random), {:.1e} (y = Ax), {:.1e} (impulses); scale {:.8}; linearity {:.1e}; {} dirty, {} batch differences",
            self.adjoint_random,
            self.adjoint_image,
            self.adjoint_impulses,
            self.scale,
            self.linearity,
            self.dirty,
            self.batch
        )
    }
}

/// Measures an operator on draws from `seed`. A result that is all zero counts as a mismatch of infinity or NaN.
///
/// # Errors
/// Whatever the operator itself reports.
pub fn check_operator(op: &dyn LinearOperator, seed: u64) -> Result<Report> {
    let x = normal(seed, "check x", op.domain_shape());
    let y = normal(seed, "check y", op.range_shape());
    let ax = op.apply(x.view())?;
    let aty = op.apply_adjoint(y.view())?;
    let atax = op.apply_adjoint(ax.view())?;
    let mismatch = |a: f64, b: f64, scale: f64| (a - b).abs() / scale;

    // What rounding leaves in an element that the operator hardly touches is no error of that element.
    let gains = [(&ax, &x), (&aty, &y)].map(|(image, of)| norm(image) / norm(of));
    let mut adjoint_impulses = 0.0f64;
    let mut draws = stream(seed, "check impulses", 0);
    for k in 0..IMPULSES {
        for (shape, other, image, forward) in [
            (op.domain_shape(), &y, &aty, true),
            (op.range_shape(), &x, &ax, false),
        ] {
            let at = impulse_position(k, shape.iter().product(), &mut draws);
            let mut impulse = ArrayD::zeros(IxDyn(shape));
            if let Some(value) = impulse.iter_mut().nth(at) {
                *value = 1.0;
            }
            let response = if forward {
                op.apply(impulse.view())?
            } else {
                op.apply_adjoint(impulse.view())?
            };
            let expected = image.iter().nth(at).map_or(0.0, |&v| f64::from(v));
            let difference = dot(&response, other) - expected;
            let (own, gain) = (norm(&response), gains[usize::from(!forward)]);
            let size = if own < WEAK * gain { gain } else { own } * norm(other);
            adjoint_impulses = worst(
                adjoint_impulses,
                if difference == 0.0 {
                    0.0
                } else {
                    difference.abs() / size
                },
            );
        }
    }

    let gain = (norm(&atax) / norm(&x)).sqrt();
    let linearity = worst(linearity(op, true, &x, seed)?, linearity(op, false, &y, seed)?) / gain;
    let (dirty_forward, batch_forward) = buffers_and_batches(op, true, &x, &ax, seed)?;
    let (dirty_adjoint, batch_adjoint) = buffers_and_batches(op, false, &y, &aty, seed)?;
    Ok(Report {
        adjoint_random: mismatch(dot(&ax, &y), dot(&x, &aty), norm(&ax) * norm(&y)),
        adjoint_image: mismatch(dot(&ax, &ax), dot(&x, &atax), norm(&ax) * norm(&ax)),
        adjoint_impulses,
        scale: dot(&ax, &ax) / dot(&x, &atax),
        linearity,
        dirty: dirty_forward + dirty_adjoint,
        batch: batch_forward + batch_adjoint,
    })
}

fn map(op: &dyn LinearOperator, forward: bool, input: &ArrayD<f32>) -> Result<ArrayD<f32>> {
    if forward {
        op.apply(input.view())
    } else {
        op.apply_adjoint(input.view())
    }
}

/// To be divided by the norm of the operator: what the operator gives may cancel, what it is given does not.
fn linearity(op: &dyn LinearOperator, forward: bool, u: &ArrayD<f32>, seed: u64) -> Result<f64> {
    let v = normal(seed, "check z", u.shape());
    // Powers of two, so that the combination itself adds no rounding of its own to the scaling.
    let combined = map(op, forward, &(u * 0.5 + &v * -2.0))?;
    let (first, second) = (map(op, forward, u)? * 0.5, map(op, forward, &v)? * -2.0);
    Ok(norm(&(&combined - &first - &second)) / (norm(u) * 0.5).hypot(norm(&v) * 2.0))
}

/// Differences in a buffer full of NaN, and in a batch of which `u` is the last element.
fn buffers_and_batches(
    op: &dyn LinearOperator,
    forward: bool,
    u: &ArrayD<f32>,
    alone: &ArrayD<f32>,
    seed: u64,
) -> Result<(usize, usize)> {
    let run = |input: &ArrayD<f32>, shape: &[usize]| -> Result<ArrayD<f32>> {
        let mut out = ArrayD::from_elem(IxDyn(shape), f32::NAN);
        if forward {
            op.forward(input.view(), out.view_mut())?
        } else {
            op.adjoint(input.view(), out.view_mut())?
        }
        Ok(out)
    };
    let dirty = differences(&run(u, alone.shape())?, alone);
    let mut batch = normal(seed, "check batch", &[&[BATCH], u.shape()].concat());
    batch.index_axis_mut(Axis(0), BATCH - 1).assign(u);
    let together = run(&batch, &[&[BATCH], alone.shape()].concat())?;
    let mut count = differences(&together.index_axis(Axis(0), BATCH - 1).to_owned(), alone);
    for k in 0..BATCH - 1 {
        let single = map(op, forward, &batch.index_axis(Axis(0), k).to_owned())?;
        count += differences(&together.index_axis(Axis(0), k).to_owned(), &single);
    }
    Ok((dirty, count))
}

/// First and last element, then random ones.
fn impulse_position(k: u64, count: usize, draws: &mut Stream) -> usize {
    match k {
        0 => 0,
        1 => count.saturating_sub(1),
        _ => draws.random_range(0..count.max(1)),
    }
}

fn differences(a: &ArrayD<f32>, b: &ArrayD<f32>) -> usize {
    a.iter()
        .zip(b)
        .filter(|(a, b)| a.to_bits() != b.to_bits())
        .count()
}

fn normal(seed: u64, name: &str, shape: &[usize]) -> ArrayD<f32> {
    let mut values = ArrayD::zeros(IxDyn(shape));
    if let Some(slice) = values.as_slice_mut() {
        fill_normal(&mut stream(seed, name, 0), slice);
    }
    values
}

fn dot(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

fn norm(a: &ArrayD<f32>) -> f64 {
    dot(a, a).sqrt()
}

/// The larger of two, where NaN is the largest of all.
fn worst(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else {
        a.max(b)
    }
}
