//! Projection of mask blocks to the sinogram, and their sum: ALL-PET eqs. 1 to 3.

use crate::block::Block;
use crate::error::{Result, all_faults, shape_error};
use crate::kernel::{self, Kernel};
use crate::trapezoid;
use allpet_core::{Error, ImageGrid, ParallelGeometry};
use ndarray::Array2;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// How a block is projected. All four give chords in pixels, so they agree as the grid refines.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Projection {
    /// Eq. 1 in closed form (a trapezoid per view): exact, and the fastest.
    #[default]
    Analytic,
    /// Eq. 2, each pixel into its nearest bin.
    Nearest,
    /// Eq. 2, each pixel into its two neighbouring bins.
    Linear,
    /// Eq. 2, each pixel spread as a Gaussian.
    Gaussian {
        /// Standard deviation in bins, 0.25 to 64; narrower ones fall between the bins.
        sigma_bins: f64,
    },
}

impl Projection {
    pub(crate) fn faults(self) -> Vec<String> {
        match self {
            Self::Gaussian { sigma_bins } if !(0.25..=64.0).contains(&sigma_bins) => {
                vec![format!("Gaussian of {sigma_bins} bins; expected 0.25 to 64")]
            }
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Analytic => f.write_str("analytic"),
            Self::Nearest => f.write_str("nearest"),
            Self::Linear => f.write_str("linear"),
            Self::Gaussian { sigma_bins } => write!(f, "gaussian:{sigma_bins}"),
        }
    }
}

impl FromStr for Projection {
    type Err = crate::Error;

    /// `analytic`, `nearest`, `linear`, `gaussian` (σ of one bin) or `gaussian:σ`.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownWord {
            what: "mask projection",
            word: text.to_owned(),
            known: "analytic, nearest, linear, gaussian, gaussian:SIGMA_BINS".to_owned(),
        };
        let projection = match text {
            "analytic" => Self::Analytic,
            "nearest" => Self::Nearest,
            "linear" => Self::Linear,
            "gaussian" => Self::Gaussian { sigma_bins: 1.0 },
            _ => {
                let sigma = text.strip_prefix("gaussian:").and_then(|s| s.parse().ok());
                Self::Gaussian {
                    sigma_bins: sigma.ok_or_else(unknown)?,
                }
            }
        };
        all_faults("mask projection", projection.faults())?;
        Ok(projection)
    }
}

/// `M^s = Σ_k M_k^s` (eq. 3), not normalised: chord lengths in pixels, `[view, radial]`.
///
/// No blocks give zeros. Blocks are added as they are; overlapping ones count twice, as eq. 6 has it.
///
/// # Errors
/// [`Error::BlockOutside`](crate::Error::BlockOutside), or a grid, geometry or kernel outside its range.
pub fn project_blocks(
    blocks: &[Block],
    grid: &ImageGrid,
    geometry: &ParallelGeometry,
    projection: Projection,
) -> Result<Array2<f32>> {
    geometry.validate()?;
    let mut mask = Array2::zeros(geometry.shape());
    if let Some(out) = mask.as_slice_mut() {
        project_blocks_into(blocks, grid, geometry, projection, out)?;
    }
    Ok(mask)
}

/// [`project_blocks`] into the caller's `views · bins` values, overwriting them; errors also on another length.
pub fn project_blocks_into(
    blocks: &[Block],
    grid: &ImageGrid,
    geometry: &ParallelGeometry,
    projection: Projection,
    out: &mut [f32],
) -> Result<()> {
    grid.validate()?;
    geometry.validate()?;
    all_faults("mask projection", projection.faults())?;
    for block in blocks {
        block.check(grid)?;
    }
    if out.len() != geometry.views.saturating_mul(geometry.bins) {
        return Err(shape_error(
            "mask",
            &[geometry.views, geometry.bins],
            &[out.len()],
        ));
    }
    project_checked(blocks, grid, geometry, projection, out);
    Ok(())
}

/// The same for arguments that are known to be good.
pub(crate) fn project_checked(
    blocks: &[Block],
    grid: &ImageGrid,
    geometry: &ParallelGeometry,
    projection: Projection,
    out: &mut [f32],
) {
    let kernel = match projection {
        Projection::Analytic => {
            let directions = (0..geometry.views).map(|view| geometry.angle(view).sin_cos());
            project_analytic(blocks, grid, geometry, directions, out);
            return;
        }
        Projection::Nearest => Kernel::Nearest,
        Projection::Linear => Kernel::Linear,
        Projection::Gaussian { sigma_bins } => Kernel::Gaussian(sigma_bins),
    };
    out.par_chunks_exact_mut(geometry.bins).enumerate().for_each_init(
        || vec![0.0_f64; geometry.bins],
        |sums, (view, row)| {
            sums.fill(0.0);
            let sin_cos = geometry.angle(view).sin_cos();
            for block in blocks {
                kernel::add_view(kernel, block, grid, geometry, sin_cos, sums);
            }
            for (value, sum) in row.iter_mut().zip(sums.iter()) {
                *value = *sum as f32;
            }
        },
    );
}

/// The closed form for views of the given sines and cosines; the range of bins under a block, view by view.
pub(crate) fn project_analytic(
    blocks: &[Block],
    grid: &ImageGrid,
    geometry: &ParallelGeometry,
    directions: impl Iterator<Item = (f64, f64)>,
    out: &mut [f32],
) -> Vec<Range<usize>> {
    let rows = out.chunks_exact_mut(geometry.bins);
    rows.zip(directions)
        .map(|(row, direction)| {
            row.fill(0.0);
            blocks
                .iter()
                .map(|block| trapezoid::add_view(block, grid, geometry, direction, row))
                .filter(|support| !support.is_empty())
                .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))
                .unwrap_or(0..0)
        })
        .collect()
}
