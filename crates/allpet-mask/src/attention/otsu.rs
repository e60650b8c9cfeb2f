//! Otsu's threshold: the split of a histogram whose two classes lie farthest apart.
//!
//! N. Otsu, "A threshold selection method from gray-level histograms", IEEE Trans. Syst. Man Cybern. 9 (1979) 62-66:
//! of all levels the one with the greatest between-class variance `ω₀ ω₁ (μ₀ - μ₁)²`, ω the share and μ the mean of a
//! class. Cost: one pass over the values, one over the histogram.

/// The threshold of a histogram of `bins` equal bins from the least to the greatest value: the centre of the last bin
/// of the lower class, and of levels that are equally good the lowest, as scikit-image has it.
///
/// Values that are all the same give that value: nothing lies above it. `None` without values, without bins, or when a
/// value is not finite.
pub fn otsu_threshold(values: impl IntoIterator<Item = f64>, bins: usize) -> Option<f64> {
    let values: Vec<f64> = values.into_iter().collect();
    if values.is_empty() || bins == 0 || !values.iter().all(|v| v.is_finite()) {
        return None;
    }
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low == high {
        return Some(low);
    }
    let width = (high - low) / bins as f64;
    let mut counts = vec![0.0_f64; bins];
    for value in &values {
        let bin = (((value - low) / width) as usize).min(bins - 1);
        counts[bin] += 1.0;
    }
    let centre = |bin: usize| low + (bin as f64 + 0.5) * width;
    let total: f64 = counts.iter().sum();
    let moment: f64 = counts.iter().enumerate().map(|(bin, n)| n * centre(bin)).sum();
    let (mut below, mut moment_below) = (0.0, 0.0);
    let (mut best, mut greatest) = (0, f64::NEG_INFINITY);
    for (bin, &n) in counts.iter().enumerate().take(bins - 1) {
        // An empty bin moves no value to the other class; summing it again could only add rounding.
        if n == 0.0 {
            continue;
        }
        below += n;
        moment_below += n * centre(bin);
        let above = total - below;
        let apart = moment_below / below - (moment - moment_below) / above;
        let variance = below * above * apart * apart;
        if variance > greatest {
            (best, greatest) = (bin, variance);
        }
    }
    Some(centre(best))
}
