//! Options that several commands share, and how their words are read.

use crate::fault::{Result, given};
use allpet::candle::Device as Candle;
use allpet::core::{ImageGrid, ParallelGeometry};
use clap::Args;
use std::fmt::Display;
use std::str::FromStr;

/// Where bins and pixels lie.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Geometry")]
pub(crate) struct Geometry {
    /// Side of a pixel in mm [default: 1]
    #[arg(long, value_name = "MM", allow_negative_numbers = true)]
    pub(crate) pixel_mm: Option<f64>,
    /// Spacing of the radial bins in mm [default: 1]
    #[arg(long, value_name = "MM", allow_negative_numbers = true)]
    pub(crate) bin_mm: Option<f64>,
    /// Arc covered by the views in degrees
    #[arg(
        long,
        value_name = "DEG",
        default_value_t = 180.0,
        allow_negative_numbers = true
    )]
    arc: f64,
    /// Angle of the first view in degrees, counter-clockwise
    #[arg(
        long,
        value_name = "DEG",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    start: f64,
    /// Shift of the centre of rotation in bins
    #[arg(
        long,
        value_name = "BINS",
        default_value_t = 0.0,
        allow_negative_numbers = true
    )]
    offset_bins: f64,
}

impl Geometry {
    /// Of a sinogram of `views × bins`.
    pub(crate) fn sinogram(&self, views: usize, bins: usize) -> Result<ParallelGeometry> {
        let geometry = ParallelGeometry {
            views,
            bins,
            bin_mm: self.bin_mm.unwrap_or(1.0),
            arc_rad: std::f64::consts::PI,
            start_rad: 0.0,
            offset_bins: self.offset_bins,
        };
        let geometry = geometry.with_arc_deg(self.arc).with_start_deg(self.start);
        geometry.validate()?;
        Ok(geometry)
    }

    /// Of an image of `rows × cols`.
    pub(crate) fn image(&self, rows: usize, cols: usize) -> Result<ImageGrid> {
        Ok(ImageGrid::new(rows, cols, self.pixel_mm.unwrap_or(1.0))?)
    }
}

/// Where something is computed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Device {
    /// Where to compute: cpu, or cuda:0 where this build has it (project, adjoint, reconstruct with fbp, train)
    #[arg(long, default_value = "cpu", value_name = "DEVICE")]
    device: String,
}

impl Device {
    /// The CPU, for what runs nowhere else.
    pub(crate) fn cpu(&self) -> Result<Candle> {
        match self.number()? {
            None => Ok(Candle::Cpu),
            Some(_) if cfg!(feature = "cuda") => given(format!(
                "--device {}: this runs on the CPU only; expected cpu",
                self.device
            )),
            Some(_) => self.none(),
        }
    }

    /// The device, if this build has it.
    pub(crate) fn open(&self) -> Result<Candle> {
        match self.number()? {
            None => Ok(Candle::Cpu),
            Some(number) if cfg!(feature = "cuda") => Candle::new_cuda(number).or_else(|e| {
                let reason = e.to_string();
                let line = reason.lines().next().unwrap_or_default();
                given(format!(
                    "--device {}: {line}; expected a device that is there, or cpu",
                    self.device
                ))
            }),
            Some(_) => self.none(),
        }
    }

    /// As it was given.
    pub(crate) fn name(&self) -> &str {
        &self.device
    }

    fn none(&self) -> Result<Candle> {
        given(format!(
            "--device {}: this build has no CUDA; expected cpu",
            self.device
        ))
    }

    /// Number of a CUDA device; none is the CPU.
    fn number(&self) -> Result<Option<usize>> {
        let number = match self.device.as_str() {
            "cpu" => return Ok(None),
            "cuda" => Some(0),
            other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()),
        };
        match number {
            Some(_) => Ok(number),
            None => given(format!(
                "--device {}: unknown device; expected cpu or cuda:0",
                self.device
            )),
        }
    }
}

/// `a..b`, both ends included, or a single value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Span<T> {
    pub(crate) from: T,
    pub(crate) to: T,
}

impl<T: FromStr + PartialOrd + Copy> FromStr for Span<T> {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parse = |word: &str| {
            word.trim()
                .parse::<T>()
                .map_err(|_| "expected a number or a range a..b".to_owned())
        };
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (parse(from)?, parse(to.trim_start_matches('='))?),
            None => (parse(text)?, parse(text)?),
        };
        if from <= to {
            Ok(Self { from, to })
        } else {
            Err("expected a range a..b with a not above b".to_owned())
        }
    }
}

impl<T: Display + PartialEq> Display for Span<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.from == self.to {
            write!(f, "{}", self.from)
        } else {
            write!(f, "{}..{}", self.from, self.to)
        }
    }
}

/// `256` or `200x256`, rows first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parse = |word: &str| {
            word.trim()
                .parse()
                .ok()
                .filter(|&n| n > 0)
                .ok_or("expected a size such as 256, or ROWSxCOLS such as 200x256")
        };
        let (rows, cols) = text.split_once(['x', 'X']).unwrap_or((text, text));
        Ok(Self {
            rows: parse(rows)?,
            cols: parse(cols)?,
        })
    }
}

/// Refuses arrays that memory cannot hold, before anything is computed.
pub(crate) fn fits_in_memory(what: &str, shape: &[usize]) -> Result<()> {
    let elements = shape
        .iter()
        .try_fold(1usize, |product, &axis| product.checked_mul(axis));
    let mut probe: Vec<f32> = Vec::new();
    match elements.map(|n| probe.try_reserve_exact(n)) {
        Some(Ok(())) => Ok(()),
        _ => given(format!(
            "{what} of shape {shape:?} does not fit in memory; expected a smaller one"
        )),
    }
}
