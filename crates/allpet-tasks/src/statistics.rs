//! How a target's scale follows from its input's.

use allpet_core::{Prompt, Task};
use serde::{Deserialize, Serialize};

/// The scale of targets over that of their inputs, for one prompt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRatio {
    /// The prompt.
    pub prompt: Prompt,
    /// Number of pairs.
    pub count: usize,
    /// Mean of the ratio's natural logarithm.
    pub mean_ln: f64,
    /// Its standard deviation.
    pub sd_ln: f64,
}

/// Ratios by prompt, sorted.
pub(crate) fn measure_ratios(pairs: &[(Prompt, f64)]) -> Vec<ScaleRatio> {
    let mut pairs: Vec<(Prompt, f64)> = pairs.iter().map(|(p, ratio)| (*p, ratio.ln())).collect();
    pairs.sort_by_key(|p| p.0);
    pairs
        .chunk_by(|a, b| a.0 == b.0)
        .map(|group| {
            let n = group.len() as f64;
            let mean = group.iter().map(|p| p.1).sum::<f64>() / n;
            let variance = group.iter().map(|p| (p.1 - mean).powi(2)).sum::<f64>() / n;
            ScaleRatio {
                prompt: group[0].0,
                count: group.len(),
                mean_ln: mean,
                sd_ln: variance.sqrt(),
            }
        })
        .collect()
}

/// The ratio for a prompt: of the same prompt, else of those that agree in task and in what both say, else of the task.
/// 1 for a task that was never seen.
pub(crate) fn ratio_of(ratios: &[ScaleRatio], prompt: &Prompt) -> f64 {
    let agree = |known: &Prompt, strict: bool| {
        known.task == prompt.task
            && (!strict
                || (prompt.tracer.is_none() || known.tracer == prompt.tracer)
                    && (prompt.region.is_none() || known.region == prompt.region))
    };
    let mean = |strict: bool| {
        let known = ratios.iter().filter(|r| agree(&r.prompt, strict));
        let (sum, count) = known.fold((0.0, 0usize), |(sum, count), r| {
            (sum + r.mean_ln * r.count as f64, count + r.count)
        });
        (count > 0).then(|| (sum / count as f64).exp())
    };
    mean(true).or_else(|| mean(false)).unwrap_or(1.0)
}

/// Whether a model was trained on this task.
pub(crate) fn knows(ratios: &[ScaleRatio], task: Task) -> bool {
    ratios.iter().any(|r| r.prompt.task == task)
}
