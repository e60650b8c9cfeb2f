//! The iterations of [`super::Osem`]: subset by subset `x ← x / s_m · A_mᵀ(y / ȳ)`.

use super::{Osem, OsemObserver, OsemStep, Plan};
use crate::entry::non_negative;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, exchange_tail};
use crate::operators::Subset;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use rayon::prelude::*;

/// Largest `y / ȳ`, so that an absurd start image makes many iterations and no infinity.
const LARGEST_RATIO: f32 = 1e20;
/// Largest `c · y / ȳ`; the sum of as many as a pixel can see stays finite.
const LARGEST_TERM: f32 = 1e28;
/// Sinogram rows or pixels that one task takes at least.
const ROWS: usize = 16;
const PIXELS: usize = 8192;

/// The data of one subset, in its own order of views.
struct Part<'a> {
    subset: &'a Subset,
    factors: &'a [f32],
    sensitivity: &'a [f32],
    /// `[batch, views, bins]`.
    counts: Vec<f32>,
    /// As `counts`, or one for the whole batch, or none.
    background: Vec<f32>,
}

impl Part<'_> {
    /// Efficiency, background and counts of row `row` of the batch.
    fn row(&self, row: usize) -> (&[f32], &[f32], &[f32]) {
        let bins = self.subset.range_shape()[1];
        let at = |values: &'_ [f32]| {
            let rows = values.len() / bins;
            if rows == 0 {
                0..0
            } else {
                row % rows * bins..(row % rows + 1) * bins
            }
        };
        (
            &self.factors[at(self.factors)],
            &self.background[at(&self.background)],
            &self.counts[at(&self.counts)],
        )
    }

    /// Replaces projections `p` by `c · y / (c p + b)`; 0 in dead bins and where the model gives nothing.
    fn ratios(&self, projections: &mut ArrayD<f32>) {
        let bins = self.subset.range_shape()[1];
        let Some(values) = projections.as_slice_mut() else {
            return;
        };
        values
            .par_chunks_mut(bins)
            .with_min_len(ROWS)
            .enumerate()
            .for_each(|(row, values)| {
                let (factors, background, counts) = self.row(row);
                for (bin, value) in values.iter_mut().enumerate() {
                    let (c, y) = (factors[bin], counts[bin]);
                    let mean = c * *value + background.get(bin).copied().unwrap_or(0.0);
                    // Neither branch is taken for NaN, which an overflowed projection times 0 would be.
                    *value = if c > 0.0 && mean > 0.0 {
                        (c * (y / mean).min(LARGEST_RATIO)).min(LARGEST_TERM)
                    } else {
                        0.0
                    };
                }
            });
    }

    /// Adds `Σ y ln ȳ - ȳ` of each element of the batch; rows are summed in order, whoever computes them.
    fn add_likelihoods(&self, projections: &ArrayD<f32>, sums: &mut [f64]) {
        let [views, bins] = *self.subset.range_shape() else {
            return;
        };
        let Some(values) = projections.as_slice() else {
            return;
        };
        let rows: Vec<f64> = values
            .par_chunks(bins)
            .with_min_len(ROWS)
            .enumerate()
            .map(|(row, values)| {
                let (factors, background, counts) = self.row(row);
                let terms = values.iter().enumerate().map(|(bin, &value)| {
                    let (c, y) = (f64::from(factors[bin]), f64::from(counts[bin]));
                    let mean = c * f64::from(value) + background.get(bin).map_or(0.0, |&b| f64::from(b));
                    if c > 0.0 && mean > 0.0 {
                        let weighted = if y > 0.0 { y * mean.ln() } else { 0.0 };
                        weighted - mean
                    } else {
                        0.0
                    }
                });
                terms.sum()
            })
            .collect();
        for (sum, rows) in sums.iter_mut().zip(rows.chunks(views)) {
            *sum += rows.iter().sum::<f64>();
        }
    }
}

/// Buffers that live through all iterations.
struct Work<'a> {
    osem: &'a Osem,
    image: ArrayD<f32>,
    /// `G x`, and `Pᵀ` of the ratios before `Gᵀ`; empty without a resolution model.
    blurred: ArrayD<f32>,
    correction: ArrayD<f32>,
    /// Projections of a subset; two sizes of subset at most.
    projections: Vec<ArrayD<f32>>,
}

impl Work<'_> {
    /// `P G x` of a subset's views.
    fn project(&mut self, part: &Part<'_>) -> Result<&mut ArrayD<f32>> {
        let source = match &self.osem.psf {
            Some(psf) => {
                psf.forward(self.image.view(), self.blurred.view_mut())?;
                &self.blurred
            }
            None => &self.image,
        };
        let projections = buffer(&mut self.projections, part)?;
        part.subset.forward(source.view(), projections.view_mut())?;
        Ok(projections)
    }

    /// One update from the projections that [`Work::project`] left.
    fn update(&mut self, part: &Part<'_>) -> Result<()> {
        let projections = buffer(&mut self.projections, part)?;
        part.ratios(projections);
        match &self.osem.psf {
            Some(psf) => {
                part.subset.adjoint(projections.view(), self.blurred.view_mut())?;
                psf.adjoint(self.blurred.view(), self.correction.view_mut())?;
            }
            None => part
                .subset
                .adjoint(projections.view(), self.correction.view_mut())?,
        }
        let pixels = part.sensitivity.len();
        let (Some(image), Some(correction)) = (self.image.as_slice_mut(), self.correction.as_slice()) else {
            return Ok(());
        };
        image
            .par_chunks_mut(pixels)
            .zip(correction.par_chunks(pixels))
            .for_each(|(image, correction)| {
                image
                    .par_chunks_mut(PIXELS)
                    .zip(correction.par_chunks(PIXELS))
                    .zip(part.sensitivity.par_chunks(PIXELS))
                    .for_each(|((image, correction), sensitivity)| {
                        for ((x, &back), &seen) in image.iter_mut().zip(correction).zip(sensitivity) {
                            if *x > 0.0 && seen > 0.0 {
                                *x = (*x * (back / seen)).clamp(0.0, f32::MAX);
                            }
                        }
                    });
            });
        Ok(())
    }
}

/// The buffer of a subset's size.
fn buffer<'a>(buffers: &'a mut [ArrayD<f32>], part: &Part<'_>) -> Result<&'a mut ArrayD<f32>> {
    let range = part.subset.range_shape();
    buffers
        .iter_mut()
        .find(|b| b.shape().ends_with(range))
        .ok_or_else(|| Error::Shape {
            what: "projections of a subset",
            expected: format!("[.., {range:?}]"),
            got: Vec::new(),
        })
}

pub(super) fn run(
    osem: &Osem,
    counts: ArrayViewD<'_, f32>,
    mut observer: Option<&mut OsemObserver<'_>>,
) -> Result<ArrayD<f32>> {
    let shape = exchange_tail(
        "counts",
        counts.shape(),
        &osem.geometry.shape(),
        &osem.grid.shape(),
    )?;
    let leading = &shape[..shape.len() - 2];
    non_negative("counts", counts.view())?;
    let plan = osem.plan()?;
    let parts = parts(osem, plan, &counts)?;
    let mut work = Work {
        osem,
        image: start(osem, plan, &parts, &shape)?,
        blurred: ArrayD::zeros(IxDyn(if osem.psf.is_some() { &shape } else { &[0] })),
        correction: ArrayD::zeros(IxDyn(&shape)),
        projections: Vec::new(),
    };
    for part in &parts {
        let size = [leading, part.subset.range_shape()].concat();
        if work.projections.iter().all(|p| p.shape() != size) {
            work.projections.push(ArrayD::zeros(IxDyn(&size)));
        }
    }
    let mut likelihoods = vec![0.0; leading.iter().product()];
    // Whether the projections of the first subset belong to the image as it is.
    let mut projected = false;
    for iteration in 1..=osem.config.iterations {
        for part in &parts {
            if !projected {
                work.project(part)?;
            }
            projected = false;
            work.update(part)?;
        }
        let Some(observer) = &mut observer else { continue };
        likelihoods.fill(0.0);
        // Backwards, so that the next iteration finds its first projections made.
        for part in parts.iter().rev() {
            let projections = work.project(part)?;
            part.add_likelihoods(projections, &mut likelihoods);
        }
        projected = true;
        let step = OsemStep {
            iteration,
            image: work.image.view(),
            log_likelihood: &likelihoods,
        };
        if observer(&step).is_break() {
            break;
        }
    }
    Ok(work.image)
}

/// Counts and background, sorted by subset.
fn parts<'a>(osem: &'a Osem, plan: &'a Plan, counts: &ArrayViewD<'_, f32>) -> Result<Vec<Part<'a>>> {
    let sinogram = osem.geometry.shape();
    if let Some(background) = &osem.background
        && background.shape() != sinogram
        && background.shape() != counts.shape()
    {
        return Err(Error::Shape {
            what: "background",
            expected: format!("{sinogram:?} or {:?}", counts.shape()),
            got: background.shape().to_vec(),
        });
    }
    let models = plan.factors.iter().zip(&plan.sensitivity);
    osem.subsets
        .iter()
        .zip(models)
        .map(|(subset, (factors, sensitivity))| {
            let background = match &osem.background {
                Some(background) => subset.select(background.view())?.iter().copied().collect(),
                None => Vec::new(),
            };
            Ok(Part {
                subset,
                factors,
                sensitivity,
                counts: subset.select(counts.view())?.iter().copied().collect(),
                background,
            })
        })
        .collect()
}

/// The start image that was given, or a uniform one with the measured counts; 0 where nothing is seen.
fn start(osem: &Osem, plan: &Plan, parts: &[Part<'_>], shape: &[usize]) -> Result<ArrayD<f32>> {
    let mut image = match &osem.start {
        Some(image) => {
            let fitting = image.shape() == shape || image.shape() == osem.grid.shape();
            let spread = image.broadcast(IxDyn(shape)).filter(|_| fitting);
            let Some(spread) = spread else {
                return Err(Error::Shape {
                    what: "start image",
                    expected: format!("{:?} or {shape:?}", osem.grid.shape()),
                    got: image.shape().to_vec(),
                });
            };
            spread.as_standard_layout().into_owned()
        }
        None => ArrayD::zeros(IxDyn(shape)),
    };
    let pixels = plan.seen.len();
    let slices = image.as_slice_mut().unwrap_or_default().chunks_mut(pixels);
    for (element, slice) in slices.enumerate() {
        if osem.start.is_none() {
            let total: f64 = parts.iter().map(|part| live_counts(part, element)).sum();
            let value = if plan.counts_of_ones > 0.0 {
                (total / plan.counts_of_ones).min(f64::from(f32::MAX)) as f32
            } else {
                0.0
            };
            slice.fill(value);
        }
        for (value, &seen) in slice.iter_mut().zip(&plan.seen) {
            if !seen {
                *value = 0.0;
            }
        }
    }
    Ok(image)
}

/// Counts of one element of the batch in bins that have efficiency.
fn live_counts(part: &Part<'_>, element: usize) -> f64 {
    let size = part.factors.len();
    let counts = &part.counts[element * size..(element + 1) * size];
    let live = counts.iter().zip(part.factors).filter(|(_, c)| **c > 0.0);
    live.map(|(&y, _)| f64::from(y)).sum()
}
