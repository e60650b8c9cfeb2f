//! Oracles shared by the tests: closed forms, an area-sampled phantom and an `f64` Joseph from the textbook.

use allpet_core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet_radon::analytic::Ellipse;
use allpet_radon::{LinearOperator, Result};
use ndarray::{Array2, ArrayD, ArrayViewD, ArrayViewMutD, IxDyn};
use rand::Rng;

/// Relative L2 distance of `got` from `expected`.
pub(crate) fn relative(got: &[f32], expected: &[f32]) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&g, &e) in got.iter().zip(expected) {
        difference += (f64::from(g) - f64::from(e)).powi(2);
        norm += f64::from(e).powi(2);
    }
    (difference / norm).sqrt()
}

/// The three ellipses of the accuracy check, lengths in units of `half_mm`.
pub(crate) fn three_ellipses(half_mm: f64) -> [Ellipse; 3] {
    let ellipse = |value, x, y, a, b, tilt_rad| Ellipse {
        value,
        x_mm: x * half_mm,
        y_mm: y * half_mm,
        a_mm: a * half_mm,
        b_mm: b * half_mm,
        tilt_rad,
    };
    [
        ellipse(1.0, 0.05, -0.1, 0.60, 0.42, 0.3),
        ellipse(-0.4, -0.2, 0.15, 0.2, 0.11, -0.7),
        ellipse(0.5, 0.25, 0.2, 0.12, 0.12, 0.0),
    ]
}

/// The shapes averaged over 8 × 8 points of every pixel.
pub(crate) fn area_sampled(shapes: &[Ellipse], grid: &ImageGrid) -> Array2<f32> {
    Array2::from_shape_fn(grid.shape(), |(row, col)| {
        let mut sum = 0.0;
        for i in 0..8 {
            for j in 0..8 {
                let x = grid.x_mm(col as f64 + (f64::from(j) - 3.5) / 8.0);
                let y = grid.y_mm(row as f64 + (f64::from(i) - 3.5) / 8.0);
                sum += shapes
                    .iter()
                    .filter(|s| s.contains(x, y))
                    .map(|s| s.value)
                    .sum::<f64>();
            }
        }
        (sum / 64.0) as f32
    })
}

/// Normal draws of a shape.
pub(crate) fn noise(seed: u64, shape: &[usize]) -> ArrayD<f32> {
    let mut values = ArrayD::zeros(IxDyn(shape));
    fill_normal(&mut stream(seed, "test noise", 0), values.as_slice_mut().unwrap());
    values
}

/// Poisson draws: by products of uniforms for small means, rounded normal draws for large ones.
pub(crate) fn poisson(seed: u64, mean: &Array2<f32>) -> ArrayD<f32> {
    let mut draws = stream(seed, "test poisson", 0);
    mean.mapv(|mean| {
        if mean > 60.0 {
            let mut z = [0.0];
            fill_normal(&mut draws, &mut z);
            return (mean + mean.sqrt() * z[0]).round().max(0.0);
        }
        let (limit, mut product, mut count) = ((-f64::from(mean)).exp(), 1.0, -1.0f32);
        while product > limit || count < 0.0 {
            product *= draws.random::<f64>();
            count += 1.0;
        }
        count
    })
    .into_dyn()
}

/// A geometry in one line: views, bins, bin in mm, arc and start in degrees, offset in bins.
pub(crate) fn geometry(
    views: usize,
    bins: usize,
    bin_mm: f64,
    arc: f64,
    start: f64,
    offset: f64,
) -> ParallelGeometry {
    ParallelGeometry::new(views, bins, bin_mm)
        .unwrap()
        .with_arc_deg(arc)
        .with_start_deg(start)
        .with_offset_bins(offset)
}

/// An operator whose transpose is that of another.
pub(crate) struct Mismatched<A, B>(pub(crate) A, pub(crate) B);

impl<A: LinearOperator, B: LinearOperator> LinearOperator for Mismatched<A, B> {
    fn domain_shape(&self) -> &[usize] {
        self.0.domain_shape()
    }
    fn range_shape(&self) -> &[usize] {
        self.0.range_shape()
    }
    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.0.forward(x, out)
    }
    fn adjoint(&self, y: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        self.1.adjoint(y, out)
    }
}
