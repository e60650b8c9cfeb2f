//! Agreement with measured counts by the projector: the image that the counts and a Gaussian about a given image agree on.
//!
//! Of `(1/φ)·Σ [y ln(Pu) - Pu] - Σ (u - u₀)²/2v` (Poisson counts of unit `φ`, prior mean `u₀` and variance `v` of a pixel)
//! every iteration finds the maximum of De Pierro's surrogate (IEEE Trans. Med. Imaging 14 (1995) 132-137), which never lowers
//! it: with `κ = v/φ`, `s = Pᵀ1` and `e = u·Pᵀ(y/Pu)`, the positive root of `u² + (κ s - u₀)·u - κ e = 0`. It is the
//! plain step of expectation maximisation, `e/s`, for `v → ∞`, and `u₀` for `v → 0`.

use crate::classical::{field_grid, three_axes};
use crate::error::Result;
use allpet_core::ParallelGeometry;
use allpet_radon::{Fbp, Filter, LinearOperator, Projector};
use ndarray::{Array1, Array2, Array3, ArrayD, ArrayView3, Axis, Zip};

/// Shares of an image's mean and of a sinogram's maximum below which nothing is divided by.
const LEAST: f32 = 1e-4;

/// The projector and its sensitivity, on pixels as wide as a bin.
pub(super) struct DataTerm {
    projector: Projector,
    fbp: Fbp,
    sensitivity: Array2<f32>,
}

impl DataTerm {
    pub(super) fn new(geometry: &ParallelGeometry) -> Result<Self> {
        let grid = field_grid(geometry.bins, geometry)?;
        let projector = Projector::new(grid, *geometry)?;
        let ones = Array2::<f32>::ones(geometry.shape());
        let sensitivity = projector.apply_adjoint(ones.view().into_dyn())?;
        let shape = grid.shape();
        Ok(Self {
            fbp: Fbp::new(grid, *geometry, Filter::Ramp, 1.0)?,
            projector,
            sensitivity: sensitivity
                .into_shape_with_order((shape[0], shape[1]))
                .unwrap_or_else(|_| Array2::zeros(shape)),
        })
    }

    /// `P u_new - P u_0` for sinograms `predicted [n, view, radial]`, whose non-negative image is `u_0`; `measured` has the same
    /// shape and unit. `unit` is the variance of a measured bin over its mean, `spread` the prior deviation of a pixel over
    /// the mean of the object, both for each of the n.
    pub(super) fn change(
        &self,
        predicted: ArrayView3<'_, f32>,
        measured: ArrayView3<'_, f32>,
        unit: &Array1<f32>,
        spread: &Array1<f32>,
        iterations: usize,
    ) -> Result<Array3<f32>> {
        let mut prior = self.fbp.reconstruct(predicted.into_dyn())?;
        prior.mapv_inplace(|v| v.max(0.0));
        let strengths: Array1<f32> = prior
            .outer_iter()
            .zip(unit.iter().zip(spread))
            .map(|(image, (unit, spread))| {
                // The mean over the object: pixels weighed by themselves.
                let (sum, squares) = image.iter().fold((0f64, 0f64), |(sum, squares), v| {
                    (sum + f64::from(*v), squares + f64::from(*v).powi(2))
                });
                let mean = if sum > 0.0 { squares / sum } else { 0.0 };
                (f64::from(*spread) * mean).powi(2) as f32 / unit.max(f32::MIN_POSITIVE)
            })
            .collect();
        let before = self.projector.apply(prior.view())?;
        // Expectation maximisation never leaves zero.
        let mut image = prior.clone();
        for mut image in image.outer_iter_mut() {
            let least = LEAST * image.mean().unwrap_or(0.0);
            image.mapv_inplace(|v| v.max(least));
        }
        let mut after = before.clone();
        for _ in 0..iterations {
            after = self.projector.apply(image.view())?;
            let mut ratio = after.clone();
            for (mut ratio, measured) in ratio.outer_iter_mut().zip(measured.outer_iter()) {
                let least = LEAST * ratio.iter().fold(0f32, |a, b| a.max(*b));
                Zip::from(&mut ratio)
                    .and(&measured.into_dyn())
                    .for_each(|p, y| *p = if *p > least { y / *p } else { 0.0 });
            }
            let back = self.projector.apply_adjoint(ratio.view())?;
            self.step(&mut image, &back, &prior, &strengths);
        }
        if iterations > 0 {
            after = self.projector.apply(image.view())?;
        }
        let change = after - before;
        three_axes(change)
    }

    fn step(
        &self,
        image: &mut ArrayD<f32>,
        back: &ArrayD<f32>,
        prior: &ArrayD<f32>,
        strengths: &Array1<f32>,
    ) {
        for (i, kappa) in strengths.iter().enumerate() {
            let mut image = image.index_axis_mut(Axis(0), i);
            let (back, prior) = (back.index_axis(Axis(0), i), prior.index_axis(Axis(0), i));
            Zip::from(&mut image)
                .and(&back)
                .and(&prior)
                .and(&self.sensitivity.view().into_dyn())
                .for_each(|u, back, prior, s| *u = maximum(*prior, *kappa, *s, *u * back));
        }
    }
}

/// Where `κ (e ln u - s u) - (u - u₀)²/2` is largest for `u ≥ 0`.
fn maximum(prior: f32, kappa: f32, s: f32, e: f32) -> f32 {
    let half = 0.5 * (prior - kappa * s);
    let product = kappa * e;
    let root = (half * half + product).sqrt();
    // Of the two forms of the root the one without cancellation.
    if half >= 0.0 {
        half + root
    } else {
        product / (root - half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use allpet_core::{fill_normal, stream};

    /// A search over a fine grid is the oracle.
    #[test]
    fn the_root_is_the_maximum() {
        for (prior, kappa, s, e) in [(2.0, 0.5, 3.0, 4.0), (0.6, 1.0, 1.5, 0.2), (5.0, 1e-3, 2.0, 9.0)] {
            let value = |u: f64| {
                f64::from(kappa) * (f64::from(e) * u.ln() - f64::from(s) * u)
                    - (u - f64::from(prior)).powi(2) / 2.0
            };
            let best = (1..200_000)
                .map(|i| f64::from(i) * 1e-4)
                .max_by(|a, b| value(*a).total_cmp(&value(*b)))
                .unwrap();
            let found = f64::from(maximum(prior, kappa, s, e));
            assert!((found - best).abs() < 1e-4, "{found} instead of {best}");
            // Control: plain expectation maximisation is elsewhere.
            assert!((f64::from(e / s) - best).abs() > 0.02);
        }
        assert_eq!(maximum(3.0, 0.0, 2.0, 5.0), 3.0);
        assert!((maximum(3.0, 1e7, 2.0, 5.0) - 2.5).abs() < 1e-5);
    }

    /// The objective, in f64 from the projector's own output, rises with every iteration, and both ends are where they should be.
    #[test]
    fn every_iteration_raises_the_posterior() {
        let geometry = ParallelGeometry::new(24, 24, 4.0).unwrap();
        let term = DataTerm::new(&geometry).unwrap();
        let disc = Array2::from_shape_fn((24, 24), |(r, c)| {
            let (r, c) = (r as f32 - 11.5, c as f32 - 11.5);
            f32::from(r * r + c * c < 49.0) + 0.5 * f32::from((r - 2.0).powi(2) + c * c < 9.0)
        });
        let truth = term.projector.apply(disc.view().into_dyn()).unwrap();
        let mut noise = vec![0f32; truth.len()];
        fill_normal(&mut stream(1, "data term", 0), &mut noise);
        let noisy: Vec<f32> = truth
            .iter()
            .zip(&noise)
            .map(|(v, n)| (v + 0.3 * v.sqrt() * n).max(0.0))
            .collect();
        let measured = Array3::from_shape_vec((1, 24, 24), noisy).unwrap();
        let blurred = Array3::from_shape_fn((1, 24, 24), |(_, view, bin)| {
            let at = |b: usize| truth[[view, b.min(23)]];
            (at(bin.saturating_sub(2)) + at(bin) + at(bin + 2)) / 3.0
        });
        let (unit, prior) = (0.09f32, blurred.clone());
        let image = |iterations, spread: f32| {
            let change = term
                .change(
                    prior.view(),
                    measured.view(),
                    &Array1::from_elem(1, unit),
                    &Array1::from_elem(1, spread),
                    iterations,
                )
                .unwrap();
            prior.clone() + change
        };
        let likelihood = |sinogram: &Array3<f32>| -> f64 {
            let pairs = sinogram.iter().zip(&measured);
            pairs
                .filter(|(p, _)| **p > 0.05)
                .map(|(p, y)| f64::from(*y) * f64::from(*p).ln() - f64::from(*p))
                .sum()
        };
        assert!(image(0, 1.0) == prior, "no iteration changes nothing");
        // The prior's weight gone, the likelihood alone must rise with every iteration.
        let free: Vec<f64> = (0..6).map(|n| likelihood(&image(n, 1e4))).collect();
        assert!(free.windows(2).all(|two| two[1] > two[0]), "{free:?}");
        // Held tightly, nearly nothing happens; in between, in between.
        let moved = |spread| (image(5, spread) - &prior).mapv(f32::abs).sum() / prior.sum();
        let (tight, middle, loose) = (moved(1e-4), moved(0.1), moved(1e4));
        assert!(
            tight < 1e-3 && tight < middle && middle < loose,
            "{tight} {middle} {loose}"
        );
    }
}
