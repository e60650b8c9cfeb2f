//! Which kernels run, in which order, on how many blocks.

use super::Packing;
use super::tables::{FbpTables, GROUP, Tables};

/// Edge of a block, its other edge, and rows of a thread that gathers (`WIDTH`, `HEIGHT`, `PIXELS` of the kernels).
const WIDTH: usize = 32;
const HEIGHT: usize = 8;
const PIXELS: usize = 4;

/// Words of a kernel's arguments, at most.
pub(super) const ARGUMENTS: usize = 8;

/// Something that has memory and runs the kernels in the order in which they are launched.
pub(super) trait Machine {
    /// Memory that is given back when dropped.
    type Memory;
    type Error;

    /// Which program `launch` takes the kernels from.
    fn packing(&self) -> Packing;

    /// Memory with anything in it.
    fn scratch(&self, bytes: usize) -> Result<Self::Memory, Self::Error>;

    /// Where it begins.
    fn address(&self, memory: &Self::Memory) -> u64;

    /// Starts `blocks` blocks of 32 × 8 threads.
    fn launch(
        &self,
        kernel: &'static str,
        blocks: [usize; 3],
        arguments: [u64; ARGUMENTS],
    ) -> Result<(), Self::Error>;
}

/// Addresses of tables on the machine.
pub(super) struct Resident<'a, T> {
    pub(super) tables: &'a T,
    /// Walks and rays, or filter, weights and rays.
    pub(super) at: [u64; 3],
}

/// Where the data are, and how many slices.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) slices: usize,
}

impl Data {
    fn groups(&self, packing: Packing) -> usize {
        self.slices.div_ceil(packing.slices)
    }
}

/// A kernel's argument structure: words, then 32-bit numbers two to a word.
fn arguments(words: &[u64], numbers: &[usize]) -> [u64; ARGUMENTS] {
    let mut out = [0; ARGUMENTS];
    let pairs = numbers
        .chunks(2)
        .map(|two| two[0] as u64 | (two.get(1).copied().unwrap_or(0) as u64) << 32);
    for (to, from) in out.iter_mut().zip(words.iter().copied().chain(pairs)) {
        *to = from;
    }
    out
}

/// Packed slices: the data themselves where one slice makes a pack.
fn packed<M: Machine>(
    machine: &M,
    data: Data,
    elements: usize,
    memory: &mut Option<M::Memory>,
) -> Result<u64, M::Error> {
    let packing = machine.packing();
    if packing.slices == 1 {
        return Ok(data.from);
    }
    let groups = data.groups(packing);
    let scratch = machine.scratch(groups * elements * packing.slices * packing.element_bytes())?;
    let to = machine.address(&scratch);
    *memory = Some(scratch);
    machine.launch(
        "pack",
        [elements.div_ceil(WIDTH * HEIGHT), groups, 1],
        arguments(&[data.from, to, elements as u64], &[data.slices]),
    )?;
    Ok(to)
}

/// `[slice][row][col]` to `[slice][view][bin]`.
pub(super) fn project<M: Machine>(
    machine: &M,
    plan: &Resident<'_, Tables>,
    data: Data,
) -> Result<(), M::Error> {
    let (tables, packing) = (plan.tables, machine.packing());
    let (grid, groups) = (tables.grid, data.groups(packing));
    let (mut straight, mut turned) = (None, None);
    let by_row = packed(machine, data, grid.rows * grid.cols, &mut straight)?;
    let mut by_col = by_row;
    if tables.turned {
        let bytes = groups * grid.rows * grid.cols * packing.slices * packing.element_bytes();
        let scratch = machine.scratch(bytes)?;
        by_col = machine.address(&scratch);
        turned = Some(scratch);
        machine.launch(
            "turn",
            [grid.cols.div_ceil(WIDTH), grid.rows.div_ceil(WIDTH), groups],
            arguments(&[data.from, by_col], &[data.slices, grid.rows, grid.cols]),
        )?;
    }
    let [views, bins] = tables.geometry.shape();
    machine.launch(
        "project",
        [
            bins.div_ceil(WIDTH),
            tables.walk_count.div_ceil(GROUP * HEIGHT),
            groups,
        ],
        arguments(
            &[by_row, by_col, plan.at[0], data.to],
            &[data.slices, grid.rows, grid.cols, views, bins, tables.walk_count],
        ),
    )?;
    drop((straight, turned));
    Ok(())
}

/// `[slice][view][bin]` to `[slice][row][col]`, the transpose.
pub(super) fn back_project<M: Machine>(
    machine: &M,
    plan: &Resident<'_, Tables>,
    data: Data,
) -> Result<(), M::Error> {
    let [views, bins] = plan.tables.geometry.shape();
    let mut memory = None;
    let from = packed(machine, data, views * bins, &mut memory)?;
    let image = (plan.tables.grid.rows, plan.tables.grid.cols);
    let how = (plan.tables.taps, true);
    gather(
        machine,
        Data { from, ..data },
        plan.at[1],
        image,
        (views, bins),
        how,
    )?;
    drop(memory);
    Ok(())
}

/// `[slice][view][bin]` to `[slice][row][col]`, filtered back-projection.
pub(super) fn reconstruct<M: Machine>(
    machine: &M,
    plan: &Resident<'_, FbpTables>,
    data: Data,
) -> Result<(), M::Error> {
    let (tables, packing) = (plan.tables, machine.packing());
    let [views, bins] = tables.geometry.shape();
    let (width, groups) = (bins + 2 * tables.beyond, data.groups(packing));
    let filtered = machine.scratch(groups * views * width * packing.slices * packing.element_bytes())?;
    let from = machine.address(&filtered);
    machine.launch(
        "filter",
        [width.div_ceil(WIDTH * HEIGHT), views, groups],
        arguments(
            &[data.from, plan.at[0], plan.at[1], from],
            &[data.slices, views, bins, tables.beyond, tables.reach],
        ),
    )?;
    let image = (tables.grid.rows, tables.grid.cols);
    gather(
        machine,
        Data { from, ..data },
        plan.at[2],
        image,
        (views, width),
        (1, false),
    )?;
    drop(filtered);
    Ok(())
}

fn gather<M: Machine>(
    machine: &M,
    data: Data,
    rays: u64,
    (rows, cols): (usize, usize),
    (views, bins): (usize, usize),
    (taps, ends): (usize, bool),
) -> Result<(), M::Error> {
    machine.launch(
        "gather",
        [
            cols.div_ceil(WIDTH),
            rows.div_ceil(HEIGHT * PIXELS),
            data.groups(machine.packing()),
        ],
        arguments(
            &[data.from, rays, data.to],
            &[data.slices, rows, cols, views, bins, taps, usize::from(ends)],
        ),
    )
}
