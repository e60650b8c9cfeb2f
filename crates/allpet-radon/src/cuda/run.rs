//! Which kernels run, in which order, on how many blocks.

use super::tables::{FbpTables, GROUP, Tables};
use super::{Packing, UNIT};
use allpet_kernel::{BLOCK, Machine, arguments};

/// Edges of a block, and rows of a thread that gathers (`WIDTH`, `HEIGHT`, `PIXELS` of the kernels).
const WIDTH: usize = BLOCK[0];
const HEIGHT: usize = BLOCK[1];
const PIXELS: usize = 4;

/// Addresses of tables on the machine.
pub(super) struct Resident<'a, T> {
    pub(super) tables: &'a T,
    /// Walks and rays, or filter, weights and rays.
    pub(super) at: [u64; 3],
}

/// Where the data are, how they lie, and how many slices.
#[derive(Clone, Copy)]
pub(super) struct Data {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) packing: Packing,
    pub(super) slices: usize,
}

impl Data {
    fn groups(&self) -> usize {
        self.slices.div_ceil(self.packing.slices)
    }

    fn pack_bytes(&self) -> usize {
        self.packing.slices * self.packing.element.bytes()
    }
}

/// Packed slices: the data themselves where one slice makes a pack.
fn packed<M: Machine>(
    machine: &M,
    data: Data,
    elements: usize,
    memory: &mut Option<M::Memory>,
) -> Result<u64, M::Error> {
    if data.packing.slices == 1 {
        return Ok(data.from);
    }
    let groups = data.groups();
    let scratch = machine.scratch(groups * elements * data.pack_bytes())?;
    let to = machine.address(&scratch);
    *memory = Some(scratch);
    machine.launch(
        &UNIT,
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
    let tables = plan.tables;
    let (grid, groups) = (tables.grid, data.groups());
    let (mut straight, mut turned) = (None, None);
    let by_row = packed(machine, data, grid.rows * grid.cols, &mut straight)?;
    let mut by_col = by_row;
    if tables.turned {
        let bytes = groups * grid.rows * grid.cols * data.pack_bytes();
        let scratch = machine.scratch(bytes)?;
        by_col = machine.address(&scratch);
        turned = Some(scratch);
        machine.launch(
            &UNIT,
            "turn",
            [grid.cols.div_ceil(WIDTH), grid.rows.div_ceil(WIDTH), groups],
            arguments(&[data.from, by_col], &[data.slices, grid.rows, grid.cols]),
        )?;
    }
    let [views, bins] = tables.geometry.shape();
    machine.launch(
        &UNIT,
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
    let tables = plan.tables;
    let [views, bins] = tables.geometry.shape();
    let (width, groups) = (bins + 2 * tables.beyond, data.groups());
    let filtered = machine.scratch(groups * views * width * data.pack_bytes())?;
    let from = machine.address(&filtered);
    machine.launch(
        &UNIT,
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
        &UNIT,
        "gather",
        [
            cols.div_ceil(WIDTH),
            rows.div_ceil(HEIGHT * PIXELS),
            data.groups(),
        ],
        arguments(
            &[data.from, rays, data.to],
            &[data.slices, rows, cols, views, bins, taps, usize::from(ends)],
        ),
    )
}
