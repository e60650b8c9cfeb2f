//! Step 1 of TMA, eq. 10: the lesions on a coarse image, hot ones above a threshold, cold ones below another.

use super::components::{Connectivity, label_components};
use super::outline::Body;
use super::roi::Roi;
use super::threshold::{Side, Threshold};
use crate::error::{Error, Result, all_faults, shape_error};
use allpet_core::{ImageGrid, check_finite};
use allpet_radon::LinearOperator;
use allpet_radon::operators::GaussianPsf;
use ndarray::{Array2, ArrayView2, Zip};
use serde::{Deserialize, Serialize};

/// Settings of [`find_lesions`].
///
/// The default is eq. 10 with a global threshold, 41 % of the maximum, anywhere on the image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RoiConfig {
    /// Hot lesions, `X > T` (eq. 10).
    pub hot: Option<Threshold>,
    /// Cold lesions, `X < T_low` inside the body.
    pub cold: Option<Threshold>,
    /// The outline of the body; where there is one, both are looked for inside it only, and thresholds take their
    /// statistics there. Cold lesions need it, or a body that the caller gives.
    pub body: Option<Body>,
    /// Width (FWHM) of a Gaussian that smooths the image first, in mm; 0 leaves it as it is.
    pub smooth_mm: f64,
    /// Smaller components are noise, in mm².
    pub least_area_mm2: f64,
    /// Larger ones are organs, in mm²; without it there is no limit.
    pub greatest_area_mm2: Option<f64>,
    /// Which pixels belong together.
    pub connectivity: Connectivity,
}

impl Default for RoiConfig {
    fn default() -> Self {
        Self {
            hot: Some(Threshold::OfMax { fraction: 0.41 }),
            cold: None,
            body: None,
            smooth_mm: 0.0,
            least_area_mm2: 0.0,
            greatest_area_mm2: None,
            connectivity: Connectivity::Eight,
        }
    }
}

impl RoiConfig {
    /// Reports every fault at once; whether a cold threshold has a body is the search's to see.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.hot.is_none() && self.cold.is_none() {
            faults.push("neither hot nor cold; expected a threshold for at least one".to_owned());
        }
        faults.extend(self.hot.iter().flat_map(|t| t.faults("hot lesions")));
        faults.extend(self.cold.iter().flat_map(|t| t.faults("cold lesions")));
        faults.extend(self.body.iter().flat_map(Body::faults));
        for (what, value) in [
            ("smoothing", self.smooth_mm),
            ("least area", self.least_area_mm2),
            ("greatest area", self.greatest_area_mm2.unwrap_or(0.0)),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                faults.push(format!("{what} of {value}; expected 0 or more"));
            }
        }
        if self
            .greatest_area_mm2
            .is_some_and(|most| most < self.least_area_mm2)
        {
            faults.push(format!(
                "areas of {} to {} mm²; expected the smaller first",
                self.least_area_mm2,
                self.greatest_area_mm2.unwrap_or(0.0)
            ));
        }
        all_faults("lesion search", faults)
    }
}

/// What [`find_lesions`] found; masks are `[row, col]` on the image's grid.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesions {
    /// The grid of the masks.
    pub grid: ImageGrid,
    /// Hot lesions.
    pub hot: Array2<bool>,
    /// Cold lesions.
    pub cold: Array2<bool>,
    /// Where they were looked for.
    pub body: Array2<bool>,
    /// The hot threshold in the image's unit; `None` without one, and where it varies from pixel to pixel.
    pub hot_level: Option<f64>,
    /// The cold threshold, as above.
    pub cold_level: Option<f64>,
}

impl Lesions {
    /// `M_ROI^I`: hot and cold together.
    ///
    /// # Errors
    /// Masks that no longer fit [`Lesions::grid`].
    pub fn roi(&self) -> Result<Roi> {
        let both = Zip::from(&self.hot).and(&self.cold).map_collect(|a, b| *a || *b);
        Roi::from_pixels(both, self.grid)
    }
}

/// Finds hot and cold lesions on an image `[row, col]`.
///
/// # Errors
/// An image of another shape than the grid, or with values that are not finite; settings outside their range (every
/// fault at once); a cold threshold without [`RoiConfig::body`].
pub fn find_lesions(image: ArrayView2<'_, f32>, grid: &ImageGrid, config: &RoiConfig) -> Result<Lesions> {
    search(image, grid, None, config)
}

/// [`find_lesions`] inside a body that is known, for example from an attenuation map; [`RoiConfig::body`] then has no
/// part. Errors also on a body of another shape.
pub fn find_lesions_in(
    image: ArrayView2<'_, f32>,
    grid: &ImageGrid,
    body: ArrayView2<'_, bool>,
    config: &RoiConfig,
) -> Result<Lesions> {
    if body.shape() != grid.shape() {
        return Err(shape_error("body mask", &grid.shape(), body.shape()));
    }
    search(image, grid, Some(body), config)
}

fn search(
    image: ArrayView2<'_, f32>,
    grid: &ImageGrid,
    body: Option<ArrayView2<'_, bool>>,
    config: &RoiConfig,
) -> Result<Lesions> {
    config.validate()?;
    grid.validate()?;
    if image.shape() != grid.shape() {
        return Err(shape_error("coarse image", &grid.shape(), image.shape()));
    }
    check_finite("coarse image", image.view())?;
    if config.cold.is_some() && body.is_none() && config.body.is_none() {
        return Err(Error::ColdWithoutBody);
    }
    let image = smoothed(image, grid, config.smooth_mm)?;
    let body = match (body, &config.body) {
        (Some(body), _) => body.to_owned(),
        (None, Some(outline)) => outline.find(image.view(), grid),
        (None, None) => Array2::from_elem(grid.shape(), true),
    };
    let find = |threshold: &Option<Threshold>, side| match threshold {
        None => (Array2::from_elem(grid.shape(), false), None),
        Some(threshold) => {
            let level = threshold.level(image.view(), body.view(), grid, side);
            let mask = level.select(image.view(), body.view(), side);
            (clean(mask, grid, config), level.global())
        }
    };
    let (hot, hot_level) = find(&config.hot, Side::Above);
    let (cold, cold_level) = find(&config.cold, Side::Below);
    Ok(Lesions {
        grid: *grid,
        hot,
        cold,
        body,
        hot_level,
        cold_level,
    })
}

fn smoothed(image: ArrayView2<'_, f32>, grid: &ImageGrid, fwhm_mm: f64) -> Result<Array2<f32>> {
    if fwhm_mm == 0.0 {
        return Ok(image.to_owned());
    }
    let mut blurred = Array2::zeros(grid.shape());
    GaussianPsf::new(*grid, fwhm_mm)?.forward(image.into_dyn(), blurred.view_mut().into_dyn())?;
    Ok(blurred)
}

fn clean(mask: Array2<bool>, grid: &ImageGrid, config: &RoiConfig) -> Array2<bool> {
    let pixel = grid.pixel_mm * grid.pixel_mm;
    // A limit of so many whole pixels must hold that many: mm² are products that rounding leaves a little off.
    let slack = 1e-9 * pixel;
    label_components(mask.view(), config.connectivity).keep(|n| {
        let area = n as f64 * pixel;
        area >= config.least_area_mm2 - slack
            && config.greatest_area_mm2.is_none_or(|most| area <= most + slack)
    })
}
