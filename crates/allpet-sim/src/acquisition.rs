//! From activity and attenuation to counts: `ȳ = N·exp(-∫μ)·P(G∗x)·k + r + s`, Poisson last.
//!
//! `N` detector efficiency, `G` resolution, `k` calibration (counts per kBq/mL·mm), `r` randoms, `s` scatter.
//! (Leahy & Qi, "Statistical approaches in quantitative positron emission tomography", Stat. Comput. 10, 2000, §2.)

use crate::error::{Error, Result};
use crate::footprint::project_pair;
use crate::positivity::non_negative;
use crate::raster::Rendering;
use allpet_core::{ParallelGeometry, Stream};
use ndarray::{Array2, Zip};
use rand::Rng;
use rand_distr::{Distribution, Poisson};
use std::f64::consts::TAU;

/// Radial bins are simulated this many times finer than they are read out.
pub const SUB_BINS: usize = 4;

/// Settings of one acquisition.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Acquisition {
    /// Expected prompts of the slice.
    pub counts: f64,
    /// Full width at half maximum of the resolution in mm; 0 for none.
    pub psf_fwhm_mm: f64,
    /// Mean positron range in mm; 0 for none. Along a line of response it is a two-sided exponential of half the range,
    /// the mean of `|r·cosθ|` over directions.
    pub positron_range_mm: f64,
    /// Scatter as a fraction of trues and scatter.
    pub scatter_fraction: f64,
    /// Width of the scatter's radial Gaussian in mm (full width at half maximum).
    pub scatter_fwhm_mm: f64,
    /// Randoms as a fraction of prompts.
    pub randoms_fraction: f64,
    /// Amplitude and phases of the smooth radial and angular ripple of detector efficiency.
    pub efficiency: [f64; 3],
    /// Largest factor by which the correction raises a bin: beyond it a bin holds noise only (0.096 cm⁻¹ × 48 cm).
    pub max_correction: f64,
}

impl Acquisition {
    /// A standard acquisition without noise sources of its own: 10⁶ counts, 4.5 mm, no scatter, no randoms, `N = 1`.
    pub fn ideal() -> Self {
        Self {
            counts: 1e6,
            psf_fwhm_mm: 4.5,
            positron_range_mm: 0.0,
            scatter_fraction: 0.0,
            scatter_fwhm_mm: 150.0,
            randoms_fraction: 0.0,
            efficiency: [0.0; 3],
            max_correction: 100.0,
        }
    }

    /// A clinical acquisition: `counts` × [0.5, 2] (log-uniform), scatter fraction 0.29-0.42, randoms 0.12-0.3.
    pub fn draw(rng: &mut Stream, counts: f64) -> Self {
        Self {
            counts: counts * 4f64.powf(rng.random_range(-0.5..0.5)),
            scatter_fraction: rng.random_range(0.29..0.42),
            scatter_fwhm_mm: rng.random_range(100.0..200.0),
            randoms_fraction: rng.random_range(0.12..0.30),
            efficiency: [0.06, rng.random_range(0.0..TAU), rng.random_range(0.0..TAU)],
            ..Self::ideal()
        }
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if !(self.counts.is_finite() && self.counts > 0.0) {
            faults.push(format!("{} counts; expected a positive number", self.counts));
        }
        if !(self.psf_fwhm_mm.is_finite() && self.psf_fwhm_mm >= 0.0) {
            faults.push(format!(
                "resolution of {} mm; expected 0 or more",
                self.psf_fwhm_mm
            ));
        }
        if !(self.positron_range_mm.is_finite() && self.positron_range_mm >= 0.0) {
            faults.push(format!(
                "positron range of {} mm; expected 0 or more",
                self.positron_range_mm
            ));
        }
        for (name, value) in [
            ("scatter", self.scatter_fraction),
            ("randoms", self.randoms_fraction),
        ] {
            if !(0.0..1.0).contains(&value) {
                faults.push(format!(
                    "{name} fraction of {value}; expected at least 0 and less than 1"
                ));
            }
        }
        if !(self.scatter_fwhm_mm.is_finite() && self.scatter_fwhm_mm > 0.0) {
            faults.push(format!(
                "scatter width of {} mm; expected a positive length",
                self.scatter_fwhm_mm
            ));
        }
        if !(self.efficiency.iter().all(|v| v.is_finite()) && (0.0..0.5).contains(&self.efficiency[0])) {
            faults.push(format!(
                "efficiency ripple {:?}; expected an amplitude in 0..0.5",
                self.efficiency
            ));
        }
        if !(self.max_correction.is_finite() && self.max_correction >= 1.0) {
            faults.push(format!(
                "largest correction of {}; expected 1 or more",
                self.max_correction
            ));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "acquisition",
                faults,
            })
        }
    }

    /// Measures a rendered section; without a stream the expectation itself is the measurement.
    ///
    /// # Errors
    /// Settings or geometry outside their range; a section without activity in the field of view.
    pub fn measure(
        &self,
        rendering: &Rendering,
        geometry: ParallelGeometry,
        noise: Option<&mut Stream>,
    ) -> Result<Measurement> {
        self.validate()?;
        let [mut activity, depth] = fine_projections(rendering, geometry)?;
        blur_rows(
            &mut activity,
            self.psf_fwhm_mm * SUB_BINS as f64 / geometry.bin_mm,
        );
        spread_rows(
            &mut activity,
            0.5 * self.positron_range_mm * SUB_BINS as f64 / geometry.bin_mm,
        );
        // Attenuation acts on each fine line; averaging comes after.
        let attenuated = bin_means(
            &Zip::from(&activity)
                .and(&depth)
                .map_collect(|&a, &d| a * (-d).exp()),
        );
        let path = bin_means(&depth);
        let efficiency = Array2::from_shape_fn(geometry.shape(), |(view, bin)| {
            let [amplitude, radial, angular] = self.efficiency;
            let ripple = (TAU * 3.0 * bin as f64 / geometry.bins as f64 + radial).cos()
                + 0.5 * (2.0 * geometry.angle(view) + angular).cos();
            (1.0 + amplitude * ripple) as f32
        });
        let trues = &attenuated * &efficiency;
        let mut scatter = attenuated;
        blur_rows(&mut scatter, self.scatter_fwhm_mm / geometry.bin_mm);
        let scatter = scatter * &efficiency;
        let sum = |a: &Array2<f32>| a.iter().map(|&v| f64::from(v)).sum::<f64>();
        let (true_sum, scatter_sum, flat_sum) = (sum(&trues), sum(&scatter), sum(&efficiency));
        if true_sum <= 0.0 || flat_sum <= 0.0 {
            let faults = vec!["no activity in the field of view; expected some".to_owned()];
            return Err(Error::Invalid {
                what: "section to measure",
                faults,
            });
        }
        let own = self.counts * (1.0 - self.randoms_fraction);
        let calibration = own * (1.0 - self.scatter_fraction) / true_sum;
        let scatter = scatter * ((own * self.scatter_fraction / scatter_sum) as f32);
        let randoms = &efficiency * ((self.counts * self.randoms_fraction / flat_sum) as f32);
        let trues = trues * (calibration as f32);
        let expectation = &trues + &scatter + &randoms;
        let prompts = match noise {
            Some(rng) => expectation.mapv(|mean| poisson(f64::from(mean), rng)),
            None => expectation.clone(),
        };
        let floor = (1.0 / self.max_correction) as f32;
        let factor = Zip::from(&path)
            .and(&efficiency)
            .map_collect(|&d, &n| n * (-d).exp().max(floor));
        Ok(Measurement {
            prompts,
            expectation,
            randoms,
            scatter,
            factor,
            efficiency,
            path,
            calibration,
        })
    }
}

/// What a slice's acquisition gave; every array is `[views, bins]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Counts measured.
    pub prompts: Array2<f32>,
    /// Their expectation `ȳ`.
    pub expectation: Array2<f32>,
    /// Expected randoms.
    pub randoms: Array2<f32>,
    /// Expected scatter.
    pub scatter: Array2<f32>,
    /// Efficiency × attenuation factor, the latter no smaller than `1 / max_correction`.
    pub factor: Array2<f32>,
    /// Detector efficiency `N`.
    pub efficiency: Array2<f32>,
    /// Attenuation line integrals `∫μ` (no unit).
    pub path: Array2<f32>,
    /// Counts per kBq/mL·mm.
    pub calibration: f64,
}

impl Measurement {
    /// The precorrected sinogram `(y - r - s) / (N·a·k)` in kBq/mL·mm, not below 0.
    ///
    /// Lines that miss the attenuating body hold no activity and are set to 0; elsewhere the noise stays.
    pub fn precorrected(&self) -> Array2<f32> {
        let mut out = &self.prompts - &self.randoms - &self.scatter;
        let k = self.calibration as f32;
        Zip::from(&mut out)
            .and(&self.factor)
            .and(&self.path)
            .for_each(|value, &factor, &path| {
                *value = if path > 0.0 {
                    (*value / (factor * k)).max(0.0)
                } else {
                    0.0
                };
            });
        out
    }

    /// The corrected sinogram `(y - r - s) / (N·a·k)` in kBq/mL·mm, or `(y - r - s) / (N·k)` with attenuation left in.
    ///
    /// Lines that miss the attenuating body are set to 0 only where attenuation is known, that is corrected. Values
    /// below 0 go as [`non_negative`] says: the trues' total stays, and so does the mean of a neighbourhood, which
    /// cutting off at 0 would raise by more than half where a bin holds one count or less.
    pub fn corrected(&self, attenuation: bool) -> Array2<f32> {
        let mut trues = &self.prompts - &self.randoms - &self.scatter;
        if attenuation {
            Zip::from(&mut trues).and(&self.path).for_each(|value, &path| {
                if path <= 0.0 {
                    *value = 0.0;
                }
            });
        }
        let factor = if attenuation {
            &self.factor
        } else {
            &self.efficiency
        };
        non_negative(trues) / factor / self.calibration as f32
    }

    /// The expectation at another count level: trues and scatter times `activity`, randoms times `randoms`.
    pub fn scaled(&self, activity: f64, randoms: f64) -> Self {
        let expectation = &self.expectation * activity as f32 + &self.randoms * (randoms - activity) as f32;
        Self {
            prompts: expectation.clone(),
            expectation,
            randoms: &self.randoms * randoms as f32,
            scatter: &self.scatter * activity as f32,
            factor: self.factor.clone(),
            efficiency: self.efficiency.clone(),
            path: self.path.clone(),
            calibration: self.calibration * activity,
        }
    }

    /// Another realisation: every bin Poisson about its expectation; without a stream, the expectation itself.
    pub fn drawn(&self, noise: Option<&mut Stream>) -> Self {
        let prompts = match noise {
            Some(rng) => self.expectation.mapv(|mean| poisson(f64::from(mean), rng)),
            None => self.expectation.clone(),
        };
        Self {
            prompts,
            ..self.clone()
        }
    }

    /// Two tracers measured at once by the same scanner in the same body: counts and expectations add.
    ///
    /// Efficiency, attenuation and calibration are those of `self`.
    pub fn with(&self, other: &Self) -> Self {
        Self {
            prompts: &self.prompts + &other.prompts,
            expectation: &self.expectation + &other.expectation,
            randoms: &self.randoms + &other.randoms,
            scatter: &self.scatter + &other.scatter,
            ..self.clone()
        }
    }

    /// Prompts measured, all bins together.
    pub fn total(&self) -> f64 {
        self.prompts.iter().map(|&v| f64::from(v)).sum()
    }
}

/// Attenuation line integrals by transmission: `ln(I₀ / Poisson(I₀·exp(-∫μ)))` with `blank` photons per bin; without a
/// stream, the exact ones.
pub fn measure_transmission(
    rendering: &Rendering,
    geometry: ParallelGeometry,
    blank: f64,
    noise: Option<&mut Stream>,
) -> Result<Array2<f32>> {
    let [_, depth] = fine_projections(rendering, geometry)?;
    let passed = bin_means(&depth.mapv(|d| (-d).exp()));
    Ok(match noise {
        Some(rng) => passed.mapv(|p| {
            if p >= 1.0 {
                return 0.0;
            }
            let seen = f64::from(poisson(blank * f64::from(p), rng)).max(0.5);
            ((blank / seen).ln() as f32).max(0.0)
        }),
        None => passed.mapv(|p| (-p.ln()).max(0.0)),
    })
}

/// Activity and attenuation projected onto bins [`SUB_BINS`] times finer than the geometry's.
fn fine_projections(rendering: &Rendering, geometry: ParallelGeometry) -> Result<[Array2<f32>; 2]> {
    geometry.validate()?;
    rendering.grid.validate()?;
    let fine = ParallelGeometry {
        bins: geometry.bins * SUB_BINS,
        bin_mm: geometry.bin_mm / SUB_BINS as f64,
        offset_bins: geometry.offset_bins * SUB_BINS as f64,
        ..geometry
    };
    Ok(project_pair(
        &rendering.activity,
        &rendering.attenuation,
        rendering.grid,
        fine,
    ))
}

fn bin_means(fine: &Array2<f32>) -> Array2<f32> {
    let (views, bins) = (fine.nrows(), fine.ncols() / SUB_BINS);
    Array2::from_shape_fn((views, bins), |(view, bin)| {
        (0..SUB_BINS)
            .map(|i| fine[[view, bin * SUB_BINS + i]])
            .sum::<f32>()
            / SUB_BINS as f32
    })
}

/// Gaussian blur along each row, `fwhm` in bins, zero beyond the ends.
pub(crate) fn blur_rows(rows: &mut Array2<f32>, fwhm: f64) {
    let sigma = fwhm / (8.0 * 2f64.ln()).sqrt();
    let reach = ((4.0 * sigma).ceil() as usize).min(rows.ncols());
    if reach == 0 {
        return;
    }
    let half: Vec<f64> = (0..=reach)
        .map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp())
        .collect();
    convolve_rows(rows, &half);
}

/// Convolution with an even kernel, of which the half from the middle on is given; its sum is made 1.
fn convolve_rows(rows: &mut Array2<f32>, half: &[f64]) {
    let reach = half.len() - 1;
    let total = half[0] + 2.0 * half[1..].iter().sum::<f64>();
    let kernel: Vec<f32> = (0..=2 * reach)
        .map(|i| (half[i.abs_diff(reach)] / total) as f32)
        .collect();
    let mut padded = vec![0.0f32; rows.ncols() + 2 * reach];
    for mut row in rows.rows_mut() {
        for (target, source) in padded[reach..].iter_mut().zip(&row) {
            *target = *source;
        }
        for (i, value) in row.iter_mut().enumerate() {
            *value = padded[i..].iter().zip(&kernel).map(|(a, b)| a * b).sum();
        }
    }
}

/// Convolution of each row with `exp(-|s|/length)/(2·length)` integrated over bins, `length` in bins, zero beyond the
/// ends.
fn spread_rows(rows: &mut Array2<f32>, length: f64) {
    if length <= 0.0 {
        return;
    }
    let reach = ((16.0 * length).ceil() as usize).min(rows.ncols());
    let weight = |i: usize| match i {
        0 => -(-0.5 / length).exp_m1(),
        _ => 0.5 * (-(i as f64 - 0.5) / length).exp() * -(-1.0 / length).exp_m1(),
    };
    convolve_rows(rows, &(0..=reach).map(weight).collect::<Vec<_>>());
}

fn poisson(mean: f64, rng: &mut Stream) -> f32 {
    // A mean of zero or less has no counts; the distribution takes every other finite mean.
    Poisson::new(mean).map_or(0.0, |distribution| distribution.sample(rng) as f32)
}
