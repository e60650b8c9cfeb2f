//! Closed-form projections of ellipses and rectangles: data that owe nothing to any grid, and oracles for tests.
//!
//! Ellipse: A. C. Kak, M. Slaney, "Principles of Computerized Tomographic Imaging" (1988), eqs. 3.5-3.9. The
//! projection of a rectangle is the convolution of two boxes, a trapezoid.

use allpet_core::ParallelGeometry;
use ndarray::{Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// A figure whose line integrals are known in closed form.
pub trait Shape: Sync {
    /// Integral along the ray `x cosθ + y sinθ = s`, in (value unit)·mm.
    fn line_integral(&self, angle_rad: f64, s_mm: f64) -> f64;

    /// Mean of [`Shape::line_integral`] over a bin of `width_mm` centred at `s_mm`; `width_mm > 0`.
    fn bin_mean(&self, angle_rad: f64, s_mm: f64, width_mm: f64) -> f64;
}

/// An ellipse of constant value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ellipse {
    /// Value inside, added to what else is there.
    pub value: f64,
    /// x of the centre in mm.
    pub x_mm: f64,
    /// y of the centre in mm.
    pub y_mm: f64,
    /// Half axis in mm along the tilted x axis.
    pub a_mm: f64,
    /// The other half axis in mm.
    pub b_mm: f64,
    /// Counter-clockwise tilt in radians.
    pub tilt_rad: f64,
}

impl Ellipse {
    /// Distance of the centre from the ray through bin `s`, and half the shadow's width.
    fn shadow(&self, angle_rad: f64) -> (f64, f64) {
        let (sin, cos) = angle_rad.sin_cos();
        let (across, along) = (angle_rad - self.tilt_rad).sin_cos();
        (
            self.x_mm * cos + self.y_mm * sin,
            (self.a_mm * along).hypot(self.b_mm * across),
        )
    }

    /// Whether a point lies inside (or on the border).
    pub fn contains(&self, x_mm: f64, y_mm: f64) -> bool {
        let (sin, cos) = self.tilt_rad.sin_cos();
        let (x, y) = (x_mm - self.x_mm, y_mm - self.y_mm);
        ((x * cos + y * sin) / self.a_mm).powi(2) + ((y * cos - x * sin) / self.b_mm).powi(2) <= 1.0
    }
}

impl Shape for Ellipse {
    fn line_integral(&self, angle_rad: f64, s_mm: f64) -> f64 {
        let (centre, half) = self.shadow(angle_rad);
        let t = (s_mm - centre) / half;
        if t.abs() < 1.0 {
            2.0 * self.value * self.a_mm * self.b_mm / half * ((1.0 - t) * (1.0 + t)).sqrt()
        } else {
            0.0
        }
    }

    fn bin_mean(&self, angle_rad: f64, s_mm: f64, width_mm: f64) -> f64 {
        let (centre, half) = self.shadow(angle_rad);
        // ∫ 2 sqrt(1 - t²) dt = t sqrt(1 - t²) + asin t
        let integral = |s: f64| {
            let t = ((s - centre) / half).clamp(-1.0, 1.0);
            t * ((1.0 - t) * (1.0 + t)).sqrt() + t.asin()
        };
        let area = integral(s_mm + width_mm / 2.0) - integral(s_mm - width_mm / 2.0);
        self.value * self.a_mm * self.b_mm * area / width_mm
    }
}

/// An axis-aligned rectangle of constant value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rectangle {
    /// Value inside, added to what else is there.
    pub value: f64,
    /// x of the centre in mm.
    pub x_mm: f64,
    /// y of the centre in mm.
    pub y_mm: f64,
    /// Size along x in mm.
    pub width_mm: f64,
    /// Size along y in mm.
    pub height_mm: f64,
}

impl Rectangle {
    /// Centre, outer and inner half-width of the trapezoid, and its height.
    fn trapezoid(&self, angle_rad: f64) -> (f64, f64, f64, f64) {
        let (sin, cos) = angle_rad.sin_cos();
        let (p, q) = (self.width_mm / 2.0 * cos.abs(), self.height_mm / 2.0 * sin.abs());
        // A side along the ray would make a jump; a millionth of slope makes a ray on the very edge count half.
        let (long, short) = (p.max(q), p.min(q).max(5e-7 * self.width_mm.min(self.height_mm)));
        let top = self.value * self.width_mm * self.height_mm / (2.0 * long);
        (self.x_mm * cos + self.y_mm * sin, long + short, long - short, top)
    }
}

impl Shape for Rectangle {
    fn line_integral(&self, angle_rad: f64, s_mm: f64) -> f64 {
        let (centre, outer, inner, top) = self.trapezoid(angle_rad);
        top * ((outer - (s_mm - centre).abs()) / (outer - inner)).clamp(0.0, 1.0)
    }

    fn bin_mean(&self, angle_rad: f64, s_mm: f64, width_mm: f64) -> f64 {
        let (centre, outer, inner, top) = self.trapezoid(angle_rad);
        // Area from the centre to s: full height up to `inner`, then the falling side.
        let integral = |s: f64| {
            let t = (s - centre).abs();
            let fall = (t.min(outer) - inner).max(0.0);
            let area = t.min(inner) + fall - fall * fall / (2.0 * (outer - inner));
            area.copysign(s - centre)
        };
        top * (integral(s_mm + width_mm / 2.0) - integral(s_mm - width_mm / 2.0)) / width_mm
    }
}

/// Sum of the shapes' line integrals at the centre of every bin, `[views, bins]`.
pub fn project<S: Shape>(shapes: &[S], geometry: &ParallelGeometry) -> Array2<f32> {
    let mut out = Array2::zeros(geometry.shape());
    project_into(shapes, geometry, out.view_mut());
    out
}

/// As [`project`], averaged over the width of each bin, as a detector does.
pub fn project_bin_means<S: Shape>(shapes: &[S], geometry: &ParallelGeometry) -> Array2<f32> {
    let mut out = Array2::zeros(geometry.shape());
    add(geometry, out.view_mut(), |angle, s| {
        shapes
            .iter()
            .map(|shape| shape.bin_mean(angle, s, geometry.bin_mm))
            .sum()
    });
    out
}

/// Adds the shapes' line integrals to `out` (`[views, bins]`; a smaller array takes the first views and bins).
pub fn project_into<S: Shape>(shapes: &[S], geometry: &ParallelGeometry, out: ArrayViewMut2<'_, f32>) {
    add(geometry, out, |angle, s| {
        shapes.iter().map(|shape| shape.line_integral(angle, s)).sum()
    });
}

fn add(geometry: &ParallelGeometry, mut out: ArrayViewMut2<'_, f32>, value: impl Fn(f64, f64) -> f64 + Sync) {
    out.axis_iter_mut(Axis(0))
        .collect::<Vec<_>>()
        .into_par_iter()
        .enumerate()
        .for_each(|(view, mut row)| {
            let angle = geometry.angle(view);
            for (bin, out) in row.iter_mut().enumerate() {
                *out += value(angle, geometry.s_mm(bin as f64)) as f32;
            }
        });
}
