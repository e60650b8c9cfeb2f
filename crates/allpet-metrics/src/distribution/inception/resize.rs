//! From pixels over the data range to the 299×299 input, in the two conventions of published figures.
//!
//! Both are bilinear without smoothing, also where they shrink. pytorch-fid takes pixel centres at half integers
//! (`F.interpolate(.., align_corners=False)`); torch-fidelity repeats TensorFlow 1, whose pixel `i` of the output
//! lies at `i·size/299` of the input, on images of 8 bits.

use super::network::SIDE;
use crate::error::Error;
use ndarray::ArrayView2;
use std::fmt;
use std::str::FromStr;

/// How an image becomes the input of the network. Figures differ by it, so it stands beside every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Resize {
    /// `pytorch-fid`: half-pixel bilinear on values in 0..=1, then `2x - 1`.
    #[default]
    PytorchFid,
    /// `torch-fidelity`: values rounded to 0..=255, bilinear of TensorFlow 1 without half-pixel centres, then
    /// `(x - 128)/128`.
    TorchFidelity,
}

impl Resize {
    /// Every convention.
    pub const ALL: [Self; 2] = [Self::PytorchFid, Self::TorchFidelity];

    /// The name that stands beside a figure: `pytorch-fid` or `torch-fidelity`.
    pub fn name(self) -> &'static str {
        match self {
            Self::PytorchFid => "pytorch-fid",
            Self::TorchFidelity => "torch-fidelity",
        }
    }

    /// The input of the network, `[299·299]`: pixels over the data range, clipped to 0..=1, resized and shifted.
    ///
    /// `image` has at least one row and one column.
    pub(super) fn apply(self, image: ArrayView2<'_, f32>, data_range: f64) -> Vec<f32> {
        let unit = |v: f32| (f64::from(v) / data_range).clamp(0.0, 1.0);
        match self {
            Self::PytorchFid => {
                let image = image.mapv(unit);
                let at = |i: usize, scale: f64| ((i as f64 + 0.5) * scale - 0.5).max(0.0);
                bilinear(image.view(), at, |v| 2.0 * v - 1.0)
            }
            Self::TorchFidelity => {
                let image = image.mapv(|v| (255.0 * unit(v) + 0.5).floor());
                bilinear(image.view(), |i, scale| i as f64 * scale, |v| (v - 128.0) / 128.0)
            }
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Resize {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self, Error> {
        let known = |r: &Self| r.name() == word;
        Self::ALL.into_iter().find(known).ok_or_else(|| {
            Error::Core(allpet_core::Error::UnknownWord {
                what: "resize convention",
                word: word.to_owned(),
                known: Self::ALL.map(Self::name).join(", "),
            })
        })
    }
}

/// The two pixels of the input around a pixel of the output, and the weight of the second.
struct Between {
    low: usize,
    high: usize,
    weight: f64,
}

fn places(length: usize, at: impl Fn(usize, f64) -> f64) -> Vec<Between> {
    let scale = length as f64 / SIDE as f64;
    (0..SIDE)
        .map(|i| {
            let at = at(i, scale);
            let low = (at as usize).min(length - 1);
            Between {
                low,
                high: (low + 1).min(length - 1),
                weight: at - low as f64,
            }
        })
        .collect()
}

fn bilinear(
    image: ArrayView2<'_, f64>,
    at: impl Fn(usize, f64) -> f64,
    finish: impl Fn(f64) -> f64,
) -> Vec<f32> {
    let (rows, columns) = (places(image.nrows(), &at), places(image.ncols(), &at));
    let mut out = Vec::with_capacity(SIDE * SIDE);
    for row in &rows {
        for column in &columns {
            let line = |i: usize| {
                let left = image[[i, column.low]];
                left + (image[[i, column.high]] - left) * column.weight
            };
            let above = line(row.low);
            out.push(finish(above + (line(row.high) - above) * row.weight) as f32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use ndarray::Array2;
    use serde_json::Value;

    #[test]
    fn both_resizes_are_those_of_the_programs_they_name() {
        let golden = include_str!("../../../tests/golden/inception.json");
        let golden: Value = serde_json::from_str(golden).unwrap();
        let range = golden["range"].as_f64().unwrap();
        for case in golden["resized"].as_array().unwrap() {
            let [rows, columns] = ["rows", "columns"].map(|side| case[side].as_u64().unwrap() as usize);
            // Image 2 of the script.
            let image = Array2::from_shape_fn((rows, columns), |(i, j)| {
                let k = (i * i + 4 * j + i * j / 5) % 97;
                (k as f64 / 96.0 * range) as f32
            });
            let off = |resize: Resize, theirs: &Value| {
                let theirs: Vec<f64> = serde_json::from_value(theirs.clone()).unwrap();
                let ours = resize.apply(image.view(), range);
                let ours: Vec<&f32> = ours.iter().step_by(1009).collect();
                assert_eq!(ours.len(), theirs.len());
                let gaps = ours.iter().zip(theirs).map(|(a, b)| (f64::from(**a) - b).abs());
                gaps.fold(0.0, f64::max)
            };
            for (ours, theirs, other) in [
                (Resize::PytorchFid, "pytorch_fid", "torch_fidelity"),
                (Resize::TorchFidelity, "torch_fidelity", "pytorch_fid"),
            ] {
                let gap = off(ours, &case[theirs]);
                assert!(gap < 5e-5, "{rows} x {columns}, {ours}: {gap:e}");
                // Control: the other convention.
                assert!(off(ours, &case[other]) > 1e-2);
            }
        }
    }
}
