//! Reconstruction filters: the band-limited ramp and its windows.
//!
//! The ramp is built in space, `h[0] = 1/(4τ²)`, `h[odd n] = -1/(π²n²τ²)`, else 0 (G. N. Ramachandran, A. V.
//! Lakshminarayanan 1971; Kak & Slaney 1988, eq. 3.61), and transformed: sampling |f| directly would lose the zero
//! frequency and bias the image. Windows act in frequency and end at the cut-off.

use crate::error::{Error, Result};
use realfft::RealFftPlanner;
use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

/// Window on the ramp; `x` is the frequency as a fraction of the cut-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Filter {
    /// No window (Ram-Lak).
    #[default]
    Ramp,
    /// `sinc(x/2)`.
    SheppLogan,
    /// `cos(πx/2)`.
    Cosine,
    /// `0.54 + 0.46 cos(πx)`.
    Hamming,
    /// `(1 + cos(πx))/2`.
    Hann,
}

impl Filter {
    /// Every filter.
    pub const ALL: [Self; 5] = [
        Self::Ramp,
        Self::SheppLogan,
        Self::Cosine,
        Self::Hamming,
        Self::Hann,
    ];

    /// The name on the command line and in files.
    pub fn id(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::SheppLogan => "shepp-logan",
            Self::Cosine => "cosine",
            Self::Hamming => "hamming",
            Self::Hann => "hann",
        }
    }

    fn window(self, x: f64) -> f64 {
        match self {
            Self::Ramp => 1.0,
            Self::SheppLogan if x == 0.0 => 1.0,
            Self::SheppLogan => (PI * x / 2.0).sin() / (PI * x / 2.0),
            Self::Cosine => (PI * x / 2.0).cos(),
            Self::Hamming => 0.54 + 0.46 * (PI * x).cos(),
            Self::Hann => 0.5 + 0.5 * (PI * x).cos(),
        }
    }

    /// The filter's response at the `length/2 + 1` frequencies of a real transform of even `length`, in 1/mm.
    pub(crate) fn response(self, length: usize, bin_mm: f64, cutoff: f64) -> Result<Vec<f64>> {
        let mut kernel = vec![0.0f64; length];
        kernel[0] = 1.0 / (4.0 * bin_mm);
        for n in (1..=length / 2).step_by(2) {
            let value = -1.0 / (PI * PI * (n * n) as f64 * bin_mm);
            kernel[n] = value;
            kernel[length - n] = value;
        }
        let plan = RealFftPlanner::<f64>::new().plan_fft_forward(length);
        let mut spectrum = plan.make_output_vec();
        plan.process(&mut kernel, &mut spectrum)?;
        let nyquist = (length / 2) as f64;
        Ok(spectrum
            .iter()
            .enumerate()
            .map(|(k, value)| {
                let x = k as f64 / (nyquist * cutoff);
                if x <= 1.0 { value.re * self.window(x) } else { 0.0 }
            })
            .collect())
    }
}

#[cfg(any(test, feature = "cuda"))]
impl Filter {
    /// The same filter in space, of lag `-reach` to `reach` bins (`reach < length`/2), in 1/mm.
    pub(crate) fn taps(self, length: usize, bin_mm: f64, cutoff: f64, reach: usize) -> Result<Vec<f64>> {
        let response = self.response(length, bin_mm, cutoff)?;
        let mut spectrum: Vec<_> = response.iter().map(|h| (*h).into()).collect();
        let mut taps = vec![0.0; length];
        RealFftPlanner::<f64>::new()
            .plan_fft_inverse(length)
            .process(&mut spectrum, &mut taps)?;
        Ok((0..=2 * reach)
            .map(|k| taps[k.abs_diff(reach)] / length as f64)
            .collect())
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        let lower = word.trim().to_lowercase();
        Self::ALL
            .into_iter()
            .find(|filter| filter.id() == lower)
            .ok_or_else(|| Error::UnknownFilter {
                word: word.to_owned(),
                known: Self::ALL.map(Self::id).join(", "),
            })
    }
}
