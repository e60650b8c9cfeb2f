//! Synthesis inside a program: the shipped model, a prompt for every tracer and region, reconstructions, a picture.
//!
//! Writes `synthesize.png`. `cargo run --release --example synthesize [STEPS] [FOLDER]`

#![allow(clippy::print_stdout)]

use allpet::io::{Grid, Palette, Tile};
use allpet::prelude::*;
use ndarray::{Axis, Ix3};
use std::ops::ControlFlow;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let steps: usize = arguments
        .next()
        .map_or(Ok(SynthesisRequest::default().steps), |s| s.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let model = pretrained(&Device::Cpu)?;
    let geometry = model.config().geometry;
    let regions = [Region::Brain, Region::Chest, Region::Abdomen];
    let mut prompts: Vec<Prompt> = Tracer::ALL
        .iter()
        .flat_map(|t| regions.map(|r| Prompt::pet(*t, r)))
        .collect();
    prompts.extend(regions.map(Prompt::ct));
    let request = SynthesisRequest {
        count: prompts.len(),
        prompts,
        steps,
        seed: 1,
        ..SynthesisRequest::default()
    };
    let made = model.synthesise(&request, &mut |_, _| ControlFlow::Continue(()))?;

    let grid = ImageGrid::square(geometry.bins, geometry.bin_mm)?;
    let images =
        Fbp::new(grid, geometry, Filter::Hann, 1.0)?.reconstruct(made.sinograms.view().into_dyn())?;
    let images = images.into_dimensionality::<Ix3>()?;
    let captions: Vec<String> = made.prompts.iter().map(ToString::to_string).collect();
    let mut tiles = Vec::new();
    for ((sinogram, image), caption) in made
        .sinograms
        .axis_iter(Axis(0))
        .zip(images.axis_iter(Axis(0)))
        .zip(&captions)
    {
        tiles.push(Tile::new(sinogram, caption.as_str()).palette(Palette::Magma));
        tiles.push(Tile::new(image, "").palette(Palette::InvertedGrey));
    }
    for (caption, error) in captions.iter().zip(&made.inconsistency) {
        println!(
            "{caption}: C_pos + C_neg differs from S by {:.1} %",
            100.0 * error
        );
    }
    let path = folder.join("synthesize.png");
    Grid::new(6).write(&path, &tiles)?;
    println!("{}", path.display());
    Ok(())
}
