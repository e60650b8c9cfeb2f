//! Strip integrals of a pixel image by exact pixel footprints.
//!
//! The shadow of a square pixel along direction θ is a trapezoid of half widths `(|cosθ| ± |sinθ|)·p/2`; what falls
//! into a bin is its integral over the bin (the strip model, e.g. Z. H. Cho, J. P. Jones, M. Singh, "Foundations of
//! Medical Imaging", 1993, §6). It conserves mass exactly, and shares neither grid nor discretisation with a
//! projector that interpolates along rays, so that simulated data are no inverse crime.

use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::Array2;

/// Positions of a footprint within a bin that are told apart.
const STEPS: usize = 64;
/// Views that are filled together: neighbouring pixels then fall into different rows, and no addition waits for the
/// last one's store.
const VIEWS_TOGETHER: usize = 8;
/// Weights are kept and added in groups of this many numbers: each bin's weight stands twice, once per image.
const GROUP: usize = 8;

/// Mean line integrals over bins (image unit × mm) of two images on one grid, for every view.
///
/// Both come back as `[views, bins]` of `geometry`. What falls outside the bins is lost, as in a scanner.
pub fn project_pair(
    first: &Array2<f32>,
    second: &Array2<f32>,
    grid: ImageGrid,
    geometry: ParallelGeometry,
) -> [Array2<f32>; 2] {
    let spots: Vec<Spot> = first
        .indexed_iter()
        .zip(second)
        .filter(|((_, a), b)| **a != 0.0 || **b != 0.0)
        .map(|(((r, c), &a), &b)| Spot {
            x: (grid.x_mm(c as f64) / geometry.bin_mm) as f32,
            y: (grid.y_mm(r as f64) / geometry.bin_mm) as f32,
            values: [a, b],
        })
        .collect();
    let mut out = [Array2::zeros(geometry.shape()), Array2::zeros(geometry.shape())];
    for first_view in (0..geometry.views).step_by(VIEWS_TOGETHER) {
        let views = first_view..geometry.views.min(first_view + VIEWS_TOGETHER);
        let mut shadows: Vec<Shadow> = views
            .clone()
            .map(|view| Shadow::new(grid.pixel_mm, &geometry, geometry.angle(view)))
            .collect();
        for spot in &spots {
            for shadow in &mut shadows {
                shadow.add(spot);
            }
        }
        for (view, shadow) in views.zip(&shadows) {
            let inner = shadow.row[2 * shadow.width..].as_chunks::<2>().0;
            for (which, out) in out.iter_mut().enumerate() {
                for (target, values) in out.row_mut(view).iter_mut().zip(inner) {
                    *target = values[which];
                }
            }
        }
    }
    out
}

/// A pixel that holds something: its centre in bins and its two values.
struct Spot {
    x: f32,
    y: f32,
    values: [f32; 2],
}

/// One view in the making: the weights of a pixel at every position within a bin, and the row they are added to, where
/// bins of the two images lie side by side between paddings of `width` bins.
struct Shadow {
    sin: f32,
    cos: f32,
    /// Left edge of the footprint of a pixel on the axis, in bins of the padded row.
    origin: f32,
    end: f32,
    width: usize,
    groups: usize,
    table: Vec<[f32; GROUP]>,
    row: Vec<f32>,
}

impl Shadow {
    fn new(pixel_mm: f64, geometry: &ParallelGeometry, angle: f64) -> Self {
        let (sin, cos) = angle.sin_cos();
        let p = pixel_mm / geometry.bin_mm;
        let outer = (cos.abs() + sin.abs()) * p / 2.0;
        let inner = (cos.abs() - sin.abs()).abs() * p / 2.0;
        let width = ((2.0 * outer).ceil() as usize + 1).next_multiple_of(GROUP / 2);
        // Share of the pixel's mass at or left of distance t from its centre.
        let share = |t: f64| -> f64 {
            let u = t.abs().min(outer);
            let half = if u <= inner {
                u / (outer + inner)
            } else {
                0.5 - (outer - u).powi(2) / (2.0 * (outer * outer - inner * inner))
            };
            0.5 + half.copysign(t)
        };
        let mass = p * p * geometry.bin_mm;
        let groups = 2 * width / GROUP;
        let mut table = Vec::with_capacity(STEPS * groups);
        for step in 0..STEPS {
            let centre = (step as f64 + 0.5) / STEPS as f64 + outer;
            for group in 0..groups {
                table.push(std::array::from_fn(|lane| {
                    let edge = (group * GROUP / 2 + lane / 2) as f64 - centre;
                    ((share(edge + 1.0) - share(edge)) * mass) as f32
                }));
            }
        }
        let length = geometry.bins + 2 * width;
        Self {
            sin: sin as f32,
            cos: cos as f32,
            origin: (geometry.centre_bin() + 0.5 - outer + width as f64) as f32,
            end: (length - width) as f32,
            width,
            groups,
            table,
            row: vec![0.0; 2 * length],
        }
    }

    #[inline]
    fn add(&mut self, spot: &Spot) {
        let left = self.origin + spot.x * self.cos + spot.y * self.sin;
        if left < 0.0 || left >= self.end {
            return;
        }
        let position = (left * STEPS as f32) as i32 as usize;
        let (start, step) = (position / STEPS, position % STEPS);
        let [a, b] = spot.values;
        let bins = self.row[2 * start..].as_chunks_mut::<GROUP>().0;
        let weights = &self.table[step * self.groups..(step + 1) * self.groups];
        for (bins, weights) in bins.iter_mut().zip(weights) {
            for (lane, (bin, weight)) in bins.iter_mut().zip(weights).enumerate() {
                *bin += weight * if lane % 2 == 0 { a } else { b };
            }
        }
    }
}
