//! Thresholds T of eq. 10: global ones and ones that follow their surroundings.

use super::local::window_statistics;
use super::otsu::otsu_threshold;
use allpet_core::ImageGrid;
use ndarray::{Array2, ArrayView2, Zip};
use serde::{Deserialize, Serialize};

/// Most bins of an Otsu histogram.
const MAX_BINS: usize = 65_536;

/// A threshold on a coarse image. Hot is what lies above it, cold what lies below it.
///
/// Maximum, mean, histogram and windows are taken over the region searched: the body, where there is an outline,
/// otherwise the whole image.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Threshold {
    /// A value in the image's unit.
    Value {
        /// The threshold itself.
        value: f64,
    },
    /// A share of the greatest value, for example 0.41.
    OfMax {
        /// Above 0 and below 1.
        fraction: f64,
    },
    /// A multiple of the mean: 2.5 for hot lesions, 0.4 for cold ones.
    OfMean {
        /// Above 0.
        fraction: f64,
    },
    /// A standardised uptake value.
    Suv {
        /// The threshold in SUV, above 0.
        suv: f64,
        /// What the image holds where the SUV is 1, above 0: injected activity over body mass, in the image's unit.
        image_per_suv: f64,
    },
    /// Otsu's threshold, adapted to the histogram.
    Otsu {
        /// Bins of the histogram, 2 to 65,536.
        bins: usize,
    },
    /// A multiple of the mean in a window around each pixel.
    LocalMean {
        /// Side of the window in mm, taken to an odd number of pixels.
        window_mm: f64,
        /// Above 0: more than 1 for hot lesions, less than 1 for cold ones.
        factor: f64,
    },
    /// Sauvola's threshold on mean m and standard deviation s in a window around each pixel: cold lies below
    /// `m (1 - k (1 - s/R))`, hot above its mirror `m (1 + k (1 - s/R))`; R is half the range of the region's values.
    ///
    /// J. Sauvola, M. Pietikäinen, "Adaptive document image binarization", Pattern Recognit. 33 (2000) 225-236, whose
    /// dark text is the cold case. Where a window is flat a pixel has to differ from it by the share k; where a lesion
    /// fills half of it, hardly at all, so that a small k finds a cold rim around hot lesions.
    Sauvola {
        /// Side of the window in mm, taken to an odd number of pixels.
        window_mm: f64,
        /// Above 0 to 1.
        k: f64,
    },
}

/// A threshold worked out on an image.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Level {
    Global(f64),
    Map(Array2<f64>),
}

/// Which side of a threshold is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Above,
    Below,
}

impl Threshold {
    /// Every fault, `name` first.
    pub(crate) fn faults(&self, name: &str) -> Vec<String> {
        let positive = |v: f64| v.is_finite() && v > 0.0;
        let mut faults = Vec::new();
        let mut expect = |good: bool, what: String| {
            if !good {
                faults.push(format!("{name}: {what}"));
            }
        };
        match *self {
            Self::Value { value } => {
                expect(
                    value.is_finite(),
                    format!("threshold of {value}; expected a finite number"),
                );
            }
            Self::OfMax { fraction } => expect(
                fraction > 0.0 && fraction < 1.0,
                format!("{fraction} of the maximum; expected more than 0 and less than 1"),
            ),
            Self::OfMean { fraction } => expect(
                positive(fraction),
                format!("{fraction} of the mean; expected more than 0"),
            ),
            Self::Suv { suv, image_per_suv } => {
                expect(positive(suv), format!("SUV of {suv}; expected more than 0"));
                expect(
                    positive(image_per_suv),
                    format!("{image_per_suv} image units per SUV; expected more than 0"),
                );
            }
            Self::Otsu { bins } => expect(
                (2..=MAX_BINS).contains(&bins),
                format!("Otsu histogram of {bins} bins; expected 2 to {MAX_BINS}"),
            ),
            Self::LocalMean { window_mm, factor } => {
                expect(
                    positive(window_mm),
                    format!("window of {window_mm} mm; expected more than 0"),
                );
                expect(
                    positive(factor),
                    format!("{factor} of the local mean; expected more than 0"),
                );
            }
            Self::Sauvola { window_mm, k } => {
                expect(
                    positive(window_mm),
                    format!("window of {window_mm} mm; expected more than 0"),
                );
                expect(
                    k > 0.0 && k <= 1.0,
                    format!("Sauvola k of {k}; expected more than 0, at most 1"),
                );
            }
        }
        faults
    }

    /// The threshold for a side, its statistics over `region`.
    pub(crate) fn level(
        &self,
        image: ArrayView2<'_, f32>,
        region: ArrayView2<'_, bool>,
        grid: &ImageGrid,
        side: Side,
    ) -> Level {
        let inside = || {
            image
                .iter()
                .zip(region)
                .filter(|(_, inside)| **inside)
                .map(|(v, _)| f64::from(*v))
        };
        // An empty region has no pixel to compare; 0 stands for its maximum and mean.
        let extremes = || {
            inside().fold(None, |seen: Option<(f64, f64)>, v| {
                Some(seen.map_or((v, v), |(a, b)| (a.min(v), b.max(v))))
            })
        };
        match *self {
            Self::Value { value } => Level::Global(value),
            Self::OfMax { fraction } => Level::Global(fraction * extremes().map_or(0.0, |(_, high)| high)),
            Self::OfMean { fraction } => {
                let (sum, count) = inside().fold((0.0, 0.0), |(s, n), v| (s + v, n + 1.0));
                Level::Global(if count > 0.0 { fraction * sum / count } else { 0.0 })
            }
            Self::Suv { suv, image_per_suv } => Level::Global(suv * image_per_suv),
            Self::Otsu { bins } => Level::Global(otsu_threshold(inside(), bins).unwrap_or(0.0)),
            Self::LocalMean { window_mm, factor } => {
                let (mean, _) = window_statistics(image, region, half_window(window_mm, grid));
                Level::Map(mean * factor)
            }
            Self::Sauvola { window_mm, k } => {
                let (mean, deviation) = window_statistics(image, region, half_window(window_mm, grid));
                let range = extremes().map_or(0.0, |(low, high)| (high - low) / 2.0);
                let k = if side == Side::Above { -k } else { k };
                Level::Map(Zip::from(&mean).and(&deviation).map_collect(|&m, &s| {
                    let contrast = if range > 0.0 { s / range } else { 0.0 };
                    m * (1.0 + k * (contrast - 1.0))
                }))
            }
        }
    }
}

impl Level {
    /// Eq. 10 within a region: strictly above, or strictly below.
    pub(crate) fn select(
        &self,
        image: ArrayView2<'_, f32>,
        region: ArrayView2<'_, bool>,
        side: Side,
    ) -> Array2<bool> {
        let beyond = |value: f32, level: f64| match side {
            Side::Above => f64::from(value) > level,
            Side::Below => f64::from(value) < level,
        };
        match self {
            Self::Global(level) => Zip::from(image)
                .and(region)
                .map_collect(|&v, &r| r && beyond(v, *level)),
            Self::Map(levels) => Zip::from(image)
                .and(region)
                .and(levels)
                .map_collect(|&v, &r, &level| r && beyond(v, level)),
        }
    }

    pub(crate) fn global(&self) -> Option<f64> {
        match self {
            Self::Global(level) => Some(*level),
            Self::Map(_) => None,
        }
    }
}

/// Half of the odd window nearest to a length, at least 1; no more than the image, where it changes nothing any more.
fn half_window(window_mm: f64, grid: &ImageGrid) -> usize {
    let half = ((window_mm / grid.pixel_mm - 1.0) / 2.0).round();
    (half.max(1.0) as usize).min(grid.rows.max(grid.cols))
}
