//! Standardised uptake value: its scale, and the peak over a 12 mm sphere.
//!
//! SUV = c·m/A with activity concentration c, body mass m and injected activity A decayed to the time of c. The peak
//! follows PERCIST (Wahl et al., J. Nucl. Med. 50:122S-150S, 2009): the mean over a sphere of about 1 cm³.

use super::region::Regional;
use crate::error::{Error, Result};
use crate::input::{Real, positive};
use ndarray::{ArrayView, Dimension};

/// Diameter of the peak's sphere, or of its disc in two dimensions.
pub const PEAK_DIAMETER_MM: f64 = 12.0;

/// The factor from kBq/mL to SUV in g/mL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SuvScale {
    factor: f64,
}

impl SuvScale {
    /// For an injected activity, decayed to the time of the image, and a body mass.
    ///
    /// # Errors
    /// A value that is not a finite number above 0.
    pub fn new(injected_mbq: f64, body_kg: f64) -> Result<Self> {
        let activity = positive("injected activity in MBq", injected_mbq)?;
        let mass = positive("body mass in kg", body_kg)?;
        // kBq/mL · (1000 g) / (1000 kBq): the thousands cancel.
        let factor = positive("body mass over injected activity", mass / activity)?;
        Ok(Self { factor })
    }

    /// SUV in g/mL of a concentration in kBq/mL.
    pub fn suv(&self, kbq_per_ml: f64) -> f64 {
        self.factor * kbq_per_ml
    }
}

/// Peak of every image: the largest mean over a ball of 12 mm diameter centred on a pixel of the region.
///
/// Two spatial axes make the ball a disc (slices), three a sphere (volumes). It holds the pixels whose centres lie
/// within 6 mm of its own centre; it may reach out of the region, but centres whose ball leaves the image do not
/// count. Images `[.., spatial axes]`, region and `spacing_mm` of the spatial axes, in their order.
///
/// # Errors
/// Images whose shape does not end in the region's; other than two or three spatial axes; spacings not above 0 or
/// other in number; a region none of whose pixels can be a centre; NaN or infinities (named).
pub fn suv_peak<T: Real, D: Dimension, E: Dimension>(
    images: ArrayView<'_, T, D>,
    region: ArrayView<'_, bool, E>,
    spacing_mm: &[f64],
) -> Result<Vec<f64>> {
    let shape = region.shape().to_vec();
    if !matches!(shape.len(), 2 | 3) || spacing_mm.len() != shape.len() {
        return Err(Error::Core(allpet_core::Error::Shape {
            what: "region of SUVpeak".to_owned(),
            expected: format!(
                "two or three axes, and one of its {} spacings for each",
                spacing_mm.len()
            ),
            got: shape,
        }));
    }
    for &spacing in spacing_mm {
        positive("pixel spacing of SUVpeak in mm", spacing)?;
    }
    let regional = Regional::new("SUVpeak", images, region)?;
    // A slice is a volume of one plane that the ball never leaves.
    let (spacing, side, reach_of_plane) = match (spacing_mm, shape.as_slice()) {
        (&[z, y, x], &[planes, rows, cols]) => ([z, y, x], [planes, rows, cols], None),
        (&[y, x], &[rows, cols]) => ([1.0, y, x], [1, rows, cols], Some(0)),
        _ => ([1.0; 3], [0; 3], None),
    };
    let radius = PEAK_DIAMETER_MM / 2.0;
    // An image shorter than the ball has no centre, whatever the reach: cut there, so that nothing overflows.
    let reach: [usize; 3] = std::array::from_fn(|axis| match (axis, reach_of_plane) {
        (0, Some(reach)) => reach,
        _ => (radius / spacing[axis] * (1.0 + 1e-12))
            .floor()
            .min(side[axis] as f64) as usize,
    });
    let fits = |offset: usize| {
        let place = [
            offset / side[2] / side[1],
            offset / side[2] % side[1],
            offset % side[2],
        ];
        (0..3).all(|axis| place[axis] >= reach[axis] && place[axis] + reach[axis] < side[axis])
    };
    let centres: Vec<usize> = regional.inside.iter().copied().filter(|&i| fits(i)).collect();
    if centres.is_empty() {
        return Err(Error::TooFew {
            what: "SUVpeak",
            needed: 1,
            of: "pixels of the region with their 12 mm ball inside the image",
            got: 0,
        });
    }
    let ball = ball(reach, spacing, side, radius);
    regional.map(|number, image| {
        let mean_at = |&centre: &usize| {
            let sum: f64 = ball
                .iter()
                .map(|&step| image[centre.wrapping_add_signed(step)].into())
                .sum();
            sum / ball.len() as f64
        };
        let peak = centres.iter().map(mean_at).fold(f64::NEG_INFINITY, f64::max);
        if peak.is_finite() {
            return Ok(peak);
        }
        Err(Error::UndefinedImage {
            what: "SUVpeak",
            image: number,
            why: "the values are too large to be added in f64",
        })
    })
}

/// Steps in memory from a centre to the pixels whose centres lie within the radius.
fn ball(reach: [usize; 3], spacing: [f64; 3], side: [usize; 3], radius: f64) -> Vec<isize> {
    let axis = |axis: usize| -(reach[axis] as isize)..=reach[axis] as isize;
    let mut steps = Vec::new();
    for z in axis(0) {
        for y in axis(1) {
            for x in axis(2) {
                let mm = |step: isize, axis: usize| step as f64 * spacing[axis];
                let squared = mm(z, 0).powi(2) + mm(y, 1).powi(2) + mm(x, 2).powi(2);
                if squared <= radius * radius * (1.0 + 1e-12) {
                    steps.push((z * side[1] as isize + y) * side[2] as isize + x);
                }
            }
        }
    }
    steps
}
