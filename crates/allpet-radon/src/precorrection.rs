//! Precorrection of a ring scanner's counts: randoms off, efficiencies out, gaps between blocks filled.
//!
//! Under the model `ȳ = n·P x + r` a bin with efficiency becomes `c = (y - r)/n`, of mean `P x`, and nothing else happens to it.
//! A bin without (`n = 0`: gaps between blocks, dead blocks) has measured nothing; it takes `c = P x̂`, with `x̂` the OSEM image
//! of the bins that did measure, under that model. Filling gaps by the projection of an image that was reconstructed without
//! them: F. H. P. van Velden et al., "Gap filling strategies for 3-D-FBP reconstructions of High-Resolution Research
//! Tomograph scans", IEEE Trans. Med. Imaging 27 (2008) 934-942.
//!
//! Values can be negative, and must be where few counts were expected: only so are their sums those of the true coincidences.

use crate::arc_correction::{arc_correct, arc_correct_efficiencies, ring_counts};
use crate::entry::non_negative;
use crate::error::{Error, Result};
use crate::operator::LinearOperator;
use crate::operators::GaussianPsf;
use crate::osem::{Osem, OsemConfig};
use crate::projector::Projector;
use crate::view_rebinning::rebin_views;
use allpet_core::{CylindricalScanner, ImageGrid, ParallelGeometry};
use ndarray::{Array2, ArrayView2, Ix2, Zip};

/// Bins of the image's sinogram to one of its pixels.
const PIXEL_BINS: f64 = 2.0;

/// The image whose projection fills the gaps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GapFilling {
    /// Iterations and subsets.
    pub osem: OsemConfig,
    /// Gaussian filter of the image afterwards, full width at half maximum in mm; 0 is none.
    pub post_filter_mm: f64,
}

impl Default for GapFilling {
    /// Few iterations and a wide filter: what is projected should not bring the noise of other bins.
    fn default() -> Self {
        Self {
            osem: OsemConfig {
                iterations: 2,
                subsets: 12,
            },
            post_filter_mm: 6.0,
        }
    }
}

/// Counts of true coincidences `[view, bin]` as a scanner of efficiency 1 without gaps and randoms would expect them, in the bins
/// of the ring: not arc-corrected, and neither attenuation nor scatter taken out.
///
/// `prompts`, `efficiencies` and `randoms` (mean counts) are `[view, bin]` of the scanner, as
/// [`crate::estimate_efficiencies`] gives the last two. Finite for every input that is accepted; prompts of a bin without
/// efficiency are ignored.
///
/// # Errors
/// [`Error::Shape`] for an array of another shape; [`Error::Negative`] for a value that is negative or not finite; settings of
/// the filling outside their range; an efficiency so small that the corrected value overflows.
pub fn precorrect(
    prompts: ArrayView2<'_, f32>,
    efficiencies: ArrayView2<'_, f32>,
    randoms: ArrayView2<'_, f32>,
    scanner: &CylindricalScanner,
    filling: &GapFilling,
) -> Result<Array2<f32>> {
    scanner.validate()?;
    let shape = [scanner.views(), scanner.bins];
    for (what, array) in [
        ("prompts", prompts),
        ("efficiencies", efficiencies),
        ("randoms", randoms),
    ] {
        if array.shape() != shape {
            return Err(misshapen(what, array.shape(), &shape));
        }
        non_negative(what, array.into_dyn())?;
    }
    let mut corrected = Array2::zeros(shape);
    Zip::from(&mut corrected)
        .and(prompts)
        .and(efficiencies)
        .and(randoms)
        .for_each(|c, &y, &n, &r| {
            if n > 0.0 {
                *c = (y - r) / n;
            }
        });
    allpet_core::check_finite("corrected counts", corrected.view().into_dyn())?;
    if efficiencies.iter().all(|&n| n > 0.0) {
        return Ok(corrected);
    }
    let filled = expected(prompts, efficiencies, randoms, scanner, filling)?;
    Zip::from(&mut corrected)
        .and(efficiencies)
        .and(&filled)
        .for_each(|c, &n, &fill| {
            if n == 0.0 {
                *c = fill;
            }
        });
    Ok(corrected)
}

/// Counts `[view, bin]` of the ring in the views and equal bins of `target`: [`arc_correct`], then [`rebin_views`]. Counts stay,
/// but for those beyond the outermost bins.
///
/// # Errors
/// Counts that are not the scanner's; an invalid target, or one of another arc than 180°; other views with a centre off the
/// middle.
pub fn regrid_counts(
    counts: ArrayView2<'_, f32>,
    scanner: &CylindricalScanner,
    target: &ParallelGeometry,
) -> Result<Array2<f32>> {
    let all_views = ParallelGeometry {
        views: scanner.views(),
        ..*target
    };
    let equal = arc_correct(counts.into_dyn(), scanner, &all_views)?;
    let shared = if target.views == all_views.views {
        equal
    } else {
        rebin_views(equal.view(), &all_views, target.views)?
    };
    let got = shared.shape().to_vec();
    shared
        .into_dimensionality::<Ix2>()
        .map_err(|_| misshapen("counts", &got, &target.shape()))
}

/// `P x̂` in the bins of the ring.
fn expected(
    prompts: ArrayView2<'_, f32>,
    efficiencies: ArrayView2<'_, f32>,
    randoms: ArrayView2<'_, f32>,
    scanner: &CylindricalScanner,
    filling: &GapFilling,
) -> Result<Array2<f32>> {
    let bins = (2.0 * scanner.s_mm(0).abs() / scanner.bin_mm).floor().max(1.0);
    let geometry = ParallelGeometry::new(scanner.views(), bins as usize, scanner.bin_mm)?;
    let pixels = (bins / PIXEL_BINS).ceil().max(1.0) as usize;
    let grid = ImageGrid::square(pixels, PIXEL_BINS * scanner.bin_mm)?;
    // Equal bins lie across ring bins with and without efficiency: what is in the latter must not come in with them.
    let live = |values: ArrayView2<'_, f32>| {
        Zip::from(values)
            .and(efficiencies)
            .map_collect(|&v, &n| if n > 0.0 { v } else { 0.0 })
            .into_dyn()
    };
    let counts = arc_correct(live(prompts).view(), scanner, &geometry)?;
    let background = arc_correct(live(randoms).view(), scanner, &geometry)?;
    let efficiencies = arc_correct_efficiencies(efficiencies.into_dyn(), scanner, &geometry)?;
    let image = Osem::new(grid, geometry, filling.osem)?
        .with_normalisation(efficiencies.view())?
        .with_background(background.view())?
        .reconstruct(counts.view())?;
    let image = GaussianPsf::new(grid, filling.post_filter_mm)?.apply(image.view())?;
    let projected = Projector::new(grid, geometry)?.apply(image.view())?;
    let ring = ring_counts(projected.view(), &geometry, scanner)?;
    let got = ring.shape().to_vec();
    ring.into_dimensionality::<Ix2>()
        .map_err(|_| misshapen("projection", &got, &[scanner.views(), scanner.bins]))
}

fn misshapen(what: &'static str, got: &[usize], expected: &[usize; 2]) -> Error {
    Error::Shape {
        what,
        expected: format!("{expected:?}"),
        got: got.to_vec(),
    }
}
