//! From samples to the result: counts as the task says, mean and standard deviation.

use super::Restored;
use crate::heads::CountRule;
use ndarray::{Array5, Axis, s};

/// Scales every sample so that its outputs together hold the counts that the task says.
pub(crate) fn hold_counts(all: &mut Array5<f32>, rule: CountRule, totals: &[f64]) {
    let CountRule::Total(factor) = rule else { return };
    let samples = all.len_of(Axis(2));
    for (mut outputs, total) in all.outer_iter_mut().zip(totals) {
        for sample in 0..samples {
            let mut part = outputs.index_axis_mut(Axis(1), sample);
            let sum: f64 = part.iter().map(|v| f64::from(*v)).sum();
            if sum > 0.0 {
                let scale = (factor * total / sum) as f32;
                part.mapv_inplace(|v| v * scale);
            }
        }
    }
}

/// Mean and standard deviation over the samples.
pub(crate) fn summarise(all: &Array5<f32>, first: usize, restored: &mut Restored) {
    let n = all.len_of(Axis(2));
    for (i, outputs) in all.outer_iter().enumerate() {
        for (k, samples) in outputs.outer_iter().enumerate() {
            for ((view, bin), mean) in restored
                .mean
                .slice_mut(s![first + i, k, .., ..])
                .indexed_iter_mut()
            {
                let values = || (0..n).map(|j| f64::from(samples[[j, view, bin]]));
                let average = values().sum::<f64>() / n as f64;
                *mean = average as f32;
                if n > 1 {
                    let variance = values().map(|v| (v - average).powi(2)).sum::<f64>() / (n - 1) as f64;
                    restored.sd[[first + i, k, view, bin]] = variance.sqrt() as f32;
                }
            }
        }
    }
}
