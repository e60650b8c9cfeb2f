//! Blocks: never overlapping, always as many and as large as asked, each a function of seed and number alone.

#![allow(clippy::unwrap_used)]

use allpet_core::ParallelGeometry;
use allpet_mask::{Block, BlockBank, MaskConfig, MaskGenerator, mask_image};

fn generator(config: &MaskConfig) -> MaskGenerator {
    MaskGenerator::new(config.clone(), ParallelGeometry::new(4, 16, 1.0).unwrap()).unwrap()
}

/// Painted and counted pixel by pixel: no use of `overlaps`.
fn painted(blocks: &[Block], config: &MaskConfig) -> (usize, usize) {
    let ones = mask_image(blocks, &config.grid())
        .unwrap()
        .iter()
        .filter(|&&v| v == 1.0)
        .count();
    (ones, blocks.iter().map(|b| b.height * b.width).sum())
}

#[test]
fn blocks_never_overlap_and_stay_in_their_ranges() {
    let base = MaskConfig {
        size: 64,
        ..MaskConfig::default()
    };
    for (block, blocks, square, masks) in [
        ((8, 8), (1, 4), true, 400),
        ((4, 12), (1, 4), true, 400),
        ((2, 20), (3, 9), false, 400),
        ((1, 1), (1024, 1024), true, 2), // many specks
        ((16, 16), (16, 16), true, 60),  // a perfect tiling: only the cells can do it
        ((15, 64), (16, 16), false, 60), // nearly so
        ((32, 64), (4, 4), true, 60),
        ((1, 64), (1, 12), false, 200),
        ((64, 64), (1, 1), true, 5), // the whole image
        ((21, 21), (9, 9), true, 60),
        ((5, 5), (0, 0), true, 5),
    ] {
        let config = MaskConfig {
            block,
            blocks,
            square,
            ..base.clone()
        };
        let generator = generator(&config);
        for index in 0..masks {
            let found = generator.blocks(11, index);
            assert!(
                (blocks.0..=blocks.1).contains(&found.len()),
                "{config:?}: {} blocks",
                found.len()
            );
            let (ones, area) = painted(&found, &config);
            assert_eq!(ones, area, "{config:?}, mask {index}: blocks overlap");
            for b in &found {
                assert!(
                    b.height >= block.0 && b.height <= block.1 && b.width >= block.0 && b.width <= block.1
                );
                assert!(!square || b.height == b.width);
            }
        }
    }
}

#[test]
fn the_painted_count_notices_an_overlap() {
    let config = MaskConfig {
        size: 64,
        ..MaskConfig::default()
    };
    let a = Block {
        row: 3,
        col: 3,
        height: 8,
        width: 8,
    };
    for (row, col, overlap) in [
        (10, 10, true),
        (11, 3, false),
        (3, 11, false),
        (3, 3, true),
        (0, 0, true),
    ] {
        let b = Block { row, col, ..a };
        let (ones, area) = painted(&[a, b], &config);
        assert_eq!(ones != area, overlap);
        assert_eq!(a.overlaps(&b), overlap);
        assert_eq!(b.overlaps(&a), overlap);
    }
}

#[test]
fn number_size_and_position_all_vary() {
    let config = MaskConfig {
        size: 64,
        block: (4, 12),
        blocks: (1, 4),
        ..MaskConfig::default()
    };
    let generator = generator(&config);
    let layouts: Vec<Vec<Block>> = (0..4000).map(|i| generator.blocks(5, i)).collect();
    for count in 1..=4 {
        let share = layouts.iter().filter(|l| l.len() == count).count();
        // Binomial(4000, 1/4): mean 1000, σ = 27.4; five σ.
        assert!(
            (share as f64 - 1000.0).abs() < 137.0,
            "{share} layouts of {count}"
        );
    }
    let single: Vec<&Block> = layouts.iter().filter(|l| l.len() == 1).map(|l| &l[0]).collect();
    for side in 4..=12 {
        assert!(single.iter().any(|b| b.height == side));
    }
    // A lone block lies uniformly: the mean of its relative position is 1/2, σ = √(1/12/n).
    let mean = single
        .iter()
        .map(|b| b.row as f64 / (64 - b.height) as f64)
        .sum::<f64>()
        / single.len() as f64;
    assert!(
        (mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / single.len() as f64).sqrt(),
        "{mean}"
    );
    assert_ne!(generator.blocks(5, 0), generator.blocks(6, 0));
    assert_ne!(generator.blocks(5, 0), generator.blocks(5, 1));
    assert_eq!(generator.blocks(5, 3), generator.blocks(5, 3));
}

#[test]
fn the_bank_holds_every_position_once() {
    let bank = BlockBank::new(512, 64).unwrap();
    assert_eq!(bank.len(), 201_601);
    assert_eq!(
        bank.get(0),
        Some(Block {
            row: 0,
            col: 0,
            height: 64,
            width: 64
        })
    );
    assert_eq!(
        bank.get(201_600),
        Some(Block {
            row: 448,
            col: 448,
            height: 64,
            width: 64
        })
    );
    assert_eq!(bank.get(201_601), None);
    assert_eq!(bank.get(usize::MAX), None);
    for index in 0..bank.len() {
        assert_eq!(bank.index_of(&bank.get(index).unwrap()), Some(index));
    }
    for stranger in [(449, 0, 64, 64), (0, 449, 64, 64), (0, 0, 63, 64), (0, 0, 64, 65)] {
        let (row, col, height, width) = stranger;
        assert_eq!(
            bank.index_of(&Block {
                row,
                col,
                height,
                width
            }),
            None
        );
    }
    let drawn: Vec<Block> = (0..2000).map(|i| bank.draw(1, i)).collect();
    assert!(drawn.iter().all(|b| bank.index_of(b).is_some()));
    assert!(drawn.iter().any(|b| b.row < 45) && drawn.iter().any(|b| b.col > 403));
    assert_eq!(bank.draw(1, 7), drawn[7]);

    assert_eq!(BlockBank::new(7, 7).unwrap().len(), 1);
    let error = BlockBank::new(0, 0).unwrap_err().to_string();
    assert!(error.contains("block of 0 pixels"), "{error}");
    assert!(BlockBank::new(8, 9).is_err() && BlockBank::new(usize::MAX, 1).is_err());
}
