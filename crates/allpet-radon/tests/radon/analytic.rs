//! Closed forms against numerical integration, and against each other.

use crate::common::geometry;
use allpet_radon::analytic::{self, Ellipse, Rectangle, Shape};

const ELLIPSE: Ellipse = Ellipse {
    value: 1.7,
    x_mm: 3.0,
    y_mm: -8.0,
    a_mm: 11.0,
    b_mm: 4.0,
    tilt_rad: 0.6,
};
const RECTANGLE: Rectangle = Rectangle {
    value: 0.8,
    x_mm: -2.0,
    y_mm: 5.0,
    width_mm: 13.0,
    height_mm: 6.0,
};

fn in_rectangle(x: f64, y: f64) -> bool {
    (x - RECTANGLE.x_mm).abs() <= RECTANGLE.width_mm / 2.0
        && (y - RECTANGLE.y_mm).abs() <= RECTANGLE.height_mm / 2.0
}

/// Length of the ray inside, by walking along it.
fn walk(angle: f64, s: f64, inside: impl Fn(f64, f64) -> bool) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let step = 1e-3;
    (-40_000..40_000)
        .filter(|&k| {
            let t = f64::from(k) * step;
            inside(s * cos - t * sin, s * sin + t * cos)
        })
        .count() as f64
        * step
}

#[test]
fn line_integrals_are_lengths_inside_times_value() {
    for angle in [0.0, 0.3, 1.1, 1.57, 2.5, 3.9, -0.8] {
        for s in [-9.3, -4.1, 0.2, 3.3, 7.7] {
            let ellipse = ELLIPSE.value * walk(angle, s, |x, y| ELLIPSE.contains(x, y));
            assert!((ELLIPSE.line_integral(angle, s) - ellipse).abs() < 5e-3);
            let rectangle = RECTANGLE.value * walk(angle, s, in_rectangle);
            assert!(
                (RECTANGLE.line_integral(angle, s) - rectangle).abs() < 5e-3,
                "{angle} {s}"
            );
        }
    }
}

#[test]
fn bin_means_are_means_and_every_view_holds_the_mass() {
    let shapes: [(&dyn Shape, f64); 2] = [
        (
            &ELLIPSE,
            ELLIPSE.value * std::f64::consts::PI * ELLIPSE.a_mm * ELLIPSE.b_mm,
        ),
        (
            &RECTANGLE,
            RECTANGLE.value * RECTANGLE.width_mm * RECTANGLE.height_mm,
        ),
    ];
    for (shape, mass) in shapes {
        for angle in [0.0, 0.4, std::f64::consts::FRAC_PI_2, 2.0, 3.0] {
            let width = 2.3;
            let mut total = 0.0;
            for k in -15..=15 {
                let s = f64::from(k) * width + 0.1;
                let n = 20_000;
                let at = |i: i32| s + width * ((f64::from(i) + 0.5) / f64::from(n) - 0.5);
                let mean = (0..n).map(|i| shape.line_integral(angle, at(i))).sum::<f64>() / f64::from(n);
                let exact = shape.bin_mean(angle, s, width);
                assert!((exact - mean).abs() < 2e-3, "{angle} {s}: {exact} for {mean}");
                total += exact * width;
            }
            assert!((total / mass - 1.0).abs() < 1e-12);
        }
    }
}

#[test]
fn sums_of_shapes_follow_the_geometry() {
    let g = geometry(5, 40, 1.3, 360.0, 20.0, 2.5);
    let two = analytic::project(&[RECTANGLE, RECTANGLE], &g);
    assert!((two[[3, 11]] - 2.0 * RECTANGLE.line_integral(g.angle(3), g.s_mm(11.0)) as f32).abs() < 1e-5);
    let mut onto = two.clone();
    analytic::project_into(&[ELLIPSE], &g, onto.view_mut());
    assert!(
        (&onto - &two - analytic::project(&[ELLIPSE], &g))
            .iter()
            .all(|v| v.abs() < 1e-5)
    );
    let means = analytic::project_bin_means(&[ELLIPSE], &g);
    assert!((means[[2, 20]] - ELLIPSE.bin_mean(g.angle(2), g.s_mm(20.0), 1.3) as f32).abs() < 1e-5);
}
