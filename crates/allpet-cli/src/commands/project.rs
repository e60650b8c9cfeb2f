//! `allpet project`: an image to its sinogram.

use crate::fault::{Result, given};
use crate::on_device;
use crate::options::{Device, Geometry, fits_in_memory};
use crate::output;
use crate::report::Report;
use allpet::io::{read_array, write_array};
use allpet::radon::Projector;
use serde_json::json;
use std::path::PathBuf;

/// Project an image to a sinogram: line integrals in (image unit) mm
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Image [.., row, col], .npy or .npz
    #[arg(long = "in", value_name = "IMAGE")]
    input: PathBuf,
    /// Sinogram [.., view, radial], .npy or .npz
    #[arg(long, value_name = "SINOGRAM")]
    out: PathBuf,
    /// Number of views
    #[arg(long)]
    views: usize,
    /// Number of radial bins
    #[arg(long)]
    bins: usize,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    geometry: Geometry,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = self.device.open()?;
        let geometry = self.geometry.sinogram(self.views, self.bins)?;
        output::file(&self.out, output::ARRAYS)?;
        let image = read_array(&self.input)?;
        let (&[.., rows, cols], false) = (image.shape(), image.is_empty()) else {
            return given(format!(
                "{}: shape {:?}; expected an image [.., row, col] with at least 1 pixel",
                self.input.display(),
                image.shape()
            ));
        };
        let batch = &image.shape()[..image.ndim() - 2];
        fits_in_memory("a sinogram", &[batch, &geometry.shape()].concat())?;
        let projector = Projector::new(self.geometry.image(rows, cols)?, geometry)?;
        let sinogram = on_device::project(&device, projector, image.view())?;
        write_array(&self.out, "sinograms", sinogram.view())?;
        Ok(Report::new(
            json!({ "out": self.out, "shape": sinogram.shape() }),
            format!(
                "{}: sinogram of {}",
                self.out.display(),
                output::by(sinogram.shape())
            ),
        ))
    }
}
