fn run() -> Result<(), Box<dyn std::error::Error>> {
use allpet::prelude::*;

// A disc of 1 kBq/mL, projected and reconstructed.
let grid = ImageGrid::square(64, 2.0)?;
let geometry = ParallelGeometry::new(90, 95, 2.0)?;
let disc = ndarray::Array2::from_shape_fn((64, 64), |(row, col)| {
    f32::from(grid.x_mm(col as f64).hypot(grid.y_mm(row as f64)) < 40.0)
});
let sinogram = Projector::new(grid, geometry)?.apply(disc.view().into_dyn())?;
let image = Fbp::new(grid, geometry, Filter::Hann, 1.0)?.reconstruct(sinogram.view())?;
assert!((image[[32, 32]] - 1.0).abs() < 0.02);

// A Radon mask for the same sinograms: mask 12 of seed 7, whatever is drawn beside it.
let settings = MaskConfig { size: 64, pixel_mm: 2.0, block: (8, 16), ..MaskConfig::default() };
let mask = MaskGenerator::new(settings, geometry)?.mask(7, 12);
assert_eq!(mask.dim(), (90, 95));

// What a model would be asked for.
let prompts = Prompt::parse("brain with 18F-FDG")?;
assert_eq!(prompts, [Prompt::pet(Tracer::Fdg, Region::Brain)]);
Ok(())
}
#[test] fn doc() { run().unwrap(); }
