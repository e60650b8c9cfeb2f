//! Comparison of ways to restore, on pairs whose truth is known: one harness for all of them.
//!
//! **Sinogram domain**: against `clean`, corrected from the expectation. **Image domain**: filtered back-projections (ramp
//! with a Hann window) of both, on pixels as wide as a bin. PSNR and SSIM (Wang) have the maximum of each reference as data range;
//! NMSE is `‖x - y‖²/‖y‖²`. **Contrast** of a lesion is its mean over that of the ring around it, less one, with the
//! reference's ring as the unit; its error is the absolute difference to the reference's.

use crate::error::{Error, Result};
use crate::heads::Downstream;
use allpet_core::{Dataset, ImageGrid, ParallelGeometry, Region, Tracer};
use allpet_metrics::image::{SsimConvention, nmse, psnr, rmse, ssim};
use allpet_metrics::{Accumulator, Bootstrap, Interval};
use allpet_radon::{Fbp, Filter};
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView4, Axis, Ix3, Ix4};
use serde::Serialize;

/// Pixels of a lesion below which its contrast is noise of the grid.
const LEAST_LESION: usize = 4;

/// Pixels around a lesion: the ring lies between these distances.
const RING: (usize, usize) = (2, 4);

/// Bins below this share of a sinogram's maximum are background, where an interval is not asked for.
const COVERED: f32 = 0.05;

/// Pairs with their truth, as a study sees them.
#[derive(Debug, Clone)]
pub struct Cases {
    /// The task.
    pub task: Downstream,
    /// Inputs `[n, view, radial]`, never negative.
    pub inputs: Array3<f32>,
    /// First estimates `[n, view, radial]` ([`crate::Head::first_estimate`]), made once for all ways that start from them.
    pub first_estimates: Array3<f32>,
    /// Truth `[n, outputs, view, radial]`: the array `clean`.
    pub truth: Array4<f32>,
    /// Tracer and region of the inputs.
    pub shown: Vec<(Option<Tracer>, Option<Region>)>,
    /// The geometry of both.
    pub geometry: ParallelGeometry,
    lesions: Option<Array3<f32>>,
    fbp: Fbp,
    reference: Array4<f32>,
}

/// One metric's value for every case and output in turn.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Scores {
    /// dB.
    pub psnr: Vec<f64>,
    /// Between -1 and 1.
    pub ssim: Vec<f64>,
    /// Squared error over squared reference.
    pub nmse: Vec<f64>,
    /// In the unit of the data.
    pub rmse: Vec<f64>,
}

/// What one way to restore scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The way.
    pub name: String,
    /// Sinogram domain.
    pub sinogram: Scores,
    /// Image domain.
    pub image: Scores,
    /// Error of the contrast of every lesion large enough to be measured.
    pub contrast: Vec<f64>,
    /// Fraction of the truth inside the predicted 90 % interval, where there is a prediction.
    pub coverage: Option<f64>,
    /// Seconds for all cases.
    pub seconds: f64,
}

impl Cases {
    /// From a dataset of a paired task with its truth.
    ///
    /// # Errors
    /// Data of no paired task, or without `input`, `clean` or a geometry.
    pub fn new(data: &Dataset) -> Result<Self> {
        data.validate()?;
        let task = Downstream::of(data)?;
        let geometry = data.geometry.ok_or_else(|| Error::Mismatch {
            what: "dataset".into(),
            expected: "the geometry of its sinograms".into(),
            got: "none".into(),
        })?;
        let shape = |name: &str, got: &[usize]| Error::Mismatch {
            what: format!("array `{name}`"),
            expected: format!("{} output(s) of {:?} a sample", task.outputs(), geometry.shape()),
            got: format!("shape {got:?}"),
        };
        let inputs = data.array("input")?;
        let inputs = inputs
            .view()
            .into_dimensionality::<Ix3>()
            .map_err(|_| shape("input", inputs.shape()))?;
        let clean = data.array("clean")?;
        let truth = if clean.ndim() == 3 {
            clean.view().insert_axis(Axis(1))
        } else {
            clean.view()
        };
        let truth = truth
            .into_dimensionality::<Ix4>()
            .map_err(|_| shape("clean", clean.shape()))?
            .to_owned();
        if truth.shape()[1..] != [task.outputs(), geometry.views, geometry.bins] {
            return Err(shape("clean", clean.shape()));
        }
        let grid = ImageGrid::square(geometry.bins, geometry.bin_mm)?;
        let fbp = Fbp::new(grid, geometry, Filter::Hann, 1.0)?;
        let reference = images(&fbp, truth.view())?;
        let lesions = data.arrays.get("lesion_mask").and_then(|mask| {
            let mask = mask.view().into_dimensionality::<Ix3>().ok()?;
            (mask.shape()[1..] == [geometry.bins, geometry.bins]).then(|| mask.to_owned())
        });
        // A separation's prompts leave the tracer open, a conversion's name the output's.
        let shown = data
            .prompts
            .iter()
            .map(|p| (p.tracer, p.region))
            .collect::<Vec<_>>();
        let inputs = inputs.mapv(|v| v.max(0.0));
        Ok(Self {
            first_estimates: task.head().first_estimate(inputs.view(), &geometry)?,
            task,
            inputs,
            truth,
            shown: if shown.is_empty() {
                vec![(None, None)]
            } else {
                shown
            },
            geometry,
            lesions,
            fbp,
            reference,
        })
    }

    /// Number of cases.
    pub fn len(&self) -> usize {
        self.inputs.len_of(Axis(0))
    }

    /// True when there is no case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The inputs as they would be taken for outputs: brought to their unit, once for every output.
    pub fn unrestored(&self) -> Array4<f32> {
        let gain = self.task.head().gain() as f32;
        self.for_outputs(&self.inputs, gain)
    }

    /// The first estimates as they would be taken for outputs, once for every output.
    pub fn estimated(&self) -> Array4<f32> {
        self.for_outputs(&self.first_estimates, 1.0)
    }

    fn for_outputs(&self, stack: &Array3<f32>, gain: f32) -> Array4<f32> {
        let mut out = Array4::zeros(self.truth.dim());
        for (mut outputs, input) in out.outer_iter_mut().zip(stack.outer_iter()) {
            for mut output in outputs.outer_iter_mut() {
                output.assign(&input.mapv(|v| v * gain));
            }
        }
        out
    }

    /// Reconstructions of sinograms `[n, outputs, view, radial]`, as the study compares them.
    ///
    /// # Errors
    /// Sinograms of another geometry.
    pub fn images(&self, sinograms: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
        images(&self.fbp, sinograms)
    }

    /// Reconstructions of the truth.
    pub fn reference(&self) -> ArrayView4<'_, f32> {
        self.reference.view()
    }

    /// Scores restored sinograms `[n, outputs, view, radial]`; `sd` is their predicted standard deviation, of `samples` samples.
    ///
    /// # Errors
    /// Another shape than the truth's; values that are not finite.
    pub fn score(
        &self,
        name: &str,
        restored: ArrayView4<'_, f32>,
        uncertainty: Option<(ArrayView4<'_, f32>, usize)>,
        seconds: f64,
    ) -> Result<Row> {
        if restored.dim() != self.truth.dim() {
            return Err(Error::Mismatch {
                what: format!("restored sinograms of {name}"),
                expected: format!("{:?}, the shape of the truth", self.truth.shape()),
                got: format!("{:?}", restored.shape()),
            });
        }
        if let Some((sd, _)) = uncertainty
            && sd.dim() != self.truth.dim()
        {
            return Err(Error::Mismatch {
                what: format!("standard deviations of {name}"),
                expected: format!("{:?}, the shape of the truth", self.truth.shape()),
                got: format!("{:?}", sd.shape()),
            });
        }
        let images = self.images(restored)?;
        Ok(Row {
            name: name.to_owned(),
            sinogram: scores(restored, self.truth.view())?,
            image: scores(images.view(), self.reference.view())?,
            contrast: self.contrast_errors(images.view()),
            coverage: uncertainty.map(|(sd, samples)| self.coverage(restored, sd, samples)),
            seconds,
        })
    }

    /// Errors of the lesions' contrasts.
    fn contrast_errors(&self, images: ArrayView4<'_, f32>) -> Vec<f64> {
        let Some(lesions) = &self.lesions else {
            return Vec::new();
        };
        let mut errors = Vec::new();
        for ((labels, images), references) in lesions
            .outer_iter()
            .zip(images.outer_iter())
            .zip(self.reference.outer_iter())
        {
            let most = labels.iter().fold(0f32, |a, b| a.max(*b)) as usize;
            for lesion in 1..=most {
                let (inside, ring) = regions(labels, lesion);
                if inside.iter().filter(|v| **v).count() < LEAST_LESION || !ring.iter().any(|v| *v) {
                    continue;
                }
                for (image, reference) in images.outer_iter().zip(references.outer_iter()) {
                    let unit = mean(reference, &ring);
                    if unit > 0.0 {
                        let contrast =
                            |image: ArrayView2<'_, f32>| (mean(image, &inside) - mean(image, &ring)) / unit;
                        errors.push((contrast(image) - contrast(reference)).abs());
                    }
                }
            }
        }
        errors
    }

    /// Share of the truth within the 90 % prediction interval that `n` samples of a normal distribution give:
    /// `mean ± t·sd·√(1 + 1/n)`, `t` Student's with `n - 1` degrees of freedom.
    fn coverage(&self, mean: ArrayView4<'_, f32>, sd: ArrayView4<'_, f32>, samples: usize) -> f64 {
        let width = student_95(samples.saturating_sub(1)) * (1.0 + 1.0 / samples.max(1) as f64).sqrt();
        let (mut inside, mut all) = (0usize, 0usize);
        for ((truth, mean), sd) in self
            .truth
            .outer_iter()
            .zip(mean.outer_iter())
            .zip(sd.outer_iter())
        {
            let most = truth.iter().fold(0f32, |a, b| a.max(*b));
            for ((truth, mean), sd) in truth.iter().zip(mean.iter()).zip(sd.iter()) {
                if *truth > COVERED * most {
                    all += 1;
                    inside += usize::from(f64::from((truth - mean).abs()) <= width * f64::from(*sd));
                }
            }
        }
        inside as f64 / all.max(1) as f64
    }
}

/// Mean over the cases, spread, and the difference to another row with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cell {
    /// Mean.
    pub mean: f64,
    /// Standard deviation over the cases.
    pub sd: f64,
    /// Mean of the paired difference to the row compared with.
    pub difference: f64,
    /// Ends of its 95 % bootstrap interval.
    pub interval: [f64; 2],
}

/// Values of a row beside those of the row it is compared with.
///
/// # Errors
/// No values, or of another number.
pub fn cell(values: &[f64], beside: &[f64], seed: u64) -> Result<Cell> {
    if values.len() != beside.len() || values.is_empty() {
        return Err(Error::Mismatch {
            what: "values to compare".into(),
            expected: format!("{} of both, at least 1", beside.len()),
            got: format!("{}", values.len()),
        });
    }
    let summary = |values: Vec<f64>, bootstrap: Option<Bootstrap>| {
        let mut all = Accumulator::new();
        all.update(values)?;
        all.compute(bootstrap)
    };
    let own = summary(values.to_vec(), None)?;
    let paired: Vec<f64> = values.iter().zip(beside).map(|(a, b)| a - b).collect();
    let difference = summary(paired, Some(Bootstrap::new(seed)))?;
    let Interval { low, high, .. } = difference.interval.unwrap_or(Interval {
        low: 0.0,
        high: 0.0,
        level: 0.95,
    });
    Ok(Cell {
        mean: own.mean.unwrap_or(0.0),
        sd: own.sd.unwrap_or(0.0),
        difference: difference.mean.unwrap_or(0.0),
        interval: [low, high],
    })
}

/// The 0.95 quantile of Student's t, by its expansion about the normal one (Abramowitz & Stegun 26.7.5): to 0.3 % from two
/// degrees of freedom on, to 5 % for one.
fn student_95(freedom: usize) -> f64 {
    const NORMAL: f64 = 1.644_853_626_951_472_7;
    let (z, z2, n) = (NORMAL, NORMAL * NORMAL, freedom.max(1) as f64);
    let terms = [
        (z2 + 1.0) / 4.0,
        ((5.0 * z2 + 16.0) * z2 + 3.0) / 96.0,
        (((3.0 * z2 + 19.0) * z2 + 17.0) * z2 - 15.0) / 384.0,
        ((((79.0 * z2 + 776.0) * z2 + 1482.0) * z2 - 1920.0) * z2 - 945.0) / 92160.0,
    ];
    z + z * terms.iter().rev().fold(0.0, |sum, term| (sum + term) / n)
}

fn scores(restored: ArrayView4<'_, f32>, truth: ArrayView4<'_, f32>) -> Result<Scores> {
    let mut scores = Scores::default();
    for (restored, truth) in restored.outer_iter().zip(truth.outer_iter()) {
        for (x, y) in restored.outer_iter().zip(truth.outer_iter()) {
            let range = f64::from(y.iter().fold(0f32, |a, b| a.max(*b)));
            let one = |value: ndarray::ArrayD<f64>| value.iter().copied().next().unwrap_or(0.0);
            scores.psnr.push(one(psnr(x, y, range)?));
            scores.ssim.push(one(ssim(x, y, range, SsimConvention::Wang)?));
            scores.nmse.push(one(nmse(x, y)?));
            scores.rmse.push(one(rmse(x, y)?));
        }
    }
    Ok(scores)
}

fn images(fbp: &Fbp, sinograms: ArrayView4<'_, f32>) -> Result<Array4<f32>> {
    let reconstructed = fbp.reconstruct(sinograms.into_dyn())?;
    let got = reconstructed.shape().to_vec();
    reconstructed
        .into_dimensionality::<Ix4>()
        .map_err(|_| Error::Mismatch {
            what: "reconstructions".into(),
            expected: "[n, outputs, row, col]".into(),
            got: format!("{got:?}"),
        })
}

/// The pixels of a lesion, and those of the ring around it that belong to no lesion.
fn regions(labels: ArrayView2<'_, f32>, lesion: usize) -> (Array2<bool>, Array2<bool>) {
    let inside = labels.mapv(|v| v as usize == lesion);
    let (rows, cols) = labels.dim();
    let within = |row: usize, col: usize, reach: usize| {
        let near = |at: usize, most: usize| at.saturating_sub(reach)..(at + reach + 1).min(most);
        near(row, rows).any(|r| near(col, cols).any(|c| inside[[r, c]]))
    };
    let ring = Array2::from_shape_fn((rows, cols), |(row, col)| {
        labels[[row, col]] == 0.0 && within(row, col, RING.1) && !within(row, col, RING.0 - 1)
    });
    (inside, ring)
}

fn mean(image: ArrayView2<'_, f32>, region: &Array2<bool>) -> f64 {
    let (mut sum, mut count) = (0f64, 0usize);
    for (value, inside) in image.iter().zip(region) {
        if *inside {
            sum += f64::from(*value);
            count += 1;
        }
    }
    sum / count.max(1) as f64
}
