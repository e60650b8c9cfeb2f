//! Uptake of the tracers: standardised uptake values per tissue, their spread between subjects, and their smooth
//! variation within one.
//!
//! Typical SUVs one hour after injection: FDG grey/white matter 8/3, liver 1.9, blood 1.6, kidney 2.7, bladder 15;
//! PSMA-11 kidney 66, parotid 24, duodenum 18, lacrimal 16, spleen 10.9, liver 8.2; F-DOPA striatum 3 over cortex 1.5.

use crate::anatomy::{Lesion, Noise, Part, Subject, Tissue};
use crate::error::Result;
use crate::kinetics::Kinetics;
use allpet_core::{Tracer, stream};
use rand::Rng;

/// Activity concentration of SUV 1 in kBq/mL: 350 MBq in 70 kg.
pub const KBQ_PER_ML_PER_SUV: f32 = 5.0;

/// Mean SUV of a tissue.
pub fn typical_suv(tracer: Tracer, tissue: Tissue) -> f32 {
    let [fdg, dopa, psma] = match tissue {
        Tissue::Air => [0.0, 0.0, 0.0],
        Tissue::Skin => [0.55, 0.6, 0.6],
        Tissue::Fat => [0.25, 0.3, 0.35],
        Tissue::Muscle => [0.7, 1.0, 0.7],
        Tissue::Bone => [0.5, 0.4, 0.5],
        Tissue::Marrow => [1.4, 0.8, 0.7],
        Tissue::Csf => [0.5, 0.5, 0.25],
        Tissue::Grey => [8.0, 1.5, 0.3],
        Tissue::White => [3.0, 1.2, 0.22],
        Tissue::Striatum => [8.6, 3.2, 0.3],
        Tissue::Thalamus => [7.5, 1.6, 0.3],
        Tissue::CerebellumGrey => [7.4, 1.4, 0.3],
        Tissue::CerebellumWhite => [3.2, 1.15, 0.22],
        Tissue::Brainstem => [4.5, 1.35, 0.27],
        Tissue::Lacrimal => [1.5, 1.2, 16.0],
        Tissue::Parotid => [2.0, 1.6, 24.0],
        Tissue::Mucosa => [1.8, 1.4, 4.0],
        Tissue::Blood => [1.6, 1.0, 1.8],
        Tissue::Lung => [0.42, 0.35, 0.4],
        Tissue::Myocardium => [7.5, 1.4, 2.0],
        Tissue::Oesophagus => [1.8, 1.2, 1.2],
        Tissue::Gland => [1.0, 0.8, 0.8],
        Tissue::Liver => [1.9, 2.0, 8.2],
        Tissue::Spleen => [1.7, 1.6, 10.9],
        Tissue::KidneyCortex => [2.7, 5.5, 66.0],
        Tissue::KidneyMedulla => [3.3, 6.5, 45.0],
        Tissue::RenalPelvis => [9.0, 15.0, 22.0],
        Tissue::StomachWall => [2.2, 1.3, 3.0],
        Tissue::StomachContent => [0.4, 0.4, 0.5],
        Tissue::Bowel => [1.4, 1.3, 3.5],
        Tissue::Duodenum => [2.0, 3.0, 18.0],
        Tissue::Pancreas => [1.6, 4.0, 2.2],
        Tissue::Gallbladder => [0.7, 8.0, 4.0],
        Tissue::Bladder => [15.0, 20.0, 30.0],
        Tissue::Prostate => [1.6, 1.2, 4.0],
        Tissue::Cord => [1.4, 0.9, 0.5],
    };
    match tracer {
        Tracer::Fdg => fdg,
        Tracer::Dopa => dopa,
        Tracer::Psma => psma,
    }
}

/// The uptake of one tracer in one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Uptake {
    tracer: Tracer,
    suv: Vec<f32>,
    /// What a lesion's SUV is multiplied by, in the subject's order; empty for 1.
    lesion_factors: Vec<f32>,
    lobes: Noise,
}

impl Uptake {
    /// Draws each tissue's SUV uniformly within ±25 % of [`typical_suv`]; the same subject and tracer always agree.
    ///
    /// Myocardial FDG depends on the last meal: between a third of and 1.3 times the typical value.
    pub fn draw(subject: &Subject, tracer: Tracer) -> Self {
        let index = u64::from(subject.id()) * Tracer::ALL.len() as u64 + tracer.index() as u64;
        let rng = &mut stream(subject.seed(), "uptake", index);
        // Tissues of one organ rise and fall together: one factor for the body, the rest per tissue.
        let body = rng.random_range(0.9f32..1.1);
        let suv = Tissue::ALL
            .iter()
            .map(|&tissue| {
                let own = rng.random_range(0.85f32..1.13);
                let meal = rng.random_range(0.37f32..1.15);
                let fed = if tissue == Tissue::Myocardium && tracer == Tracer::Fdg {
                    meal
                } else {
                    1.0
                };
                typical_suv(tracer, tissue) * body * own * fed
            })
            .collect();
        Self {
            tracer,
            suv,
            lesion_factors: Vec::new(),
            lobes: Noise::new(rng.random()),
        }
    }

    /// The uptake at another time after injection than the [`REFERENCE_MINUTES`](crate::kinetics::REFERENCE_MINUTES)
    /// it was drawn for, decay-corrected to injection: each tissue follows its own two-tissue model.
    ///
    /// # Errors
    /// A tracer without rate constants, a time that is not positive.
    pub fn at_minutes(&self, subject: &Subject, minutes: f64) -> Result<Self> {
        let kinetics = Kinetics::draw(subject, self.tracer)?;
        let mut later = self.clone();
        for (suv, &tissue) in later.suv.iter_mut().zip(Tissue::ALL) {
            *suv *= kinetics.factor(tissue, minutes)? as f32;
        }
        later.lesion_factors = subject
            .lesions()
            .iter()
            .enumerate()
            .map(|(number, lesion)| {
                let hot = lesion
                    .suv(self.tracer)
                    .is_some_and(|suv| suv > self.suv(lesion.host));
                let factor = if hot {
                    kinetics.tumour_factor(number, minutes)?
                } else {
                    kinetics.factor(lesion.host, minutes)?
                };
                Ok(factor as f32)
            })
            .collect::<Result<_>>()?;
        Ok(later)
    }

    /// SUV of the subject's lesion of this number, if the tracer tells it from its host.
    pub fn lesion_suv(&self, number: usize, lesion: &Lesion) -> Option<f32> {
        let factor = self.lesion_factors.get(number).copied().unwrap_or(1.0);
        lesion.suv(self.tracer).map(|suv| suv * factor)
    }

    /// The tracer.
    pub fn tracer(&self) -> Tracer {
        self.tracer
    }

    /// SUV of a tissue.
    pub fn suv(&self, tissue: Tissue) -> f32 {
        self.suv[tissue.index()]
    }

    /// Smooth factor around 1 (±10 %) that makes one lobe or segment a little brighter than the next.
    pub fn lobe(&self, part: Part, x_mm: f32, y_mm: f32, height_mm: f32) -> f32 {
        let wavelength = if part == Part::Brain { 32.0 } else { 45.0 };
        1.0 + 0.10
            * self
                .lobes
                .at(x_mm / wavelength, y_mm / wavelength, height_mm / wavelength)
    }
}
