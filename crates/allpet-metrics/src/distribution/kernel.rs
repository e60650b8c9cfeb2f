//! Kernel inception distance (KID; Bińkowski et al. 2018, section 3): the unbiased estimate of the squared maximum mean
//! discrepancy under `k(x, y) = (x·y/d + 1)³`, averaged over random subsets.
//!
//! Kernel values are made in tiles of 250² from rows gathered as they are needed, so beside the features only a MiB
//! or two per thread is held, whatever the number of samples.

use super::features::{check_pair, gather, in_range};
use crate::Real;
use crate::error::{Error, Result};
use allpet_core::stream;
use ndarray::ArrayView2;
use rand::Rng;
use rayon::prelude::*;
use std::fmt;

/// Side of the square of kernel values held at a time.
const TILE: usize = 250;
/// Features gathered at a time.
const PANEL: usize = 128;

/// How the subsets of a kernel distance are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelSettings {
    /// Number of subsets.
    pub subsets: usize,
    /// Samples in a subset, drawn from each set without replacement; less than either set has, as subsets of a whole
    /// set would all coincide and their spread mean nothing.
    pub subset_size: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for KernelSettings {
    /// 100 subsets of 1,000, the numbers of published figures.
    fn default() -> Self {
        Self {
            subsets: 100,
            subset_size: 1000,
            seed: 0,
        }
    }
}

/// A kernel distance over random subsets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelDistance {
    /// Mean of the subsets' unbiased estimates; can be slightly negative when the sets agree.
    pub mean: f64,
    /// Population standard deviation over the subsets (0 for one subset).
    pub sd: f64,
    /// Number of subsets.
    pub subsets: usize,
    /// Samples in a subset.
    pub subset_size: usize,
}

impl fmt::Display for KernelDistance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kernel distance {:.6e} ± {:.1e} ({} subsets of {})",
            self.mean, self.sd, self.subsets, self.subset_size
        )
    }
}

/// Kernel distance of two feature matrices `[samples, features]`.
///
/// # Errors
/// Widths that differ, values that are not finite or whose cubed products overflow, no subsets, subsets of fewer than
/// two samples or not smaller than both sets.
pub fn kernel_distance<T: Real, U: Real>(
    candidate: ArrayView2<'_, T>,
    reference: ArrayView2<'_, U>,
    settings: &KernelSettings,
) -> Result<KernelDistance> {
    let KernelSettings {
        subsets,
        subset_size,
        seed,
    } = *settings;
    check_pair("kernel distance", candidate, reference, 2)?;
    for (what, got, least, expected) in [
        ("number of subsets", subsets, 1, "at least 1"),
        ("subset size", subset_size, 2, "at least 2"),
    ] {
        if got < least {
            return Err(Error::Setting {
                what,
                expected,
                got: got as f64,
            });
        }
    }
    for got in [candidate.nrows(), reference.nrows()] {
        if subset_size >= got {
            return Err(Error::TooFew {
                what: "a kernel distance with this subset size",
                needed: subset_size.saturating_add(1),
                of: "samples",
                got,
            });
        }
    }
    let estimates = (0..subsets as u64)
        .into_par_iter()
        .map(|subset| {
            let a = draw(candidate.nrows(), subset_size, seed, "kid-candidate", subset);
            let b = draw(reference.nrows(), subset_size, seed, "kid-reference", subset);
            unbiased(candidate, &a, reference, &b)
        })
        .collect::<Result<Vec<f64>>>()?;
    let mean = estimates.iter().sum::<f64>() / subsets as f64;
    let variance = estimates.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / subsets as f64;
    Ok(KernelDistance {
        mean,
        sd: variance.sqrt(),
        subsets,
        subset_size,
    })
}

/// The unbiased squared discrepancy of two whole sets: kernel means within each set over pairs of different samples,
/// across over all pairs.
///
/// # Errors
/// Widths that differ, fewer than two samples in a set, values that are not finite or whose cubed products overflow.
pub fn polynomial_mmd<T: Real, U: Real>(
    candidate: ArrayView2<'_, T>,
    reference: ArrayView2<'_, U>,
) -> Result<f64> {
    check_pair("kernel discrepancy", candidate, reference, 2)?;
    let a: Vec<usize> = (0..candidate.nrows()).collect();
    let b: Vec<usize> = (0..reference.nrows()).collect();
    unbiased(candidate, &a, reference, &b)
}

/// `size` different indices below `count`: the head of a Fisher-Yates shuffle.
fn draw(count: usize, size: usize, seed: u64, name: &str, index: u64) -> Vec<usize> {
    let mut generator = stream(seed, name, index);
    let mut all: Vec<usize> = (0..count).collect();
    for place in 0..size {
        let other = generator.random_range(place as u64..count as u64) as usize;
        all.swap(place, other);
    }
    all.truncate(size);
    all
}

fn unbiased<T: Real, U: Real>(
    candidate: ArrayView2<'_, T>,
    a: &[usize],
    reference: ArrayView2<'_, U>,
    b: &[usize],
) -> Result<f64> {
    let (m, n) = (a.len() as f64, b.len() as f64);
    let within_a = within(candidate, a) / (m * (m - 1.0));
    let within_b = within(reference, b) / (n * (n - 1.0));
    let across = across(candidate, a, reference, b) / (m * n);
    in_range("kernel discrepancy", within_a + within_b - 2.0 * across)
}

/// Sum of the kernel over ordered pairs of different samples of one set.
fn within<T: Real>(values: ArrayView2<'_, T>, rows: &[usize]) -> f64 {
    let tiles: Vec<&[usize]> = rows.chunks(TILE).collect();
    let pairs: Vec<(usize, usize)> = (0..tiles.len())
        .flat_map(|i| (0..=i).map(move |j| (i, j)))
        .collect();
    let sums: Vec<f64> = pairs
        .par_iter()
        .map(|&(i, j)| {
            let kernel = tile(values, tiles[i], values, tiles[j]);
            if i > j {
                return 2.0 * kernel.iter().sum::<f64>();
            }
            let side = tiles[i].len();
            let different = kernel.iter().enumerate().filter(|(k, _)| k / side != k % side);
            different.map(|(_, value)| value).sum()
        })
        .collect();
    sums.iter().sum()
}

/// Sum of the kernel over all pairs of two sets.
fn across<T: Real, U: Real>(
    left: ArrayView2<'_, T>,
    a: &[usize],
    right: ArrayView2<'_, U>,
    b: &[usize],
) -> f64 {
    let pairs: Vec<(&[usize], &[usize])> = a
        .chunks(TILE)
        .flat_map(|rows| b.chunks(TILE).map(move |columns| (rows, columns)))
        .collect();
    let sums: Vec<f64> = pairs
        .par_iter()
        .map(|(rows, columns)| tile(left, rows, right, columns).iter().sum())
        .collect();
    sums.iter().sum()
}

/// Kernel values of `rows` against `columns`, row-major.
fn tile<T: Real, U: Real>(
    left: ArrayView2<'_, T>,
    rows: &[usize],
    right: ArrayView2<'_, U>,
    columns: &[usize],
) -> Vec<f64> {
    let features = left.ncols();
    let mut products = vec![0.0; rows.len() * columns.len()];
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for first in (0..features).step_by(PANEL) {
        let panel = first..(first + PANEL).min(features);
        gather(left, rows.iter().copied(), panel.clone(), None, &mut a);
        gather(right, columns.iter().copied(), panel.clone(), None, &mut b);
        let shape = [rows.len(), columns.len(), panel.len()];
        crate::linalg::add_product_transposed(&mut products, &a, &b, shape);
    }
    let scale = 1.0 / features as f64;
    for value in &mut products {
        let base = *value * scale + 1.0;
        *value = base * base * base;
    }
    products
}
