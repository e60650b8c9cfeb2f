//! FDG in time: Feng's plasma input and the two-tissue compartment model, in closed form.
//!
//! `Cp(t) = (A₁t - A₂ - A₃)·e^{-λ₁t} + A₂·e^{-λ₂t} + A₃·e^{-λ₃t}` (D. Feng, S.-C. Huang, X. Wang, "Models for computer
//! simulation studies of input functions for tracer kinetic modeling with positron emission tomography", Int. J.
//! Biomed. Comput. 32, 1993); tissue `C = h ∗ Cp` with `h(t) = K₁/(α₂ - α₁)·[(k₃ + k₄ - α₁)·e^{-α₁t} +
//! (α₂ - k₃ - k₄)·e^{-α₂t}]`, `α₁,₂ = (k₂ + k₃ + k₄ ∓ √((k₂ + k₃ + k₄)² - 4k₂k₄))/2` (M. E. Phelps et al., Ann. Neurol.
//! 6, 1979). Everything is decay-corrected to injection; times in minutes, rates in min⁻¹.

use crate::anatomy::{Subject, Tissue};
use crate::error::{Error, Result};
use allpet_core::{Tracer, stream};
use rand::Rng;

/// Minutes after injection that typical SUVs stand for.
pub const REFERENCE_MINUTES: f64 = 60.0;

/// Lesions of one subject whose rates are drawn each for itself; more share them in turn.
const LESIONS: usize = 32;

/// Feng's input function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FengInput {
    /// `A₁` in kBq/mL/min, `A₂` and `A₃` in kBq/mL.
    pub amplitudes: [f64; 3],
    /// `λ₁, λ₂, λ₃` in min⁻¹.
    pub rates: [f64; 3],
}

impl FengInput {
    /// The published parameters (851.1225, 21.8798, 20.8113 µCi/mL).
    pub fn standard() -> Self {
        Self {
            amplitudes: [851.1225 * 37.0, 21.8798 * 37.0, 20.8113 * 37.0],
            rates: [4.133859, 0.1190996, 0.01043449],
        }
    }

    /// Plasma concentration in kBq/mL.
    pub fn plasma(&self, t: f64) -> f64 {
        let [a1, a2, a3] = self.amplitudes;
        let [l1, l2, l3] = self.rates;
        (a1 * t - a2 - a3) * (-l1 * t).exp() + a2 * (-l2 * t).exp() + a3 * (-l3 * t).exp()
    }

    /// `∫₀ᵗ e^{-α(t-τ)}·Cp(τ) dτ`; with `α = 0` the area under the curve, in kBq·min/mL.
    pub fn convolved(&self, alpha: f64, t: f64) -> f64 {
        let [a1, a2, a3] = self.amplitudes;
        let [l1, l2, l3] = self.rates;
        a1 * ramp(alpha, l1, t) - (a2 + a3) * decay(alpha, l1, t)
            + a2 * decay(alpha, l2, t)
            + a3 * decay(alpha, l3, t)
    }
}

/// `∫₀ᵗ e^{-α(t-τ)}·e^{-λτ} dτ`.
fn decay(alpha: f64, lambda: f64, t: f64) -> f64 {
    let d = alpha - lambda;
    let x = d * t;
    if x.abs() < 1e-3 {
        return (-lambda * t).exp() * t * (1.0 - x / 2.0 + x * x / 6.0 - x * x * x / 24.0);
    }
    ((-lambda * t).exp() - (-alpha * t).exp()) / d
}

/// `∫₀ᵗ e^{-α(t-τ)}·τ·e^{-λτ} dτ`.
fn ramp(alpha: f64, lambda: f64, t: f64) -> f64 {
    let d = alpha - lambda;
    let x = d * t;
    if x.abs() < 1e-2 {
        return (-lambda * t).exp() * t * t * (0.5 - x / 6.0 + x * x / 24.0 - x * x * x / 120.0);
    }
    (t / d - 1.0 / (d * d)) * (-lambda * t).exp() + (-alpha * t).exp() / (d * d)
}

/// Rate constants of the two-tissue model: `K₁` (mL/mL/min), `k₂`, `k₃`, `k₄`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoTissue(pub [f64; 4]);

impl TwoTissue {
    /// Concentration in tissue, both compartments together, in the input's unit.
    pub fn concentration(&self, input: &FengInput, t: f64) -> f64 {
        let [k1, k2, k3, k4] = self.0;
        let sum = k2 + k3 + k4;
        // Equal exponents (k₃ = 0, k₂ = k₄) are the limit of unequal ones.
        let root = (sum * sum - 4.0 * k2 * k4).max(1e-12).sqrt();
        let (slow, fast) = (0.5 * (sum - root), 0.5 * (sum + root));
        let stay = k3 + k4;
        k1 / root * ((stay - slow) * input.convolved(slow, t) + (fast - stay) * input.convolved(fast, t))
    }
}

/// How a tissue follows the plasma.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Course {
    Exchange([f64; 4]),
    /// Blood, and urine on its way out of the kidney: proportional to plasma.
    Plasma,
    /// Urine in the bladder: what was excreted so far, in a volume that grows.
    Collected,
    /// Nothing comes or goes.
    Still,
}

// Grey and white matter: M. E. Phelps et al. 1979 and S.-C. Huang et al., Am. J. Physiol. 238, 1980; lung, liver,
// myocardium and tumour: as used by N. A. Karakatsanis et al., Phys. Med. Biol. 58, 2013. The others are plausible
// rather than published: muscle and marrow keep their level from 60 to 120 min, spleen, gut and glands lose some 15 %.
const GREY: [f64; 4] = [0.102, 0.130, 0.062, 0.0068];
const WHITE: [f64; 4] = [0.054, 0.109, 0.045, 0.0058];
const LUNG: [f64; 4] = [0.108, 0.735, 0.016, 0.013];
const LIVER: [f64; 4] = [0.864, 0.981, 0.005, 0.016];
const MYOCARDIUM: [f64; 4] = [0.6, 1.2, 0.1, 0.001];
const TUMOUR: [f64; 4] = [0.243, 0.78, 0.1, 0.0];
const MUSCLE: [f64; 4] = [0.03, 0.29, 0.03, 0.005];
const MARROW: [f64; 4] = [0.1, 0.4, 0.02, 0.004];
const PERFUSED: [f64; 4] = [0.4, 0.6, 0.01, 0.005];

/// Bladder: urine at injection in mL and its flow in mL/min.
const URINE: [f64; 2] = [60.0, 1.5];

fn course(tissue: Tissue) -> Course {
    use Course::{Collected, Exchange, Plasma, Still};
    match tissue {
        Tissue::Grey | Tissue::Striatum | Tissue::Thalamus | Tissue::CerebellumGrey | Tissue::Brainstem => {
            Exchange(GREY)
        }
        Tissue::White | Tissue::CerebellumWhite | Tissue::Cord => Exchange(WHITE),
        Tissue::Lung => Exchange(LUNG),
        Tissue::Liver => Exchange(LIVER),
        Tissue::Myocardium => Exchange(MYOCARDIUM),
        Tissue::Marrow => Exchange(MARROW),
        Tissue::Skin | Tissue::Fat | Tissue::Muscle | Tissue::Bone | Tissue::Gland => Exchange(MUSCLE),
        Tissue::Lacrimal
        | Tissue::Parotid
        | Tissue::Mucosa
        | Tissue::Oesophagus
        | Tissue::Spleen
        | Tissue::KidneyCortex
        | Tissue::KidneyMedulla
        | Tissue::StomachWall
        | Tissue::Bowel
        | Tissue::Duodenum
        | Tissue::Pancreas
        | Tissue::Prostate => Exchange(PERFUSED),
        Tissue::Blood | Tissue::RenalPelvis => Plasma,
        Tissue::Bladder => Collected,
        Tissue::Air | Tissue::Csf | Tissue::StomachContent | Tissue::Gallbladder => Still,
    }
}

/// The kinetics of one tracer in one subject.
#[derive(Debug, Clone, PartialEq)]
pub struct Kinetics {
    input: FengInput,
    courses: Vec<Course>,
    tumours: Vec<TwoTissue>,
}

impl Kinetics {
    /// Published rates without spread between subjects.
    ///
    /// # Errors
    /// A tracer without rate constants; there are those of FDG.
    pub fn typical(tracer: Tracer) -> Result<Self> {
        if tracer != Tracer::Fdg {
            return Err(Error::Invalid {
                what: "kinetics",
                faults: vec![format!(
                    "{tracer} has no rate constants; expected {}",
                    Tracer::Fdg
                )],
            });
        }
        Ok(Self {
            input: FengInput::standard(),
            courses: Tissue::ALL.iter().map(|&tissue| course(tissue)).collect(),
            tumours: vec![TwoTissue(TUMOUR)],
        })
    }

    /// Draws each rate within ±12 % (a tumour's k₃ ±35 %, its k₄ up to 0.004 min⁻¹), and the plasma's slow clearance
    /// within ±15 %; the same subject always agrees.
    ///
    /// # Errors
    /// As [`Kinetics::typical`].
    pub fn draw(subject: &Subject, tracer: Tracer) -> Result<Self> {
        let mut kinetics = Self::typical(tracer)?;
        let rng = &mut stream(subject.seed(), "kinetics", u64::from(subject.id()));
        kinetics.input.rates[2] *= rng.random_range(0.85..1.15);
        for course in &mut kinetics.courses {
            let spread: [f64; 4] = [(); 4].map(|()| rng.random_range(0.88..1.12));
            if let Course::Exchange(rates) = course {
                for (rate, factor) in rates.iter_mut().zip(spread) {
                    *rate *= factor;
                }
            }
        }
        let [k1, k2, k3, _] = TUMOUR;
        kinetics.tumours = (0..LESIONS)
            .map(|_| {
                TwoTissue([
                    k1 * rng.random_range(0.88..1.12),
                    k2 * rng.random_range(0.88..1.12),
                    k3 * rng.random_range(0.65..1.35),
                    rng.random_range(0.0..0.004),
                ])
            })
            .collect();
        Ok(kinetics)
    }

    /// Concentration of a tissue at `minutes` over that at [`REFERENCE_MINUTES`].
    ///
    /// # Errors
    /// A time that is not positive.
    pub fn factor(&self, tissue: Tissue, minutes: f64) -> Result<f64> {
        let curve = |t: f64| match self.courses[tissue.index()] {
            Course::Exchange(rates) => TwoTissue(rates).concentration(&self.input, t),
            Course::Plasma => self.input.plasma(t),
            Course::Collected => self.input.convolved(0.0, t) / (URINE[0] + URINE[1] * t),
            Course::Still => 1.0,
        };
        Ok(curve(checked(minutes)?) / curve(REFERENCE_MINUTES))
    }

    /// The same for the lesion of this number, should it be hotter than its host.
    ///
    /// # Errors
    /// A time that is not positive.
    pub fn tumour_factor(&self, number: usize, minutes: f64) -> Result<f64> {
        let rates = self.tumours[number % self.tumours.len()];
        let curve = |t: f64| rates.concentration(&self.input, t);
        Ok(curve(checked(minutes)?) / curve(REFERENCE_MINUTES))
    }
}

fn checked(minutes: f64) -> Result<f64> {
    if minutes.is_finite() && minutes > 0.0 {
        Ok(minutes)
    } else {
        Err(Error::Invalid {
            what: "kinetics",
            faults: vec![format!("{minutes} min after injection; expected a positive time")],
        })
    }
}
