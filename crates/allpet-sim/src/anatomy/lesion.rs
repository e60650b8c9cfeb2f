//! Lesions: ellipsoids placed in tissues that bear them, each with the uptake the tracers show it with.

use super::tissue::Tissue;
use super::{Part, Subject};
use allpet_core::{Stream, Tracer};
use rand::Rng;

/// An ellipsoidal lesion.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesion {
    /// The part of the body it lies in.
    pub part: Part,
    /// Centre `x, y, height` in mm in the subject's own frame.
    pub centre_mm: [f32; 3],
    /// Half axes in mm.
    pub radii_mm: [f32; 3],
    /// The tissue it grew in.
    pub host: Tissue,
    /// SUV by [`Tracer::index`]; `None` where the tracer does not tell it from its host.
    pub suv: [Option<f32>; 3],
}

impl Lesion {
    /// The SUV a tracer shows, if it shows the lesion at all.
    pub fn suv(&self, tracer: Tracer) -> Option<f32> {
        self.suv.get(tracer.index()).copied().flatten()
    }

    pub(super) fn contains(&self, x: f32, y: f32, h: f32) -> bool {
        super::shape::in_ellipsoid([x, y, h], self.centre_mm, self.radii_mm)
    }
}

/// A kind of lesion: where it grows, how large, and its range of SUV for FDG, DOPA, PSMA (an empty range: unseen).
struct Kind {
    part: Part,
    hosts: &'static [Tissue],
    radius_mm: [f32; 2],
    suv: [[f32; 2]; 3],
    /// Greatest number in one subject.
    most: u32,
}

const UNSEEN: [f32; 2] = [0.0, 0.0];
const PARENCHYMA: &[Tissue] = &[Tissue::Grey, Tissue::White, Tissue::Striatum, Tissue::Thalamus];

const KINDS: &[Kind] = &[
    // Glioma or metastasis: avid, and leaky enough for PSMA to enter.
    Kind {
        part: Part::Brain,
        hosts: PARENCHYMA,
        radius_mm: [5.0, 12.0],
        suv: [[10.0, 15.0], [2.6, 4.5], [1.5, 5.0]],
        most: 2,
    },
    // Infarct or low-grade lesion.
    Kind {
        part: Part::Brain,
        hosts: PARENCHYMA,
        radius_mm: [6.0, 14.0],
        suv: [[1.2, 3.0], [0.6, 1.0], [0.1, 0.2]],
        most: 2,
    },
    Kind {
        part: Part::Chest,
        hosts: &[Tissue::Lung],
        radius_mm: [5.0, 16.0],
        suv: [[3.0, 12.0], [1.0, 3.0], [1.2, 3.0]],
        most: 4,
    },
    Kind {
        part: Part::Chest,
        hosts: &[Tissue::Fat],
        radius_mm: [5.0, 10.0],
        suv: [[3.5, 10.0], [1.5, 4.0], [4.0, 18.0]],
        most: 3,
    },
    Kind {
        part: Part::Chest,
        hosts: &[Tissue::Marrow],
        radius_mm: [6.0, 13.0],
        suv: [[3.0, 8.0], [1.5, 4.0], [8.0, 35.0]],
        most: 4,
    },
    Kind {
        part: Part::Abdomen,
        hosts: &[Tissue::Liver],
        radius_mm: [6.0, 18.0],
        suv: [[4.0, 9.0], [3.5, 8.0], [2.5, 5.0]],
        most: 4,
    },
    // Cysts: cold with every tracer.
    Kind {
        part: Part::Abdomen,
        hosts: &[Tissue::Liver, Tissue::KidneyCortex],
        radius_mm: [6.0, 16.0],
        suv: [[0.2, 0.5], [0.2, 0.5], [0.3, 1.0]],
        most: 2,
    },
    Kind {
        part: Part::Abdomen,
        hosts: &[Tissue::Marrow],
        radius_mm: [6.0, 13.0],
        suv: [[3.0, 8.0], [1.5, 4.0], [10.0, 40.0]],
        most: 4,
    },
    Kind {
        part: Part::Abdomen,
        hosts: &[Tissue::Fat],
        radius_mm: [5.0, 10.0],
        suv: [[3.5, 8.0], UNSEEN, [8.0, 40.0]],
        most: 4,
    },
    Kind {
        part: Part::Abdomen,
        hosts: &[Tissue::Prostate],
        radius_mm: [5.0, 9.0],
        suv: [UNSEEN, UNSEEN, [12.0, 40.0]],
        most: 1,
    },
    Kind {
        part: Part::Abdomen,
        hosts: &[Tissue::Pancreas],
        radius_mm: [5.0, 10.0],
        suv: [UNSEEN, [8.0, 15.0], UNSEEN],
        most: 1,
    },
];

/// Tries per lesion to hit a bearing tissue; a subject without the room simply has no such lesion.
const TRIES: u32 = 300;

pub(super) fn draw_lesions(subject: &Subject, rng: &mut Stream) -> Vec<Lesion> {
    let mut lesions = Vec::new();
    for kind in KINDS {
        let [low, high] = kind.part.heights_mm();
        let bound = subject.bound_mm(kind.part);
        for _ in 0..rng.random_range(0..=kind.most) {
            let mean = rng.random_range(kind.radius_mm[0]..kind.radius_mm[1]);
            let radii_mm = [0; 3].map(|_| mean * rng.random_range(0.75f32..1.3));
            let suv = kind
                .suv
                .map(|[a, b]| (b > a).then(|| a * (b / a).powf(rng.random::<f32>())));
            for _ in 0..TRIES {
                let centre_mm = [
                    rng.random_range(-bound..bound),
                    rng.random_range(-bound..bound),
                    rng.random_range(low..high),
                ];
                let host = subject.tissue(kind.part, centre_mm);
                let superficial = host == Tissue::Fat && centre_mm[0].hypot(centre_mm[1] * 1.5) > 75.0;
                if kind.hosts.contains(&host) && !superficial {
                    lesions.push(Lesion {
                        part: kind.part,
                        centre_mm,
                        radii_mm,
                        host,
                        suv,
                    });
                    break;
                }
            }
        }
    }
    lesions
}
