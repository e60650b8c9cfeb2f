//! `KL(Q‖P)` between Gaussians over the parameters (ALL-PET eqs. 22-24), in nats.

use crate::error::{Error, Result};
use ndarray::{Array1, Array2};

/// A Gaussian with full covariance.
#[derive(Debug, Clone)]
pub struct Gaussian {
    mean: Array1<f64>,
    /// Lower Cholesky factor of the covariance.
    root: Array2<f64>,
}

impl Gaussian {
    /// The Gaussian of this mean `[d]` and symmetric positive definite covariance `[d, d]` (its lower triangle is read).
    ///
    /// # Errors
    /// Shapes that do not fit, values that are not finite, a covariance that is not positive definite.
    pub fn new(mean: Array1<f64>, covariance: Array2<f64>) -> Result<Self> {
        let d = mean.len();
        if d == 0 || covariance.shape() != [d, d] {
            return Err(Error::Core(allpet_core::Error::Shape {
                what: "covariance".to_owned(),
                expected: format!("[{d}, {d}], as the mean has {d} parameters, at least one"),
                got: covariance.shape().to_vec(),
            }));
        }
        if let Some(&bad) = mean.iter().chain(&covariance).find(|v| !v.is_finite()) {
            return Err(Error::Setting {
                what: "an entry of a Gaussian's mean or covariance",
                expected: "finite",
                got: bad,
            });
        }
        let mut root = covariance;
        for j in 0..d {
            for i in j..d {
                let known: f64 = (0..j).map(|k| root[[i, k]] * root[[j, k]]).sum();
                let rest = root[[i, j]] - known;
                root[[i, j]] = if i > j {
                    rest / root[[j, j]]
                } else if rest > 0.0 {
                    rest.sqrt()
                } else {
                    return Err(Error::Setting {
                        what: "a pivot of the covariance",
                        expected: "positive: the covariance must be positive definite",
                        got: rest,
                    });
                };
            }
        }
        Ok(Self { mean, root })
    }

    /// `KL(self‖prior)`, eq. 22.
    ///
    /// # Errors
    /// Dimensions that differ, a divergence that overflows.
    pub fn kl(&self, prior: &Self) -> Result<f64> {
        let d = self.mean.len();
        if prior.mean.len() != d {
            return Err(Error::Shapes {
                what: "KL of Gaussians",
                candidate: vec![d],
                reference: vec![prior.mean.len()],
            });
        }
        let solve = |mut x: Vec<f64>| {
            for i in 0..d {
                let known: f64 = (0..i).map(|k| prior.root[[i, k]] * x[k]).sum();
                x[i] = (x[i] - known) / prior.root[[i, i]];
            }
            x.iter().map(|v| v * v).sum::<f64>()
        };
        let quadratic = solve((&self.mean - &prior.mean).to_vec());
        let mut doubled = quadratic;
        for j in 0..d {
            let column: Vec<f64> = (0..d)
                .map(|i| if i < j { 0.0 } else { self.root[[i, j]] })
                .collect();
            let log_ratio = (self.root[[j, j]] / prior.root[[j, j]]).ln();
            doubled += solve(column) - 1.0 - 2.0 * log_ratio;
        }
        checked(0.5 * doubled)
    }
}

/// `KL(Q‖P)` of isotropic Gaussians of `dimension` parameters whose means lie `squared_distance` apart, eq. 23.
///
/// # Errors
/// A variance that is not positive and finite, a distance that is negative or not finite, a divergence that overflows.
pub fn kl_isotropic(
    dimension: usize,
    squared_distance: f64,
    posterior_variance: f64,
    prior_variance: f64,
) -> Result<f64> {
    for (what, variance) in [
        ("posterior variance", posterior_variance),
        ("prior variance", prior_variance),
    ] {
        if !(variance > 0.0 && variance.is_finite()) {
            return Err(Error::Setting {
                what,
                expected: "positive and finite",
                got: variance,
            });
        }
    }
    if !(squared_distance >= 0.0 && squared_distance.is_finite()) {
        return Err(Error::Setting {
            what: "squared distance of the means",
            expected: "at least 0 and finite",
            got: squared_distance,
        });
    }
    let excess = (posterior_variance - prior_variance) / prior_variance;
    // ln of the quotient where ln(1 + x) would have no digits of a ratio near 0 left.
    let log_ratio = if excess > -0.5 {
        excess.ln_1p()
    } else {
        posterior_variance.ln() - prior_variance.ln()
    };
    checked(0.5 * (dimension as f64 * (excess - log_ratio) + squared_distance / prior_variance))
}

/// `‖θ̂‖²/(2σ_P²)`: prior about zero, posterior about the checkpoint, one variance for both, eq. 24.
///
/// # Errors
/// A variance that is not positive and finite, a squared norm that is negative or not finite.
pub fn kl_checkpoint(squared_norm: f64, variance: f64) -> Result<f64> {
    kl_isotropic(0, squared_norm, variance, variance)
}

fn checked(kl: f64) -> Result<f64> {
    if kl.is_finite() {
        return Ok(kl.max(0.0));
    }
    Err(Error::Setting {
        what: "KL(Q‖P)",
        expected: "finite",
        got: kl,
    })
}
