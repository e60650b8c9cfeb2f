//! GroupNorm: which kernels run, on how many blocks.

use super::{EPSILON, NORM, Products, bits};

/// Elements of a block (`SPAN` of the kernels).
const SPAN: usize = 4096;

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupSizes {
    pub(crate) batch: usize,
    pub(crate) groups: usize,
    /// Channels.
    pub(crate) per_group: usize,
    pub(crate) pixels: usize,
    /// Whether every sample has its own scale and shift.
    pub(crate) own: bool,
    pub(crate) silu: bool,
}

impl GroupSizes {
    fn all_groups(&self) -> usize {
        self.batch * self.groups
    }

    fn size(&self) -> usize {
        self.per_group * self.pixels
    }

    fn chunks(&self) -> usize {
        self.size().div_ceil(SPAN)
    }

    /// `Shape` of the kernels.
    fn shape(&self, chunks: usize) -> [usize; 6] {
        let flags = [usize::from(self.own), usize::from(self.silu)];
        [
            self.groups,
            self.per_group,
            self.pixels,
            flags[0],
            flags[1],
            chunks,
        ]
    }
}

/// Addresses of `x`, scale, shift.
pub(super) type Inputs = [u64; 3];

/// `[group][2]`: means and inverse deviations.
fn statistics<M: Products>(m: &M, s: &GroupSizes, x: u64) -> Result<M::Memory, M::Error> {
    let blocks = s.all_groups() * s.chunks();
    let parts = m.scratch(8 * blocks)?;
    let at = m.address(&parts);
    let size = s.size() as u64;
    m.start(&NORM, "group_moments", blocks, &[x, at, size], &[s.chunks()])?;
    let statistics = m.scratch(8 * s.all_groups())?;
    let words = [at, m.address(&statistics), size];
    let numbers = [s.chunks(), bits(EPSILON)];
    m.start(&NORM, "group_statistics", s.all_groups(), &words, &numbers)?;
    Ok(statistics)
}

pub(super) fn forward<M: Products>(m: &M, s: &GroupSizes, inputs: Inputs, y: u64) -> Result<(), M::Error> {
    let [x, scale, shift] = inputs;
    let statistics = statistics(m, s, x)?;
    let words = [x, m.address(&statistics), scale, shift, y];
    let blocks = s.all_groups() * s.chunks();
    m.start(&NORM, "group_apply", blocks, &words, &s.shape(s.chunks()))
}

/// Writes `dx`, and `dscale` and `dshift` of every sample and channel.
pub(super) fn backward<M: Products>(
    m: &M,
    s: &GroupSizes,
    [x, scale, shift]: Inputs,
    dy: u64,
    [dx, dscale, dshift]: [u64; 3],
) -> Result<(), M::Error> {
    let statistics = statistics(m, s, x)?;
    let of_groups = m.address(&statistics);
    let (planes, chunks) = (s.all_groups() * s.per_group, s.pixels.div_ceil(SPAN));
    let parts = m.scratch(8 * planes * chunks)?;
    let words = [x, dy, of_groups, scale, shift, m.address(&parts)];
    m.start(&NORM, "group_slopes", planes * chunks, &words, &s.shape(chunks))?;
    let means = m.scratch(8 * s.all_groups())?;
    let words = [m.address(&parts), scale, dscale, dshift, m.address(&means)];
    m.start(&NORM, "group_means", s.all_groups(), &words, &s.shape(chunks))?;
    let words = [x, dy, of_groups, scale, shift, m.address(&means), dx];
    let blocks = s.all_groups() * s.chunks();
    m.start(&NORM, "group_input", blocks, &words, &s.shape(s.chunks()))
}
