//! Mean, spread and extremes of a region of interest.

use crate::error::{Error, Result};
use crate::input::{Real, all_finite, check_finite, contiguous};
use ndarray::{ArrayView, Dimension};
use rayon::prelude::*;
use std::borrow::Cow;

/// Statistics of the pixels of a region, in units of the image.
///
/// In an image of SUV, `mean` is SUVmean and `max` is SUVmax; SUVpeak is [`super::suv_peak`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegionStatistics {
    /// Number of pixels.
    pub pixels: usize,
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation (n-1); `None` for one pixel.
    pub sd: Option<f64>,
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
}

/// Images cut by a region: what every function of a region checks.
pub(super) struct Regional<'a, T: Real> {
    pub(super) values: Cow<'a, [T]>,
    /// Shape of the images, `[.., spatial]`.
    pub(super) shape: Vec<usize>,
    /// Offsets of the region's pixels inside one image, ascending.
    pub(super) inside: Vec<usize>,
    /// Pixels of one image.
    pub(super) area: usize,
}

impl<'a, T: Real> Regional<'a, T> {
    pub(super) fn new<D: Dimension, E: Dimension>(
        what: &'static str,
        images: ArrayView<'a, T, D>,
        region: ArrayView<'_, bool, E>,
    ) -> Result<Self> {
        let shape = images.shape().to_vec();
        if region.ndim() == 0 || !shape.ends_with(region.shape()) {
            return Err(Error::Core(allpet_core::Error::Shape {
                what: format!("image of {what}"),
                expected: format!("to end in the region's shape {:?}", region.shape()),
                got: shape,
            }));
        }
        let inside: Vec<usize> = region
            .iter()
            .enumerate()
            .filter_map(|(i, &m)| m.then_some(i))
            .collect();
        if inside.is_empty() || images.is_empty() {
            return Err(Error::TooFew {
                what,
                needed: 1,
                of: "pixels in the region",
                got: 0,
            });
        }
        Ok(Self {
            values: contiguous(images),
            shape,
            inside,
            area: region.len(),
        })
    }

    /// One result per image of its number and its pixels, which are finite.
    pub(super) fn map<R: Send>(&self, f: impl Fn(usize, &[T]) -> Result<R> + Sync) -> Result<Vec<R>> {
        if !all_finite(&self.values) {
            check_finite("image", &self.values, &self.shape)?;
        }
        let results: Vec<Result<R>> = self
            .values
            .par_chunks_exact(self.area)
            .enumerate()
            .map(|(number, image)| f(number, image))
            .collect();
        // Collected in order before any error: which error is reported does not depend on which task ended first.
        results.into_iter().collect()
    }
}

/// Statistics of a region in every image: images `[.., spatial axes]`, region of the spatial axes' shape (two for
/// slices, three for volumes), one entry per index of the leading axes in C order.
///
/// # Errors
/// Images whose shape does not end in the region's, a region without pixels, NaN or infinities (named).
pub fn region<T: Real, D: Dimension, E: Dimension>(
    images: ArrayView<'_, T, D>,
    region: ArrayView<'_, bool, E>,
) -> Result<Vec<RegionStatistics>> {
    let regional = Regional::new("region statistics", images, region)?;
    regional.map(|number, image| {
        let n = regional.inside.len() as f64;
        let values = || regional.inside.iter().map(|&i| -> f64 { image[i].into() });
        let mean = values().sum::<f64>() / n;
        let squares: f64 = values().map(|v| (v - mean) * (v - mean)).sum();
        if !squares.is_finite() {
            return Err(Error::UndefinedImage {
                what: "region statistics",
                image: number,
                why: "the values are too large to be squared in f64",
            });
        }
        Ok(RegionStatistics {
            pixels: regional.inside.len(),
            mean,
            sd: (regional.inside.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
            min: values().fold(f64::INFINITY, f64::min),
            max: values().fold(f64::NEG_INFINITY, f64::max),
        })
    })
}
