//! Helgason-Ludwig consistency: how far the moments of a sinogram are from those of any image.
//!
//! For the projections p(θ, s) of an image f of compact support, the moment
//! M_n(θ) = ∫ sⁿ p(θ, s) ds = ∬ (x cosθ + y sinθ)ⁿ f dx dy
//! is a homogeneous polynomial of degree n in cosθ and sinθ (Ludwig, Comm. Pure Appl. Math. 19:49-81, 1966; Helgason,
//! Acta Math. 113:153-180, 1965): a trigonometric polynomial with the frequencies n, n-2, …, and for n = 0 a constant.
//! The residual is the part of the measured moments that no such polynomial explains.

use crate::error::{Error, Result};
use crate::input::{Real, all_finite, check_finite, contiguous, shaped};
use allpet_core::ParallelGeometry;
use ndarray::{ArrayD, ArrayView, Dimension};
use rayon::prelude::*;
use std::f64::consts::PI;

/// Relative residual of the moments of order 0 to `max_order` of every sinogram: `[.., view, radial]` to `[.., order]`.
///
/// `residual_n = ‖M_n - P_n M_n‖ / ‖∫ |s|ⁿ |p| ds‖`, norms over the views, P_n the least-squares projection onto the
/// polynomials of degree n. It has no unit and lies between 0 and 1; the absolute moment below never vanishes where
/// odd moments do. Integrals are sums over bins, exact up to rounding for smooth projections, about (bin/width)^1.5
/// for projections with the root-like edge of a disc. A sinogram of zeros is consistent: 0.
///
/// # Errors
/// An invalid geometry or an arc below 180°; a shape that does not end in the geometry's; fewer than
/// `max_order + 2` views on 180° (in proportion on more), which a polynomial would fit exactly; NaN or infinities (named); moments beyond `f64`.
/// An object that reaches past the radial bins is inconsistent, truly so.
pub fn helgason_ludwig<T: Real, D: Dimension>(
    sinograms: ArrayView<'_, T, D>,
    geometry: &ParallelGeometry,
    max_order: usize,
) -> Result<ArrayD<f64>> {
    const WHAT: &str = "Helgason-Ludwig residual";
    geometry.validate()?;
    if geometry.arc_rad < PI * (1.0 - 1e-12) {
        return Err(Error::Setting {
            what: "arc of the Helgason-Ludwig residual in degrees",
            expected: "at least 180",
            got: geometry.arc_rad.to_degrees(),
        });
    }
    // Directions half a turn apart say the same: the first half-turn alone must hold more than the n + 1 unknowns.
    let half_turns = geometry.arc_rad / PI * (1.0 - 1e-12);
    let needed = ((max_order as f64 + 1.0) * half_turns).ceil() as usize;
    let needed = needed.saturating_add(1);
    if geometry.views < needed {
        return Err(Error::TooFew {
            what: WHAT,
            needed,
            of: "views",
            got: geometry.views,
        });
    }
    let shape = sinograms.shape().to_vec();
    let leading = match shape.as_slice() {
        [leading @ .., views, bins] if [*views, *bins] == geometry.shape() => leading,
        _ => {
            return Err(Error::Core(allpet_core::Error::Shape {
                what: WHAT.to_owned(),
                expected: format!("[.., {}, {}]", geometry.views, geometry.bins),
                got: shape,
            }));
        }
    };
    let values = contiguous(sinograms);
    let plan = Plan::new(geometry, max_order);
    let residuals: Vec<Vec<f64>> = values
        .par_chunks_exact(geometry.views * geometry.bins)
        .map(|sinogram| plan.residuals(sinogram))
        .collect();
    if let Some(image) = residuals.iter().position(|r| r.iter().any(|v| !v.is_finite())) {
        check_finite("sinogram", &values, &shape)?;
        return Err(Error::UndefinedImage {
            what: WHAT,
            image,
            why: "its moments are too large for f64",
        });
    }
    let mut shape = leading.to_vec();
    shape.push(max_order + 1);
    Ok(shaped(&shape, residuals.into_iter().flatten()))
}

/// Powers of the bins and orthonormal bases of the polynomials of every order, on the views of one geometry.
struct Plan {
    bins: usize,
    /// `[order][bin]`: (s/S)ⁿ with S the farthest bin, so that no order overflows.
    powers: Vec<Vec<f64>>,
    /// `[order][function][view]`.
    bases: Vec<Vec<Vec<f64>>>,
}

impl Plan {
    fn new(geometry: &ParallelGeometry, max_order: usize) -> Self {
        let s: Vec<f64> = (0..geometry.bins).map(|bin| geometry.s_mm(bin as f64)).collect();
        let farthest = s.iter().fold(0.0f64, |m, s| m.max(s.abs()));
        let scale = if farthest > 0.0 { farthest } else { 1.0 };
        let angles: Vec<f64> = (0..geometry.views).map(|view| geometry.angle(view)).collect();
        let power = |n: usize| s.iter().map(|s| (s / scale).powi(n as i32)).collect();
        Self {
            bins: geometry.bins,
            powers: (0..=max_order).map(power).collect(),
            bases: (0..=max_order).map(|n| basis(&angles, n)).collect(),
        }
    }

    fn residuals<T: Real>(&self, sinogram: &[T]) -> Vec<f64> {
        if !all_finite(sinogram) {
            return vec![f64::NAN];
        }
        self.powers
            .iter()
            .zip(&self.bases)
            .map(|(powers, basis)| {
                let (moments, magnitudes): (Vec<f64>, Vec<f64>) = sinogram
                    .chunks_exact(self.bins)
                    .map(|view| {
                        view.iter()
                            .zip(powers)
                            .fold((0.0, 0.0), |(sum, magnitude), (&p, power)| {
                                let term: f64 = power * p.into();
                                (sum + term, magnitude + term.abs())
                            })
                    })
                    .unzip();
                let whole = norm(&magnitudes);
                if whole == 0.0 {
                    return 0.0;
                }
                let mut rest = moments;
                // Twice, as rounding leaves a little of the explained part the first time.
                for _ in 0..2 {
                    basis.iter().for_each(|function| remove(&mut rest, function));
                }
                norm(&rest) / whole
            })
            .collect()
    }
}

/// Orthonormal functions on the views that span the homogeneous polynomials of degree n in cosθ and sinθ.
fn basis(angles: &[f64], order: usize) -> Vec<Vec<f64>> {
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(order + 1);
    for frequency in (order % 2..=order).step_by(2) {
        let at = |f: fn(f64) -> f64| angles.iter().map(|&a| f(frequency as f64 * a)).collect();
        let functions: Vec<Vec<f64>> = match frequency {
            0 => vec![at(f64::cos)],
            _ => vec![at(f64::cos), at(f64::sin)],
        };
        for mut function in functions {
            // Gram-Schmidt twice: orthogonal to rounding for any arc.
            for _ in 0..2 {
                basis.iter().for_each(|other| remove(&mut function, other));
            }
            let length = norm(&function);
            function.iter_mut().for_each(|v| *v /= length);
            basis.push(function);
        }
    }
    basis
}

/// Takes from `values` its part along a unit vector.
fn remove(values: &mut [f64], unit: &[f64]) {
    let along: f64 = values.iter().zip(unit).map(|(v, u)| v * u).sum();
    for (v, u) in values.iter_mut().zip(unit) {
        *v -= along * u;
    }
}

/// Euclidean norm.
fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}
