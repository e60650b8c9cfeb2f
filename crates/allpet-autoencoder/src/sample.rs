//! How a sinogram becomes a training sample: which one comes next, its object turned, its channels split and coded.

use crate::intensity::Intensity;
use allpet_core::{ParallelGeometry, stream};
use rand::Rng;
use rand::seq::SliceRandom;
use std::f64::consts::PI;

/// Epochs of shuffled samples; which sample a draw takes depends on seed, number of samples and draw alone.
#[derive(Debug, Clone)]
pub struct Epochs {
    samples: usize,
    seed: u64,
    epoch: Option<u64>,
    order: Vec<usize>,
}

impl Epochs {
    /// Over this many samples, at least one.
    pub fn new(samples: usize, seed: u64) -> Self {
        Self {
            samples: samples.max(1),
            seed,
            epoch: None,
            order: Vec::new(),
        }
    }

    /// The sample of draw `drawn`, counted from 0.
    pub fn index(&mut self, drawn: u64) -> usize {
        let n = self.samples as u64;
        let epoch = drawn / n;
        if self.epoch != Some(epoch) {
            self.order = (0..self.samples).collect();
            self.order.shuffle(&mut stream(self.seed, "epoch", epoch));
            self.epoch = Some(epoch);
        }
        self.order[(drawn % n) as usize]
    }
}

/// A rotation of at most `most_deg` either way, in whole views; 0 where views do not close ([`closes`]).
pub fn draw_turn(geometry: &ParallelGeometry, most_deg: f64, random: &mut impl Rng) -> i64 {
    let most = (most_deg.to_radians() * geometry.views as f64 / geometry.arc_rad).round() as i64;
    if most > 0 && closes(geometry) {
        random.random_range(-most..=most)
    } else {
        0
    }
}

/// Whether views wrap round: half a turn onto mirrored bins, a whole turn onto themselves.
pub fn closes(geometry: &ParallelGeometry) -> bool {
    let half = (geometry.arc_rad - PI).abs() < 1e-9 && geometry.offset_bins == 0.0;
    half || (geometry.arc_rad - 2.0 * PI).abs() < 1e-9
}

/// Writes the sinogram `[V, R]` of the object turned by `shift` views into `out`: `p(θ + π, s) = p(θ, -s)` closes the half
/// turn. For geometries that [`closes`] says yes to; other lengths than `V·R` are cut to the shorter.
pub fn turn(sinogram: &[f32], geometry: &ParallelGeometry, shift: i64, out: &mut [f32]) {
    let [views, bins] = geometry.shape();
    let half_turn = geometry.arc_rad < 1.5 * PI;
    for (view, row) in out.chunks_exact_mut(bins).enumerate().take(views) {
        let turned = view as i64 - shift;
        let mirrored = half_turn && turned.div_euclid(views as i64) % 2 != 0;
        let from = &sinogram[turned.rem_euclid(views as i64) as usize * bins..][..bins];
        row.copy_from_slice(from);
        if mirrored {
            row.reverse();
        }
    }
}

/// Writes the coded channels `[3, V, R]` of `C_all = [M·S, S, (1 - M)·S]` (ALL-PET eqs. 7, 8, 13) into `channels`.
pub fn split(sinogram: &[f32], mask: &[f32], scale: f32, intensity: Intensity, channels: &mut [f32]) {
    let size = sinogram.len();
    let (positive, rest) = channels.split_at_mut(size);
    let (full, negative) = rest.split_at_mut(size);
    for (at, (value, m)) in sinogram.iter().zip(mask).enumerate() {
        positive[at] = intensity.encode(m * value, scale);
        full[at] = intensity.encode(*value, scale);
        negative[at] = intensity.encode((1.0 - m) * value, scale);
    }
}
