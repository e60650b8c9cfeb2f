//! How batches are cut: sixteen slices at once where that pays, and slices interleaved to lie innermost.

use crate::simd::{Kernel, LANES, Simd};
use ndarray::{ArrayViewD, ArrayViewMutD};

/// From so many slices on, sixteen lanes of slices beat sixteen lanes of pixels, empty lanes included.
const WORTH_IT: usize = 6;

/// A part of a batch.
pub(crate) enum Part<'a> {
    /// One slice.
    One(&'a [f32], &'a mut [f32]),
    /// Up to sixteen slices.
    Many(&'a [f32], &'a mut [f32]),
}

/// Runs `work` over the parts of a batch in standard layout, through a copy where an array is not.
pub(crate) fn in_parts<E>(
    input: ArrayViewD<'_, f32>,
    mut out: ArrayViewMutD<'_, f32>,
    (batch, from, to): (usize, usize, usize),
    mut work: impl FnMut(Part<'_>) -> Result<(), E>,
) -> Result<(), E> {
    if batch * from * to == 0 {
        return Ok(());
    }
    let input = input.as_standard_layout();
    let Some(input) = input.as_slice() else {
        return Ok(());
    };
    let mut run = |out: &mut [f32]| -> Result<(), E> {
        for (x, y) in input.chunks(LANES * from).zip(out.chunks_mut(LANES * to)) {
            if x.len() / from >= WORTH_IT {
                work(Part::Many(x, y))?;
            } else {
                for (x, y) in x.chunks(from).zip(y.chunks_mut(to)) {
                    work(Part::One(x, y))?;
                }
            }
        }
        Ok(())
    };
    if let Some(out) = out.as_slice_mut() {
        return run(out);
    }
    let mut copy = vec![0.0; batch * to];
    run(&mut copy)?;
    out.iter_mut().zip(copy).for_each(|(to, from)| *to = from);
    Ok(())
}

/// `out[i][s] = slices[s][i]`; lanes without a slice are zero.
pub(crate) struct Interleave<'a> {
    /// Up to sixteen, each at least as long as `out`.
    pub(crate) slices: &'a [&'a [f32]],
    pub(crate) out: &'a mut [[f32; LANES]],
}

impl Kernel for Interleave<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (number, out) in self.out.chunks_mut(LANES).enumerate() {
            let first = number * LANES;
            let mut rows = [s.splat(0.0); LANES];
            for (row, slice) in rows.iter_mut().zip(self.slices) {
                let values = &slice[first..][..out.len()];
                *row = match values.first_chunk() {
                    Some(values) => s.load(values),
                    None => {
                        let mut rest = [0.0; LANES];
                        rest[..values.len()].copy_from_slice(values);
                        s.load(&rest)
                    }
                };
            }
            for (to, column) in out.iter_mut().zip(s.transpose(rows)) {
                s.store(column, to);
            }
        }
    }
}

/// `slices[s][i] = from[i][s]`.
pub(crate) struct Separate<'a, 'b> {
    pub(crate) from: &'a [[f32; LANES]],
    /// Up to sixteen, each at least as long as `from`.
    pub(crate) slices: &'a mut [&'b mut [f32]],
}

impl Kernel for Separate<'_, '_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (number, from) in self.from.chunks(LANES).enumerate() {
            let first = number * LANES;
            let mut rows = [s.splat(0.0); LANES];
            for (row, from) in rows.iter_mut().zip(from) {
                *row = s.load(from);
            }
            for (slice, column) in self.slices.iter_mut().zip(s.transpose(rows)) {
                let to = &mut slice[first..][..from.len()];
                match to.first_chunk_mut() {
                    Some(to) => s.store(column, to),
                    None => {
                        let mut rest = [0.0; LANES];
                        s.store(column, &mut rest);
                        to.copy_from_slice(&rest[..to.len()]);
                    }
                }
            }
        }
    }
}

/// Chunks of `length` elements of every slice of `size` elements, those of equal place together.
pub(crate) fn alike(slices: &mut [f32], size: usize, length: usize) -> Vec<Vec<&mut [f32]>> {
    let mut groups: Vec<Vec<&mut [f32]>> = Vec::new();
    groups.resize_with(size.div_ceil(length), Vec::new);
    for slice in slices.chunks_mut(size) {
        for (group, chunk) in groups.iter_mut().zip(slice.chunks_mut(length)) {
            group.push(chunk);
        }
    }
    groups
}
