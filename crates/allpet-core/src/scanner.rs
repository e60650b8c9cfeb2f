//! A cylindrical PET scanner: where its non-uniform radial bins really lie.

use crate::error::{Result, all_faults};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// A ring of `crystals` detectors whose coincidences are sorted into interleaved views and radial bins.
///
/// Neighbouring bins of one view are chords whose ends move by one crystal in turn, so bin `k` lies at
/// `s = R_eff · sin((k - bins/2)·π / crystals)`: denser toward the edge. Arc correction resamples to equal spacing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CylindricalScanner {
    /// Detectors in a ring, gaps included (twice the number of views).
    pub crystals: usize,
    /// Radius to the front of the crystals in mm.
    pub ring_radius_mm: f64,
    /// Mean depth of interaction in mm, added to the radius.
    pub depth_mm: f64,
    /// Number of rings.
    pub rings: usize,
    /// Distance between rings in mm.
    pub ring_spacing_mm: f64,
    /// Radial bins kept per view.
    pub bins: usize,
    /// Spacing of bins at the centre in mm, the usual spacing after arc correction.
    pub bin_mm: f64,
    /// Largest ring difference kept.
    pub max_ring_difference: usize,
}

impl CylindricalScanner {
    /// The Siemens Biograph mMR: 504 crystal positions, 252 views, 344 bins, 64 rings, ring difference up to 60.
    pub fn mmr() -> Self {
        Self {
            crystals: 504,
            ring_radius_mm: 328.0,
            depth_mm: 6.7,
            rings: 64,
            ring_spacing_mm: 4.0625,
            bins: 344,
            bin_mm: 2.0445,
            max_ring_difference: 60,
        }
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if self.crystals < 2 || !self.crystals.is_multiple_of(2) {
            faults.push(format!(
                "{} crystals in a ring; expected an even number",
                self.crystals
            ));
        }
        if self.bins == 0 || self.bins > self.crystals {
            faults.push(format!(
                "{} radial bins; expected 1 to the {} crystals",
                self.bins, self.crystals
            ));
        }
        if self.rings == 0 || self.max_ring_difference >= self.rings.max(1) {
            faults.push(format!(
                "ring difference up to {} of {} rings; expected less than the number of rings",
                self.max_ring_difference, self.rings
            ));
        }
        for (name, value) in [
            ("ring radius", self.ring_radius_mm),
            ("ring spacing", self.ring_spacing_mm),
            ("bin spacing", self.bin_mm),
        ] {
            if !(value.is_finite() && value > 0.0) {
                faults.push(format!("{name} of {value} mm; expected a positive length"));
            }
        }
        if !(self.depth_mm.is_finite() && self.depth_mm >= 0.0) {
            faults.push(format!(
                "interaction depth of {} mm; expected 0 or more",
                self.depth_mm
            ));
        }
        all_faults("scanner", faults)
    }

    /// Views of half a turn: half the crystals.
    pub fn views(&self) -> usize {
        self.crystals / 2
    }

    /// Direct and oblique planes of a span-1 sinogram: `rings + 2·Σ_{d=1..max} (rings - d)`.
    pub fn planes(&self) -> usize {
        self.rings
            + (1..=self.max_ring_difference)
                .map(|d| 2 * (self.rings - d))
                .sum::<usize>()
    }

    /// Signed distance of a radial bin from the axis in mm, before arc correction.
    pub fn s_mm(&self, bin: usize) -> f64 {
        let steps = bin as f64 - (self.bins / 2) as f64;
        (self.ring_radius_mm + self.depth_mm) * (steps * PI / self.crystals as f64).sin()
    }

    /// Ring numbers `(a, b)` of a span-1 plane; segments run 0, +1, -1, +2, -2, …
    pub fn plane_rings(&self, plane: usize) -> Option<(usize, usize)> {
        let mut first = 0;
        for segment in 0..=self.max_ring_difference {
            let length = self.rings - segment;
            for sign in if segment == 0 { 0..1 } else { 0..2 } {
                if plane < first + length {
                    let ring = plane - first;
                    return Some(if sign == 0 {
                        (ring, ring + segment)
                    } else {
                        (ring + segment, ring)
                    });
                }
                first += length;
            }
        }
        None
    }
}
