//! Attention between channels: products over the pixels, small matrices between them. The formulas stand beside the CPU's.

use super::{CHANNEL_ATTENTION, Matrix, Product, Products, ROWS, bits};
use crate::channel_attention::LEAST_NORM;

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChannelSizes {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    /// Channels of a head.
    pub(crate) d: usize,
    pub(crate) pixels: usize,
}

impl ChannelSizes {
    fn channels(&self) -> usize {
        self.heads * self.d
    }

    fn all_heads(&self) -> usize {
        self.batch * self.heads
    }

    fn rows(&self) -> usize {
        self.all_heads() * self.d
    }

    /// Matrices `[d, pixels]` of the heads of a sample: `part` of queries, keys and values, or of `[B, C, N]`.
    fn wide<M: Products>(&self, m: &M, at: u64, sample: usize, part: Option<usize>) -> Matrix {
        let per_sample = self.channels() * self.pixels;
        let first = match part {
            Some(part) => (3 * sample + part) * per_sample,
            None => sample * per_sample,
        };
        Matrix::new(m.behind(at, first), self.pixels, self.d * self.pixels)
    }

    /// Matrices `[d, d]` of the heads of a sample, of elements of some bytes.
    fn small(&self, at: u64, sample: usize, bytes: usize) -> Matrix {
        let size = self.d * self.d;
        Matrix::new(at + (sample * self.heads * size * bytes) as u64, self.d, size)
    }

    /// `X·Yᵀ` over the pixels.
    fn over_pixels<M: Products>(&self, m: &M, [x, y, c]: [Matrix; 3]) -> Result<(), M::Error> {
        let size = [self.d, self.d, self.pixels];
        m.product(Product {
            wide: true,
            ..Product::new(size, self.heads, [x, y.flipped(), c])
        })
    }

    /// `A·Y [d, pixels]`.
    fn mix<M: Products>(&self, m: &M, operands: [Matrix; 3], again: bool) -> Result<(), M::Error> {
        let size = [self.d, self.pixels, self.d];
        m.product(Product {
            again,
            ..Product::new(size, self.heads, operands)
        })
    }
}

/// What forward and backward both need.
struct Small<M: Products> {
    lengths: M::Memory,
    cosines: M::Memory,
    weights: M::Memory,
}

impl<M: Products> Small<M> {
    fn new(m: &M, s: &ChannelSizes, qkv: u64, temperature: u64) -> Result<Self, M::Error> {
        let rows = s.batch * 2 * s.channels();
        let all = s.rows() * s.d;
        let small = Self {
            lengths: m.scratch(4 * rows)?,
            cosines: m.scratch(4 * all)?,
            weights: m.scratch(m.element().bytes() * all)?,
        };
        let lengths = m.address(&small.lengths);
        let words = [qkv, lengths, s.pixels as u64];
        let numbers = [s.channels(), bits(LEAST_NORM)];
        m.start(&CHANNEL_ATTENTION, "row_lengths", rows, &words, &numbers)?;
        let cosines = m.address(&small.cosines);
        for sample in 0..s.batch {
            let part = |i| s.wide(m, qkv, sample, Some(i));
            s.over_pixels(m, [part(0), part(1), s.small(cosines, sample, 4)])?;
        }
        let weights = m.address(&small.weights);
        let words = [cosines, lengths, temperature, weights, s.rows() as u64];
        let blocks = s.rows().div_ceil(ROWS);
        m.start(
            &CHANNEL_ATTENTION,
            "channel_weights",
            blocks,
            &words,
            &[s.heads, s.d],
        )?;
        Ok(small)
    }
}

/// `[B, C, N]` from `qkv [B, 3C, N]` and `temperature [heads]`.
pub(super) fn forward<M: Products>(
    m: &M,
    s: &ChannelSizes,
    [qkv, temperature]: [u64; 2],
    y: u64,
) -> Result<(), M::Error> {
    let small = Small::new(m, s, qkv, temperature)?;
    let bytes = m.element().bytes();
    for sample in 0..s.batch {
        let weights = s.small(m.address(&small.weights), sample, bytes);
        let values = s.wide(m, qkv, sample, Some(2));
        s.mix(m, [weights, values, s.wide(m, y, sample, None)], false)?;
    }
    Ok(())
}

/// Writes `dqkv` and `dtemperature [heads]`.
pub(super) fn backward<M: Products>(
    m: &M,
    s: &ChannelSizes,
    [qkv, temperature, dy]: [u64; 3],
    [dqkv, dtemperature]: [u64; 2],
) -> Result<(), M::Error> {
    let small = Small::new(m, s, qkv, temperature)?;
    let bytes = m.element().bytes();
    let (lengths, cosines) = (m.address(&small.lengths), m.address(&small.cosines));
    let weights = m.address(&small.weights);
    let (rows, all) = (s.rows(), s.rows() * s.d);
    let slopes = m.scratch(4 * all)?;
    for sample in 0..s.batch {
        let grad = s.wide(m, dy, sample, None);
        let values = s.wide(m, qkv, sample, Some(2));
        s.over_pixels(m, [grad, values, s.small(m.address(&slopes), sample, 4)])?;
    }
    let factors = m.scratch(bytes * all)?;
    let along = m.scratch(4 * s.batch * 2 * s.channels())?;
    let heat = m.scratch(4 * rows)?;
    let words = [
        cosines,
        lengths,
        temperature,
        weights,
        m.address(&slopes),
        m.address(&factors),
        m.address(&along),
        m.address(&heat),
        rows as u64,
    ];
    let shape = [s.heads, s.d];
    m.start(
        &CHANNEL_ATTENTION,
        "channel_rows",
        rows.div_ceil(ROWS),
        &words,
        &shape,
    )?;
    let of_heads = m.scratch(4 * s.all_heads())?;
    let words = [
        lengths,
        m.address(&slopes),
        m.address(&heat),
        m.address(&along),
        m.address(&of_heads),
    ];
    m.start(
        &CHANNEL_ATTENTION,
        "channel_columns",
        s.all_heads(),
        &words,
        &shape,
    )?;
    m.sum_parts(m.address(&of_heads), dtemperature, [s.batch, s.heads], false)?;
    let length = s.batch * 2 * s.channels() * s.pixels;
    let words = [qkv, m.address(&along), dqkv, length as u64, s.pixels as u64];
    m.each(&CHANNEL_ATTENTION, "take_along", length, &words, &[s.channels()])?;
    for sample in 0..s.batch {
        let part = |at, i| s.wide(m, at, sample, Some(i));
        let factors = s.small(m.address(&factors), sample, bytes);
        let weights = s.small(weights, sample, bytes);
        let grad = s.wide(m, dy, sample, None);
        s.mix(m, [factors, part(qkv, 1), part(dqkv, 0)], true)?;
        s.mix(m, [factors.flipped(), part(qkv, 0), part(dqkv, 1)], true)?;
        s.mix(m, [weights.flipped(), grad, part(dqkv, 2)], false)?;
    }
    Ok(())
}
