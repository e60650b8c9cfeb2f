//! The operators on CUDA devices.
//!
//! Each `.cu` file holds kernels, and the `.rs` file of its name the order in which they are started on any
//! [`Machine`]: a device through candle (`device`), or, in tests, a C compiler's reading of the same text (`host`).
//! Products of matrices are cuBLAS's. Activations are f32, f16 or bf16, parameters and their gradients f32; sums are f32
//! and in a fixed order.

mod attention;
mod channel_attention;
mod conv;
#[cfg(feature = "cuda")]
pub(crate) mod device;
#[cfg(test)]
mod host;
mod layer_norm;
mod moves;
mod norm;

use allpet_kernel::{BLOCK, Element, Machine, Unit, arguments};

#[cfg(feature = "cuda")]
pub(crate) use norm::GroupSizes;

/// Text of a unit behind what all units share.
macro_rules! unit {
    ($name:ident, $file:literal) => {
        static $name: Unit = Unit {
            name: concat!("allpet-nn-", $file),
            text: concat!(include_str!("common.cu"), include_str!($file)),
        };
    };
}

unit!(SUMS, "sums.cu");
unit!(MOVES, "moves.cu");
unit!(NORM, "norm.cu");
unit!(LAYER_NORM, "layer_norm.cu");
unit!(CONV, "conv.cu");
unit!(ATTENTION, "attention.cu");
unit!(CHANNEL_ATTENTION, "channel_attention.cu");

/// Every unit.
#[cfg(test)]
static UNITS: [&Unit; 7] = [
    &SUMS,
    &MOVES,
    &NORM,
    &LAYER_NORM,
    &CONV,
    &ATTENTION,
    &CHANNEL_ATTENTION,
];

/// Added to variances.
const EPSILON: f32 = 1e-5;

/// Threads of a block, elements of a thread where each is computed alone (`EACH`), rows of a block where each has
/// [`LANES`] threads (`ROWS`, `LANES`).
const THREADS: usize = BLOCK[0] * BLOCK[1];
const EACH: usize = 4;
const ROWS: usize = BLOCK[1];
const LANES: usize = BLOCK[0];

/// A row-major matrix, `count` of which lie `step` elements apart.
#[derive(Debug, Clone, Copy)]
struct Matrix {
    at: u64,
    /// Elements from row to row as it lies in memory.
    row: usize,
    step: usize,
    /// Whether it is taken with rows and columns exchanged.
    flipped: bool,
}

impl Matrix {
    fn new(at: u64, row: usize, step: usize) -> Self {
        let flipped = false;
        Self {
            at,
            row,
            step,
            flipped,
        }
    }

    fn flipped(self) -> Self {
        Self {
            flipped: !self.flipped,
            ..self
        }
    }
}

/// `C = scale·A·B`, or `C += scale·A·B` where `again`, for `count` matrices `A [rows, depth]`, `B [depth, columns]`.
#[derive(Debug, Clone, Copy)]
struct Product {
    rows: usize,
    columns: usize,
    depth: usize,
    count: usize,
    a: Matrix,
    b: Matrix,
    c: Matrix,
    scale: f32,
    again: bool,
    /// Whether C holds floats, whatever the elements are.
    wide: bool,
}

impl Product {
    fn new([rows, columns, depth]: [usize; 3], count: usize, [a, b, c]: [Matrix; 3]) -> Self {
        Self {
            rows,
            columns,
            depth,
            count,
            a,
            b,
            c,
            scale: 1.0,
            again: false,
            wide: false,
        }
    }
}

/// A machine that also multiplies matrices.
trait Products: Machine {
    fn product(&self, product: Product) -> Result<(), Self::Error>;

    /// Bytes of scratch that one step of an operator may take, beyond what its smallest step needs.
    fn limit(&self) -> usize;

    /// Starts blocks in one row.
    fn start(
        &self,
        unit: &'static Unit,
        kernel: &'static str,
        blocks: usize,
        words: &[u64],
        numbers: &[usize],
    ) -> Result<(), Self::Error> {
        match blocks {
            0 => Ok(()),
            _ => self.launch(unit, kernel, [blocks, 1, 1], arguments(words, numbers)),
        }
    }

    /// Starts a kernel that computes each of `length` elements alone.
    fn each(
        &self,
        unit: &'static Unit,
        kernel: &'static str,
        length: usize,
        words: &[u64],
        numbers: &[usize],
    ) -> Result<(), Self::Error> {
        self.start(unit, kernel, length.div_ceil(THREADS * EACH), words, numbers)
    }

    /// Address of an element behind another.
    fn behind(&self, at: u64, elements: usize) -> u64 {
        at + (elements * self.element().bytes()) as u64
    }

    /// `[part][element]` summed to `[element]`, on top of what is there where `again`.
    fn sum_parts(
        &self,
        parts: u64,
        sums: u64,
        [count, length]: [usize; 2],
        again: bool,
    ) -> Result<(), Self::Error> {
        self.start(
            &SUMS,
            "sum_parts",
            length.div_ceil(THREADS),
            &[parts, sums, length as u64],
            &[count, usize::from(again)],
        )
    }

    /// Floats as elements: their address, and the memory they are in where they were none.
    fn narrowed(&self, floats: u64, length: usize) -> Result<(u64, Option<Self::Memory>), Self::Error> {
        if self.element() == Element::F32 {
            return Ok((floats, None));
        }
        let memory = self.scratch(length * self.element().bytes())?;
        let to = self.address(&memory);
        self.narrow(floats, to, length)?;
        Ok((to, Some(memory)))
    }

    fn narrow(&self, floats: u64, to: u64, length: usize) -> Result<(), Self::Error> {
        self.each(&MOVES, "narrow", length, &[floats, to, length as u64], &[])
    }
}

/// A float among a kernel's numbers.
fn bits(value: f32) -> usize {
    value.to_bits() as usize
}
