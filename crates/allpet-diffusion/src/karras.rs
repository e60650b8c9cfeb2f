//! Grids that are even in `σ^(1/ρ)`, `ρ = 7`: Karras et al., arXiv:2206.00364, eq. 5.

use crate::{Error, ForwardProcess, GaussianProcess, ProcessKind, Result};

pub(crate) const KARRAS_RHO: f64 = 7.0;

/// `count` values from `first` down to `last`, both met exactly, even in `value^(1/root)`; one value is `first`.
pub(crate) fn power_levels(count: usize, first: f64, last: f64, root: f64) -> Vec<f64> {
    let (high, low) = (first.powf(1.0 / root), last.powf(1.0 / root));
    let intervals = count.saturating_sub(1).max(1) as f64;
    let level = |i: usize| match i {
        0 => first,
        i if i + 1 == count => last,
        i => (high + (low - high) * (i as f64 / intervals)).powf(root),
    };
    (0..count).map(level).collect()
}

/// The grid of `steps` steps through noise levels `σ = c/b` from `sigma_max` (or the level at `T`, where that is lower)
/// to `sigma_min`, and then the clean time: the one for [`crate::Heun`]. Times lie between the whole ones of a table.
///
/// # Errors
/// [`Error::Invalid`] unless the process is Gaussian, `steps` is at least 1 and `0 < sigma_min < sigma_max`.
pub fn karras_times(
    process: &dyn ForwardProcess,
    steps: usize,
    sigma_max: f64,
    sigma_min: f64,
) -> Result<Vec<f64>> {
    let end = process.marginal(process.terminal());
    let sigma_max = if end.c < sigma_max * end.b {
        end.c / end.b
    } else {
        sigma_max
    };
    let mut faults = Vec::new();
    if process.kind() != ProcessKind::Gaussian {
        faults.push(format!(
            "the process is {} (`{}`), expected a Gaussian process",
            process.kind(),
            process.name()
        ));
    }
    if steps == 0 {
        faults.push("0 steps asked, expected at least 1".to_owned());
    }
    if !(sigma_min > 0.0 && sigma_min < sigma_max && sigma_max.is_finite()) {
        faults.push(format!(
            "sigma goes from {sigma_max} to {sigma_min}, expected to fall above 0"
        ));
    }
    if !faults.is_empty() {
        return Err(Error::Invalid {
            what: "spacing",
            faults,
        });
    }
    let mut times: Vec<f64> = power_levels(steps, sigma_max, sigma_min, KARRAS_RHO)
        .into_iter()
        .map(|sigma| time_of(process, sigma))
        .collect();
    times.push(0.0);
    Ok(times)
}

/// The time of noise level `sigma`, by bisection: `c/b` rises with `t`.
fn time_of(process: &dyn ForwardProcess, sigma: f64) -> f64 {
    let (mut low, mut high) = (0.0, process.terminal());
    // 60 halvings of T are below the f32 that a time is rounded to.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        let m = process.marginal(middle);
        if m.c < sigma * m.b {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

impl GaussianProcess {
    /// [`karras_times`] between the first level of the table and 80, EDM's largest.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no steps.
    pub fn karras_times(&self, steps: usize) -> Result<Vec<f64>> {
        let first = self.marginal(1.0);
        karras_times(self, steps, 80.0, first.c / first.b)
    }
}
