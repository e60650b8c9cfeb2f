//! How a target's scale follows from its input's.

use allpet_core::{Prompt, Region, Task};
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

/// Mean logarithms that differ by more than this are of different scales: 5 %.
const SAME_SCALE: f64 = 0.05;

/// The prompt as a model may know it: a chest or an abdomen is a trunk to one that knows trunks only.
pub(crate) fn known_prompt(ratios: &[ScaleRatio], mut prompt: Prompt) -> Prompt {
    let known = |region| {
        ratios
            .iter()
            .any(|r| r.prompt.task == prompt.task && r.prompt.region == region)
    };
    if matches!(prompt.region, Some(Region::Chest | Region::Abdomen))
        && !known(prompt.region)
        && known(Some(Region::Trunk))
    {
        prompt.region = Some(Region::Trunk);
    }
    prompt
}

/// The mean logarithm of the ratio for a prompt, over those known that agree in task and in what both say; `None` where none
/// does.
pub(crate) fn ratio_of(ratios: &[ScaleRatio], prompt: &Prompt) -> Option<f64> {
    let (sum, count) = agreeing(ratios, prompt).fold((0.0, 0usize), |(sum, count), r| {
        (sum + r.mean_ln * r.count as f64, count + r.count)
    });
    (count > 0).then(|| (sum / count as f64).exp())
}

/// Regions whose scales differ under a prompt that leaves the region open; empty where it does not matter.
pub(crate) fn undecided(ratios: &[ScaleRatio], prompt: &Prompt) -> Vec<Region> {
    let mean = |region: Region| {
        let prompt = Prompt {
            region: Some(region),
            ..*prompt
        };
        ratio_of(ratios, &prompt).map(|ratio| (region, ratio.ln()))
    };
    if prompt.region.is_some() {
        return Vec::new();
    }
    let found: Vec<(Region, f64)> = Region::ALL.iter().filter_map(|region| mean(*region)).collect();
    let ends = found
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), (_, ln)| {
            (low.min(*ln), high.max(*ln))
        });
    if ends.1 - ends.0 > SAME_SCALE {
        found.into_iter().map(|(region, _)| region).collect()
    } else {
        Vec::new()
    }
}

fn agreeing<'a>(ratios: &'a [ScaleRatio], prompt: &'a Prompt) -> impl Iterator<Item = &'a ScaleRatio> {
    ratios.iter().filter(|known| {
        known.prompt.task == prompt.task
            && (prompt.tracer.is_none() || known.prompt.tracer == prompt.tracer)
            && (prompt.region.is_none() || known.prompt.region == prompt.region)
    })
}

/// Whether a model was trained on this task.
pub(crate) fn knows(ratios: &[ScaleRatio], task: Task) -> bool {
    ratios.iter().any(|r| r.prompt.task == task)
}
