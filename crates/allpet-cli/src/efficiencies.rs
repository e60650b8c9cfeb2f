//! Efficiencies of a scanner's bins, and its mean randoms, from the delayeds of its own scan.

use crate::fault::{Result, given};
use crate::output::by;
use allpet::core::CylindricalScanner;
use allpet::radon::{Blocks, CrystalPairs, Efficiencies, estimate_efficiencies};
use ndarray::{Array2, ArrayD, Axis, Ix2};

/// Estimated efficiencies and randoms, not arc-corrected, from prompts and delayeds `[.., view, radial]`, their sum over leading
/// axes.
///
/// A fault of the user's where the scanner's blocks are not known or the counts are not of them.
pub(crate) fn estimate(
    prompts: &ArrayD<f32>,
    delayeds: &ArrayD<f32>,
    scanner: &CylindricalScanner,
) -> Result<Efficiencies> {
    let Some(blocks) = Blocks::of(scanner) else {
        return given(format!(
            "blocks of a scanner of {} crystals and {} rings are not known; expected the Biograph mMR",
            scanner.crystals, scanner.rings
        ));
    };
    let pairs = CrystalPairs::of(scanner)?;
    pairs.check_gaps(summed(prompts)?.view(), blocks)?;
    let delayeds = summed(delayeds)?;
    Ok(estimate_efficiencies(delayeds.view(), &pairs, Some(blocks))?)
}

/// The sum over leading axes.
pub(crate) fn summed(counts: &ArrayD<f32>) -> Result<Array2<f32>> {
    let mut sum = counts.clone();
    while sum.ndim() > 2 {
        sum = sum.sum_axis(Axis(0));
    }
    match sum.into_dimensionality::<Ix2>() {
        Ok(sum) => Ok(sum),
        Err(_) => given(format!(
            "counts of shape {}; expected a sinogram [.., view, radial]",
            by(counts.shape())
        )),
    }
}
