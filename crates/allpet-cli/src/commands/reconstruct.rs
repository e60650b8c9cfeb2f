//! `allpet reconstruct`: a sinogram to an image.

use crate::fault::{Result, given};
use crate::options::{Device, Geometry, Size, fits_in_memory};
use crate::output::{self, tidy};
use crate::report::{Report, note};
use allpet::core::{CylindricalScanner, ParallelGeometry};
use allpet::io::{Format, ListMode, detect, read_sinogram, write_array};
use allpet::radon::{Fbp, Filter, arc_correct};
use clap::ValueEnum;
use ndarray::{Array1, ArrayD};
use serde_json::json;
use std::path::PathBuf;

/// Reconstruct an image from a sinogram or from list-mode data
///
/// Bins that are not equally spaced (list-mode data, and what `convert` makes of them) are arc-corrected first, to
/// bins of --bin-mm [default there: the spacing at the centre]; pixels then have that size unless --pixel-mm is given.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sinogram [.., view, radial] as .npy or .npz, or an Interfile list-mode header
    #[arg(long = "in", value_name = "SINOGRAM")]
    input: PathBuf,
    /// Image [.., row, col], .npy or .npz
    #[arg(long, value_name = "IMAGE")]
    out: PathBuf,
    /// Size of the image: 256, or rows x columns as 200x256
    #[arg(long)]
    size: Size,
    /// Method
    #[arg(long, value_enum, default_value_t = Method::Fbp)]
    method: Method,
    /// Filter: ramp, shepp-logan, cosine, hamming or hann
    #[arg(long, default_value_t = Filter::Ramp)]
    filter: Filter,
    /// Where the filter ends, as a fraction of the Nyquist frequency
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    cutoff: f64,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    geometry: Geometry,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Method {
    /// Filtered back-projection
    Fbp,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        self.device.open()?;
        output::file(&self.out, output::ARRAYS)?;
        // Faults of the options show before a long file is read.
        let mut flags = self.geometry.clone();
        flags.image(self.size.rows, self.size.cols)?;
        flags.sinogram(1, 1)?;
        let (mut sinogram, radial_mm, notes) = read_sinogram(&self.input)?;
        notes.iter().for_each(|n| note(n));
        if let Some(positions) = radial_mm {
            let scanner = self.scanner(&positions)?;
            let bin_mm = *flags.bin_mm.get_or_insert(tidy(scanner.bin_mm));
            flags.pixel_mm.get_or_insert(bin_mm);
            sinogram = equally_spaced(sinogram, &scanner, &flags)?;
            let (bins, mm) = (sinogram.shape()[sinogram.ndim() - 1], bin_mm);
            note(&format!(
                "arc-corrected to {bins} bins of {mm} mm; counts, not corrected for attenuation"
            ));
        }
        let [.., views, bins] = *sinogram.shape() else {
            return given(format!(
                "{}: expected a sinogram [.., view, radial]",
                self.input.display()
            ));
        };
        let grid = flags.image(self.size.rows, self.size.cols)?;
        let geometry = flags.sinogram(views, bins)?;
        let batch = &sinogram.shape()[..sinogram.ndim() - 2];
        fits_in_memory("an image", &[batch, &grid.shape()].concat())?;
        let image = match self.method {
            Method::Fbp => {
                Fbp::new(grid, geometry, self.filter, self.cutoff)?.reconstruct(sinogram.view())?
            }
        };
        write_array(&self.out, "reconstructions", image.view())?;
        let json = json!({
            "out": self.out,
            "shape": image.shape(),
            "pixel_mm": grid.pixel_mm,
            "bins": bins,
            "bin_mm": geometry.bin_mm,
        });
        let shape = output::by(image.shape());
        Ok(Report::new(
            json,
            format!(
                "{}: image of {shape}, pixels of {} mm",
                self.out.display(),
                grid.pixel_mm
            ),
        ))
    }

    /// The scanner whose bins lie at these positions: the one in the header, else the one that is known.
    fn scanner(&self, positions: &Array1<f32>) -> Result<CylindricalScanner> {
        let scanner = match detect(&self.input)? {
            Format::Interfile | Format::ListMode => ListMode::open(&self.input, None)?.scanner,
            _ => CylindricalScanner::mmr(),
        };
        let near = |(bin, &s): (usize, &f32)| (scanner.s_mm(bin) - f64::from(s)).abs() < 1e-3;
        if positions.len() == scanner.bins && positions.iter().enumerate().all(near) {
            return Ok(scanner);
        }
        given(format!(
            "{}: its `radial_mm` are not the {} bins of the Biograph mMR; expected those, or equally spaced bins \
             without `radial_mm`",
            self.input.display(),
            scanner.bins
        ))
    }
}

/// Arc correction to as many bins as the scanner's field of view holds.
fn equally_spaced(
    counts: ArrayD<f32>,
    scanner: &CylindricalScanner,
    flags: &Geometry,
) -> Result<ArrayD<f32>> {
    let bin_mm = flags.bin_mm.unwrap_or(scanner.bin_mm);
    let bins = (2.0 * scanner.s_mm(0).abs() / bin_mm).floor().max(1.0) as usize;
    let views = counts.shape()[counts.ndim() - 2];
    let target = ParallelGeometry::new(views, bins, bin_mm)?.with_offset_bins(0.0);
    let batch = &counts.shape()[..counts.ndim() - 2];
    fits_in_memory("a sinogram", &[batch, &target.shape()].concat())?;
    Ok(arc_correct(counts.view(), scanner, &target)?)
}
