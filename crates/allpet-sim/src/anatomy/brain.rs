//! A head in transaxial section: folded cortical ribbon, white matter, ventricles, deep grey nuclei, cerebellum,
//! skull and scalp, as a function of position in mm.
//!
//! Heights are in mm above the plane of the commissures; the hull of the cerebrum is a union of ellipsoids. Sulci run
//! inward from the hull along warped rays of each hemisphere, with depth and place that drift smoothly with height.

use super::noise::Noise;
use super::shape::{bulge, ellipsoid_depth, floor, in_ellipsoid, norm, rotated, segment_distance};
use super::tissue::Tissue;
use allpet_core::Stream;
use rand::Rng;

/// Lowest and highest section of a brain in mm.
pub(crate) const BRAIN_HEIGHTS_MM: [f32; 2] = [-44.0, 56.0];

/// What makes one head differ from the next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Brain {
    scale: [f32; 3],
    egg: f32,
    sulci: [f32; 2],
    phase: [f32; 2],
    sulcus_depth: f32,
    cortex_mm: f32,
    csf_mm: f32,
    ventricle: f32,
    asymmetry: f32,
    skull_mm: f32,
    scalp_mm: f32,
    nuclei: f32,
    sylvian_y: f32,
    noise: Noise,
}

impl Brain {
    pub(crate) fn draw(rng: &mut Stream) -> Self {
        let mut around = |centre: f32, spread: f32| centre + spread * rng.random_range(-1.0f32..1.0);
        Self {
            scale: [around(1.0, 0.07), around(1.0, 0.07), around(1.0, 0.05)],
            egg: around(0.11, 0.05),
            sulci: [around(21.0, 3.0), around(21.0, 3.0)],
            phase: [around(0.5, 0.5), around(0.5, 0.5)],
            sulcus_depth: around(13.0, 3.5),
            cortex_mm: around(3.7, 0.4),
            csf_mm: around(0.6, 0.5),
            ventricle: around(1.0, 0.4),
            asymmetry: around(0.0, 0.12),
            skull_mm: around(6.5, 1.5),
            scalp_mm: around(5.5, 1.5),
            nuclei: around(1.0, 0.10),
            sylvian_y: around(4.0, 5.0),
            noise: Noise::new(rng.random()),
        }
    }

    /// Distance from the axis beyond which there is only air.
    pub(crate) fn bound_mm(&self) -> f32 {
        92.0 * self.scale[1].max(self.scale[0]) + self.skull_mm + self.scalp_mm + 4.0
    }

    pub(crate) fn tissue(&self, x_mm: f32, y_mm: f32, h: f32) -> Tissue {
        let (x, y) = (x_mm / self.scale[0], y_mm / self.scale[1]);
        let h = if h > 0.0 { h / self.scale[2] } else { h };
        let xe = x / (1.0 - self.egg * y / 86.0);
        // The cavity of the skull closes above; below the eyes the head goes on as face and neck.
        let inside = ellipsoid_depth([xe, y, h - 8.0], [70.0, 88.0, if h > 8.0 { 68.0 } else { 125.0 }]);
        if inside < 0.0 {
            let out = -inside;
            return if out < self.skull_mm * 0.3 {
                Tissue::Bone
            } else if out < self.skull_mm * 0.7 {
                Tissue::Marrow
            } else if out < self.skull_mm {
                Tissue::Bone
            } else if out < self.skull_mm + self.scalp_mm {
                Tissue::Skin
            } else {
                Tissue::Air
            };
        }
        let wobble = self.noise.at(x / 24.0, y / 24.0, h / 30.0);
        if let Some(tissue) = self.hindbrain(x, y, h, wobble) {
            return tissue;
        }
        let depth = cerebrum_depth(xe, x, y, h) + 1.2 * wobble;
        if depth > 0.0 {
            return self.cerebrum(x, y, h, depth, wobble);
        }
        // The sagittal sinus runs along the midline between the hull and the bone.
        if h > -8.0 && x.abs() < 5.0 && y < -60.0 && inside < 7.0 - x.abs() {
            return Tissue::Blood;
        }
        if h < -14.0 {
            self.face(x, y, h, inside, depth, wobble)
        } else {
            Tissue::Csf
        }
    }

    fn hindbrain(&self, x: f32, y: f32, h: f32, wobble: f32) -> Option<Tissue> {
        if h > -4.0 {
            return None;
        }
        let stem = ellipsoid_depth([x, y + 16.0, h + 26.0], [15.0, 13.0, 40.0]);
        let cerebellum = ellipsoid_depth([x, y + 49.0, h + 31.0], [51.0, 31.0, 26.0]) + wobble;
        if h < -14.0 && in_ellipsoid([x, y, h], [0.0, -31.0, -27.0], [5.0 * self.ventricle, 5.0, 12.0]) {
            return Some(Tissue::Csf);
        }
        if stem > 0.0 && h < -8.0 {
            return Some(Tissue::Brainstem);
        }
        if cerebellum > 0.0 {
            // Folia: thin leaves of cortex around a branching white core, a bright vermis in between.
            let folia = (0.42 * cerebellum + 0.16 * x.abs() + 2.0 * wobble).sin();
            let core = cerebellum > 9.5 + 3.0 * folia && x.abs() > 7.0;
            return Some(if core {
                Tissue::CerebellumWhite
            } else {
                Tissue::CerebellumGrey
            });
        }
        // Cisterns around the stem and under the tentorium.
        (stem > -4.5 || cerebellum > -3.0).then_some(Tissue::Csf)
    }

    fn cerebrum(&self, x: f32, y: f32, h: f32, hull: f32, wobble: f32) -> Tissue {
        let side = if x < 0.0 { 0 } else { 1 };
        let midline = x + 1.5 * self.noise.at(0.5, y / 30.0, h / 40.0);
        let ax = midline.abs();
        if let Some(tissue) = self.deep(ax, x, y, h) {
            return tissue;
        }
        // The hemispheres part in front of and behind the callosum, and wholly above it.
        let callosum = 40.0 * bulge(h, -22.0, 32.0);
        let parted = if y > 0.0 {
            y > callosum * 0.92
        } else {
            y < -callosum
        };
        let mut pial = hull;
        if parted {
            if ax < 0.5 + self.csf_mm {
                return Tissue::Csf;
            }
            pial = pial.min(ax - 0.5);
        }
        let sylvian = self.sylvian_distance(x, y, h);
        if sylvian < 0.4 + self.csf_mm * 1.2 {
            return Tissue::Csf;
        }
        pial = pial.min(sylvian);

        // Sulci: rays of an angle about the hemisphere's own centre, bent and displaced by noise.
        // The angle follows the section as it shrinks toward the vertex, with fewer sulci around it.
        let shrink = (1.0 - ((h - 10.0).max(0.0) / 63.5).powi(2)).max(0.2).sqrt();
        let (a, b) = (36.0 * shrink, 60.0 * shrink);
        let (u, v) = ((ax - 31.0 * shrink) / a, (y - 2.0) / b);
        let rho2 = (u * u + v * v).max(1e-3);
        let n = self.sulci[side] * shrink;
        let bend = self
            .noise
            .sibling(side as u32 + 1)
            .at(ax / 19.0, y / 19.0, h / 26.0);
        let turn = v.atan2(u) * n / std::f32::consts::TAU + self.phase[side] + 0.5 * bend + 0.25 * wobble;
        let k = floor(turn + 0.5) as f32;
        let gradient = ((v / a).powi(2) + (u / b).powi(2)).sqrt() / rho2;
        let spacing = std::f32::consts::TAU / n / gradient.max(1e-4);
        let lateral = (turn - k).abs() * spacing;
        let drift = self.noise.sibling(side as u32 + 3).at(k * 1.37, 0.3, h / 20.0);
        // Where the rays crowd together there is only white matter.
        let room = ((spacing - 6.5) / 3.0).clamp(0.0, 1.0);
        let reach = (self.sulcus_depth + 11.0 * drift).max(3.0) * room;
        let wall = norm(lateral, (pial - reach).max(0.0));
        if pial < reach - 3.0 && lateral < self.csf_mm {
            return Tissue::Csf;
        }
        if pial.min(wall) < self.cortex_mm + 0.7 * bend {
            Tissue::Grey
        } else {
            Tissue::White
        }
    }

    /// Ventricles and deep nuclei; `ax` is the distance from the (wavy) midline.
    fn deep(&self, ax: f32, x: f32, y: f32, h: f32) -> Option<Tissue> {
        let wide = self.ventricle
            * if x < 0.0 {
                1.0 - self.asymmetry
            } else {
                1.0 + self.asymmetry
            };
        let p = [ax, y];
        let horn = 4.6 * wide * bulge(h, -6.0, 26.0);
        let body = 4.6 * wide * bulge(h, 13.0, 33.0);
        let atrium = 4.8 * wide * bulge(h, -10.0, 23.0);
        let temporal = 2.6 * wide * bulge(h, -26.0, -8.0);
        let third = 2.2 * wide * bulge(h, -14.0, 10.0);
        let ventricle = (horn > 0.5
            && segment_distance(p, [5.0, 17.0], [5.0 + 9.0 * wide.min(1.3), 33.0]) < horn)
            || (segment_distance(p, [5.0, 17.0], [7.0, 8.0]) < horn * 0.55)
            || (body > 0.5 && segment_distance(p, [9.0, 24.0], [14.0, -24.0]) < body)
            || (atrium > 0.5 && segment_distance(p, [20.0, -25.0], [25.0, -41.0]) < atrium)
            || (temporal > 0.5 && segment_distance(p, [31.0, -4.0], [33.0, -24.0]) < temporal)
            || (third > 0.4 && segment_distance(p, [0.0, 9.0], [0.0, -14.0]) < third);
        if ventricle {
            return Some(Tissue::Csf);
        }
        let s = self.nuclei;
        let shift = 1.5 * (wide - 1.0);
        let caudate = in_ellipsoid(
            [ax, y, h],
            [14.5 + 3.0 * shift, 19.0, 7.0],
            [6.2 * s, 10.5 * s, 15.0],
        ) || in_ellipsoid([ax, y, h], [19.0 + 3.0 * shift, -2.0, 23.0], [4.5 * s, 17.0, 7.0]);
        let (px, py) = rotated(ax - 27.0, y - 3.0, [0.966, 0.259]);
        let putamen = in_ellipsoid([px, py, h], [0.0, 0.0, 3.0], [6.4 * s, 18.0 * s, 14.0]);
        if caudate || putamen {
            return Some(Tissue::Striatum);
        }
        let (tx, ty) = rotated(ax - 11.0 - shift, y + 14.0, [0.94, -0.342]);
        in_ellipsoid([tx, ty, h], [0.0, 0.0, 6.0], [8.6 * s, 14.5 * s, 12.0]).then_some(Tissue::Thalamus)
    }

    /// Distance to the lateral fissure with the insula at its floor; far away where there is none.
    fn sylvian_distance(&self, x: f32, y: f32, h: f32) -> f32 {
        let open = bulge(h, -20.0, 28.0);
        if open <= 0.0 {
            return f32::MAX;
        }
        let ax = x.abs() + 1.5 * self.noise.at(x / 14.0, y / 14.0, h / 20.0 + 7.0);
        let y = y - self.sylvian_y - 0.3 * h;
        let floor = 39.0 + 14.0 * (1.0 - open);
        let cleft = segment_distance([ax, y], [75.0, -9.0], [floor, 2.0]);
        let insula = segment_distance([ax, y], [floor, 17.0 * open], [floor + 1.0, -15.0 * open]);
        cleft.min(insula)
    }

    /// Orbits, sinuses, glands and skull base: what fills a low section beside the brain.
    fn face(&self, x: f32, y: f32, h: f32, inside: f32, depth: f32, wobble: f32) -> Tissue {
        let ax = x.abs();
        let p = [ax, y, h];
        if depth > -2.0 {
            return Tissue::Csf;
        }
        if in_ellipsoid(p, [34.0, 62.0, -33.0], [13.0, 13.0, 12.0]) {
            return Tissue::Csf;
        }
        if in_ellipsoid(p, [44.0, 62.0, -24.0], [5.0, 8.0, 8.0]) {
            return Tissue::Lacrimal;
        }
        if in_ellipsoid(p, [58.0, 2.0, -50.0], [10.0, 18.0, 20.0]) {
            return Tissue::Parotid;
        }
        if in_ellipsoid(p, [29.0, 56.0, -33.0], [21.0, 26.0, 15.0]) {
            return if ax > 27.0 && ax < 32.0 {
                Tissue::Muscle
            } else {
                Tissue::Fat
            };
        }
        let nose = ellipsoid_depth([x, y - 58.0, h + 44.0], [20.0, 26.0, 24.0]);
        if nose > 0.0 {
            return if nose < 3.0 || ax < 2.0 || (wobble > 0.1 && ax < 12.0) {
                Tissue::Mucosa
            } else {
                Tissue::Air
            };
        }
        if in_ellipsoid(p, [53.0, -24.0, -30.0], [14.0, 10.0, 12.0]) {
            return if wobble > 0.25 { Tissue::Air } else { Tissue::Bone };
        }
        if depth > -5.5 || inside < 2.0 {
            return Tissue::Bone;
        }
        match wobble {
            w if w > 0.45 => Tissue::Fat,
            w if w < -0.55 => Tissue::Marrow,
            _ => Tissue::Muscle,
        }
    }
}

/// Depth inside the hull of the cerebrum: one vaulted ellipsoid, its base drawn forward, and two temporal lobes.
fn cerebrum_depth(xe: f32, x: f32, y: f32, h: f32) -> f32 {
    if h > 10.0 {
        return ellipsoid_depth([xe, y, h - 10.0], [67.5, 85.5, 63.5]);
    }
    let low = 10.0 - h;
    let vault = ellipsoid_depth([xe, y - 34.0 * (low / 40.0).powi(2), low], [67.5, 85.5, 43.0]);
    let temporal = ellipsoid_depth([x.abs() - 44.0, y - 6.0, h + 18.0], [20.0, 36.0, 25.0]);
    vault.max(temporal)
}
