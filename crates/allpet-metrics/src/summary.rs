//! Mean, standard deviation and bootstrap interval of a stream of values.
//!
//! The interval is Efron's percentile interval of the mean (Efron and Tibshirani, *An Introduction to the Bootstrap*,
//! 1993, ch. 13). One value stands for one independent unit: give patients, not their slices, where the claim is
//! about patients.

use crate::error::{Error, Result};
use crate::input::number;
use rand::Rng;
use rayon::prelude::*;

/// Collects values one by one, in batches or in parts that are merged.
///
/// [`Accumulator::compute`] sorts first, so a summary depends on the set of values only: neither on the order of
/// updates, nor on how they were split among accumulators, nor on the number of threads.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Accumulator {
    finite: Vec<f64>,
    infinite: usize,
}

/// A bootstrap interval of the mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Nominal coverage, for example 0.95.
    pub level: f64,
}

/// How a bootstrap interval is drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Number of resamples; at least 1.
    pub resamples: usize,
    /// Nominal coverage, between 0 and 1, both excluded.
    pub level: f64,
    /// Seed of the stream `bootstrap`; resample b is draw b of it.
    pub seed: u64,
}

impl Bootstrap {
    /// The 95 % interval from 2,000 resamples.
    pub fn new(seed: u64) -> Self {
        Self {
            resamples: 2000,
            level: 0.95,
            seed,
        }
    }
}

/// What a set of values comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Number of values, infinite ones included.
    pub n: usize,
    /// How many of them were +∞ (the PSNR of identical images). The fields below leave them out.
    pub infinite: usize,
    /// Mean of the finite values; `None` without one.
    pub mean: Option<f64>,
    /// Sample standard deviation (n-1) of the finite values; `None` with fewer than two.
    pub sd: Option<f64>,
    /// Smallest finite value.
    pub min: Option<f64>,
    /// Median of the finite values.
    pub median: Option<f64>,
    /// Largest finite value.
    pub max: Option<f64>,
    /// Bootstrap interval of the mean of the finite values; `None` with fewer than two, or when not asked for.
    pub interval: Option<Interval>,
}

impl Accumulator {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds values; +∞ is counted apart. All or, on an error, none of them.
    ///
    /// # Errors
    /// NaN or -∞, which no metric here returns.
    pub fn update(&mut self, values: impl IntoIterator<Item = f64>) -> Result<()> {
        let (finite, infinite) = (self.finite.len(), self.infinite);
        for value in values {
            if value == f64::INFINITY {
                self.infinite += 1;
            } else if value.is_finite() {
                self.finite.push(value);
            } else {
                self.finite.truncate(finite);
                self.infinite = infinite;
                return Err(Error::Setting {
                    what: "value of a summary",
                    expected: "a number, or +inf for identical images",
                    got: value,
                });
            }
        }
        Ok(())
    }

    /// Adds everything that another one holds.
    pub fn merge(&mut self, other: Self) {
        self.finite.extend(other.finite);
        self.infinite += other.infinite;
    }

    /// Number of values so far, infinite ones included.
    pub fn len(&self) -> usize {
        self.finite.len() + self.infinite
    }

    /// Whether there is no value yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The summary so far, with a bootstrap interval if asked for.
    ///
    /// # Errors
    /// No resamples, a level outside (0, 1), or a standard deviation beyond `f64`.
    pub fn compute(&self, bootstrap: Option<Bootstrap>) -> Result<Summary> {
        let mut sorted = self.finite.clone();
        sorted.sort_by(f64::total_cmp);
        let many = sorted.len() >= 2;
        let mean = (!sorted.is_empty()).then(|| mean(&sorted));
        let sd = mean.filter(|_| many).map(|mean| sample_sd(&sorted, mean));
        if sd.is_some_and(f64::is_infinite) {
            return Err(Error::Undefined {
                what: "standard deviation",
                why: "the values lie too far apart for f64",
            });
        }
        let interval = match bootstrap {
            Some(bootstrap) => {
                bootstrap.check()?;
                many.then(|| bootstrap.interval(&sorted)).flatten()
            }
            None => None,
        };
        Ok(Summary {
            n: self.len(),
            infinite: self.infinite,
            mean,
            sd,
            min: sorted.first().copied(),
            median: quantile(&sorted, 0.5),
            max: sorted.last().copied(),
            interval,
        })
    }
}

impl Bootstrap {
    fn check(&self) -> Result<()> {
        if self.resamples == 0 {
            return Err(Error::TooFew {
                what: "bootstrap interval",
                needed: 1,
                of: "resamples",
                got: 0,
            });
        }
        let level = number("level of the bootstrap interval", self.level)?;
        if level > 0.0 && level < 1.0 {
            return Ok(());
        }
        Err(Error::Setting {
            what: "level of the bootstrap interval",
            expected: "between 0 and 1, both excluded",
            got: level,
        })
    }

    /// Of one value or more.
    fn interval(&self, values: &[f64]) -> Option<Interval> {
        let mut means: Vec<f64> = (0..self.resamples as u64)
            .into_par_iter()
            .map(|b| {
                let mut stream = allpet_core::stream(self.seed, "bootstrap", b);
                // Drawn as u64, so that 32-bit and 64-bit machines draw the same.
                let draw = |_| values[stream.random_range(0..values.len() as u64) as usize];
                let scale = 1.0 / values.len() as f64;
                (0..values.len()).map(draw).map(|v| v * scale).sum()
            })
            .collect();
        means.sort_by(f64::total_cmp);
        let tail = 0.5 * (1.0 - self.level);
        Some(Interval {
            low: quantile(&means, tail)?,
            high: quantile(&means, 1.0 - tail)?,
            level: self.level,
        })
    }
}

/// Mean of one value or more.
fn mean(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    // A power of two, which changes no digit, keeps the sum of the largest values inside f64.
    let huge = values.iter().any(|v| v.abs() > 1e290);
    let scale = if huge { 2f64.powi(-64) } else { 1.0 };
    let rough = values.iter().map(|v| v * scale).sum::<f64>() / n;
    // One correction leaves an error near that of exact summation.
    let rest = values.iter().map(|v| v * scale - rough).sum::<f64>() / n;
    (rough + rest) / scale
}

/// Sample standard deviation (n-1) about the mean; two values at least.
fn sample_sd(values: &[f64], mean: f64) -> f64 {
    // Half deviations in units of the largest, so that no difference and no square overflows or vanishes.
    let halves = || values.iter().map(|v| 0.5 * v - 0.5 * mean);
    let largest = halves().fold(0.0f64, |m, d| m.max(d.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let squares: f64 = halves().map(|d| (d / largest).powi(2)).sum();
    2.0 * (largest * (squares / (values.len() as f64 - 1.0)).sqrt())
}

/// Quantile `q` of values sorted upwards, by linear interpolation between neighbours (NumPy's default, type 7 of
/// Hyndman and Fan, Am. Stat. 50:361, 1996). `None` without values or for a `q` outside 0..=1.
///
/// ```
/// use allpet_metrics::quantile;
///
/// assert_eq!(quantile(&[1.0, 2.0, 4.0, 8.0], 0.5), Some(3.0));
/// assert_eq!(quantile(&[], 0.5), None);
/// ```
pub fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    if !(0.0..=1.0).contains(&q) {
        return None;
    }
    let position = q * last as f64;
    let below = (position.floor() as usize).min(last);
    let above = (below + 1).min(last);
    let share = position - below as f64;
    // On a value there is nothing to interpolate, and an infinite neighbour times zero would be NaN.
    Some(match share > 0.0 {
        true => sorted[below] * (1.0 - share) + sorted[above] * share,
        false => sorted[below],
    })
}
