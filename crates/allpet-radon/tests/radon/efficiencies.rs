//! Crystal efficiencies from delayeds: against the ring's geometry, known efficiencies, and in a reconstruction.

use crate::common::{geometry, poisson};
use allpet_core::{CylindricalScanner, ImageGrid, ParallelGeometry};
use allpet_radon::analytic::{Ellipse, Shape};
use allpet_radon::{
    Blocks, CrystalPairs, Efficiencies, Error, Osem, OsemConfig, arc_correct, arc_correct_efficiencies,
    estimate_efficiencies,
};
use ndarray::{Array2, ArrayD};
use std::collections::HashSet;
use std::f64::consts::PI;

/// Efficiencies by position in the block: the gap, then edges that see less than the middle.
const POSITIONS: [f64; 9] = [0.0, 0.88, 1.01, 1.03, 1.06, 1.07, 1.04, 1.02, 0.89];

/// A ring with known efficiencies and a flux of singles that changes smoothly around it.
struct Ring {
    pairs: CrystalPairs,
    efficiencies: Array2<f64>,
    randoms: Array2<f32>,
}

/// `blind` is a block that counts nothing.
fn ring(delayeds: f64, blind: Option<usize>) -> Ring {
    let pairs = CrystalPairs::of(&CylindricalScanner::mmr()).unwrap();
    let efficiency = |i: usize| {
        if blind == Some(i / 9) {
            0.0
        } else {
            POSITIONS[i % 9]
        }
    };
    let single = |i: usize| efficiency(i) * (1.0 + 0.2 * (2.0 * PI * (i / 9) as f64 / 56.0 + 0.5).cos());
    let over_pairs = |of: &dyn Fn(usize) -> f64| {
        Array2::from_shape_fn(pairs.shape(), |(view, bin)| {
            let (a, b) = pairs.pair(view, bin);
            of(a) * of(b)
        })
    };
    let products = over_pairs(&efficiency);
    let live = products.iter().filter(|&&n| n > 0.0).count();
    let mean = products.sum() / live as f64;
    let randoms = over_pairs(&single);
    let scale = delayeds / randoms.sum();
    Ring {
        pairs,
        efficiencies: products / mean,
        randoms: randoms.mapv(|r| (r * scale) as f32),
    }
}

impl Ring {
    fn delayeds(&self, seed: u64) -> Array2<f32> {
        poisson(seed, &self.randoms).into_dimensionality().unwrap()
    }

    fn estimate(&self, seed: u64) -> Efficiencies {
        estimate_efficiencies(self.delayeds(seed).view(), &self.pairs, Some(Blocks::mmr())).unwrap()
    }
}

/// Mean efficiency of the crystals of every position of a block, of mean 1 over positions 1 to 8.
fn by_position(crystals: &[f64]) -> [f64; 9] {
    let mut sums = [0.0; 9];
    for (i, e) in crystals.iter().enumerate() {
        sums[i % 9] += e;
    }
    let mean = sums.iter().sum::<f64>() / 8.0;
    sums.map(|s| s / mean)
}

/// Pearson's χ² per live bin.
fn chi2(counts: &Array2<f32>, mean: &Array2<f32>) -> f64 {
    let terms: Vec<f64> = counts
        .iter()
        .zip(mean)
        .filter(|&(_, &m)| m > 0.0)
        .map(|(&y, &m)| f64::from(y - m).powi(2) / f64::from(m))
        .collect();
    terms.iter().sum::<f64>() / terms.len() as f64
}

#[test]
fn pairs_are_the_chords_of_their_bins() {
    for (crystals, bins) in [(504, 344), (504, 343), (36, 35), (10, 4)] {
        let pairs = CrystalPairs::new(crystals, bins).unwrap();
        let place = |i: usize| (2.0 * PI * i as f64 / crystals as f64 - PI / 2.0).sin_cos();
        let mut met = HashSet::new();
        for view in 0..crystals / 2 {
            for bin in 0..bins {
                let (a, b) = pairs.pair(view, bin);
                assert!(met.insert((a.min(b), a.max(b))), "{a} and {b} meet twice");
                let m = bin as f64 - (bins / 2) as f64;
                // Odd bins lie half a view before their view.
                let back = if m.rem_euclid(2.0) == 1.0 { 0.5 } else { 0.0 };
                let (sine, cosine) = (2.0 * PI * (view as f64 - back) / crystals as f64).sin_cos();
                let s = (m * PI / crystals as f64).sin();
                for (y, x) in [place(a), place(b)] {
                    assert!((x * cosine + y * sine - s).abs() < 1e-12, "{view} {bin}");
                }
            }
        }
    }
    // The bins of a scanner are where its arc correction takes them from.
    let scanner = CylindricalScanner::mmr();
    let ring_mm = scanner.ring_radius_mm + scanner.depth_mm;
    assert!((scanner.s_mm(300) - ring_mm * (128.0 * PI / 504.0).sin()).abs() < 1e-9);
}

#[test]
fn known_efficiencies_come_back_within_their_statistical_error() {
    for (counts, seed) in [(35_000.0, 1), (2e6, 2), (2e7, 3)] {
        let ring = ring(counts, None);
        let delayeds = ring.delayeds(seed);
        let found = estimate_efficiencies(delayeds.view(), &ring.pairs, Some(Blocks::mmr())).unwrap();
        // A position has a fan of a quarter of the counts: both ends of each, eight positions.
        let error = (counts / 4.0).sqrt().recip();
        let known = by_position(&POSITIONS.repeat(56));
        let positions = by_position(found.crystals());
        let worst = (1..9)
            .map(|p| (positions[p] - known[p]).abs() / error)
            .fold(0.0, f64::max);
        // All crystals, against what the fan of each alone would give.
        let spread = found
            .crystals()
            .iter()
            .enumerate()
            .filter(|(i, _)| i % 9 != 0)
            .map(|(i, e)| (e - known[i % 9]).powi(2))
            .sum::<f64>();
        let of_crystals = (spread / 448.0).sqrt();
        let own = (2.0 * counts / 448.0).sqrt().recip();
        let fit = chi2(&delayeds, &found.randoms());
        println!(
            "{counts}: worst position {worst:.2} sd of {error:.4}; crystals {of_crystals:.4}, alone {own:.4}; chi2 {fit:.3}"
        );
        assert!(worst < 4.0 && (fit - 1.0).abs() < 0.03);
        assert!(positions[0] == 0.0 && of_crystals < 1.1 * own + error);
        // No worse than one by one, and with few counts far better.
        assert!(counts > 1e5 || of_crystals < 0.3 * own);
        let n = found.sinogram();
        for (&got, &expected) in n.iter().zip(&ring.efficiencies) {
            assert_eq!(got == 0.0, expected == 0.0);
        }
        let live = n.iter().filter(|&&v| v > 0.0).count() as f32;
        assert!((n.sum() / live - 1.0).abs() < 1e-4);
        // Randoms keep the counts and lose the noise.
        assert!((found.randoms().sum() / delayeds.sum() - 1.0).abs() < 1e-4);
        let off = |r: &Array2<f32>| (r - &ring.randoms).mapv(|d| f64::from(d).powi(2)).sum().sqrt();
        assert!(off(&found.randoms()) < 0.2 * off(&delayeds));
    }
}

#[test]
fn blocks_in_another_place_are_refused() {
    let ring = ring(35_000.0, None);
    let delayeds = ring.delayeds(4);
    let mut refused = 0;
    for gap in 0..9 {
        let blocks = Blocks {
            gap: Some(gap),
            ..Blocks::mmr()
        };
        match estimate_efficiencies(delayeds.view(), &ring.pairs, Some(blocks)) {
            Ok(_) => assert_eq!(gap, 0),
            Err(error) => {
                assert!(
                    matches!(error, Error::GapCounts { value, .. } if value > 0.0),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 8);
    // A sinogram turned by one view.
    let turned = Array2::from_shape_fn(ring.pairs.shape(), |(view, bin)| {
        delayeds[[(view + 1) % 252, bin]]
    });
    assert!(ring.pairs.check_gaps(turned.view(), Blocks::mmr()).is_err());
    ring.pairs.check_gaps(delayeds.view(), Blocks::mmr()).unwrap();
}

#[test]
fn few_counts_none_and_dead_blocks() {
    let blocks = Some(Blocks::mmr());
    let pairs = CrystalPairs::of(&CylindricalScanner::mmr()).unwrap();
    let none = Array2::zeros(pairs.shape());
    let found = estimate_efficiencies(none.view(), &pairs, blocks).unwrap();
    assert!(
        found
            .crystals()
            .iter()
            .enumerate()
            .all(|(i, &e)| { e == if i % 9 == 0 { 0.0 } else { 1.0 } })
    );
    assert_eq!(found.randoms(), none);
    // A hundred counts say little, and little is made of them.
    let few = ring(100.0, None).estimate(5);
    let off = |e: &Efficiencies| {
        let live = e.crystals().iter().enumerate().filter(|(i, _)| i % 9 != 0);
        live.map(|(_, e)| (e - 1.0).abs()).fold(0.0, f64::max)
    };
    assert!(off(&few) < 0.2, "{}", off(&few));
    // A dead block is seen as one, and nothing else is.
    let found = ring(35_000.0, Some(17)).estimate(6);
    for (i, &e) in found.crystals().iter().enumerate() {
        assert_eq!(e == 0.0, i % 9 == 0 || i / 9 == 17, "crystal {i}");
    }
    // Without blocks gaps are crystals that counted nothing.
    let ring = ring(2e6, None);
    let found = estimate_efficiencies(ring.delayeds(7).view(), &ring.pairs, None).unwrap();
    assert!(
        found
            .crystals()
            .iter()
            .enumerate()
            .all(|(i, &e)| (e == 0.0) == (i % 9 == 0))
    );
    assert!((chi2(&ring.randoms, &found.randoms())) < 0.05);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let pairs = CrystalPairs::new(36, 19).unwrap();
    let counts = Array2::<f32>::ones(pairs.shape());
    let text = |counts: &Array2<f32>, blocks| {
        estimate_efficiencies(counts.view(), &pairs, blocks)
            .unwrap_err()
            .to_string()
    };
    let blocks = |period, gap| Some(Blocks { period, gap });
    assert_eq!(
        text(&Array2::ones((18, 20)), None),
        "counts has shape [18, 20]; expected [18, 19]"
    );
    assert_eq!(
        text(&counts, blocks(9, Some(2))),
        "view 0, bin 4 counted 1; expected 0, as one of its crystals is a gap between blocks"
    );
    for (period, gap) in [(0, None), (7, None), (9, Some(9)), (1, Some(0))] {
        assert!(!text(&counts, blocks(period, gap)).contains('\n'));
    }
    assert!(text(&(0.0 * &counts), None).contains("at least 1"));
    assert!(text(&(-1.0 * &counts), None).contains("not negative"));
    for (crystals, bins) in [(0, 1), (2, 1), (7, 3), (36, 36), (36, 0)] {
        assert!(CrystalPairs::new(crystals, bins).is_err());
    }
    assert_eq!(Blocks::of(&CylindricalScanner::mmr()), Some(Blocks::mmr()));
    assert_eq!(
        Blocks::of(&CylindricalScanner {
            rings: 5,
            ..CylindricalScanner::mmr()
        }),
        None
    );
}

#[test]
fn efficiencies_are_arc_corrected_as_counts_of_a_uniform_density_are() {
    let scanner = CylindricalScanner::mmr();
    let n = ring(1.0, None).efficiencies;
    let width = |k: usize| {
        let edge = |k: f64| 334.7 * ((k - 172.0) * PI / 504.0).sin();
        edge(k as f64 + 0.5) - edge(k as f64 - 0.5)
    };
    let counts = Array2::from_shape_fn(n.dim(), |(v, k)| (n[[v, k]] * width(k) * 3.0) as f32).into_dyn();
    let n = n.mapv(|n| n as f32).into_dyn();
    // The last one reaches beyond the ring's bins.
    for target in [
        geometry(252, 287, scanner.bin_mm, 180.0, 0.0, 0.0),
        geometry(252, 91, 5.3, 180.0, 0.0, 4.25),
        geometry(252, 120, 6.0, 180.0, 0.0, 0.0),
    ] {
        let expected = arc_correct(counts.view(), &scanner, &target).unwrap();
        let got = arc_correct_efficiencies(n.view(), &scanner, &target).unwrap();
        for (&got, &expected) in got.iter().zip(&expected) {
            let got = f64::from(got) * 3.0 * target.bin_mm;
            assert!(
                (got - f64::from(expected)).abs() < 1e-5 * (1.0 + got),
                "{got} {expected}"
            );
        }
    }
}

/// A uniform cylinder on the axis of a ring with gaps.
struct Cylinder {
    ring: Ring,
    prompts: ArrayD<f32>,
    target: ParallelGeometry,
    grid: ImageGrid,
    activity: f64,
}

const RADIUS_MM: f64 = 100.0;

fn cylinder() -> Cylinder {
    let scanner = CylindricalScanner::mmr();
    let ring = ring(1e6, None);
    let disc = Ellipse {
        value: 1.0,
        x_mm: 0.0,
        y_mm: 0.0,
        a_mm: RADIUS_MM,
        b_mm: RADIUS_MM,
        tilt_rad: 0.0,
    };
    let edge = |k: f64| 334.7 * ((k - 172.0) * PI / 504.0).sin();
    let trues = Array2::from_shape_fn(ring.pairs.shape(), |(view, bin)| {
        let (lo, hi) = (edge(bin as f64 - 0.5), edge(bin as f64 + 0.5));
        disc.bin_mean(0.0, (lo + hi) / 2.0, hi - lo) * (hi - lo) * ring.efficiencies[[view, bin]]
    });
    let density = 2e7 / trues.sum();
    let mean = trues.mapv(|t| (t * density) as f32) + &ring.randoms;
    let target = geometry(252, 287, scanner.bin_mm, 180.0, 0.0, 0.0);
    let prompts = arc_correct(poisson(9, &mean).view(), &scanner, &target).unwrap();
    Cylinder {
        ring,
        prompts,
        target,
        grid: ImageGrid::square(88, 3.0).unwrap(),
        activity: density * target.bin_mm,
    }
}

impl Cylinder {
    /// Mean over the inner 85 % of the radius in units of the activity, and how much the means of rings of one pixel
    /// differ, relative to it; the final log-likelihood.
    fn judge(&self, n: Option<&Array2<f32>>, background: &Array2<f32>) -> (f64, f64, f64) {
        let scanner = CylindricalScanner::mmr();
        let config = OsemConfig {
            iterations: 5,
            subsets: 12,
        };
        let flat = arc_correct(background.view().into_dyn(), &scanner, &self.target).unwrap();
        let mut osem = Osem::new(self.grid, self.target, config)
            .unwrap()
            .with_background(flat.view())
            .unwrap();
        if let Some(n) = n {
            let n = arc_correct_efficiencies(n.view().into_dyn(), &scanner, &self.target).unwrap();
            osem = osem.with_normalisation(n.view()).unwrap();
        }
        let mut likelihood = 0.0;
        let image = osem
            .reconstruct_observed(self.prompts.view(), &mut |step| {
                likelihood = step.log_likelihood[0];
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        let mut rings = [(0.0, 0.0); 28];
        for (at, &value) in image.indexed_iter() {
            let (x, y) = (self.grid.x_mm(at[1] as f64), self.grid.y_mm(at[0] as f64));
            let ring = (x.hypot(y) / self.grid.pixel_mm) as usize;
            if let Some((sum, count)) = rings.get_mut(ring) {
                *sum += f64::from(value) / self.activity;
                *count += 1.0;
            }
        }
        let (sum, count) = rings.iter().fold((0.0, 0.0), |(s, c), r| (s + r.0, c + r.1));
        let mean = sum / count;
        let squares: f64 = rings
            .iter()
            .map(|(sum, count)| count * (sum / count / mean - 1.0).powi(2))
            .sum();
        (mean, (squares / count).sqrt(), likelihood)
    }
}

#[test]
fn a_cylinder_behind_gaps_is_uniform_with_the_efficiencies_of_its_delayeds() {
    let cylinder = cylinder();
    let delayeds = cylinder.ring.delayeds(8);
    let found = estimate_efficiencies(delayeds.view(), &cylinder.ring.pairs, Some(Blocks::mmr())).unwrap();
    let n = found.sinogram();
    let (mean, rings, likelihood) = cylinder.judge(Some(&n), &found.randoms());
    let (raw_mean, raw_rings, _) = cylinder.judge(Some(&n), &delayeds);
    let (_, without, without_likelihood) = cylinder.judge(None, &found.randoms());
    let turned = Array2::from_shape_fn(n.dim(), |(view, bin)| n[[(view + 4) % 252, bin]]);
    let (_, wrong, wrong_likelihood) = cylinder.judge(Some(&turned), &found.randoms());
    println!(
        "mean {mean:.4}, rings {rings:.4}; delayeds as background {raw_mean:.4}, {raw_rings:.4}; without efficiencies \
         {without:.4}; gaps elsewhere {wrong:.4}"
    );
    assert!((mean - 1.0).abs() < 0.01 && rings < 0.02, "{mean} {rings}");
    assert!(
        (raw_mean - 1.0).abs() < 0.01 && raw_rings < 0.02,
        "{raw_mean} {raw_rings}"
    );
    assert!(without > 5.0 * rings && wrong > 5.0 * rings, "{without} {wrong}");
    assert!(likelihood > without_likelihood && likelihood > wrong_likelihood);
}
