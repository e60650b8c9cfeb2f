//! Rendering of a posed section onto a pixel grid: area averages by supersampling wherever tissues meet.

use crate::anatomy::{Section, Tissue};
use crate::tracer::{KBQ_PER_ML_PER_SUV, Uptake};
use allpet_core::ImageGrid;
use ndarray::Array2;

/// How the subject lies in the scanner.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pose {
    /// Counter-clockwise rotation in radians.
    pub rotation_rad: f64,
    /// Shift `x, y` in mm.
    pub shift_mm: [f64; 2],
}

/// A rendered section.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendering {
    /// The grid of both images.
    pub grid: ImageGrid,
    /// Activity concentration in kBq/mL.
    pub activity: Array2<f32>,
    /// Attenuation in mm⁻¹.
    pub attenuation: Array2<f32>,
}

/// Renders activity (zero without an uptake) and attenuation, `supersamples²` points per pixel at tissue borders.
pub fn render(
    section: &Section<'_>,
    uptake: Option<&Uptake>,
    pose: Pose,
    grid: ImageGrid,
    supersamples: usize,
) -> Rendering {
    let (sin, cos) = (pose.rotation_rad.sin() as f32, pose.rotation_rad.cos() as f32);
    let [dx, dy] = pose.shift_mm.map(|v| v as f32);
    let bound2 = section.bound_mm().powi(2);
    let pixel = grid.pixel_mm as f32;
    // Tissue and lesion at a point of the scanner: the label is 0 in air, so that images start out empty.
    let look = |x: f32, y: f32| -> u16 {
        let (u, v) = (x - dx, y - dy);
        if u * u + v * v > bound2 {
            return 0;
        }
        let (x, y) = (cos * u + sin * v, cos * v - sin * u);
        let tissue = section.tissue(x, y).index() as u16;
        match section.lesion_at(x, y) {
            Some(lesion) if tissue != 0 => (lesion as u16 + 1) << 8 | tissue,
            _ => tissue,
        }
    };
    let lesion_suv: Vec<Option<f32>> = section
        .lesions()
        .iter()
        .zip(section.lesion_numbers())
        .map(|(lesion, &number)| uptake.and_then(|u| u.lesion_suv(number, lesion)))
        .collect();
    let values = |label: u16| -> (f32, f32) {
        let tissue = Tissue::ALL[usize::from(label & 0xff)];
        let lesion = (label >> 8 != 0).then(|| usize::from(label >> 8) - 1);
        let mu = match lesion {
            Some(_) if tissue == Tissue::Lung => Tissue::Muscle.attenuation_per_cm(),
            _ => tissue.attenuation_per_cm(),
        };
        let suv = uptake.map_or(0.0, |u| {
            lesion
                .and_then(|l| lesion_suv[l])
                .unwrap_or_else(|| u.suv(tissue))
        });
        (suv * KBQ_PER_ML_PER_SUV, mu * 0.1)
    };
    let labels = Array2::from_shape_fn(grid.shape(), |(r, c)| {
        look(grid.x_mm(c as f64) as f32, grid.y_mm(r as f64) as f32)
    });
    let mut activity = Array2::zeros(grid.shape());
    let mut attenuation = Array2::zeros(grid.shape());
    let n = supersamples.max(1);
    for r in 0..grid.rows {
        for c in 0..grid.cols {
            let here = labels[[r, c]];
            let differs = |r: usize, c: usize| labels.get([r, c]).is_some_and(|&label| label != here);
            let border = differs(r.wrapping_sub(1), c)
                || differs(r + 1, c)
                || differs(r, c.wrapping_sub(1))
                || differs(r, c + 1);
            if here == 0 && !border {
                continue;
            }
            let (x, y) = (grid.x_mm(c as f64) as f32, grid.y_mm(r as f64) as f32);
            let (mut a, mut m) = (0.0, 0.0);
            if border && n > 1 {
                for i in 0..n {
                    for j in 0..n {
                        let at = |k: usize| ((k as f32 + 0.5) / n as f32 - 0.5) * pixel;
                        let (da, dm) = values(look(x + at(j), y + at(i)));
                        a += da;
                        m += dm;
                    }
                }
                a /= (n * n) as f32;
                m /= (n * n) as f32;
            } else {
                (a, m) = values(here);
            }
            if let Some(uptake) = uptake.filter(|_| a > 0.0) {
                let (u, v) = (x - dx, y - dy);
                a *= uptake.lobe(
                    section.part(),
                    cos * u + sin * v,
                    cos * v - sin * u,
                    section.height_mm(),
                );
            }
            activity[[r, c]] = a;
            attenuation[[r, c]] = m;
        }
    }
    Rendering {
        grid,
        activity,
        attenuation,
    }
}

/// Area-weighted resampling onto another grid centred on the same axis; the integral over shared area is kept.
pub fn resample(image: &Array2<f32>, from: ImageGrid, to: ImageGrid) -> Array2<f32> {
    let along = |n_from: usize, n_to: usize| -> Vec<Vec<(usize, f32)>> {
        let ratio = from.pixel_mm / to.pixel_mm;
        (0..n_to)
            .map(|i| {
                // Edges of the target pixel in units of source pixels.
                let low = (i as f64 - n_to as f64 / 2.0) / ratio + n_from as f64 / 2.0;
                let high = low + 1.0 / ratio;
                let first = low.floor().max(0.0) as usize;
                (first..n_from)
                    .take_while(|&k| (k as f64) < high)
                    .map(|k| {
                        let overlap = (high.min(k as f64 + 1.0) - low.max(k as f64)).max(0.0);
                        (k, (overlap * ratio) as f32)
                    })
                    .filter(|&(_, w)| w > 0.0)
                    .collect()
            })
            .collect()
    };
    let rows = along(from.rows, to.rows);
    let cols = along(from.cols, to.cols);
    let mut half = Array2::<f32>::zeros((from.rows, to.cols));
    for (source, mut target) in image.rows().into_iter().zip(half.rows_mut()) {
        for (value, weights) in target.iter_mut().zip(&cols) {
            *value = weights.iter().map(|&(k, w)| source[k] * w).sum();
        }
    }
    let mut out = Array2::<f32>::zeros((to.rows, to.cols));
    for (mut target, weights) in out.rows_mut().into_iter().zip(&rows) {
        for &(k, w) in weights {
            target.scaled_add(w, &half.row(k));
        }
    }
    out
}
