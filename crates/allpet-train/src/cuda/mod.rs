//! The optimiser on CUDA devices: one pass over each parameter, and the gradient's norm in a fixed order with one transfer.
//!
//! `optimiser.cu` holds the kernels; they start on any [`Machine`], a device (`device`) or, in tests, the host (`host`).

#[cfg(feature = "cuda")]
pub(crate) mod device;
#[cfg(test)]
mod host;

use crate::adamw::Scalars;
use allpet_kernel::{BLOCK, Machine, Unit, arguments};

static UNIT: Unit = Unit {
    name: "allpet-train-optimiser",
    text: include_str!("optimiser.cu"),
};

/// Elements of a block that updates (`EACH · THREADS` of the kernels), and of one that sums (`SPAN`).
const UPDATED: usize = 4 * BLOCK[0] * BLOCK[1];
const SUMMED: usize = 16_384;

/// One update of a parameter: addresses of it, its moments, its moving average, its gradient (0 for none).
fn update<M: Machine>(m: &M, at: [u64; 5], length: usize, s: Scalars) -> Result<(), M::Error> {
    if length == 0 {
        return Ok(());
    }
    let [w, first, second, average, gradient] = at;
    let words = [w, first, second, average, gradient, length as u64];
    let numbers = [
        s.factor,
        s.beta1,
        s.one_minus_beta1,
        s.beta2,
        s.one_minus_beta2,
        s.keep,
        s.step_size,
        s.inverse_correction2,
        s.eps,
        s.ema,
        s.one_minus_ema,
    ]
    .map(|v| v.to_bits() as usize);
    let blocks = [length.div_ceil(UPDATED), 1, 1];
    m.launch(&UNIT, "adamw", blocks, arguments(&words, &numbers))
}

/// `f64` sums that [`squares`] writes.
fn parts(length: usize) -> usize {
    length.div_ceil(SUMMED)
}

/// Sums of squares of pieces of `x`.
fn squares<M: Machine>(m: &M, x: u64, length: usize, to: u64) -> Result<(), M::Error> {
    if length == 0 {
        return Ok(());
    }
    let words = [x, to, length as u64];
    m.launch(&UNIT, "squares", [parts(length), 1, 1], arguments(&words, &[]))
}
