//! A chest in transaxial section: cage with ribs, lungs with vessels, mediastinum, heart with left-ventricular wall,
//! great vessels, airways and the domes of liver and spleen.
//!
//! Heights are in mm above the apex of the heart's resting place on the diaphragm.

use super::noise::Noise;
use super::shape::{ellipse_depth, in_ellipsoid, norm, rotated, segment_distance};
use super::tissue::Tissue;
use super::torso::Torso;
use allpet_core::Stream;
use rand::Rng;

/// Lowest and highest section of a chest in mm.
pub(crate) const CHEST_HEIGHTS_MM: [f32; 2] = [10.0, 225.0];

/// What makes one chest differ from the next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chest {
    heart: [f32; 3],
    heart_scale: f32,
    wall: f32,
    axis: [f32; 2],
    tilt: f32,
    mediastinum: f32,
    aorta: f32,
    dome: f32,
    breast: f32,
    noise: Noise,
}

impl Chest {
    pub(crate) fn draw(rng: &mut Stream) -> Self {
        let female = rng.random::<bool>();
        let mut around = |centre: f32, spread: f32| centre + spread * rng.random_range(-1.0f32..1.0);
        let axis = around(0.68, 0.22);
        Self {
            heart: [around(36.0, 8.0), around(12.0, 6.0), around(72.0, 10.0)],
            heart_scale: around(1.0, 0.12),
            wall: around(11.0, 2.0),
            axis: [axis.cos(), axis.sin()],
            tilt: around(0.42, 0.15),
            mediastinum: around(1.0, 0.25),
            aorta: around(12.5, 2.0),
            dome: around(42.0, 14.0),
            breast: if female { around(22.0, 12.0) } else { 0.0 },
            noise: Noise::new(rng.random()),
        }
    }

    pub(crate) fn bound_mm(&self, torso: &Torso) -> f32 {
        torso.bound_mm() + self.breast
    }

    pub(crate) fn tissue(&self, torso: &Torso, x_mm: f32, y_mm: f32, h: f32) -> Tissue {
        let (x, y) = (x_mm / torso.scale[0], y_mm / torso.scale[1]);
        let depth = torso.depth(x, y, h);
        if depth < 0.0 {
            return self.breast(x, y, h, depth);
        }
        if depth < 2.2 {
            return Tissue::Skin;
        }
        if let Some(tissue) = torso.spine(x, y, h, -58.0, 0.95) {
            return tissue;
        }
        // The cage narrows toward the neck.
        let narrow = 1.0 - 0.36 * ((h - 120.0) / 110.0).max(0.0).powi(2);
        let cage_y = y + 4.0;
        let cage = ellipse_depth(x, cage_y, 155.0 * narrow, 98.0 * (0.35 + 0.65 * narrow));
        if cage > 12.0 {
            return self.inside(x, y, h, cage - 12.0);
        }
        if cage > 2.0 {
            if y > 40.0 && x.abs() < 20.0 && h > 50.0 {
                return if cage > 4.5 && cage < 9.5 {
                    Tissue::Marrow
                } else {
                    Tissue::Bone
                };
            }
            let rib = torso.rib(cage_y.atan2(x * 0.62), h, (cage - 2.0) / 10.0);
            return rib.unwrap_or(if cage > 9.0 { Tissue::Fat } else { Tissue::Muscle });
        }
        let fat = torso.fat_at(x, y);
        if depth < fat {
            return Tissue::Fat;
        }
        self.wall_muscle(x, y, h)
    }

    fn breast(&self, x: f32, y: f32, h: f32, depth: f32) -> Tissue {
        let swell = self.breast * (1.0 - ((h - 85.0) / 62.0).powi(2)).max(0.0);
        if swell < 2.0 || y < 20.0 {
            return Tissue::Air;
        }
        let cup = ellipse_depth(x.abs() - 82.0, y - 92.0, 58.0, swell + 14.0);
        match cup {
            c if c < 0.0 => Tissue::Air,
            c if c < 2.2 => Tissue::Skin,
            c if c > 8.0 && self.noise.at(x / 16.0, y / 16.0, h / 20.0) > 0.05 && depth > -swell * 0.8 => {
                Tissue::Gland
            }
            _ => Tissue::Fat,
        }
    }

    fn wall_muscle(&self, x: f32, y: f32, h: f32) -> Tissue {
        let ax = x.abs();
        if h > 95.0 {
            // Shoulder blade: a thin plate behind the cage, and the arm's head high up.
            let blade = segment_distance([ax, y], [62.0, -88.0], [128.0, -58.0]);
            if blade < 4.0 {
                return if blade < 1.6 { Tissue::Marrow } else { Tissue::Bone };
            }
        }
        if h > 195.0 {
            let clavicle = segment_distance([ax, y], [18.0, 62.0], [120.0, 26.0]);
            let humerus = norm(ax - 138.0, y + 8.0);
            if clavicle < 6.0 || humerus < 22.0 {
                return if clavicle < 3.5 || humerus < 19.0 {
                    Tissue::Marrow
                } else {
                    Tissue::Bone
                };
            }
        }
        let streak = self.noise.at(x / 30.0, y / 9.0, h / 40.0);
        if streak > 0.5 { Tissue::Fat } else { Tissue::Muscle }
    }

    fn inside(&self, x: f32, y: f32, h: f32, pleura: f32) -> Tissue {
        if let Some(tissue) = self.under_diaphragm([x, y, h]) {
            return tissue;
        }
        if let Some(tissue) = self.heart(x, y, h).or_else(|| self.vessels(x, y, h)) {
            return tissue;
        }
        let bend = self.noise.at(x / 35.0, y / 35.0, h / 45.0);
        let heart_bag = in_ellipsoid(
            [x, y, h],
            [self.heart[0] - 22.0, self.heart[1] + 4.0, self.heart[2] + 8.0],
            [
                70.0 * self.heart_scale,
                55.0 * self.heart_scale,
                62.0 * self.heart_scale,
            ],
        );
        let front = (y / 60.0).clamp(-1.0, 1.0);
        let half = (27.0 - 15.0 * front.max(0.0) + 5.0 * bend) * self.mediastinum;
        if heart_bag || (x - 3.0).abs() < half {
            return if bend > 0.3 { Tissue::Fat } else { Tissue::Muscle };
        }
        // Vessels branch from the hilum and thin out toward the pleura.
        let near = 1.0 - ((x.abs() - 28.0) / 85.0).clamp(0.0, 1.0);
        let twig = self.noise.sibling(1).at(x / 9.0, y / 9.0, h / 13.0);
        if twig > 0.78 - 0.22 * near && pleura > 5.0 {
            Tissue::Blood
        } else {
            Tissue::Lung
        }
    }

    fn under_diaphragm(&self, p: [f32; 3]) -> Option<Tissue> {
        let liver = [-66.0, 0.0, self.dome - 85.0];
        if in_ellipsoid(p, liver, [88.0, 76.0, 85.0]) {
            return Some(Tissue::Liver);
        }
        if in_ellipsoid(p, [88.0, -38.0, self.dome - 78.0], [40.0, 36.0, 62.0]) {
            return Some(Tissue::Spleen);
        }
        let stomach = [70.0, 12.0, self.dome - 72.0];
        if in_ellipsoid(p, stomach, [46.0, 44.0, 52.0]) {
            let inner = in_ellipsoid(p, stomach, [41.0, 39.0, 47.0]);
            return Some(match inner {
                true if p[1] > 26.0 => Tissue::Air,
                true => Tissue::StomachContent,
                false => Tissue::StomachWall,
            });
        }
        // The diaphragm itself.
        (in_ellipsoid(p, liver, [92.0, 80.0, 88.0])
            || in_ellipsoid(p, [84.0, -10.0, self.dome - 76.0], [62.0, 72.0, 64.0]))
        .then_some(Tissue::Muscle)
    }

    /// Left ventricle: a thick shell open toward the atria (the horseshoe of a transaxial slice); right ventricle,
    /// atria.
    fn heart(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        let s = self.heart_scale;
        let p = [
            (x - self.heart[0]) / s,
            (y - self.heart[1]) / s,
            (h - self.heart[2]) / s,
        ];
        // Long axis: in the plane along `axis`, falling by `tilt` toward the apex.
        let (along_plane, across) = rotated(p[0], p[1], [self.axis[0], -self.axis[1]]);
        let (ct, st) = (self.tilt.cos(), self.tilt.sin());
        let along = ct * along_plane - st * p[2];
        let height = st * along_plane + ct * p[2];
        let radius2 = across * across + height * height;
        if along > -20.0 {
            let outer = (along / 54.0).powi(2) + radius2 / (34.0f32 * 34.0);
            let (len, wide) = (54.0 - self.wall, 34.0 - self.wall);
            let inner = (along / len).powi(2) + radius2 / (wide * wide);
            if inner < 1.0 {
                return Some(Tissue::Blood);
            }
            if outer < 1.0 {
                return Some(Tissue::Myocardium);
            }
        }
        let q = [along, across, height];
        let right_ventricle = in_ellipsoid(q, [0.0, 36.0, 0.0], [48.0, 28.0, 38.0]);
        let right_atrium = in_ellipsoid(q, [-46.0, 38.0, 6.0], [28.0, 30.0, 38.0]);
        let left_atrium = in_ellipsoid(q, [-42.0, -6.0, 12.0], [25.0, 34.0, 28.0]);
        (right_ventricle || right_atrium || left_atrium).then_some(Tissue::Blood)
    }

    fn vessels(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        let (p, r) = ([x, y], self.aorta);
        let arch = [[-8.0f32, 20.0f32], [22.0, -40.0]];
        let to = |c: [f32; 2]| norm(x - c[0], y - c[1]);
        let base = self.heart[2] + 34.0;
        let aortic = (to([20.0, -36.0]) < r * 0.95 && h < base + 85.0)
            || (to(arch[0]) < r * 1.15 && h > base && h < base + 85.0)
            || (segment_distance(p, arch[0], arch[1]) < r && h > base + 68.0 && h < base + 92.0);
        let pulmonary = (to([16.0, 30.0]) < 13.0 && h > base - 5.0 && h < base + 38.0)
            || (segment_distance(p, [16.0, 28.0], [-42.0, 0.0]) < 8.5 && h > base + 18.0 && h < base + 38.0)
            || (segment_distance(p, [16.0, 28.0], [46.0, -12.0]) < 8.5 && h > base + 22.0 && h < base + 42.0);
        let caval = to([-27.0, 12.0]) < 9.0 && h > base - 20.0;
        let neck = h > base + 92.0
            && (to([-22.0, 14.0]) < 7.0
                || to([2.0, 12.0]) < 5.5
                || to([20.0, 4.0]) < 5.5
                || to([26.0, 22.0]) < 7.0);
        if aortic || pulmonary || caval || neck {
            return Some(Tissue::Blood);
        }
        let bronchus = h > base + 2.0
            && h < base + 34.0
            && (segment_distance(p, [0.0, -10.0], [-34.0, -14.0]) < 6.0
                || segment_distance(p, [0.0, -10.0], [34.0, -16.0]) < 6.0);
        if (h > base + 30.0 && to([0.0, -8.0]) < 8.5) || bronchus {
            return Some(Tissue::Air);
        }
        let gullet = to([5.0, -27.0]);
        (gullet < 7.5).then_some(Tissue::Oesophagus)
    }
}
