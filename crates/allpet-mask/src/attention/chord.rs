//! Step 2 of TMA, eq. 11: the exact projection of a region of interest, averaged over the cells of any sinogram.
//!
//! Along the ray `x cosθ + y sinθ = s` every ellipse, polygon and rectangle of pixels is one or more stretches whose
//! ends have a closed form; the region's chord is the length of their **union** (sweep over sorted ends), less what is
//! excluded. So parts that overlap do not count twice and no pixel grid comes between the region and its projection.
//! Cost: rays × parts whose shadow they meet.

use super::resolution::cell_angle;
use super::runs::Slab;
use super::shape::RoiShape;
use crate::error::{Result, all_faults};
use crate::normalise::Normalisation;
use allpet_core::ParallelGeometry;
use ndarray::{Array2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Most rays over the width of a bin, and most angles within a view.
const MAX_RAYS: usize = 256;
/// Sines below this make two directions one.
const PARALLEL: f64 = 1e-9;
/// How far beside an edge that runs along the rays they are taken, in bins.
const BESIDE: f64 = 1e-6;

/// How a region of interest becomes attention.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AttentionConfig {
    /// Eq. 4 (by the greatest chord) or eq. 5 (chords in pixels of the region's grid, clipped at one).
    ///
    /// Where the shadows of two lesions cross their chords add up, and by eq. 4 all other rays are dimmed by it; eq. 5
    /// gives small lesions the weight of large ones.
    pub normalise: Normalisation,
    /// Rays over the width of a bin, 1 to 256; 1 is the line through its middle.
    pub rays: usize,
    /// Angles within the arc that a view stands for, 1 to 256; 1 is its own angle.
    pub angles: usize,
}

impl Default for AttentionConfig {
    /// Eq. 4, one ray for each bin: eq. 11 as printed.
    fn default() -> Self {
        Self {
            normalise: Normalisation::Linear,
            rays: 1,
            angles: 1,
        }
    }
}

impl AttentionConfig {
    /// For features whose cells stand for so many views and bins of the sinogram: the mean of its chords there.
    pub fn for_cells(views: usize, bins: usize) -> Self {
        Self {
            rays: bins,
            angles: views,
            ..Self::default()
        }
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        for (what, n) in [("rays in a bin", self.rays), ("angles in a view", self.angles)] {
            if !(1..=MAX_RAYS).contains(&n) {
                faults.push(format!("{n} {what}; expected 1 to {MAX_RAYS}"));
            }
        }
        all_faults("attention settings", faults)
    }
}

/// A line `x cosθ + y sinθ = s`; a point on it is `s·(cosθ, sinθ) + t·(-sinθ, cosθ)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ray {
    pub(crate) sin: f64,
    pub(crate) cos: f64,
    pub(crate) s_mm: f64,
}

impl Ray {
    pub(crate) fn across(&self, [x, y]: [f64; 2]) -> f64 {
        x * self.cos + y * self.sin
    }

    pub(crate) fn along(&self, [x, y]: [f64; 2]) -> f64 {
        y * self.cos - x * self.sin
    }

    /// The point at t = 0.
    pub(crate) fn foot(&self) -> [f64; 2] {
        [self.s_mm * self.cos, self.s_mm * self.sin]
    }

    pub(crate) fn direction(&self) -> [f64; 2] {
        [-self.sin, self.cos]
    }

    pub(crate) fn is_along(&self, [x, y]: [f64; 2]) -> bool {
        self.across([x, y]).abs() <= PARALLEL * x.hypot(y)
    }
}

/// What a ray can cross.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Part<'a> {
    Pixels(Slab),
    Shape(&'a RoiShape),
}

impl Part<'_> {
    fn shadow(&self, ray: &Ray) -> [f64; 2] {
        match self {
            Self::Pixels(slab) => {
                let [a, b] = slab.x.map(|x| x * ray.cos);
                let [c, d] = slab.y.map(|y| y * ray.sin);
                [a.min(b) + c.min(d), a.max(b) + c.max(d)]
            }
            Self::Shape(shape) => shape.shadow(ray),
        }
    }

    fn has_edge_along(&self, ray: &Ray) -> bool {
        match self {
            Self::Pixels(_) => ray.sin.abs().min(ray.cos.abs()) <= PARALLEL,
            Self::Shape(shape) => shape.has_edge_along(ray),
        }
    }

    fn add_chords(&self, ray: &Ray, scratch: &mut Vec<f64>, spans: &mut Vec<(f64, f64)>) {
        match self {
            Self::Pixels(slab) => spans.extend(slab_chord(slab, ray)),
            Self::Shape(shape) => shape.add_chords(ray, scratch, spans),
        }
    }
}

/// The stretch of a ray between the sides of a rectangle.
fn slab_chord(slab: &Slab, ray: &Ray) -> Option<(f64, f64)> {
    let (foot, direction) = (ray.foot(), ray.direction());
    let mut span = (f64::NEG_INFINITY, f64::INFINITY);
    for (sides, from, speed) in [(slab.x, foot[0], direction[0]), (slab.y, foot[1], direction[1])] {
        if speed.abs() <= PARALLEL {
            if !(sides[0]..sides[1]).contains(&from) {
                return None;
            }
            continue;
        }
        let [a, b] = sides.map(|side| (side - from) / speed);
        span = (span.0.max(a.min(b)), span.1.min(a.max(b)));
    }
    (span.0 < span.1).then_some(span)
}

/// Length of the union of stretches; sorts them.
fn union_length(spans: &mut [(f64, f64)]) -> f64 {
    spans.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut length = 0.0;
    let mut reached = f64::NEG_INFINITY;
    for &(from, to) in spans.iter() {
        length += (to - from.max(reached)).max(0.0);
        reached = reached.max(to);
    }
    length
}

/// Chords in mm of `parts` without `excluded`, `[view, radial]`, the mean over `rays` lines and `angles` directions.
pub(crate) fn project(
    parts: &[Part<'_>],
    excluded: &[Part<'_>],
    geometry: &ParallelGeometry,
    config: &AttentionConfig,
) -> Array2<f32> {
    let mut out = Array2::zeros(geometry.shape());
    if parts.is_empty() {
        return out;
    }
    out.axis_iter_mut(Axis(0))
        .collect::<Vec<_>>()
        .into_par_iter()
        .enumerate()
        .for_each(|(view, mut row)| {
            let mut sums = vec![0.0_f64; geometry.bins];
            for angle in 0..config.angles {
                let (sin, cos) = cell_angle(geometry, view, angle, config.angles).sin_cos();
                add_view(parts, excluded, geometry, (sin, cos), config.rays, &mut sums);
            }
            let lines = (config.rays * config.angles) as f64;
            for (value, sum) in row.iter_mut().zip(&sums) {
                *value = (sum / lines) as f32;
            }
        });
    out
}

fn add_view(
    parts: &[Part<'_>],
    excluded: &[Part<'_>],
    geometry: &ParallelGeometry,
    (sin, cos): (f64, f64),
    rays: usize,
    sums: &mut [f64],
) {
    let view = Ray { sin, cos, s_mm: 0.0 };
    let beside = BESIDE * geometry.bin_mm;
    let seen = |parts: &[Part<'_>]| -> Vec<[f64; 2]> {
        parts
            .iter()
            .map(|part| {
                let [low, high] = part.shadow(&view);
                [low - 2.0 * beside, high + 2.0 * beside]
            })
            .collect()
    };
    let (shadows, excluded_shadows) = (seen(parts), seen(excluded));
    let low = shadows.iter().map(|s| s[0]).fold(f64::INFINITY, f64::min);
    let high = shadows.iter().map(|s| s[1]).fold(f64::NEG_INFINITY, f64::max);
    // On an edge that runs along the rays the chord jumps; its value there is the mean of both sides.
    let two_sided = parts
        .iter()
        .chain(excluded)
        .any(|part| part.has_edge_along(&view));
    let shifts: &[f64] = if two_sided { &[-1.0, 1.0] } else { &[0.0] };
    let (mut scratch, mut spans, mut holes) = (Vec::new(), Vec::new(), Vec::new());
    let mut chord = |s_mm: f64| {
        spans.clear();
        holes.clear();
        let ray = Ray { s_mm, ..view };
        let meets = |shadow: &[f64; 2]| (shadow[0]..=shadow[1]).contains(&s_mm);
        for (part, _) in parts.iter().zip(&shadows).filter(|(_, s)| meets(s)) {
            part.add_chords(&ray, &mut scratch, &mut spans);
        }
        if spans.is_empty() {
            return 0.0;
        }
        for (part, _) in excluded.iter().zip(&excluded_shadows).filter(|(_, s)| meets(s)) {
            part.add_chords(&ray, &mut scratch, &mut holes);
        }
        if holes.is_empty() {
            return union_length(&mut spans);
        }
        // |A without B| = |A and B together| - |B|
        spans.extend_from_slice(&holes);
        (union_length(&mut spans) - union_length(&mut holes)).max(0.0)
    };
    for (bin, sum) in sums.iter_mut().enumerate() {
        for ray in 0..rays {
            let s = geometry.s_mm(bin as f64 + (ray as f64 + 0.5) / rays as f64 - 0.5);
            if s < low || s > high {
                continue;
            }
            let chords: f64 = shifts.iter().map(|shift| chord(s + shift * beside)).sum();
            *sum += chords / shifts.len() as f64;
        }
    }
}
