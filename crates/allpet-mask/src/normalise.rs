//! Normalisation of a projected mask to [0, 1]: ALL-PET eqs. 4 and 5.

use allpet_core::Error;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How `M^s` becomes `M̂^s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalisation {
    /// Eq. 4: `M̂ = M / max M`, the maximum over the whole sinogram.
    ///
    /// The paper leaves an empty mask (maximum 0) undefined; here it stays 0.
    #[default]
    Linear,
    /// Eq. 5: `M̂ = clip(M, 0, 1)` on chords in pixels.
    ///
    /// A chord of one pixel already clips, so a block of `n × n` pixels is 1 on all but `1/(2n)` of its support
    /// (99.2 % at n = 64) and eq. 6 no longer holds afterwards: the sum of clipped masks is not the clipped sum.
    Clip,
}

impl Normalisation {
    /// Normalises a projected mask in place, any shape, chords in pixels.
    pub fn apply(self, mask: &mut [f32]) {
        let peak = if self == Self::Linear { peak(mask) } else { 1.0 };
        self.scale(mask, peak);
    }

    /// Normalises a part of a mask whose greatest value is `peak`.
    pub(crate) fn scale(self, mask: &mut [f32], peak: f32) {
        match self {
            Self::Linear => {
                if peak > 0.0 {
                    // A division, not a product with 1/peak: the peak itself becomes exactly 1.
                    mask.iter_mut().for_each(|v| *v /= peak);
                }
            }
            Self::Clip => mask.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0)),
        }
    }
}

/// The greatest value, at least 0; in sixteen lanes, since a maximum does not depend on the order.
pub(crate) fn peak(mask: &[f32]) -> f32 {
    let mut lanes = [0.0_f32; 16];
    let (blocks, rest) = mask.as_chunks::<16>();
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(0.0, f32::max)
}

impl fmt::Display for Normalisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linear => "linear",
            Self::Clip => "clip",
        })
    }
}

impl FromStr for Normalisation {
    type Err = crate::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "linear" => Ok(Self::Linear),
            "clip" => Ok(Self::Clip),
            _ => Err(Error::UnknownWord {
                what: "normalisation",
                word: text.to_owned(),
                known: "linear, clip".to_owned(),
            }
            .into()),
        }
    }
}
