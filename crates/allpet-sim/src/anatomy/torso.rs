//! What chest and abdomen share: the outline of the trunk with skin and fat, the spine, the ribs.
//!
//! Both regions are painted in the coordinates of a reference trunk of half axes 180 × 115 mm (x to the patient's left,
//! y forward) and scaled to the subject.

use super::noise::Noise;
use super::shape::{ellipse_depth, fraction, norm, segment_distance};
use super::tissue::Tissue;
use allpet_core::Stream;
use rand::Rng;

/// Half axes of the reference trunk in mm.
pub(crate) const HALF_WIDTH: f32 = 180.0;
pub(crate) const HALF_DEPTH: f32 = 115.0;

/// Build of the trunk.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Torso {
    pub(crate) scale: [f32; 2],
    pub(crate) fat_mm: f32,
    pub(crate) square: f32,
    pub(crate) spine_scale: f32,
    pub(crate) noise: Noise,
}

impl Torso {
    pub(crate) fn draw(rng: &mut Stream) -> Self {
        let mut around = |centre: f32, spread: f32| centre + spread * rng.random_range(-1.0f32..1.0);
        let size = around(1.0, 0.06);
        Self {
            scale: [size * around(1.0, 0.05), size * around(1.0, 0.09)],
            fat_mm: around(15.0, 9.0),
            square: around(0.4, 0.2),
            spine_scale: around(1.0, 0.08),
            noise: Noise::new(rng.random()),
        }
    }

    /// Distance from the axis beyond which there is only air.
    pub(crate) fn bound_mm(&self) -> f32 {
        1.12 * (HALF_WIDTH * self.scale[0]).max(HALF_DEPTH * self.scale[1]) + 6.0
    }

    /// Depth under the skin in reference coordinates: an ellipse drawn toward a rectangle; far outside, the least number.
    pub(crate) fn depth(&self, x: f32, y: f32, h: f32) -> f32 {
        let (u, v) = (x / HALF_WIDTH, y / HALF_DEPTH);
        let (u2, v2) = (u * u, v * v);
        let round = (u2 + v2).sqrt();
        let boxy = (u2 * u2 + v2 * v2).sqrt().sqrt();
        let q = round + self.square * (boxy - round);
        if q > 1.1 {
            return f32::MIN;
        }
        let gradient = (u2 / (HALF_WIDTH * HALF_WIDTH) + v2 / (HALF_DEPTH * HALF_DEPTH)).sqrt();
        (1.0 - q) * round / gradient.max(1e-6) + 2.0 * self.noise.at(x / 60.0, y / 60.0, h / 80.0)
    }

    /// Thickness of the fat under the skin: thin over ribs and spine, thick at the flanks.
    pub(crate) fn fat_at(&self, x: f32, y: f32) -> f32 {
        let u = x / HALF_WIDTH;
        self.fat_mm * (0.65 + 0.45 * u * u + 0.15 * (y / HALF_DEPTH))
    }

    /// Vertebra with disc, canal and processes, centred `(0, back_y)`; `None` beside it.
    pub(crate) fn spine(&self, x: f32, y: f32, h: f32, back_y: f32, size: f32) -> Option<Tissue> {
        let s = size * self.spine_scale;
        let (dx, dy) = (x / s, (y - back_y) / s);
        let body = ellipse_depth(dx, dy, 20.0, 16.0);
        if body > 0.0 {
            // A disc every 33 mm.
            let disc = fraction(h / 33.0) < 0.2;
            return Some(match (disc, body < 2.2) {
                (true, _) => Tissue::Cord,
                (false, true) => Tissue::Bone,
                (false, false) => Tissue::Marrow,
            });
        }
        let canal = norm(dx, dy + 24.0);
        if canal < 8.5 {
            return Some(if canal < 5.5 { Tissue::Cord } else { Tissue::Csf });
        }
        let ax = dx.abs();
        let pedicle = segment_distance([ax, dy], [12.0, -13.0], [10.0, -32.0]);
        let transverse = segment_distance([ax, dy], [11.0, -28.0], [34.0, -33.0]);
        let spinous = segment_distance([ax, dy], [0.0, -33.0], [0.0, -50.0]);
        let arch = pedicle.min(transverse + 0.8).min(spinous);
        (arch < 4.0).then_some(if arch < 1.8 { Tissue::Marrow } else { Tissue::Bone })
    }

    /// A rib where the slanting rows of ribs cut the cage wall: `across` in 0..1 is the place within the wall.
    pub(crate) fn rib(&self, angle: f32, h: f32, across: f32) -> Option<Tissue> {
        // Ribs fall by some 90 mm from the spine (angle -π/2) to the front, and follow each other every 26 mm.
        let forward = (angle + std::f32::consts::FRAC_PI_2).abs();
        let forward = forward.min(std::f32::consts::TAU - forward);
        let row = fraction((h + 38.0 * forward) / 27.0) - 0.5;
        let edge = norm(row / 0.24, (across - 0.5) / 0.5);
        (edge < 1.0).then_some(if edge < 0.6 { Tissue::Marrow } else { Tissue::Bone })
    }
}
