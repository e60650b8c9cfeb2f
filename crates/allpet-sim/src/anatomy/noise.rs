//! Smooth three-dimensional value noise: random values on an integer lattice, interpolated by the quintic
//! `t³(t(6t - 15) + 10)` (K. Perlin, "Improving noise", SIGGRAPH 2002), so that slices of one subject cohere.

use super::shape::floor;

/// A field of smooth noise; the same key is always the same field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Noise {
    key: u32,
}

impl Noise {
    /// The field of a key.
    pub(crate) fn new(key: u32) -> Self {
        Self { key }
    }

    /// Another, independent field of the same owner.
    pub(crate) fn sibling(self, number: u32) -> Self {
        Self {
            key: mix(self.key ^ number.wrapping_mul(0x9e37_79b9)),
        }
    }

    /// Value in [-1, 1] at a point in lattice units.
    pub(crate) fn at(self, x: f32, y: f32, z: f32) -> f32 {
        // An oblique lattice (the rotation with rows (1,2,2)/3, (2,1,-2)/3, (-2,2,-1)/3): sections cut it at an angle,
        // so that its rows and columns do not show.
        const THIRD: f32 = 1.0 / 3.0;
        let (x, y, z) = (
            (x + 2.0 * y + 2.0 * z) * THIRD,
            (2.0 * x + y - 2.0 * z) * THIRD,
            (2.0 * y - 2.0 * x - z) * THIRD,
        );
        let (ix, fx) = split(x);
        let (iy, fy) = split(y);
        let (iz, fz) = split(z);
        let mut planes = [0.0f32; 2];
        for (dz, plane) in planes.iter_mut().enumerate() {
            let kz = self
                .key
                .wrapping_add((iz.wrapping_add(dz as i32) as u32).wrapping_mul(0x85eb_ca6b));
            let mut lines = [0.0f32; 2];
            for (dy, line) in lines.iter_mut().enumerate() {
                let ky = kz.wrapping_add((iy.wrapping_add(dy as i32) as u32).wrapping_mul(0xc2b2_ae35));
                let a = unit(ky.wrapping_add((ix as u32).wrapping_mul(0x27d4_eb2f)));
                let b = unit(ky.wrapping_add((ix.wrapping_add(1) as u32).wrapping_mul(0x27d4_eb2f)));
                *line = a + fx * (b - a);
            }
            *plane = lines[0] + fy * (lines[1] - lines[0]);
        }
        planes[0] + fz * (planes[1] - planes[0])
    }
}

fn split(v: f32) -> (i32, f32) {
    let whole = floor(v);
    let t = v - whole as f32;
    (whole, t * t * t * (t * (t * 6.0 - 15.0) + 10.0))
}

/// Finaliser of MurmurHash3: every input bit reaches every output bit.
fn mix(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

fn unit(h: u32) -> f32 {
    mix(h) as f32 * (2.0 / u32::MAX as f32) - 1.0
}
