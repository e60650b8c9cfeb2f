//! Attention over pixels: products of matrices and softmax, for some queries at a time.
//!
//! The scores of these queries, `[query, key]`, are all there is of the matrix of scores; the backward pass computes them
//! again. Heads of a sample, or samples of a head, whichever are more, pass through each product together.

use super::{ATTENTION, Matrix, Product, Products, ROWS, bits};
use allpet_kernel::Element;

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttentionSizes {
    pub(crate) batch: usize,
    pub(crate) heads: usize,
    /// Channels of a head.
    pub(crate) d: usize,
    pub(crate) pixels: usize,
}

/// Least queries at a time.
const QUERIES: usize = 32;

/// Matrices that are worked on together, and what lies where.
struct Together {
    count: usize,
    /// Elements between two of them in `[B, 3C, N]` and in `[B, C, N]`.
    step: usize,
    out_step: usize,
    /// The first of each round in both.
    first: Vec<(usize, usize)>,
    /// Queries at a time.
    queries: usize,
}

impl AttentionSizes {
    fn channels(&self) -> usize {
        self.heads * self.d
    }

    fn together(&self, limit: usize) -> Together {
        let head = self.d * self.pixels;
        let sample = self.heads * head;
        let (count, step, out_step, first) = if self.heads >= self.batch {
            let first = (0..self.batch).map(|i| (3 * i * sample, i * sample));
            (self.heads, head, head, first.collect())
        } else {
            let first = (0..self.heads).map(|i| (i * head, i * head));
            (self.batch, 3 * sample, sample, first.collect())
        };
        let row = (4 * count * self.pixels).max(1);
        let queries = (limit / row / QUERIES * QUERIES).max(QUERIES).min(self.pixels);
        Together {
            count,
            step,
            out_step,
            first,
            queries,
        }
    }
}

/// Scratch for the scores of some queries: floats, and the elements made of them (the same memory where those are floats).
struct Scores<M: Products> {
    floats: u64,
    elements: u64,
    _memory: (M::Memory, Option<M::Memory>),
}

impl<M: Products> Scores<M> {
    fn new(m: &M, length: usize) -> Result<Self, M::Error> {
        let memory = m.scratch(4 * length)?;
        let floats = m.address(&memory);
        if m.element() == Element::F32 {
            return Ok(Self {
                floats,
                elements: floats,
                _memory: (memory, None),
            });
        }
        let narrow = m.scratch(m.element().bytes() * length)?;
        Ok(Self {
            floats,
            elements: m.address(&narrow),
            _memory: (memory, Some(narrow)),
        })
    }
}

/// Softmax weights `[count][query][key]` of the queries from `first` on.
fn weights<M: Products>(
    m: &M,
    s: &AttentionSizes,
    t: &Together,
    [q, k]: [u64; 2],
    (first, queries): (usize, usize),
    scores: &Scores<M>,
) -> Result<(), M::Error> {
    let n = s.pixels;
    let a = Matrix::new(m.behind(q, first), n, t.step).flipped();
    let b = Matrix::new(k, n, t.step);
    let c = Matrix::new(scores.floats, n, queries * n);
    m.product(Product {
        scale: 1.0 / (s.d as f32).sqrt(),
        wide: true,
        ..Product::new([queries, n, s.d], t.count, [a, b, c])
    })?;
    let rows = t.count * queries;
    let words = [scores.floats, scores.elements, rows as u64];
    m.start(&ATTENTION, "softmax_rows", rows.div_ceil(ROWS), &words, &[n])
}

/// `[B, C, N]` from `qkv [B, 3C, N]`.
pub(super) fn forward<M: Products>(m: &M, s: &AttentionSizes, qkv: u64, y: u64) -> Result<(), M::Error> {
    let (t, n, part) = (s.together(m.limit()), s.pixels, s.channels() * s.pixels);
    let scores = Scores::new(m, t.count * t.queries * n)?;
    for &(from, to) in &t.first {
        let at = |i: usize| m.behind(qkv, from + i * part);
        for first in (0..n).step_by(t.queries.max(1)) {
            let queries = t.queries.min(n - first);
            weights(m, s, &t, [at(0), at(1)], (first, queries), &scores)?;
            let a = Matrix::new(at(2), n, t.step);
            let b = Matrix::new(scores.elements, n, queries * n).flipped();
            let c = Matrix::new(m.behind(y, to + first), n, t.out_step);
            m.product(Product::new([s.d, queries, n], t.count, [a, b, c]))?;
        }
    }
    Ok(())
}

/// `dqkv` from `qkv` and `dy`.
///
/// With `P` the weights and `dP = dOᵀ·V`: `dV = dO·P`, `dS = P∘(dP - Σ_keys P∘dP)/√d`, `dQ = K·dSᵀ`, `dK = Q·dS`.
pub(super) fn backward<M: Products>(
    m: &M,
    s: &AttentionSizes,
    [qkv, dy]: [u64; 2],
    dqkv: u64,
) -> Result<(), M::Error> {
    let (t, n, part) = (s.together(m.limit() / 2), s.pixels, s.channels() * s.pixels);
    let length = t.count * t.queries * n;
    let (scores, slopes) = (Scores::new(m, length)?, Scores::new(m, length)?);
    // Sums over several rounds of queries are floats.
    let apart = m.element() != Element::F32 && t.queries < n;
    let sums = match apart {
        true => Some(m.scratch(8 * t.count * s.d * n)?),
        false => None,
    };
    for &(from, to) in &t.first {
        let at = |i: usize| m.behind(qkv, from + i * part);
        let d_at = |i: usize| m.behind(dqkv, from + i * part);
        let (dk, dv) = match &sums {
            Some(sums) => {
                let step = s.d * n;
                let first = m.address(sums);
                let behind = first + (4 * t.count * step) as u64;
                (Matrix::new(first, n, step), Matrix::new(behind, n, step))
            }
            None => (Matrix::new(d_at(1), n, t.step), Matrix::new(d_at(2), n, t.step)),
        };
        for first in (0..n).step_by(t.queries.max(1)) {
            let queries = t.queries.min(n - first);
            weights(m, s, &t, [at(0), at(1)], (first, queries), &scores)?;
            let of_scores = |at: u64| Matrix::new(at, n, queries * n);
            let grad = Matrix::new(m.behind(dy, to + first), n, t.out_step);
            let size = [queries, n, s.d];
            let operands = [
                grad.flipped(),
                Matrix::new(at(2), n, t.step),
                of_scores(slopes.floats),
            ];
            m.product(Product {
                wide: true,
                ..Product::new(size, t.count, operands)
            })?;
            let rows = t.count * queries;
            let words = [scores.elements, slopes.floats, slopes.elements, rows as u64];
            let numbers = [n, bits(1.0 / (s.d as f32).sqrt())];
            m.start(
                &ATTENTION,
                "softmax_slopes",
                rows.div_ceil(ROWS),
                &words,
                &numbers,
            )?;
            let (p, ds) = (of_scores(scores.elements), of_scores(slopes.elements));
            let dq = Matrix::new(m.behind(d_at(0), first), n, t.step);
            let keys = Matrix::new(at(1), n, t.step);
            m.product(Product::new([s.d, queries, n], t.count, [keys, ds.flipped(), dq]))?;
            let some_queries = Matrix::new(m.behind(at(0), first), n, t.step);
            for operands in [[some_queries, ds, dk], [grad, p, dv]] {
                m.product(Product {
                    again: first > 0,
                    wide: apart,
                    ..Product::new([s.d, n, queries], t.count, operands)
                })?;
            }
        }
        if apart {
            for (sums, i) in [(dk, 1), (dv, 2)] {
                for j in 0..t.count {
                    let from = sums.at + (4 * j * sums.step) as u64;
                    m.narrow(from, m.behind(d_at(i), j * t.step), sums.step)?;
                }
            }
        }
    }
    Ok(())
}
