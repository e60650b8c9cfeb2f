//! Abdomen and pelvis in transaxial section: liver, gallbladder, stomach, spleen, pancreas, duodenum, kidneys with
//! cortex, medulla and pelvis, bowel in mesenteric fat, great vessels, spine, pelvic bones, bladder, prostate.
//!
//! Heights are in mm above the pelvic floor.

use super::noise::Noise;
use super::shape::{ellipse_depth, ellipsoid_depth, in_ellipsoid, norm, rotated, segment_distance};
use super::tissue::Tissue;
use super::torso::Torso;
use allpet_core::Stream;
use rand::Rng;

/// Lowest and highest section of an abdomen in mm.
pub(crate) const ABDOMEN_HEIGHTS_MM: [f32; 2] = [38.0, 352.0];

/// What makes one abdomen differ from the next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Abdomen {
    liver: [f32; 3],
    liver_scale: f32,
    left_lobe: f32,
    gallbladder: [f32; 4],
    spleen: f32,
    stomach: [f32; 4],
    kidneys: [[f32; 3]; 2],
    kidney_scale: f32,
    pelvis: f32,
    bladder: [f32; 3],
    prostate: f32,
    mesentery: f32,
    aorta: f32,
    noise: Noise,
}

impl Abdomen {
    pub(crate) fn draw(rng: &mut Stream) -> Self {
        let mut around = |centre: f32, spread: f32| centre + spread * rng.random_range(-1.0f32..1.0);
        Self {
            liver: [around(-62.0, 8.0), around(8.0, 6.0), around(308.0, 12.0)],
            liver_scale: around(1.0, 0.1),
            left_lobe: around(1.0, 0.25),
            gallbladder: [
                around(-46.0, 10.0),
                around(46.0, 8.0),
                around(250.0, 10.0),
                around(1.0, 0.3),
            ],
            spleen: around(1.0, 0.2),
            stomach: [
                around(58.0, 10.0),
                around(30.0, 8.0),
                around(300.0, 12.0),
                around(1.0, 0.25),
            ],
            kidneys: [
                [around(-64.0, 6.0), around(-40.0, 6.0), around(222.0, 14.0)],
                [around(64.0, 6.0), around(-40.0, 6.0), around(234.0, 14.0)],
            ],
            kidney_scale: around(1.0, 0.12),
            pelvis: around(1.0, 0.35),
            bladder: [around(38.0, 9.0), around(32.0, 8.0), around(32.0, 9.0)],
            prostate: around(22.0, 5.0),
            mesentery: around(0.0, 0.12),
            aorta: around(10.0, 1.5),
            noise: Noise::new(rng.random()),
        }
    }

    pub(crate) fn tissue(&self, torso: &Torso, x_mm: f32, y_mm: f32, h: f32) -> Tissue {
        let (x, y) = (x_mm / torso.scale[0], y_mm / torso.scale[1]);
        let depth = torso.depth(x, y, h);
        if depth < 0.0 {
            return Tissue::Air;
        }
        if depth < 2.2 {
            return Tissue::Skin;
        }
        let spine_y = if h < 120.0 {
            -62.0 - 0.25 * (120.0 - h)
        } else {
            -58.0
        };
        if h > 75.0
            && let Some(tissue) = torso.spine(x, y, h, spine_y, 1.1)
        {
            return tissue;
        }
        if let Some(tissue) = self.hip(x, y, h) {
            return tissue;
        }
        if let Some(tissue) = self.back_muscle(x, y, h) {
            return tissue;
        }
        // The peritoneal cavity lies inside a wall of muscle, and of ribs above the costal margin.
        let high = ((h - 200.0) / 120.0).clamp(0.0, 1.0);
        let cavity = ellipse_depth(x, y - 8.0, 138.0 + 8.0 * high, 82.0 + 4.0 * high);
        if cavity > 0.0 {
            return self.inside(x, y, h, cavity);
        }
        if cavity > -11.0 {
            if h > 225.0 && !(y > 45.0 && x.abs() < 40.0 + 0.6 * (365.0 - h)) {
                return torso
                    .rib((y - 8.0).atan2(x * 0.6), h, -cavity / 11.0)
                    .unwrap_or(Tissue::Muscle);
            }
            // The linea alba parts the straight muscles.
            return if y > 60.0 && x.abs() < 4.0 {
                Tissue::Fat
            } else {
                Tissue::Muscle
            };
        }
        let ax = x.abs();
        let buttock = ellipse_depth(ax - 76.0, y + 44.0, 84.0, 66.0) > 0.0;
        let thigh = ellipse_depth(ax - 86.0, y - 26.0, 58.0, 58.0) > 0.0 && h < 85.0;
        if h < 118.0 && (buttock || thigh) && depth > torso.fat_at(x, y) * 0.8 {
            let cleft = ax < 5.0 && y < -80.0;
            let streak = self.noise.at(x / 12.0, y / 30.0, h / 40.0);
            return if cleft || streak > 0.5 {
                Tissue::Fat
            } else {
                Tissue::Muscle
            };
        }
        Tissue::Fat
    }

    /// Iliac wings above, acetabulum and femoral head below, sacrum's joint between.
    fn hip(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        let ax = x.abs();
        if h > 165.0 {
            return None;
        }
        let bone =
            |d: f32, shell: f32| (d > 0.0).then_some(if d < shell { Tissue::Bone } else { Tissue::Marrow });
        if h < 78.0 {
            let head = ellipsoid_depth([ax - 92.0, y - 2.0, h - 52.0], [24.0, 24.0, 28.0]);
            let cup = ellipsoid_depth([ax - 88.0, y - 2.0, h - 55.0], [34.0, 35.0, 36.0]);
            if head > -2.5 {
                return Some(if head < 0.0 {
                    Tissue::Muscle
                } else {
                    bone(head, 2.0).unwrap_or(Tissue::Marrow)
                });
            }
            if cup > 0.0 && ax < 96.0 {
                return bone(cup, 2.0);
            }
            let pubis = 8.0 - segment_distance([ax, y], [6.0, 46.0], [66.0, 22.0]);
            let ischium = 11.0 - norm(ax - 72.0, y + 42.0);
            let part = if h < 62.0 { pubis.max(ischium) } else { ischium };
            return bone(part, 2.2);
        }
        // The wing opens outward and forward with height.
        let open = (h - 78.0) / 87.0;
        let wing = 7.0
            - 2.0 * open
            - segment_distance(
                [ax, y],
                [46.0, -66.0],
                [
                    88.0 + 34.0 * open,
                    -8.0 + 26.0 * (1.0 - (2.0 * open - 1.0).powi(2)),
                ],
            );
        bone(wing, 2.0).or_else(|| {
            // Sacral ala.
            if h < 130.0 {
                bone(9.0 - segment_distance([ax, y], [14.0, -66.0], [44.0, -68.0]), 1.8)
            } else {
                None
            }
        })
    }

    fn back_muscle(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        let ax = x.abs();
        let streak = self.noise.at(x / 10.0, y / 10.0, h / 40.0) > 0.6;
        let erector = ellipse_depth(ax - 36.0, y + 84.0, 30.0, 19.0) > 0.0 && h > 100.0;
        let psoas_r = 8.0 + 12.0 * ((270.0 - h) / 130.0).clamp(0.0, 1.0);
        let psoas_x = 32.0 + 26.0 * ((200.0 - h) / 130.0).clamp(0.0, 1.0);
        let psoas_y = -46.0 + 44.0 * ((170.0 - h) / 110.0).clamp(0.0, 1.0);
        let psoas = norm(ax - psoas_x, (y - psoas_y) * 0.9) < psoas_r && h < 275.0;
        let quadratus = ellipse_depth(ax - 66.0, y + 66.0, 20.0, 9.0) > 0.0 && h > 150.0 && h < 230.0;
        (erector || psoas || quadratus).then_some(if streak && erector {
            Tissue::Fat
        } else {
            Tissue::Muscle
        })
    }

    fn inside(&self, x: f32, y: f32, h: f32, cavity: f32) -> Tissue {
        let bend = self.noise.sibling(1).at(x / 40.0, y / 40.0, h / 50.0);
        self.great_vessels(x, y, h)
            .or_else(|| self.kidney(x, y, h))
            .or_else(|| self.pelvic(x, y, h))
            .or_else(|| self.upper(x, y, h, bend))
            .unwrap_or_else(|| self.bowel(x, y, h, cavity, bend))
    }

    fn great_vessels(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        let r = self.aorta;
        let blood = if h > 150.0 {
            norm(x - 10.0, y + 30.0) < r || norm(x + 20.0, (y + 30.0) * 1.2) < r * 1.15
        } else {
            // The iliac vessels part and run to the groins.
            let t = (150.0 - h) / 100.0;
            let (cx, cy) = (12.0 + 52.0 * t, -28.0 + 52.0 * t);
            let artery = norm(x.abs() - cx, y - cy) < 5.5;
            artery || norm(x.abs() - cx + 5.0, y - cy + 9.0) < 6.5
        };
        // Portal and splenic vein.
        let portal = (h - 272.0).abs() < 7.0 && segment_distance([x, y], [-34.0, 6.0], [40.0, -18.0]) < 6.0;
        (blood || portal).then_some(Tissue::Blood)
    }

    fn kidney(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        for (side, centre) in self.kidneys.iter().enumerate() {
            let sign = if side == 0 { -1.0 } else { 1.0 };
            let s = self.kidney_scale;
            let p = [
                (x - centre[0]) * sign / s,
                (y - centre[1]) / s,
                (h - centre[2]) / s,
            ];
            if p[0].abs() > 48.0 || p[1].abs() > 48.0 || p[2].abs() > 72.0 {
                continue;
            }
            // The hilum looks forward and inward; the lower pole lies further out.
            let (u, v) = rotated(p[0] - 0.12 * p[2], p[1], [0.80, 0.60]);
            let depth = ellipsoid_depth([u, v, p[2]], [25.0, 31.0, 56.0]);
            let sinus = ellipsoid_depth([u + 17.0, v, p[2]], [15.0, 12.0 * self.pelvis.max(0.8), 24.0]);
            if sinus > 0.0 && depth > -8.0 {
                let urine =
                    ellipsoid_depth([u + 13.0, v, p[2]], [10.0 * self.pelvis, 6.0 * self.pelvis, 17.0]);
                return Some(if urine > 0.0 {
                    Tissue::RenalPelvis
                } else {
                    Tissue::Fat
                });
            }
            if depth > 0.0 {
                let lobes = self
                    .noise
                    .sibling(2 + side as u32)
                    .at(u / 11.0, v / 11.0, p[2] / 13.0);
                return Some(if depth > 9.0 + 3.0 * lobes {
                    Tissue::KidneyMedulla
                } else {
                    Tissue::KidneyCortex
                });
            }
            if depth > -7.0 {
                return Some(Tissue::Fat);
            }
        }
        None
    }

    fn pelvic(&self, x: f32, y: f32, h: f32) -> Option<Tissue> {
        if h > 118.0 {
            return None;
        }
        let p = [x, y, h];
        if in_ellipsoid(p, [0.0, 16.0, 82.0], self.bladder) {
            return Some(Tissue::Bladder);
        }
        let r = self.prostate;
        if in_ellipsoid(p, [0.0, 2.0, 46.0], [r * 1.15, r, 17.0]) {
            return Some(Tissue::Prostate);
        }
        let rectum = norm(x - 3.0, (y + 42.0) * 0.9);
        if rectum < 17.0 {
            return Some(if rectum < 7.0 && self.mesentery > 0.0 {
                Tissue::Air
            } else {
                Tissue::Bowel
            });
        }
        // Side wall: the inner obturator muscles.
        (h < 74.0 && ellipse_depth(x, y - 2.0, 54.0, 66.0) < 0.0).then_some(Tissue::Muscle)
    }

    fn upper(&self, x: f32, y: f32, h: f32, bend: f32) -> Option<Tissue> {
        let warped = [x + 5.0 * bend, y - 4.0 * bend, h];
        let g = self.gallbladder;
        if in_ellipsoid(
            warped,
            [g[0], g[1], g[2]],
            [13.0 * g[3], 19.0 * g[3], 27.0 * g[3]],
        ) {
            return Some(Tissue::Gallbladder);
        }
        let (c, s) = (self.liver, self.liver_scale);
        // Liver: a right lobe that tapers downward and a thin left lobe across the midline.
        let right = in_ellipsoid(warped, c, [86.0 * s, 76.0 * s, 88.0 * s])
            && !in_ellipsoid(
                [x, y, 0.0],
                [26.0, -48.0, 0.0],
                [66.0, 30.0 + 0.22 * (365.0 - h), 1.0],
            );
        let left = in_ellipsoid(
            warped,
            [4.0, 44.0, c[2] + 14.0],
            [74.0 * self.left_lobe, 34.0, 42.0],
        );
        let tip = in_ellipsoid(warped, [c[0] - 34.0, c[1], c[2] - 70.0], [36.0, 52.0, 62.0]);
        if right || left || tip {
            let branch = self.noise.sibling(4).at(x / 13.0, y / 13.0, h / 16.0);
            return Some(if branch > 0.72 && right {
                Tissue::Blood
            } else {
                Tissue::Liver
            });
        }
        let (sx, sy) = rotated(warped[0] - 102.0, warped[1] + 28.0, [0.88, -0.47]);
        let k = self.spleen;
        if in_ellipsoid([sx, sy, h], [0.0, 0.0, 302.0], [24.0 * k, 46.0 * k, 58.0 * k]) {
            return Some(Tissue::Spleen);
        }
        let st = self.stomach;
        let swing = 0.35 * (st[2] - h);
        let q = [warped[0] - st[0] + swing.max(0.0), warped[1] - st[1], h - st[2]];
        let outer = ellipsoid_depth(q, [44.0 * st[3], 34.0 * st[3], 62.0]);
        if outer > 0.0 {
            return Some(match outer {
                d if d < 6.0 => Tissue::StomachWall,
                _ if q[1] > 10.0 => Tissue::Air,
                _ => Tissue::StomachContent,
            });
        }
        let pancreas = segment_distance([warped[0], warped[1]], [-22.0, 4.0], [16.0, 12.0])
            .min(segment_distance([warped[0], warped[1]], [16.0, 12.0], [78.0, -16.0]) + 1.0);
        let thick = 12.0 * (1.0 - ((h - 262.0) / 22.0).powi(2)).max(0.0).sqrt();
        if pancreas < thick {
            return Some(Tissue::Pancreas);
        }
        let loop_c = if h > 215.0 {
            norm(warped[0] + 40.0, warped[1] - 6.0)
        } else {
            segment_distance([warped[0], warped[1]], [-38.0, 4.0], [34.0, 0.0])
        };
        ((202.0..272.0).contains(&h) && loop_c < 12.0).then_some(Tissue::Duodenum)
    }

    /// Colon at the flanks and under the liver, small-bowel loops between, mesenteric fat around.
    fn bowel(&self, x: f32, y: f32, h: f32, cavity: f32, bend: f32) -> Tissue {
        let haustra = 3.5 * (h / 9.0 + 4.0 * bend).sin();
        let gas = |d: f32, r: f32, up: f32| match d {
            d if d > r - 4.5 => Tissue::Bowel,
            _ if up > 3.0 => Tissue::Air,
            _ => Tissue::StomachContent,
        };
        let colon_r = 21.0 + haustra;
        let ascending = norm(x + 104.0, y - 2.0);
        if h < 238.0 && h > 112.0 && ascending < colon_r {
            return gas(ascending, colon_r, y - 2.0);
        }
        let descending = norm(x - 112.0, y + 6.0);
        if h < 282.0 && h > 112.0 && descending < colon_r - 4.0 {
            return gas(descending, colon_r - 4.0, y + 6.0);
        }
        let across = segment_distance([x, y], [-80.0, 46.0 + 8.0 * bend], [88.0, 44.0]);
        if (h - 232.0 - 10.0 * bend).abs() < 19.0 && across < 18.0 + haustra {
            return gas(across, 18.0 + haustra, y - 46.0);
        }
        if h > 318.0 + 12.0 * bend {
            // The base of the lung stands around the dome.
            return Tissue::Lung;
        }
        if h < if x > 0.0 { 292.0 } else { 245.0 } && cavity > 6.0 && y > -36.0 {
            let loops = self.noise.sibling(5).at(x / 21.0, y / 21.0, h / 24.0);
            if loops.abs() < 0.24 + self.mesentery {
                return Tissue::Bowel;
            }
            if loops > 0.55 && y > 30.0 {
                return Tissue::Air;
            }
        }
        Tissue::Fat
    }
}
