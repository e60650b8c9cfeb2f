//! Procedural anatomy: subjects drawn from a seed, and their transaxial sections as functions of position.

mod abdomen;
mod brain;
mod chest;
mod lesion;
mod noise;
mod shape;
mod tissue;
mod torso;

pub use lesion::Lesion;
pub(crate) use noise::Noise;
pub use tissue::Tissue;

use abdomen::{ABDOMEN_HEIGHTS_MM, Abdomen};
use allpet_core::{Region, stream};
use brain::{BRAIN_HEIGHTS_MM, Brain};
use chest::{CHEST_HEIGHTS_MM, Chest};
use torso::Torso;

/// The part of the body a section shows. (A trunk is one of two, so it is no part.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Head.
    Brain,
    /// Thorax.
    Chest,
    /// Abdomen and pelvis.
    Abdomen,
}

impl Part {
    /// The parts a region stands for, taken in turn.
    pub fn of(region: Region) -> &'static [Self] {
        match region {
            Region::Brain => &[Self::Brain],
            Region::Chest => &[Self::Chest],
            Region::Abdomen => &[Self::Abdomen],
            Region::Trunk => &[Self::Chest, Self::Abdomen],
        }
    }

    /// Lowest and highest section in mm in the part's own frame.
    pub fn heights_mm(self) -> [f32; 2] {
        match self {
            Self::Brain => BRAIN_HEIGHTS_MM,
            Self::Chest => CHEST_HEIGHTS_MM,
            Self::Abdomen => ABDOMEN_HEIGHTS_MM,
        }
    }
}

/// One person: shape of every organ, folding of the cortex, lesions. The same seed and number are the same person.
#[derive(Debug, Clone, PartialEq)]
pub struct Subject {
    seed: u64,
    id: u32,
    brain: Brain,
    torso: Torso,
    chest: Chest,
    abdomen: Abdomen,
    lesions: Vec<Lesion>,
}

impl Subject {
    /// Draws person `id` of `seed`.
    pub fn draw(seed: u64, id: u32) -> Self {
        let rng = &mut stream(seed, "subject", u64::from(id));
        let mut subject = Self {
            seed,
            id,
            brain: Brain::draw(rng),
            torso: Torso::draw(rng),
            chest: Chest::draw(rng),
            abdomen: Abdomen::draw(rng),
            lesions: Vec::new(),
        };
        subject.lesions = lesion::draw_lesions(&subject, rng);
        subject
    }

    /// The seed the person was drawn from.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The person's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Every lesion of the person.
    pub fn lesions(&self) -> &[Lesion] {
        &self.lesions
    }

    /// The same person with every lesion `scale` times as large.
    pub fn with_lesions_scaled(mut self, scale: f32) -> Self {
        for lesion in &mut self.lesions {
            lesion.radii_mm = lesion.radii_mm.map(|radius| radius * scale);
        }
        self
    }

    /// The section of a part at relative height `z`, 0 the lowest and 1 the highest (values outside are clamped).
    pub fn section(&self, part: Part, z: f64) -> Section<'_> {
        let [low, high] = part.heights_mm();
        let height_mm = low + (high - low) * z.clamp(0.0, 1.0) as f32;
        let (lesion_numbers, lesions) = self
            .lesions
            .iter()
            .enumerate()
            .filter(|(_, l)| l.part == part && (l.centre_mm[2] - height_mm).abs() < l.radii_mm[2])
            .unzip();
        Section {
            subject: self,
            part,
            height_mm,
            lesions,
            lesion_numbers,
        }
    }

    fn bound_mm(&self, part: Part) -> f32 {
        match part {
            Part::Brain => self.brain.bound_mm(),
            Part::Chest => self.chest.bound_mm(&self.torso),
            Part::Abdomen => self.torso.bound_mm(),
        }
    }

    fn tissue(&self, part: Part, [x, y, h]: [f32; 3]) -> Tissue {
        match part {
            Part::Brain => self.brain.tissue(x, y, h),
            Part::Chest => self.chest.tissue(&self.torso, x, y, h),
            Part::Abdomen => self.abdomen.tissue(&self.torso, x, y, h),
        }
    }
}

/// A transaxial section of a subject, unposed: x to the patient's left (the picture's right), y forward (up), mm.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    subject: &'a Subject,
    part: Part,
    height_mm: f32,
    lesions: Vec<&'a Lesion>,
    lesion_numbers: Vec<usize>,
}

impl Section<'_> {
    /// The subject cut.
    pub fn subject(&self) -> &Subject {
        self.subject
    }

    /// The part shown.
    pub fn part(&self) -> Part {
        self.part
    }

    /// Height in mm in the part's own frame.
    pub fn height_mm(&self) -> f32 {
        self.height_mm
    }

    /// Distance from the axis in mm beyond which there is only air.
    pub fn bound_mm(&self) -> f32 {
        self.subject.bound_mm(self.part)
    }

    /// The tissue at a point, lesions left out.
    pub fn tissue(&self, x_mm: f32, y_mm: f32) -> Tissue {
        self.subject.tissue(self.part, [x_mm, y_mm, self.height_mm])
    }

    /// The lesions that the section cuts.
    pub fn lesions(&self) -> &[&Lesion] {
        &self.lesions
    }

    /// Where each of [`Section::lesions`] stands among [`Subject::lesions`].
    pub fn lesion_numbers(&self) -> &[usize] {
        &self.lesion_numbers
    }

    /// Position in [`Section::lesions`] of the lesion at a point.
    pub fn lesion_at(&self, x_mm: f32, y_mm: f32) -> Option<usize> {
        self.lesions
            .iter()
            .position(|l| l.contains(x_mm, y_mm, self.height_mm))
    }
}
