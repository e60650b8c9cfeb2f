//! From a scanner's list-mode file to a model of its own: histogram, bootstrap, train `tiny`, sample, reconstruct.
//!
//! `cargo run --release --example train_on_your_sinograms [STEPS] [FOLDER] [FILE.hdr]`; without a file a list-mode file
//! of a disc with a hot spot is written first and read back the same way. Writes `your_sinogram.png` and
//! `your_samples.png`. One acquisition bootstrapped is no population: this shows the chain, not a useful model.

#![allow(clippy::print_stdout)]

use allpet::core::{CylindricalScanner, Dataset, ImageGrid, ParallelGeometry, Prompt, stream};
use allpet::foundation::{
    Foundation, MODEL_FILE, Place, RunConfig, SynthesisRequest, resample, train_autoencoder, train_foundation,
};
use allpet::io::{Announcement, Grid, ListMode, ListModeWriter, Palette, Record, Tile};
use allpet::radon::analytic::{Ellipse, Shape};
use allpet::radon::{Fbp, Filter, arc_correct};
use allpet::train::TrainConfig;
use ndarray::{Array2, Array3, Axis, Ix2, Ix3};
use rand::Rng;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Sinograms drawn from the events of one file.
const SAMPLES: usize = 24;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let steps: usize = arguments.next().map_or(Ok(150), |s| s.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out/your_sinograms".into()));
    std::fs::create_dir_all(&folder)?;
    let header = match arguments.next() {
        Some(path) => PathBuf::from(path),
        None => write_twin(&folder)?,
    };

    let list = ListMode::open(&header, None)?;
    for warning in &list.warnings {
        println!("note: {warning}");
    }
    let scanner = list.scanner;
    let (mut prompts, mut delayeds) = (Vec::new(), 0usize);
    for record in list.records()? {
        match record? {
            Record::Event(event) if event.prompt => prompts.push((event.view as u16, event.radial as u16)),
            Record::Event(_) => delayeds += 1,
            Record::Time(_) => {}
        }
    }
    println!(
        "{}: {} prompts, {delayeds} delayeds",
        header.display(),
        prompts.len()
    );
    if prompts.is_empty() {
        return Err("the file holds no prompts".into());
    }

    // Randoms are nearly flat: their mean per bin comes off every sinogram.
    let (views, bins) = (scanner.views(), scanner.bins);
    let randoms = delayeds as f32 / (views * bins) as f32;
    let fine = ParallelGeometry::new(views, 160, 2.0 * scanner.bin_mm)?;
    let small = ParallelGeometry::new(64, 64, 5.0 * scanner.bin_mm)?;
    let sinogram = |events: &mut dyn Iterator<Item = (u16, u16)>| -> Result<Array2<f32>> {
        let mut counts = Array2::<f32>::from_elem((views, bins), -randoms);
        for (view, radial) in events {
            counts[[usize::from(view), usize::from(radial)]] += 1.0;
        }
        let corrected =
            arc_correct(counts.view().into_dyn(), &scanner, &fine)?.into_dimensionality::<Ix2>()?;
        Ok(resample(corrected.view(), &fine, &small)?.mapv(|v| v.max(0.0)))
    };
    let measured = sinogram(&mut prompts.iter().copied())?;

    // Each training sinogram is the file's events drawn again with replacement.
    let mut data = Array3::<f32>::zeros((SAMPLES, small.views, small.bins));
    for (index, mut out) in data.outer_iter_mut().enumerate() {
        let mut random = stream(7, "bootstrap", index as u64);
        let mut draws = (0..prompts.len()).map(|_| prompts[random.random_range(0..prompts.len())]);
        out.assign(&sinogram(&mut draws)?);
    }
    let dataset = Dataset {
        arrays: [("target".to_owned(), data.into_dyn())].into(),
        subjects: vec![0; SAMPLES],
        prompts: vec![Prompt::parse("brain with 18F-FDG")?[0]; SAMPLES],
        geometry: Some(small),
        ..Dataset::default()
    };

    let model = train(&folder, steps, &dataset)?;
    let request = SynthesisRequest {
        prompts: dataset.prompts[..1].to_vec(),
        count: 3,
        steps: 20,
        ..Default::default()
    };
    let made = model.synthesise(&request, &mut |_, _| ControlFlow::Continue(()))?;

    let grid = ImageGrid::square(small.bins, small.bin_mm)?;
    let fbp = Fbp::new(grid, small, Filter::Hann, 0.8)?;
    let image = fbp
        .reconstruct(measured.view().into_dyn())?
        .into_dimensionality::<Ix2>()?;
    let pictures = fbp
        .reconstruct(made.sinograms.view().into_dyn())?
        .into_dimensionality::<Ix3>()?;
    let measured_tiles = [
        Tile::new(measured.view(), "measured").palette(Palette::Magma),
        Tile::new(image.view(), "FBP").palette(Palette::InvertedGrey),
    ];
    let mut layout = Grid::new(2);
    layout.upscale = 4;
    layout.write(&folder.join("your_sinogram.png"), &measured_tiles)?;
    let mut tiles = Vec::new();
    for (sinogram, image) in made.sinograms.axis_iter(Axis(0)).zip(pictures.axis_iter(Axis(0))) {
        tiles.push(Tile::new(sinogram, "generated").palette(Palette::Magma));
        tiles.push(Tile::new(image, "FBP").palette(Palette::InvertedGrey));
    }
    layout.write(&folder.join("your_samples.png"), &tiles)?;
    println!(
        "{}: your_sinogram.png, your_samples.png, run folders",
        folder.display()
    );
    Ok(())
}

/// Trains the autoencoder, then the denoiser, from nothing each time.
fn train(folder: &Path, steps: usize, data: &Dataset) -> Result<Foundation> {
    let stop = AtomicBool::new(false);
    let device = allpet::candle::Device::Cpu;
    let data = std::slice::from_ref(data);
    let settings = |rate| TrainConfig {
        steps,
        batch: 8,
        rate,
        warmup: steps.min(20),
        ema: 0.95,
        ..TrainConfig::default()
    };
    let (first, second) = (folder.join("autoencoder"), folder.join("foundation"));
    for run in [&first, &second] {
        if run.exists() {
            std::fs::remove_dir_all(run)?;
        }
    }
    let place = |folder| Place {
        folder,
        resume: false,
        stop: &stop,
        device: &device,
    };
    let mut config = RunConfig {
        preset: "tiny".into(),
        model: None,
        autoencoder: None,
        start: None,
        train: settings(3e-3),
    };
    println!(
        "autoencoder, {steps} steps: {:?}",
        train_autoencoder(&config, data, place(&first), &mut [])?
    );
    config.autoencoder = Some(first.join(MODEL_FILE));
    config.train = settings(1e-3);
    println!(
        "denoiser, {steps} steps: {:?}",
        train_foundation(&config, data, place(&second), &mut [])?
    );
    Ok(Foundation::load(&second.join(MODEL_FILE), &device)?)
}

/// A list-mode file of a disc with a hot spot over flat randoms, as a scanner would write it.
fn write_twin(folder: &Path) -> Result<PathBuf> {
    let scanner = CylindricalScanner::mmr();
    let disc = Ellipse {
        value: 1.0,
        x_mm: 0.0,
        y_mm: 0.0,
        a_mm: 75.0,
        b_mm: 95.0,
        tilt_rad: 0.0,
    };
    let spot = Ellipse {
        value: 3.0,
        x_mm: 30.0,
        y_mm: 30.0,
        a_mm: 15.0,
        b_mm: 15.0,
        tilt_rad: 0.0,
    };
    let views = ParallelGeometry::new(scanner.views(), scanner.bins, scanner.bin_mm)?;
    let path = folder.join("twin.l.hdr");
    let mut writer = ListModeWriter::create(&path, &scanner, Announcement::default())?;
    let mut random = stream(1, "twin", 0);
    for ms in 0..200u32 {
        writer.time(ms)?;
        let mut written = 0;
        while written < 500 {
            let (view, radial) = (
                random.random_range(0..scanner.views()),
                random.random_range(0..scanner.bins),
            );
            let [angle, s] = [views.angle(view), scanner.s_mm(radial)];
            let density = disc.line_integral(angle, s) + spot.line_integral(angle, s);
            if random.random::<f64>() * 300.0 < density {
                writer.event(true, 0, view, radial)?;
                written += 1;
            }
        }
        for _ in 0..50 {
            let (view, radial) = (
                random.random_range(0..scanner.views()),
                random.random_range(0..scanner.bins),
            );
            writer.event(random.random::<bool>(), 0, view, radial)?;
        }
    }
    writer.finish()?;
    Ok(path)
}
