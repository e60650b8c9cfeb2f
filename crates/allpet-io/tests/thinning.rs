//! Thinning of list-mode events.

#![allow(clippy::unwrap_used)]

use allpet_core::{CylindricalScanner, stream};
use allpet_io::{Announcement, Histogram, HistogramOptions, ListMode, ListModeWriter, Thinning};
use ndarray::ArrayD;
use rand::Rng;
use std::path::Path;

const MS: u32 = 200;
const PER_MS: u64 = 400;
const EVENTS: u64 = MS as u64 * PER_MS;

/// A small ring's acquisition of known size.
fn acquisition(folder: &Path) -> ListMode {
    let scanner = CylindricalScanner {
        crystals: 24,
        rings: 5,
        bins: 9,
        max_ring_difference: 3,
        ..CylindricalScanner::mmr()
    };
    let header = folder.join("a.l.hdr");
    let mut writer = ListModeWriter::create(&header, &scanner, Announcement::default()).unwrap();
    let mut draws = stream(3, "events to thin", 0);
    for ms in 0..MS {
        writer.time(ms).unwrap();
        for _ in 0..PER_MS {
            let plane = draws.random_range(0..scanner.planes());
            let (view, radial) = (draws.random_range(0..12), draws.random_range(0..9));
            writer
                .event(draws.random_range(0..6) != 0, plane, view, radial)
                .unwrap();
        }
    }
    writer.finish().unwrap();
    ListMode::open(&header, None).unwrap()
}

fn thinned(mode: &ListMode, fraction: f64, seed: u64, rest: bool) -> Histogram {
    let thinning = Some(Thinning { fraction, seed, rest });
    mode.histogram(&HistogramOptions {
        planes: true,
        thinning,
        ..HistogramOptions::default()
    })
    .unwrap()
}

#[test]
fn a_part_and_the_rest_are_all_events_and_share_none() {
    let folder = tempfile::tempdir().unwrap();
    let mode = acquisition(folder.path());
    let all = mode
        .histogram(&HistogramOptions {
            planes: true,
            ..HistogramOptions::default()
        })
        .unwrap();
    let (part, rest) = (thinned(&mode, 0.25, 7, false), thinned(&mode, 0.25, 7, true));
    assert_eq!(&part.prompts + &rest.prompts, all.prompts);
    assert_eq!(&part.delayeds + &rest.delayeds, all.delayeds);
    assert_eq!(part.prompt_count + rest.prompt_count, all.prompt_count);
    assert_eq!(part.delayed_count + rest.delayed_count, all.delayed_count);
    assert_eq!(part.time_tags, all.time_tags, "time goes on for every part");
    assert_eq!(
        part,
        thinned(&mode, 0.25, 7, false),
        "the same seed, the same events"
    );
    assert_eq!(thinned(&mode, 1.0, 7, false), all);

    // Broken control: the rest of another seed shares events with this part.
    let other = thinned(&mode, 0.25, 8, true);
    assert_ne!(&part.prompts + &other.prompts, all.prompts);
}

#[test]
fn as_many_events_stay_as_the_fraction_says() {
    let folder = tempfile::tempdir().unwrap();
    let mode = acquisition(folder.path());
    let all = thinned(&mode, 1.0, 0, false);
    for fraction in [0.01, 0.25, 0.9] {
        for seed in 0..4 {
            let part = thinned(&mode, fraction, seed, false);
            for (kept, of) in [
                (part.prompt_count, all.prompt_count),
                (part.delayed_count, all.delayed_count),
            ] {
                let (mean, sd) = (
                    fraction * of as f64,
                    (fraction * (1.0 - fraction) * of as f64).sqrt(),
                );
                assert!(
                    (kept as f64 - mean).abs() < 4.0 * sd,
                    "{kept} of {of} at {fraction}"
                );
                assert!(kept + of <= 2 * EVENTS);
            }
        }
    }
}

/// Kingman's splitting: counts of a part and of the rest are independent where all counts are Poisson.
#[test]
fn a_part_says_nothing_about_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let mode = acquisition(folder.path());
    let (part, rest) = (thinned(&mode, 0.5, 1, false), thinned(&mode, 0.5, 1, true));
    let all = thinned(&mode, 1.0, 1, false);
    // Slices are sums of one to three planes: each is judged about its own mean.
    let correlation = |a: &ArrayD<f32>, b: &ArrayD<f32>| {
        let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
        for (a, b) in a.outer_iter().zip(b.outer_iter()) {
            let (mean_a, mean_b) = (a.mean().unwrap(), b.mean().unwrap());
            for (a, b) in a.iter().zip(&b) {
                let (a, b) = (f64::from(a - mean_a), f64::from(b - mean_b));
                both += a * b;
                of_a += a * a;
                of_b += b * b;
            }
        }
        both / (of_a * of_b).sqrt()
    };
    let cells = all.prompts.len() as f64;
    assert!(correlation(&part.prompts, &rest.prompts).abs() < 4.0 / cells.sqrt());
    // Broken control: a part does say something about the whole.
    assert!(correlation(&part.prompts, &all.prompts) > 0.5);
}

#[test]
fn a_window_keeps_the_lots_of_its_events() {
    let folder = tempfile::tempdir().unwrap();
    let mode = acquisition(folder.path());
    let window = |seconds| {
        mode.histogram(&HistogramOptions {
            seconds,
            planes: true,
            thinning: Some(Thinning {
                fraction: 0.3,
                seed: 2,
                rest: false,
            }),
        })
        .unwrap()
        .prompts
    };
    let halves = window(Some(0.0..=0.0995)) + window(Some(0.1..=1.0));
    assert_eq!(halves, window(None));
}

#[test]
fn impossible_fractions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mode = acquisition(folder.path());
    for fraction in [0.0, -0.25, 1.01, f64::NAN, f64::INFINITY] {
        let options = HistogramOptions {
            thinning: Some(Thinning {
                fraction,
                seed: 0,
                rest: false,
            }),
            ..HistogramOptions::default()
        };
        let text = mode.histogram(&options).unwrap_err().to_string();
        assert!(text.contains("expected more than 0 and at most 1"), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
