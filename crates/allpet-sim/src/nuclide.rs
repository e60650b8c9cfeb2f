//! Radionuclides behind the tracers: half-life, positron fraction, positron range.
//!
//! Half-lives and fractions: Decay Data Evaluation Project (LNE-LNHB); mean positron ranges in water: L. Jødal,
//! C. Le Loirec, C. Champion, "Positron range in PET imaging: an alternative approach for assessing and correcting the
//! blurring", Phys. Med. Biol. 57, 2012.

use allpet_core::Tracer;

/// What a nuclide does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nuclide {
    /// Name, for example `18F`.
    pub name: &'static str,
    /// Half-life in seconds.
    pub half_life_s: f64,
    /// Positrons per decay.
    pub positron_fraction: f64,
    /// Mean distance between emission and annihilation in water in mm.
    pub positron_range_mm: f64,
}

impl Nuclide {
    /// Fluorine-18.
    pub const F18: Self = Self {
        name: "18F",
        half_life_s: 6584.04,
        positron_fraction: 0.9686,
        positron_range_mm: 0.6,
    };

    /// Gallium-68.
    pub const GA68: Self = Self {
        name: "68Ga",
        half_life_s: 4069.8,
        positron_fraction: 0.889,
        positron_range_mm: 3.5,
    };

    /// The nuclide that labels a tracer.
    pub fn of(tracer: Tracer) -> Self {
        match tracer {
            Tracer::Fdg | Tracer::Dopa => Self::F18,
            Tracer::Psma => Self::GA68,
        }
    }

    /// Share of the nuclei left after `seconds`: `2^(-t/T½)`.
    pub fn remaining(self, seconds: f64) -> f64 {
        (-seconds / self.half_life_s).exp2()
    }
}
