//! People: different from each other, the same with themselves; organs where they belong; tracers told apart.

use allpet_core::{ImageGrid, Tracer};
use allpet_sim::raster::{Pose, render};
use allpet_sim::tracer::typical_suv;
use allpet_sim::{Part, Subject, Tissue, Uptake};
use ndarray::Array2;
use std::collections::BTreeMap;

const PARTS: [Part; 3] = [Part::Brain, Part::Chest, Part::Abdomen];

fn image(subject: &Subject, part: Part, z: f64, tracer: Tracer) -> Array2<f32> {
    let grid = ImageGrid::square(100, if part == Part::Brain { 2.2 } else { 4.4 }).expect("a valid grid");
    let uptake = Uptake::draw(subject, tracer);
    render(&subject.section(part, z), Some(&uptake), Pose::default(), grid, 2).activity
}

/// Share of the body's area each tissue takes in a section.
fn shares(subject: &Subject, part: Part, z: f64) -> BTreeMap<usize, f64> {
    let section = subject.section(part, z);
    let mut counts = BTreeMap::new();
    for i in -105..105 {
        for j in -105..105 {
            let tissue = section.tissue(2.0 * i as f32, 2.0 * j as f32);
            *counts.entry(tissue.index()).or_insert(0.0) += 1.0;
        }
    }
    counts.remove(&Tissue::Air.index());
    let total: f64 = counts.values().sum();
    counts.into_iter().map(|(k, v)| (k, v / total)).collect()
}

fn distance(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    let scale: f64 = a.iter().chain(b).map(|&v| f64::from(v)).sum();
    2.0 * a
        .iter()
        .zip(b)
        .map(|(&x, &y)| f64::from((x - y).abs()))
        .sum::<f64>()
        / scale
}

#[test]
fn subjects_differ_and_neighbouring_sections_cohere() {
    for part in PARTS {
        let (mut next, mut other) = (0.0, f64::MAX);
        for id in 0..5 {
            let here = Subject::draw(1, id);
            let a = image(&here, part, 0.6, Tracer::Fdg);
            // Two millimetres higher.
            let [low, high] = part.heights_mm();
            let b = image(&here, part, 0.6 + 2.0 / f64::from(high - low), Tracer::Fdg);
            next = distance(&a, &b).max(next);
            other = distance(&a, &image(&Subject::draw(1, id + 1), part, 0.6, Tracer::Fdg)).min(other);
        }
        println!("{part:?}: neighbours differ by at most {next:.3}, subjects by at least {other:.3}");
        assert!(next < 0.6 * other && other > 0.2, "{part:?}: {next} {other}");
    }
}

#[test]
fn the_same_number_is_the_same_person() {
    assert_eq!(Subject::draw(4, 7), Subject::draw(4, 7));
    assert_ne!(Subject::draw(4, 7), Subject::draw(5, 7));
    let person = Subject::draw(4, 7);
    assert_eq!(
        Uptake::draw(&person, Tracer::Dopa),
        Uptake::draw(&person, Tracer::Dopa)
    );
    assert_ne!(
        Uptake::draw(&person, Tracer::Dopa).suv(Tissue::Liver),
        Uptake::draw(&person, Tracer::Psma).suv(Tissue::Liver)
    );
}

#[test]
fn organs_are_where_they_belong() {
    use Tissue::*;
    type Shares = Vec<(Tissue, f64, f64)>;
    let expected: [(Part, f64, Shares); 6] = [
        (
            Part::Brain,
            0.5,
            vec![
                (Grey, 0.15, 0.6),
                (White, 0.1, 0.55),
                (Csf, 0.01, 0.3),
                (Striatum, 0.005, 0.08),
                (Skin, 0.04, 0.25),
            ],
        ),
        (
            Part::Brain,
            0.14,
            vec![
                (CerebellumGrey, 0.05, 0.4),
                (CerebellumWhite, 0.01, 0.3),
                (Brainstem, 0.005, 0.08),
            ],
        ),
        (
            Part::Brain,
            0.85,
            vec![(Grey, 0.15, 0.7), (White, 0.05, 0.5), (Csf, 0.0, 0.3)],
        ),
        (
            Part::Chest,
            0.29,
            vec![
                (Lung, 0.15, 0.6),
                (Myocardium, 0.004, 0.12),
                (Blood, 0.02, 0.3),
                (Muscle, 0.05, 0.6),
            ],
        ),
        (
            Part::Abdomen,
            0.62,
            vec![
                (Liver, 0.01, 0.4),
                (KidneyCortex, 0.005, 0.1),
                (Bowel, 0.02, 0.4),
                (Fat, 0.1, 0.7),
            ],
        ),
        (
            Part::Abdomen,
            0.13,
            vec![(Bladder, 0.01, 0.12), (Marrow, 0.005, 0.2), (Muscle, 0.1, 0.7)],
        ),
    ];
    for id in 0..12 {
        let subject = Subject::draw(2, id);
        for (part, z, tissues) in &expected {
            let found = shares(&subject, *part, *z);
            for (tissue, low, high) in tissues {
                let share = found.get(&tissue.index()).copied().unwrap_or(0.0);
                assert!(
                    (*low..=*high).contains(&share),
                    "subject {id}, {part:?} at {z}: {tissue:?} {share:.4}"
                );
            }
            // Control: no lung in the head, no cortex in the trunk.
            let stray = if *part == Part::Brain { Lung } else { Grey };
            assert!(!found.contains_key(&stray.index()));
        }
    }
}

#[test]
fn cortex_is_folded() {
    // On a ring that follows the hull one to two centimetres below it, grey and white alternate from gyrus to gyrus;
    // on a smooth shell the ring would meet one tissue only.
    for id in 0..6 {
        let subject = Subject::draw(3, id);
        let section = subject.section(Part::Brain, 0.75);
        let mut most = 0;
        for scale in [0.72f32, 0.78, 0.84] {
            let ring: Vec<bool> = (0..720)
                .map(|k| {
                    let (sin, cos) = (k as f32 * 0.5).to_radians().sin_cos();
                    // Walk inward to the brain first: the outermost grey matter of this direction.
                    let edge = (0..110)
                        .rev()
                        .map(|r| r as f32)
                        .find(|r| section.tissue(r * cos, r * sin) == Tissue::Grey);
                    let r = edge.unwrap_or(0.0) * scale;
                    section.tissue(r * cos, r * sin) == Tissue::White
                })
                .collect();
            most = most.max(ring.windows(2).filter(|w| w[0] != w[1]).count());
        }
        println!("subject {id}: {most} changes");
        assert!(most >= 16, "{most}");
    }
}

#[test]
fn tracers_are_told_apart_by_their_organs() {
    let mean = |tracer, tissue| {
        (0..20)
            .map(|id| f64::from(Uptake::draw(&Subject::draw(6, id), tracer).suv(tissue)))
            .sum::<f64>()
            / 20.0
    };
    let ratio = |tracer, a, b| mean(tracer, a) / mean(tracer, b);
    let fdg = ratio(Tracer::Fdg, Tissue::Grey, Tissue::White);
    let dopa = ratio(Tracer::Dopa, Tissue::Striatum, Tissue::Grey);
    let psma = ratio(Tracer::Psma, Tissue::KidneyCortex, Tissue::Liver);
    println!("FDG grey/white {fdg:.2}, DOPA striatum/grey {dopa:.2}, PSMA kidney/liver {psma:.2}");
    assert!((2.2..3.2).contains(&fdg) && (1.8..2.5).contains(&dopa) && (6.5..9.8).contains(&psma));
    assert!(ratio(Tracer::Dopa, Tissue::Grey, Tissue::White) < 1.5);
    assert!(ratio(Tracer::Fdg, Tissue::KidneyCortex, Tissue::Liver) < 2.0);
    // Each value within a quarter of the typical one (myocardium depends on the last meal).
    for id in 0..20 {
        let subject = Subject::draw(6, id);
        for &tracer in Tracer::ALL {
            let uptake = Uptake::draw(&subject, tracer);
            for &tissue in Tissue::ALL
                .iter()
                .filter(|t| !matches!(t, Tissue::Air | Tissue::Myocardium))
            {
                let factor = uptake.suv(tissue) / typical_suv(tracer, tissue);
                assert!((0.75..1.25).contains(&factor), "{tracer} {tissue:?} {factor}");
            }
        }
    }
    // And in the pictures: a brain is bright with FDG and dark with PSMA, kidneys the other way round.
    let subject = Subject::draw(6, 0);
    let bright = |part, z, tracer| f64::from(image(&subject, part, z, tracer).sum());
    assert!(bright(Part::Brain, 0.5, Tracer::Fdg) > 5.0 * bright(Part::Brain, 0.5, Tracer::Psma));
    assert!(bright(Part::Abdomen, 0.6, Tracer::Psma) > 2.0 * bright(Part::Abdomen, 0.6, Tracer::Fdg));
}

#[test]
fn lesions_lie_in_their_hosts_and_show_by_tracer() {
    let (mut hot, mut cold, mut unseen) = (0, 0, 0);
    for id in 0..40 {
        let subject = Subject::draw(9, id);
        for lesion in subject.lesions() {
            let [x, y, h] = lesion.centre_mm;
            let [low, high] = lesion.part.heights_mm();
            let section = subject.section(lesion.part, f64::from((h - low) / (high - low)));
            assert!(section.lesion_at(x, y).is_some());
            for &tracer in Tracer::ALL {
                match lesion.suv(tracer) {
                    Some(suv) if suv > 1.2 * typical_suv(tracer, lesion.host) => hot += 1,
                    Some(suv) if suv < 0.8 * typical_suv(tracer, lesion.host) => cold += 1,
                    Some(_) => {}
                    None => unseen += 1,
                }
            }
        }
    }
    println!("{hot} hot, {cold} cold, {unseen} unseen");
    assert!(hot > 200 && cold > 100 && unseen > 20);
}
