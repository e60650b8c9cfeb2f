//! RMAS: every stride-1 position of one square block, addressed by number.
//!
//! A block of 64 on 512 × 512 has (512 - 64 + 1)² = 201,601 positions: ALL-PET's "over 200,000" masks.

use crate::block::Block;
use crate::error::{Result, all_faults};
use allpet_core::stream;
use rand::Rng;

/// All positions of a `block × block` square on a `size × size` mask image, row by row; nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockBank {
    size: usize,
    block: usize,
    len: usize,
}

impl BlockBank {
    /// The bank of `block × block` squares on `size × size` pixels.
    ///
    /// # Errors
    /// A block of no pixels or larger than the image, or an image whose positions cannot be counted.
    pub fn new(size: usize, block: usize) -> Result<Self> {
        let mut faults = Vec::new();
        if block == 0 {
            faults.push("block of 0 pixels; expected at least 1".to_owned());
        }
        if block > size {
            faults.push(format!(
                "block of {block} pixels; expected at most the {size} of the mask image"
            ));
        }
        let along = size.saturating_sub(block).saturating_add(1);
        let len = along.checked_mul(along).unwrap_or_else(|| {
            faults.push(format!(
                "mask image of {size} pixels; expected fewer than 2^{}",
                usize::BITS / 2
            ));
            0
        });
        all_faults("block bank", faults)?;
        Ok(Self { size, block, len })
    }

    /// Number of positions, (size - block + 1)².
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never true: a bank holds at least one position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Position `index`; `None` at or beyond [`BlockBank::len`].
    pub fn get(&self, index: usize) -> Option<Block> {
        let along = self.size - self.block + 1;
        (index < self.len).then(|| Block {
            row: index / along,
            col: index % along,
            height: self.block,
            width: self.block,
        })
    }

    /// The number of a block; `None` when it is no member of this bank. Inverse of [`BlockBank::get`].
    pub fn index_of(&self, block: &Block) -> Option<usize> {
        let last = self.size - self.block;
        let member =
            block.height == self.block && block.width == self.block && block.row <= last && block.col <= last;
        member.then(|| block.row * (last + 1) + block.col)
    }

    /// A position drawn uniformly, a function of `(seed, index)` alone.
    pub fn draw(&self, seed: u64, index: u64) -> Block {
        let along = self.size - self.block + 1;
        let position = stream(seed, "rmas", index).random_range(0..self.len as u64) as usize;
        Block {
            row: position / along,
            col: position % along,
            height: self.block,
            width: self.block,
        }
    }
}
