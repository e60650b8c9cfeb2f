//! Elements moved, repeated or joined: one kernel each.

use super::{MOVES, Products};

/// A run out of each of `count` longer runs, into such runs: elements from run to run on both sides.
pub(super) fn copy_runs<M: Products>(
    m: &M,
    [from, to]: [u64; 2],
    [count, run]: [usize; 2],
    [from_step, to_step]: [usize; 2],
) -> Result<(), M::Error> {
    let words = [
        from,
        to,
        count as u64,
        run as u64,
        from_step as u64,
        to_step as u64,
    ];
    m.each(&MOVES, "copy_runs", count * run, &words, &[])
}

/// Every pixel twice along both axes, for rows of `width` in planes that follow one another: `small` pixels in all.
pub(super) fn double<M: Products>(
    m: &M,
    [small, width]: [usize; 2],
    from: u64,
    to: u64,
) -> Result<(), M::Error> {
    let length = 4 * small;
    m.each(
        &MOVES,
        "double_pixels",
        length,
        &[from, to, length as u64],
        &[width],
    )
}

/// The transpose of [`double`].
pub(super) fn sum_of_fours<M: Products>(
    m: &M,
    [small, width]: [usize; 2],
    from: u64,
    to: u64,
) -> Result<(), M::Error> {
    m.each(&MOVES, "sum_of_fours", small, &[from, to, small as u64], &[width])
}

/// `side × side` blocks of pixels into channels, or `back`; `height × width` blocks to a plane.
pub(super) fn move_blocks<M: Products>(
    m: &M,
    length: usize,
    [side, height, width]: [usize; 3],
    back: bool,
    from: u64,
    to: u64,
) -> Result<(), M::Error> {
    let numbers = [side, height, width, usize::from(back)];
    m.each(
        &MOVES,
        "move_blocks",
        length,
        &[from, to, length as u64],
        &numbers,
    )
}

/// `x + y`.
pub(super) fn add<M: Products>(m: &M, length: usize, [x, y]: [u64; 2], to: u64) -> Result<(), M::Error> {
    m.each(&MOVES, "add_two", length, &[x, y, to, length as u64], &[])
}

/// `gelu(a)·b` for `samples` of `[a, b]`, each half of so many elements.
pub(super) fn gate<M: Products>(m: &M, [samples, half]: [usize; 2], x: u64, to: u64) -> Result<(), M::Error> {
    let length = samples * half;
    let words = [x, 0, to, length as u64, half as u64];
    m.each(&MOVES, "gate_forward", length, &words, &[])
}

/// The gradient of [`gate`] for both halves.
pub(super) fn gate_gradient<M: Products>(
    m: &M,
    [samples, half]: [usize; 2],
    [x, dy]: [u64; 2],
    to: u64,
) -> Result<(), M::Error> {
    let length = samples * half;
    let words = [x, dy, to, length as u64, half as u64];
    m.each(&MOVES, "gate_backward", length, &words, &[])
}
