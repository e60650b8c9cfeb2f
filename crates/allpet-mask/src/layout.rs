//! DMM's random layout: K non-overlapping blocks, their number, sizes and positions drawn.
//!
//! Positions are drawn by rejection: uniform over all stride-1 positions, drawn again while the block meets an earlier
//! one, the whole layout drawn again when a block finds no room. After a bounded number of draws a placement that
//! cannot fail takes over: `⌈√K⌉²` equal cells, K of them chosen at random, each block at a random place in its own
//! cell, sides cut to the cell. (Settings that fill a large part of the image end there; K is always kept and sides
//! stay in their range, since validated settings have cells no smaller than the smallest side.)

use crate::block::Block;
use crate::config::{MaskConfig, cells_per_side};
use allpet_core::stream;
use rand::Rng;
use rand::seq::index::sample;

/// Positions tried for one block before the layout is drawn again.
const TRIES_PER_BLOCK: usize = 64;

/// Positions tried for a mask before the cells take over, beside 16 per block.
const TRIES: usize = 2048;

/// The blocks of mask `index` of `seed`; `config` is valid.
pub(crate) fn draw(config: &MaskConfig, seed: u64, index: u64) -> Vec<Block> {
    let mut random = stream(seed, "dmm", index);
    // u64 ranges: a draw must not depend on the width of usize.
    let mut between = |low: usize, high: usize| random.random_range(low as u64..=high as u64) as usize;
    let count = between(config.blocks.0, config.blocks.1);
    let sides: Vec<(usize, usize)> = (0..count)
        .map(|_| {
            let height = between(config.block.0, config.block.1);
            (
                height,
                if config.square {
                    height
                } else {
                    between(config.block.0, config.block.1)
                },
            )
        })
        .collect();
    let mut budget = TRIES + 16 * count;
    while budget > 0 {
        if let Some(layout) = reject(config.size, &sides, &mut budget, &mut between) {
            return layout;
        }
    }
    let cells = cells_per_side(count);
    let side = config.size / cells;
    let chosen: Vec<usize> = sample(&mut random, cells * cells, count).into_vec();
    let mut between = |low: usize, high: usize| random.random_range(low as u64..=high as u64) as usize;
    chosen
        .into_iter()
        .zip(sides)
        .map(|(cell, (height, width))| {
            let (height, width) = (height.min(side), width.min(side));
            Block {
                row: cell / cells * side + between(0, side - height),
                col: cell % cells * side + between(0, side - width),
                height,
                width,
            }
        })
        .collect()
}

/// One layout by rejection; `None` when a block found no room.
fn reject(
    size: usize,
    sides: &[(usize, usize)],
    budget: &mut usize,
    between: &mut impl FnMut(usize, usize) -> usize,
) -> Option<Vec<Block>> {
    let mut placed: Vec<Block> = Vec::with_capacity(sides.len());
    for &(height, width) in sides {
        let mut found = None;
        for _ in 0..TRIES_PER_BLOCK.min(*budget) {
            *budget -= 1;
            let block = Block {
                row: between(0, size - height),
                col: between(0, size - width),
                height,
                width,
            };
            if !placed.iter().any(|other| other.overlaps(&block)) {
                found = Some(block);
                break;
            }
        }
        placed.push(found?);
    }
    Some(placed)
}
