//! `allpet adjoint`: the exact transpose of the projection.

use crate::fault::{Result, given};
use crate::on_device;
use crate::options::{Device, Geometry, Size, fits_in_memory};
use crate::output;
use crate::report::Report;
use allpet::io::{read_sinogram, write_array};
use allpet::radon::Projector;
use serde_json::json;
use std::path::PathBuf;

/// Apply the exact transpose of `project` to a sinogram (not a reconstruction)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sinogram [.., view, radial], .npy or .npz
    #[arg(long = "in", value_name = "SINOGRAM")]
    input: PathBuf,
    /// Image [.., row, col], .npy or .npz
    #[arg(long, value_name = "IMAGE")]
    out: PathBuf,
    /// Size of the image: 256, or rows x columns as 200x256
    #[arg(long)]
    size: Size,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    geometry: Geometry,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = self.device.open()?;
        let grid = self.geometry.image(self.size.rows, self.size.cols)?;
        output::file(&self.out, output::ARRAYS)?;
        let (sinogram, radial_mm, _) = read_sinogram(&self.input)?;
        if radial_mm.is_some() {
            return given(format!(
                "{}: its radial bins are not equally spaced; expected a sinogram that is (`reconstruct` corrects them)",
                self.input.display()
            ));
        }
        let [.., views, bins] = *sinogram.shape() else {
            return given(format!(
                "{}: expected a sinogram [.., view, radial]",
                self.input.display()
            ));
        };
        let batch = &sinogram.shape()[..sinogram.ndim() - 2];
        fits_in_memory("an image", &[batch, &grid.shape()].concat())?;
        let projector = Projector::new(grid, self.geometry.sinogram(views, bins)?)?;
        let image = on_device::back_project(&device, projector, sinogram.view())?;
        write_array(&self.out, "images", image.view())?;
        Ok(Report::new(
            json!({ "out": self.out, "shape": image.shape() }),
            format!("{}: image of {}", self.out.display(), output::by(image.shape())),
        ))
    }
}
