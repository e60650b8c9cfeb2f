//! Fréchet distance between two Gaussians fitted to features (FID; Heusel et al. 2017, eq. 6; Dowson & Landau 1982):
//! `‖μ₁ - μ₂‖² + Tr Σ₁ + Tr Σ₂ - 2 Tr (Σ₁Σ₂)^½`, covariances over N-1.
//!
//! The root's trace is taken through the symmetric form: with `Σᵢ = FᵢᵀFᵢ`, the eigenvalues of `Σ₁^½ Σ₂ Σ₁^½` are the
//! squared singular values of `F₁F₂ᵀ`, whose sum is the trace wanted. `Fᵢ` is the factor from the symmetric
//! eigendecomposition, or, with fewer samples than features, the centred features over `√(N-1)` themselves: exact, and
//! no covariance is ever formed. Summing singular values keeps the digits that roots of small eigenvalues lose.

use super::features::{centred, check_finite, check_pair, check_samples, in_range, mean};
use crate::Real;
use crate::error::{Error, Result};
use crate::linalg::{Rows, add_gram_lower, nuclear_norm, product, symmetric_factor};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2};
use std::fmt;

/// Samples that enter the covariance together; fixed, so that how the caller cuts batches changes nothing.
const CHUNK: usize = 256;

/// Count, mean and covariance of features that arrive in batches.
///
/// The same samples in the same order give the same bytes however they are cut into batches. Memory: one
/// `features²` matrix of f64 and 256 samples.
#[derive(Debug, Clone)]
pub struct GaussianStatistics {
    count: usize,
    mean: Vec<f64>,
    /// Lower triangle of `Σ (x - μ)(x - μ)ᵀ`.
    scatter: Rows,
    pending: Vec<f64>,
}

impl GaussianStatistics {
    /// Statistics of no samples yet, of `features` features.
    ///
    /// # Errors
    /// No features.
    pub fn new(features: usize) -> Result<Self> {
        if features == 0 {
            return Err(Error::TooFew {
                what: "Gaussian statistics",
                needed: 1,
                of: "features",
                got: 0,
            });
        }
        Ok(Self {
            count: 0,
            mean: vec![0.0; features],
            scatter: Rows::zeros(features, features),
            pending: Vec::new(),
        })
    }

    /// Statistics computed elsewhere: sample count, mean `[features]` and covariance over N-1 `[features, features]`.
    ///
    /// # Errors
    /// Fewer than two samples, shapes that do not fit, values that are not finite, a covariance that is not symmetric
    /// to 1e-6 of its largest entry.
    pub fn from_moments(
        count: usize,
        mean: ArrayView1<'_, f64>,
        covariance: ArrayView2<'_, f64>,
    ) -> Result<Self> {
        let features = mean.len();
        check_samples("Gaussian statistics", 2, count)?;
        if features == 0 || covariance.shape() != [features, features] {
            return Err(Error::Core(allpet_core::Error::Shape {
                what: "covariance".to_owned(),
                expected: format!(
                    "[{features}, {features}], as the mean has {features} features, at least one"
                ),
                got: covariance.shape().to_vec(),
            }));
        }
        check_finite("mean", mean.insert_axis(ndarray::Axis(0)))?;
        check_finite("covariance", covariance)?;
        let largest = covariance.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
        let skew = covariance
            .indexed_iter()
            .fold(0.0_f64, |m, ((i, j), v)| m.max((v - covariance[[j, i]]).abs()));
        if skew > 1e-6 * largest {
            return Err(Error::Setting {
                what: "asymmetry of the covariance",
                expected: "at most 1e-6 of its largest entry",
                got: skew / largest,
            });
        }
        Ok(Self {
            count,
            mean: mean.to_vec(),
            scatter: Rows {
                values: covariance.iter().map(|v| v * (count - 1) as f64).collect(),
                rows: features,
                columns: features,
            },
            pending: Vec::new(),
        })
    }

    /// Adds a batch `[samples, features]`.
    ///
    /// # Errors
    /// Another number of features, values that are not finite; nothing has been added then.
    pub fn update<T: Real>(&mut self, batch: ArrayView2<'_, T>) -> Result<()> {
        let features = self.features();
        if batch.ncols() != features {
            return Err(Error::Core(allpet_core::Error::Shape {
                what: "feature batch".to_owned(),
                expected: format!("[samples, {features}]"),
                got: batch.shape().to_vec(),
            }));
        }
        check_finite("feature batch", batch)?;
        for line in batch.rows() {
            self.pending.extend(line.iter().map(|&v| v.into()));
            if self.pending.len() == CHUNK * features {
                self.absorb();
            }
        }
        Ok(())
    }

    /// Adds the samples that `other` has seen.
    ///
    /// # Errors
    /// Another number of features.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.features() != other.features() {
            return Err(Error::Shapes {
                what: "Gaussian statistics",
                candidate: vec![self.features()],
                reference: vec![other.features()],
            });
        }
        self.absorb();
        let other = other.absorbed();
        self.combine(other.count, &other.mean, Some(&other.scatter));
        Ok(())
    }

    /// Samples seen.
    pub fn count(&self) -> usize {
        self.count + self.pending.len() / self.features()
    }

    /// Features per sample.
    pub fn features(&self) -> usize {
        self.mean.len()
    }

    /// Mean of each feature, `[features]`.
    ///
    /// # Errors
    /// No samples.
    pub fn mean(&self) -> Result<Array1<f64>> {
        check_samples("a mean", 1, self.count())?;
        Ok(Array1::from_vec(self.absorbed().mean))
    }

    /// Covariance over N-1, `[features, features]`.
    ///
    /// # Errors
    /// Fewer than two samples.
    pub fn covariance(&self) -> Result<Array2<f64>> {
        let (lower, features) = (self.covariance_lower()?, self.features());
        Ok(Array2::from_shape_fn((features, features), |(i, j)| {
            lower.values[i.max(j) * features + i.min(j)]
        }))
    }

    fn covariance_lower(&self) -> Result<Rows> {
        check_samples("a covariance", 2, self.count())?;
        let whole = self.absorbed();
        let scale = 1.0 / (whole.count - 1) as f64;
        let mut lower = whole.scatter;
        for value in &mut lower.values {
            *value *= scale;
        }
        Ok(lower)
    }

    fn absorbed(&self) -> Self {
        let mut whole = self.clone();
        whole.absorb();
        whole
    }

    fn absorb(&mut self) {
        let features = self.features();
        let rows = self.pending.len() / features;
        if rows == 0 {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let Ok(chunk) = ArrayView2::from_shape((rows, features), &pending) else {
            return;
        };
        let centre = mean(chunk);
        let centred = centred(chunk, &centre, 1.0);
        add_gram_lower(&mut self.scatter, centred.view());
        self.combine(rows, &centre, None);
    }

    /// Joins another group's mean (and scatter, unless already added) to this one (Chan, Golub & LeVeque 1983).
    fn combine(&mut self, count: usize, mean: &[f64], scatter: Option<&Rows>) {
        if count == 0 {
            return;
        }
        let (here, there) = (self.count as f64, count as f64);
        let total = here + there;
        let delta: Vec<f64> = mean.iter().zip(&self.mean).map(|(b, a)| b - a).collect();
        let features = delta.len();
        if let Some(scatter) = scatter {
            for (sum, value) in self.scatter.values.iter_mut().zip(&scatter.values) {
                *sum += value;
            }
        }
        if self.count > 0 {
            let weight = here * there / total;
            for (row, di) in self.scatter.values.chunks_mut(features).zip(&delta) {
                for (value, dj) in row.iter_mut().zip(&delta) {
                    *value += weight * di * dj;
                }
            }
        }
        for (a, d) in self.mean.iter_mut().zip(&delta) {
            *a += d * there / total;
        }
        self.count += count;
    }
}

/// A Fréchet distance, its terms and what it was computed from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frechet {
    /// The distance (squared 2-Wasserstein distance of the Gaussians), at least 0.
    pub distance: f64,
    /// `‖μ₁ - μ₂‖²`.
    pub mean_term: f64,
    /// `Tr Σ₁ + Tr Σ₂ - 2 Tr (Σ₁Σ₂)^½`, at least 0.
    pub covariance_term: f64,
    /// Samples of the candidate and of the reference.
    pub samples: [usize; 2],
    /// Features per sample.
    pub features: usize,
}

impl Frechet {
    /// Whether a set had no more samples than features, so that its covariance is singular and the distance biased
    /// upwards: report the kernel distance beside it.
    pub fn is_singular(&self) -> bool {
        self.samples.iter().any(|&n| n <= self.features)
    }
}

impl fmt::Display for Frechet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [candidate, reference] = self.samples;
        write!(
            f,
            "Fréchet distance {:.6} ({candidate} against {reference} samples of {} features",
            self.distance, self.features
        )?;
        if self.is_singular() {
            write!(f, "; singular covariance, biased upwards")?;
        }
        write!(f, ")")
    }
}

/// Fréchet distance of two streamed statistics; symmetric in its arguments up to rounding.
///
/// # Errors
/// Numbers of features that differ, fewer than two samples in a set, covariances that overflow.
pub fn frechet_distance(candidate: &GaussianStatistics, reference: &GaussianStatistics) -> Result<Frechet> {
    if candidate.features() != reference.features() {
        return Err(Error::Shapes {
            what: "Fréchet distance",
            candidate: vec![candidate.features()],
            reference: vec![reference.features()],
        });
    }
    let moments = |set: &GaussianStatistics| -> Result<Moments> {
        let covariance = set.covariance_lower()?;
        let diagonal = (0..covariance.rows).map(|i| covariance.values[i * (covariance.rows + 1)]);
        Ok(Moments {
            count: set.count(),
            mean: set.absorbed().mean,
            trace: in_range("trace of the covariance", diagonal.sum())?,
            factor: symmetric_factor(&covariance)?,
        })
    };
    let (a, b) = rayon::join(|| moments(candidate), || moments(reference));
    distance(&a?, &b?)
}

/// Fréchet distance of two feature matrices `[samples, features]`; a set with fewer samples than features goes the
/// low-rank way, through its `samples × samples` side.
///
/// # Errors
/// Widths that differ, fewer than two samples in a set, values that are not finite or whose squares overflow.
pub fn frechet_distance_of<T: Real, U: Real>(
    candidate: ArrayView2<'_, T>,
    reference: ArrayView2<'_, U>,
) -> Result<Frechet> {
    check_pair("Fréchet distance", candidate, reference, 2)?;
    let (a, b) = rayon::join(|| moments_of(candidate), || moments_of(reference));
    distance(&a?, &b?)
}

/// A fitted Gaussian: `factorᵀ · factor` is its covariance.
struct Moments {
    count: usize,
    mean: Vec<f64>,
    trace: f64,
    factor: Rows,
}

fn moments_of<T: Real>(values: ArrayView2<'_, T>) -> Result<Moments> {
    let mean = mean(values);
    let mut factor = centred(values, &mean, 1.0 / ((values.nrows() - 1) as f64).sqrt());
    let trace = in_range(
        "trace of the covariance",
        factor.values.iter().map(|v| v * v).sum(),
    )?;
    if factor.rows > factor.columns {
        let mut covariance = Rows::zeros(factor.columns, factor.columns);
        add_gram_lower(&mut covariance, factor.view());
        factor = symmetric_factor(&covariance)?;
    }
    Ok(Moments {
        count: values.nrows(),
        mean,
        trace,
        factor,
    })
}

fn distance(a: &Moments, b: &Moments) -> Result<Frechet> {
    let root_trace = nuclear_norm(&product(a.factor.view(), b.factor.view().transpose()))?;
    let mean_term: f64 = a.mean.iter().zip(&b.mean).map(|(x, y)| (x - y).powi(2)).sum();
    // Rounding can leave a trace of the order of -ε·Tr Σ for identical sets.
    let covariance_term = (a.trace + b.trace - 2.0 * root_trace).max(0.0);
    Ok(Frechet {
        distance: in_range("Fréchet distance", mean_term + covariance_term)?,
        mean_term,
        covariance_term,
        samples: [a.count, b.count],
        features: a.mean.len(),
    })
}
