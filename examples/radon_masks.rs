//! Radon mask augmentation, equation by equation: blocks, their sinograms, and the split of a sinogram by them.
//!
//! Writes `radon_masks.png`: masks of 1 to 4 blocks (eqs. 2-4), the same clipped (eq. 5), and `C_pos`, `S`, `C_neg`.
//! `cargo run --release --example radon_masks [SIZE] [FOLDER]`

#![allow(clippy::print_stdout)]

use allpet::core::ParallelGeometry;
use allpet::io::{Grid, Palette, Tile};
use allpet::mask::{BlockBank, MaskConfig, MaskGenerator, Normalisation, consistency, decompose};
use allpet::radon::analytic::{Ellipse, project};
use ndarray::{Array2, Axis};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let size: usize = arguments.next().map_or(Ok(256), |s| s.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let bank = BlockBank::new(512, 64)?;
    println!(
        "a 64-pixel block has {} positions on 512 x 512; number 123456 lies at {:?}",
        bank.len(),
        bank.get(123_456)
    );

    let geometry = ParallelGeometry::new(size, size, 1.0)?.with_arc_deg(360.0);
    let with = |blocks: usize, normalise| MaskConfig {
        size,
        block: (size / 8, size / 8),
        blocks: (blocks, blocks),
        normalise,
        ..MaskConfig::default()
    };
    let mut pictures: Vec<(Array2<f32>, String)> = Vec::new();
    for blocks in 1..=4 {
        for normalise in [Normalisation::Linear, Normalisation::Clip] {
            let generator = MaskGenerator::new(with(blocks, normalise), geometry)?;
            let mask = generator.mask(7, blocks as u64);
            let covered = mask.iter().filter(|v| **v > 0.0).count() as f64 / mask.len() as f64;
            println!(
                "K = {blocks}, {normalise}: {:.0} % of the sinogram touched",
                100.0 * covered
            );
            pictures.push((mask, format!("K = {blocks} {normalise}")));
        }
    }

    // A head of two ellipses, split by the mask of two blocks.
    let unit = size as f64 / 2.0;
    let head = Ellipse {
        value: 1.0,
        x_mm: 0.0,
        y_mm: 0.0,
        a_mm: 0.5 * unit,
        b_mm: 0.65 * unit,
        tilt_rad: 0.1,
    };
    let spot = Ellipse {
        value: 3.0,
        x_mm: 0.2 * unit,
        y_mm: 0.2 * unit,
        a_mm: 0.1 * unit,
        b_mm: 0.08 * unit,
        tilt_rad: 0.0,
    };
    let sinogram = project(&[head, spot], &geometry);
    let mask = MaskGenerator::new(with(2, Normalisation::Linear), geometry)?.mask(7, 2);
    let c_all = decompose(sinogram.view(), mask.view())?;
    let found = consistency(c_all.view(), mask.view())?;
    println!(
        "eq. 9 on channels built by eqs. 7 and 8: {:.1e} (it binds decoded channels, not these)",
        found.mean
    );
    for (channel, name) in c_all.axis_iter(Axis(0)).zip(["C_pos", "S", "C_neg"]) {
        pictures.push((channel.to_owned(), name.to_owned()));
    }

    let tiles: Vec<Tile<'_>> = pictures
        .iter()
        .map(|(picture, name)| Tile::new(picture.view(), name.as_str()).palette(Palette::Magma))
        .collect();
    let path = folder.join("radon_masks.png");
    Grid::new(4).write(&path, &tiles)?;
    println!("{}", path.display());
    Ok(())
}
