//! Inception score (Salimans et al. 2016): `exp E_x KL(p(y|x) ‖ p(y))` within each of several splits.

use super::features::{check_finite, in_range};
use crate::Real;
use crate::error::{Error, Result};
use allpet_core::stream;
use ndarray::ArrayView2;
use rand::seq::SliceRandom;

/// How the samples are split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InceptionScoreSettings {
    /// Number of splits; the score is their mean.
    pub splits: usize,
    /// Seed of the shuffle before splitting; `None` keeps the order given.
    pub shuffle: Option<u64>,
}

impl Default for InceptionScoreSettings {
    /// Ten splits of the samples shuffled with seed 0.
    fn default() -> Self {
        Self {
            splits: 10,
            shuffle: Some(0),
        }
    }
}

/// An inception score over splits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InceptionScore {
    /// Mean over the splits; 1 (all alike) to the number of classes.
    pub mean: f64,
    /// Population standard deviation over the splits.
    pub sd: f64,
    /// Number of splits.
    pub splits: usize,
}

/// Inception score from logits `[samples, classes]`: for figures that compare with published ones, the 1,008 logits
/// of the FID network without the bias of its last layer.
///
/// # Errors
/// No classes, no splits, fewer samples than splits, logits that are not finite.
pub fn inception_score<T: Real>(
    logits: ArrayView2<'_, T>,
    settings: &InceptionScoreSettings,
) -> Result<InceptionScore> {
    let (samples, classes) = logits.dim();
    let splits = settings.splits;
    if splits == 0 {
        return Err(Error::Setting {
            what: "number of splits",
            expected: "at least 1",
            got: 0.0,
        });
    }
    for (needed, of, got) in [(1, "classes", classes), (splits, "samples", samples)] {
        if got < needed {
            return Err(Error::TooFew {
                what: "inception score",
                needed,
                of,
                got,
            });
        }
    }
    check_finite("logits", logits)?;
    let mut order: Vec<usize> = (0..samples).collect();
    if let Some(seed) = settings.shuffle {
        order.shuffle(&mut stream(seed, "inception-score", 0));
    }
    let scores = (0..splits)
        .map(|split| {
            let part = &order[split * samples / splits..(split + 1) * samples / splits];
            in_range("inception score", score(logits, part))
        })
        .collect::<Result<Vec<f64>>>()?;
    let mean = scores.iter().sum::<f64>() / splits as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / splits as f64;
    Ok(InceptionScore {
        mean,
        sd: variance.sqrt(),
        splits,
    })
}

/// `exp` of `H(mean p) - mean H(p)`, which is the mean divergence from the marginal.
fn score<T: Real>(logits: ArrayView2<'_, T>, part: &[usize]) -> f64 {
    let mut marginal = vec![0.0; logits.ncols()];
    let mut mean_negentropy = 0.0;
    let weight = 1.0 / part.len() as f64;
    for &row in part {
        let line: Vec<f64> = logits.row(row).iter().map(|&v| v.into()).collect();
        let top = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let normaliser: f64 = line.iter().map(|v| (v - top).exp()).sum();
        let log_normaliser = normaliser.ln();
        for (sum, value) in marginal.iter_mut().zip(&line) {
            let log_p = value - top - log_normaliser;
            let p = log_p.exp();
            *sum += p * weight;
            if p > 0.0 {
                mean_negentropy += p * log_p * weight;
            }
        }
    }
    let marginal_negentropy: f64 = marginal.iter().filter(|p| **p > 0.0).map(|p| p * p.ln()).sum();
    (mean_negentropy - marginal_negentropy).max(0.0).exp()
}
