//! A real acquisition thinned to a quarter of its events, restored, and judged by the events that were left out.
//!
//! `cargo run --release --example real_acquisition [FOLDER] [FILE.hdr]`; the file is Interfile list-mode of a Siemens Biograph mMR,
//! whose coincidences are summed over all planes. Without one a simulated head is written and read back the same way. Writes
//! `real_acquisition.png`.
//!
//! There is no truth to compare with. But the quarter and the rest are independent (each event's lot was its own), so for any
//! sinogram made of the quarter alone, of mean `μ` in a bin of the whole acquisition, and the rest's count `R ~ Poisson(pλ)`,
//! `Σ (μ - R/p)² - R/p²` is its squared error `Σ (μ - λ)²` without bias, and `Σ R ln μ - pμ` orders sinograms as the distance of
//! Kullback and Leibler does. Both are taken in the scanner's own bins, where counts are Poisson and no gap is filled.

#![allow(clippy::print_stdout)]

use allpet::core::{CylindricalScanner, ImageGrid, ParallelGeometry, stream};
use allpet::foundation::resample;
use allpet::io::{
    Announcement, Grid, HistogramOptions, ListMode, ListModeWriter, Palette, Thinning, Tile, Window,
};
use allpet::prelude::{
    Device, Downstream, LinearOperator, Osem, OsemConfig, Projector, Region, RestoreRequest, Restored,
    Restorer, Split, TaskConfig, Tracer, pretrained_tasks, simulate_task,
};
use allpet::radon::{
    Blocks, CrystalPairs, Efficiencies, GapFilling, arc_correct, arc_correct_efficiencies,
    estimate_efficiencies, precorrect, regrid_counts, ring_counts,
};
use allpet::sim::positivity::non_negative;
use allpet::sim::tasks::PairedTask;
use allpet::tasks::LowDose;
use allpet::tasks::classical::OsemFiltered;
use ndarray::{Array2, ArrayD, Axis, Ix2};
use rand::Rng;
use rand_distr::{Distribution, Poisson};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Seed of everything drawn by chance, and the share of the events that is restored.
const SEED: u64 = 1;
const QUARTER: f64 = 0.25;
/// Counts of a whole dose in the training data; see the model card.
const TRAINED_COUNTS: f64 = 1e6;
/// Prompts and randoms of the simulated head.
const TWIN_COUNTS: (f64, f64) = (180_000.0, 35_000.0);
const TWIN_MS: u32 = 600;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;
    let model = pretrained_tasks(&Device::Cpu)?;
    let (header, truth) = match arguments.next() {
        Some(path) => (PathBuf::from(path), None),
        None => {
            let header = folder.join("twin.l.hdr");
            let truth = write_twin(&header)?;
            (header, Some(truth))
        }
    };

    let list = ListMode::open(&header, None)?;
    let part = |thinning| Part::read(&list, thinning, model.geometry());
    let of_quarter = |rest| {
        Some(Thinning {
            fraction: QUARTER,
            seed: SEED,
            rest,
        })
    };
    let (full, quarter, rest) = (part(None)?, part(of_quarter(false))?, part(of_quarter(true))?);
    for (name, part) in [("all", &full), ("quarter", &quarter), ("rest", &rest)] {
        println!(
            "{name:8} {:8.0} prompts, {:7.0} delayeds, {:9.1} corrected counts",
            part.prompts.sum(),
            part.delayeds,
            total(&part.corrected)
        );
    }
    let judge = Judge::new(&list.scanner, *model.geometry(), &full, &rest, truth);
    let answers = answers(&model, &list.scanner, &full, &quarter)?;
    judge.table(&full, &answers)?;
    picture(&folder.join("real_acquisition.png"), &model, &full, &answers)
}

/// Some of the events: their counts in the scanner's bins, and the corrected sinogram that a task takes.
struct Part {
    prompts: Array2<f32>,
    delayeds: f64,
    found: Efficiencies,
    /// In the model's geometry, 0 or more.
    corrected: Array2<f32>,
}

impl Part {
    /// Efficiencies and randoms come from the part's own delayeds: a quarter knows nothing of the rest.
    fn read(list: &ListMode, thinning: Option<Thinning>, geometry: &ParallelGeometry) -> Result<Self> {
        let counts = list.histogram(&HistogramOptions {
            thinning,
            ..HistogramOptions::default()
        })?;
        let blocks = Blocks::of(&list.scanner).ok_or("the blocks of this scanner are not known")?;
        let pairs = CrystalPairs::of(&list.scanner)?;
        let prompts: Array2<f32> = counts.prompts.into_dimensionality()?;
        let delayeds: Array2<f32> = counts.delayeds.into_dimensionality()?;
        let found = estimate_efficiencies(delayeds.view(), &pairs, Some(blocks))?;
        let (n, r) = (found.sinogram(), found.randoms());
        let filling = GapFilling::default();
        let ring = precorrect(prompts.view(), n.view(), r.view(), &list.scanner, &filling)?;
        let corrected = non_negative(regrid_counts(ring.view(), &list.scanner, geometry)?);
        Ok(Self {
            prompts,
            delayeds: counts.delayed_count as f64,
            found,
            corrected,
        })
    }

    /// The part's sinogram as the projection of its OSEM image, with efficiencies and randoms in the model.
    fn by_osem(&self, scanner: &CylindricalScanner, geometry: &ParallelGeometry) -> Result<Array2<f32>> {
        let bins = (2.0 * scanner.s_mm(0).abs() / scanner.bin_mm).floor() as usize;
        let fine = ParallelGeometry::new(scanner.views(), bins, scanner.bin_mm)?;
        let grid = image_grid(geometry)?;
        let (n, r) = (self.found.sinogram(), self.found.randoms());
        let counts = arc_correct(self.prompts.view().into_dyn(), scanner, &fine)?;
        let n = arc_correct_efficiencies(n.view().into_dyn(), scanner, &fine)?;
        let r = arc_correct(r.view().into_dyn(), scanner, &fine)?;
        let image = Osem::new(grid, fine, OsemConfig::default())?
            .with_normalisation(n.view())?
            .with_background(r.view())?
            .reconstruct(counts.view())?;
        // Counts of a bin grow with its width in mm and in angle.
        let wider = geometry.bin_mm / fine.bin_mm * fine.views as f64 / geometry.views as f64;
        let projected = Projector::new(grid, *geometry)?.apply(image.view())?;
        Ok(projected.into_dimensionality::<Ix2>()? * wider as f32)
    }
}

/// A sinogram of the whole acquisition's counts in the model's geometry, and whether it has seen the rest.
struct Answer {
    name: &'static str,
    sinogram: Array2<f32>,
    has_seen_the_rest: bool,
}

/// The answer shown in the picture, and the plain one that the others are compared with.
const RESTORED: &str = "restored, 1 evaluation";
const FIRST_ESTIMATE: &str = "first estimate (MLEM, filtered)";

fn answers(
    model: &Restorer,
    scanner: &CylindricalScanner,
    full: &Part,
    quarter: &Part,
) -> Result<Vec<Answer>> {
    let geometry = model.geometry();
    let input = quarter.corrected.view().insert_axis(Axis(0));
    let estimate = |of: &Part, dose: f64| -> Result<Array2<f32>> {
        let stack = of.corrected.view().insert_axis(Axis(0));
        let restored = OsemFiltered::for_dose(dose)?.restore(stack, geometry, dose)?;
        Ok(restored.index_axis_move(Axis(0), 0))
    };
    let restore = |dose: f64, steps, samples| -> Result<Restored> {
        let request = RestoreRequest {
            shown: vec![(Some(Tracer::Fdg), Some(Region::Brain))],
            steps,
            samples,
            seed: SEED,
            ..RestoreRequest::new(Downstream::LowDose(LowDose { dose }))
        };
        Ok(model.restore(input, &request, &mut |_, _| ControlFlow::Continue(()))?)
    };
    let first = |restored: &Restored| restored.mean.slice(ndarray::s![0, 0, .., ..]).to_owned();
    let once = restore(QUARTER, 1, 1)?;
    let mut on_range = once.clone();
    on_range.project_onto_range(geometry, Restored::RANGE_ITERATIONS)?;
    let several = restore(QUARTER, 5, 8)?;
    // The dose as the training data would call it: their whole one has a million counts. Totals are brought back to a quarter's.
    let dose = (total(&quarter.corrected) / TRAINED_COUNTS).min(1.0);
    let back = (dose / QUARTER) as f32;
    println!("by its counts the quarter is a dose of {dose:.3}");
    let told = restore(dose, 1, 1)?;
    let mut told_on_range = told.clone();
    told_on_range.project_onto_range(geometry, Restored::RANGE_ITERATIONS)?;
    let of_quarter = |name, sinogram| Answer {
        name,
        sinogram,
        has_seen_the_rest: false,
    };
    let of_all = |name, sinogram| Answer {
        name,
        sinogram,
        has_seen_the_rest: true,
    };
    let scale = (1.0 / QUARTER) as f32;
    Ok(vec![
        of_quarter("quarter, times 4", &quarter.corrected * scale),
        of_quarter(
            "OSEM, 4 iterations of 12",
            quarter.by_osem(scanner, geometry)? * scale,
        ),
        of_quarter(FIRST_ESTIMATE, estimate(quarter, QUARTER)?),
        of_quarter(RESTORED, first(&once)),
        of_quarter("  onto the range", first(&on_range)),
        of_quarter("restored, mean of 8", first(&several)),
        of_quarter("first estimate, dose by counts", estimate(quarter, dose)? * back),
        of_quarter("restored, dose by counts", first(&told) * back),
        of_quarter("  onto the range", first(&told_on_range) * back),
        of_all("all, as measured", full.corrected.clone()),
        of_all("all, MLEM filtered", estimate(full, 1.0)?),
    ])
}

/// The counts of the rest, and what a sinogram says that they should be.
struct Judge {
    scanner: CylindricalScanner,
    geometry: ParallelGeometry,
    efficiencies: Array2<f32>,
    /// Of the whole acquisition.
    randoms: Array2<f32>,
    rest: Array2<f32>,
    /// Mean trues of the whole acquisition in the scanner's bins at efficiency 1, where they are known.
    truth: Option<Array2<f32>>,
}

impl Judge {
    fn new(
        scanner: &CylindricalScanner,
        geometry: ParallelGeometry,
        full: &Part,
        rest: &Part,
        truth: Option<Array2<f32>>,
    ) -> Self {
        Self {
            scanner: *scanner,
            geometry,
            efficiencies: full.found.sinogram(),
            randoms: full.found.randoms(),
            rest: rest.prompts.clone(),
            truth,
        }
    }

    /// A sinogram of the model's geometry in the scanner's bins: linear between bins and views.
    fn in_ring(&self, sinogram: &Array2<f32>) -> Result<Array2<f32>> {
        let views = ParallelGeometry {
            views: self.scanner.views(),
            ..self.geometry
        };
        let narrower = self.geometry.views as f32 / views.views as f32;
        let turned = resample(sinogram.view(), &self.geometry, &views)? * narrower;
        Ok(ring_counts(turned.view().into_dyn(), &views, &self.scanner)?.into_dimensionality()?)
    }

    /// Count of the rest and expected prompts of all, bin by bin.
    fn bins(&self, sinogram: &Array2<f32>) -> Result<Vec<(f64, f64)>> {
        let trues = self.in_ring(sinogram)?;
        let bins = trues
            .iter()
            .zip(&self.efficiencies)
            .zip(&self.randoms)
            .zip(&self.rest);
        Ok(bins
            .filter(|(((_, n), _), _)| **n > 0.0)
            .map(|(((&x, &n), &r), &counted)| {
                let mean = f64::from(x) * f64::from(n) + f64::from(r);
                (f64::from(counted), mean.max(1e-9))
            })
            .collect())
    }

    /// Relative error of the trues, by events that were left out; below 0 where chance has made its square negative.
    fn error(&self, bins: &[(f64, f64)]) -> f64 {
        let p = 1.0 - QUARTER;
        let squared: f64 = bins
            .iter()
            .map(|(r, mu)| (mu - r / p).powi(2) - r / (p * p))
            .sum();
        let live = self.randoms.iter().zip(&self.efficiencies).zip(&self.rest);
        let size: f64 = live
            .filter(|((_, n), _)| **n > 0.0)
            .map(|((&randoms, _), &r)| {
                let r = f64::from(r);
                (r / p - f64::from(randoms)).powi(2) - r / (p * p)
            })
            .sum();
        (squared.abs() / size).sqrt().copysign(squared)
    }

    /// What the rest's log-likelihood gains over another sinogram, and the standard deviation of that.
    fn gain(bins: &[(f64, f64)], over: &[(f64, f64)]) -> (f64, f64) {
        let p = 1.0 - QUARTER;
        let (mut gain, mut variance) = (0.0, 0.0);
        for ((r, mu), (_, other)) in bins.iter().zip(over) {
            let ratio = (mu / other).ln();
            gain += r * ratio - p * (mu - other);
            variance += r * ratio * ratio;
        }
        (gain, variance.sqrt())
    }

    fn table(&self, full: &Part, answers: &[Answer]) -> Result<()> {
        println!(
            "\n{:32}{:>10}{:>8}{:>10}{:>10}{:>20}{:>9}",
            "", "counts", "of all", "to all", "to unseen", "ln L of the unseen", "to truth"
        );
        let plain = answers.iter().find(|a| a.name == FIRST_ESTIMATE);
        let plain = self.bins(&plain.ok_or("no first estimate")?.sinogram)?;
        for answer in answers {
            let bins = self.bins(&answer.sinogram)?;
            let (gain, sd) = Self::gain(&bins, &plain);
            let counts = total(&answer.sinogram);
            let unseen = match answer.has_seen_the_rest {
                true => format!("{:>10}{:>20}", "-", "-"),
                false => format!("{:>10.4}{gain:>+12.0} ± {sd:<5.0}", self.error(&bins)),
            };
            let truth = match &self.truth {
                Some(truth) => format!("{:>9.4}", distance(&self.in_ring(&answer.sinogram)?, truth)),
                None => format!("{:>9}", "-"),
            };
            println!(
                "{:32}{counts:10.0}{:8.3}{:10.4}{unseen}{truth}",
                answer.name,
                counts / total(&full.corrected),
                distance(&answer.sinogram, &full.corrected)
            );
        }
        println!(
            "to: root of the squared error over that of the reference; ln L in nats over the first estimate's, ± one \
             standard deviation"
        );
        Ok(())
    }
}

/// Sinograms above their OSEM images: all, the quarter, first estimate, restored, and restored less all.
fn picture(path: &Path, model: &Restorer, full: &Part, answers: &[Answer]) -> Result<()> {
    let geometry = model.geometry();
    let osem = Osem::new(image_grid(geometry)?, *geometry, OsemConfig::default())?;
    let image = |sinogram: &Array2<f32>| -> Result<Array2<f32>> {
        Ok(osem
            .reconstruct(sinogram.view().into_dyn())?
            .into_dimensionality()?)
    };
    let named = |name: &str| -> Result<&Array2<f32>> {
        let found = answers.iter().find(|a| a.name == name);
        Ok(&found.ok_or("no such answer")?.sinogram)
    };
    let captions = ["all", "quarter, times 4", "first estimate", "restored"];
    let sinograms = [
        &full.corrected,
        &answers[0].sinogram,
        named(FIRST_ESTIMATE)?,
        named(RESTORED)?,
    ];
    let images = sinograms.iter().map(|s| image(s)).collect::<Result<Vec<_>>>()?;
    let rows = [sinograms.to_vec(), images.iter().collect()];
    let differences = rows.each_ref().map(|row| row[3] - row[0]);
    let mut tiles = Vec::new();
    for (row, difference) in rows.iter().zip(&differences) {
        let window = Window::Robust.resolve(row[3].view())?;
        for (values, caption) in row.iter().zip(captions) {
            tiles.push(Tile::new(values.view(), caption).window(Window::Fixed(0.0, window.1)));
        }
        let end = window.1 / 2.0;
        let tile = Tile::new(difference.view(), "restored - all, half the window");
        tiles.push(tile.palette(Palette::BlueRed).window(Window::Fixed(-end, end)));
    }
    let mut layout = Grid::new(5);
    layout.upscale = 2;
    layout.write(path, &tiles)?;
    println!("{}", path.display());
    Ok(())
}

/// Writes the list-mode file of a simulated head between its randoms, as an mMR would see it: attenuated, with gaps between blocks
/// and crystals that differ. Returns the mean trues in the scanner's bins at the mean efficiency.
fn write_twin(header: &Path) -> Result<Array2<f32>> {
    let scanner = CylindricalScanner::mmr();
    let fine = ParallelGeometry::new(scanner.views(), 287, scanner.bin_mm)?;
    let head = simulate_task(
        &TaskConfig {
            task: PairedTask::LowDose(Default::default()),
            tracers: vec![Tracer::Fdg],
            regions: vec![Region::Brain],
            split: Split::Test,
            count: 1,
            subjects: 1,
            seed: SEED,
            geometry: fine,
            image_size: 144,
            ..TaskConfig::default()
        },
        &|_| {},
    )?;
    let plane =
        |name: &str| -> Result<ArrayD<f32>> { Ok(head.array(name)?.index_axis(Axis(0), 0).to_owned()) };
    let field_mm = fine.bins as f64 * fine.bin_mm;
    let projector = Projector::new(ImageGrid::square(144, field_mm / 144.0)?, fine)?;
    let activity = projector.apply(plane("image")?.view())?;
    // The array is in cm⁻¹.
    let depth = projector.apply((plane("attenuation")? * 0.1).view())?;
    let seen = activity * depth.mapv(|d| (-d).exp());
    let trues: Array2<f32> = ring_counts(seen.view(), &fine, &scanner)?.into_dimensionality()?;

    let (pairs, blocks) = (CrystalPairs::of(&scanner)?, Blocks::mmr());
    let mut random = stream(SEED, "twin", 0);
    // Positions in a block differ by some 7 %, crystals of one position by some 2 %.
    let positions: Vec<f32> = (0..blocks.period)
        .map(|_| random.random_range(0.88..1.12))
        .collect();
    let crystals: Vec<f32> = (0..scanner.crystals)
        .map(|i| match blocks.is_gap(i) {
            true => 0.0,
            false => positions[i % blocks.period] * random.random_range(0.965..1.035),
        })
        .collect();
    let n = Array2::from_shape_fn(pairs.shape(), |(view, bin)| {
        let (a, b) = pairs.pair(view, bin);
        crystals[a] * crystals[b]
    });
    let live = n.iter().filter(|n| **n > 0.0).count() as f32;
    let n = &n * (live / n.sum());
    let scale = (TWIN_COUNTS.0 - TWIN_COUNTS.1) as f32 / (&trues * &n).sum();
    let trues = trues * scale;
    let randoms = &n * (TWIN_COUNTS.1 as f32 / n.sum());
    let mut events = Vec::new();
    for (prompt, means) in [(true, &trues * &n + &randoms), (false, randoms)] {
        for ((view, bin), &mean) in means.indexed_iter() {
            let count = Poisson::new(f64::from(mean)).map_or(0.0, |p| p.sample(&mut random));
            for _ in 0..count as usize {
                let plane = random.random_range(0..scanner.planes());
                events.push((random.random_range(0..TWIN_MS), prompt, plane, view, bin));
            }
        }
    }
    events.sort_unstable();
    let mut writer = ListModeWriter::create(header, &scanner, Announcement::default())?;
    let mut next = 0;
    for (ms, prompt, plane, view, bin) in events {
        while next <= ms {
            writer.time(next)?;
            next += 1;
        }
        writer.event(prompt, plane, view, bin)?;
    }
    writer.finish()?;
    Ok(trues)
}

/// Pixels as large as the bins, over the field of view.
fn image_grid(geometry: &ParallelGeometry) -> Result<ImageGrid> {
    Ok(ImageGrid::square(geometry.bins, geometry.bin_mm)?)
}

fn total(values: &Array2<f32>) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum()
}

/// `‖x - y‖ / ‖y‖`.
fn distance(values: &Array2<f32>, reference: &Array2<f32>) -> f64 {
    let squared = |all: &mut dyn Iterator<Item = f32>| all.map(|v| f64::from(v).powi(2)).sum::<f64>();
    let error = squared(&mut values.iter().zip(reference).map(|(a, b)| a - b));
    (error / squared(&mut reference.iter().copied())).sqrt()
}
