//! The memory of a training step: counted from one smaller sample, and measured.

use crate::runner::Folder;

/// By how much count and measurement may differ.
const WITHIN: f64 = 0.15;

#[test]
fn the_count_agrees_with_the_peak() {
    let folder = Folder::new();
    for case in ["denoiser_training_step", "autoencoder_training_step"] {
        let ask = |more: &str, key: &str| {
            let found = folder.json(&format!("bench nn --peak {case} --batch 8 {more}"));
            found[key].as_f64().unwrap()
        };
        let off = |count: f64, peak: f64| (count / peak - 1.0).abs();
        let (peak, count) = (ask("", "allocated_mib"), ask("--count", "count_mib"));
        let (peak_again, count_again) = (
            ask("--recompute", "allocated_mib"),
            ask("--recompute --count", "count_mib"),
        );
        println!(
            "{case}: {peak:.0} MiB, counted {count:.0}; recomputing {peak_again:.0}, counted {count_again:.0}"
        );
        assert!(
            off(count, peak) < WITHIN,
            "{case}: {count} counted, {peak} measured"
        );
        assert!(
            off(count_again, peak_again) < WITHIN,
            "{case}: {count_again} counted, {peak_again} measured"
        );
        // The control: neither count fits the other's step.
        assert!(
            off(count, peak_again) > WITHIN && off(count_again, peak) > WITHIN,
            "{case}"
        );
    }
}
