//! LayerNorm: which kernels run, on how many blocks.

use super::{EPSILON, LANES, LAYER_NORM, Products, ROWS, bits};

/// Rows that are summed together at least, and sums of rows at most.
const PER_CHUNK: usize = 256;
const CHUNKS: usize = 128;

/// `x [rows, channels]`, weight, bias to `y`.
pub(super) fn forward<M: Products>(
    m: &M,
    [rows, channels]: [usize; 2],
    [x, weight, bias]: [u64; 3],
    y: u64,
) -> Result<(), M::Error> {
    let words = [x, weight, bias, y, rows as u64];
    let numbers = [channels, bits(EPSILON)];
    m.start(
        &LAYER_NORM,
        "layer_forward",
        rows.div_ceil(ROWS),
        &words,
        &numbers,
    )
}

/// Writes `dx`, and `dweight` with `dbias` behind it.
pub(super) fn backward<M: Products>(
    m: &M,
    [rows, channels]: [usize; 2],
    [x, dy, weight]: [u64; 3],
    [dx, dboth]: [u64; 2],
) -> Result<(), M::Error> {
    let statistics = m.scratch(8 * rows)?;
    let at = m.address(&statistics);
    let words = [x, dy, weight, dx, at, rows as u64];
    let numbers = [channels, bits(EPSILON)];
    m.start(
        &LAYER_NORM,
        "layer_backward",
        rows.div_ceil(ROWS),
        &words,
        &numbers,
    )?;
    let per_chunk = rows.div_ceil(CHUNKS).max(PER_CHUNK);
    let (chunks, across) = (rows.div_ceil(per_chunk), channels.div_ceil(LANES));
    let parts = m.scratch(8 * chunks * channels)?;
    let words = [x, dy, at, m.address(&parts), rows as u64, per_chunk as u64];
    m.start(
        &LAYER_NORM,
        "layer_columns",
        chunks * across,
        &words,
        &[channels, across],
    )?;
    m.sum_parts(m.address(&parts), dboth, [chunks, 2 * channels], false)
}
