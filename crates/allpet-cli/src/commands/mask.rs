//! `allpet mask`: random sinogram masks, streamed to a file.

use crate::fault::{Fault, Result};
use crate::options::{Geometry, Span, fits_in_memory};
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::io::{Format, NpyStream};
use allpet::mask::{MaskConfig, MaskGenerator, Normalisation};
use serde_json::json;
use std::path::PathBuf;

/// Memory for the masks that are drawn at once.
const CHUNK_BYTES: usize = 64 << 20;

/// Draw Radon masks: random blocks of an image, projected and normalised (RMAS, DMM)
///
/// Mask i of a seed is the same whatever --count and --first are.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Number of masks
    #[arg(long)]
    count: usize,
    /// Number of the first mask
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Rows and columns of the mask image
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Number of views
    #[arg(long, default_value_t = 512)]
    views: usize,
    /// Number of radial bins
    #[arg(long, default_value_t = 512)]
    bins: usize,
    /// Side of a block in pixels, a number or a range a..b
    #[arg(long, default_value = "64", value_name = "PIXELS")]
    block: Span<usize>,
    /// Number of blocks in a mask, a number or a range a..b
    #[arg(long, default_value = "1..4", value_name = "N")]
    blocks: Span<usize>,
    /// Normalisation: linear (by the maximum) or clip (chords in pixels, cut at 1)
    #[arg(long, default_value_t = Normalisation::Linear)]
    normalise: Normalisation,
    /// Seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Masks [count, view, radial], .npy
    #[arg(long)]
    out: PathBuf,
    #[command(flatten)]
    geometry: Geometry,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let geometry = self.geometry.sinogram(self.views, self.bins)?;
        let config = MaskConfig {
            size: self.size,
            pixel_mm: self.geometry.image(self.size.max(1), self.size.max(1))?.pixel_mm,
            block: (self.block.from, self.block.to),
            blocks: (self.blocks.from, self.blocks.to),
            normalise: self.normalise,
            ..MaskConfig::default()
        };
        let generator = MaskGenerator::new(config, geometry)?;
        if self.count == 0 {
            return Err(Fault::Given("--count is 0; expected at least 1".to_owned()));
        }
        output::file(&self.out, &[Format::Npy])?;
        fits_in_memory("a mask", &geometry.shape())?;
        progress::stop_flag();
        let shape = [self.count, self.views, self.bins];
        let chunk = (CHUNK_BYTES / (4 * self.views * self.bins)).clamp(1, 64);
        let bar = progress::bar(self.count as u64, "masks");
        let mut file = NpyStream::create(&self.out, &shape)?;
        let mut done = 0;
        while done < self.count {
            let now = chunk.min(self.count - done);
            let masks = generator.masks(self.seed, self.first.wrapping_add(done as u64), now)?;
            file.append(masks.view())?;
            done += now;
            bar.set_position(done as u64);
            if progress::stopped() {
                return Err(Fault::Other(format!(
                    "interrupted after {done} of {} masks; nothing was written",
                    self.count
                )));
            }
        }
        file.finish()?;
        bar.finish_and_clear();
        Ok(Report::new(
            json!({ "out": self.out, "shape": shape, "seed": self.seed, "first": self.first }),
            format!("{}: masks of {}", self.out.display(), output::by(&shape)),
        ))
    }
}
