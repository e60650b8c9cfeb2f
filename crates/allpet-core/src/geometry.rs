//! The image grid and the parallel-beam sinogram geometry.

use crate::error::{Result, all_faults};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// An image of `rows × cols` square pixels, centred on the axis of rotation.
///
/// `x = (col - (cols-1)/2)·pixel_mm`, `y = ((rows-1)/2 - row)·pixel_mm`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageGrid {
    /// Number of rows; row 0 is the top.
    pub rows: usize,
    /// Number of columns; column 0 is the left.
    pub cols: usize,
    /// Side of a pixel in mm.
    pub pixel_mm: f64,
}

impl ImageGrid {
    /// A grid of `rows × cols` pixels of `pixel_mm`.
    ///
    /// # Errors
    /// Zero rows or columns, or a pixel that is not a positive number.
    pub fn new(rows: usize, cols: usize, pixel_mm: f64) -> Result<Self> {
        let grid = Self { rows, cols, pixel_mm };
        grid.validate()?;
        Ok(grid)
    }

    /// A square grid of `size × size` pixels; errors as [`ImageGrid::new`].
    pub fn square(size: usize, pixel_mm: f64) -> Result<Self> {
        Self::new(size, size, pixel_mm)
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.rows == 0 || self.cols == 0 {
            faults.push(format!(
                "image of {} x {} pixels; expected at least 1 x 1",
                self.rows, self.cols
            ));
        }
        if !(self.pixel_mm.is_finite() && self.pixel_mm > 0.0) {
            faults.push(format!(
                "pixel of {} mm; expected a positive length",
                self.pixel_mm
            ));
        }
        all_faults("image grid", faults)
    }

    /// x of a column's centre in mm (columns may be fractional).
    pub fn x_mm(&self, col: f64) -> f64 {
        (col - (self.cols as f64 - 1.0) / 2.0) * self.pixel_mm
    }

    /// y of a row's centre in mm (rows may be fractional).
    pub fn y_mm(&self, row: f64) -> f64 {
        ((self.rows as f64 - 1.0) / 2.0 - row) * self.pixel_mm
    }

    /// `[rows, cols]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }
}

/// Parallel-beam sinogram geometry: equally spaced views over an arc, equally spaced radial bins.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParallelGeometry {
    /// Number of views (rows of the sinogram).
    pub views: usize,
    /// Number of radial bins (columns of the sinogram).
    pub bins: usize,
    /// Spacing of the radial bins in mm.
    pub bin_mm: f64,
    /// Arc covered by the views in radians; its end is not a view.
    pub arc_rad: f64,
    /// Angle of view 0 in radians, counter-clockwise with y up.
    pub start_rad: f64,
    /// Shift of the centre of rotation in bins: it lies at bin `(bins-1)/2 + offset_bins`.
    pub offset_bins: f64,
}

impl ParallelGeometry {
    /// `views × bins` over 180°, starting at 0, centred, with `bin_mm` between bins.
    ///
    /// # Errors
    /// Zero views or bins, or a spacing that is not a positive number.
    pub fn new(views: usize, bins: usize, bin_mm: f64) -> Result<Self> {
        let geometry = Self {
            views,
            bins,
            bin_mm,
            arc_rad: PI,
            start_rad: 0.0,
            offset_bins: 0.0,
        };
        geometry.validate()?;
        Ok(geometry)
    }

    /// The same with another arc, in degrees.
    pub fn with_arc_deg(mut self, arc: f64) -> Self {
        // 180 and 360 give π and 2π exactly, so that equality of geometries survives a round trip.
        self.arc_rad = PI * (arc / 180.0);
        self
    }

    /// The same with another first angle, in degrees.
    pub fn with_start_deg(mut self, start: f64) -> Self {
        self.start_rad = PI * (start / 180.0);
        self
    }

    /// The same with the centre of rotation shifted by `offset` bins.
    pub fn with_offset_bins(mut self, offset: f64) -> Self {
        self.offset_bins = offset;
        self
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.views == 0 {
            faults.push("0 views; expected at least 1".to_owned());
        }
        if self.bins == 0 {
            faults.push("0 bins; expected at least 1".to_owned());
        }
        if !(self.bin_mm.is_finite() && self.bin_mm > 0.0) {
            faults.push(format!("bins of {} mm; expected a positive spacing", self.bin_mm));
        }
        if !(self.arc_rad.is_finite() && self.arc_rad > 0.0 && self.arc_rad <= 2.0 * PI * (1.0 + 1e-12)) {
            faults.push(format!(
                "arc of {}°; expected more than 0 and at most 360",
                self.arc_rad.to_degrees()
            ));
        }
        if !self.start_rad.is_finite() {
            faults.push(format!("start angle {}; expected a number", self.start_rad));
        }
        if !self.offset_bins.is_finite() {
            faults.push(format!(
                "centre offset {}; expected a number of bins",
                self.offset_bins
            ));
        }
        all_faults("geometry", faults)
    }

    /// Angle of a view in radians.
    pub fn angle(&self, view: usize) -> f64 {
        self.start_rad + view as f64 * self.arc_rad / self.views as f64
    }

    /// Signed distance of a bin's centre from the axis in mm (bins may be fractional).
    pub fn s_mm(&self, bin: f64) -> f64 {
        (bin - self.centre_bin()) * self.bin_mm
    }

    /// The (fractional) bin on which the axis of rotation lies.
    pub fn centre_bin(&self) -> f64 {
        (self.bins as f64 - 1.0) / 2.0 + self.offset_bins
    }

    /// `[views, bins]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.views, self.bins]
    }
}
