//! What the examples of the five tasks share: a person to restore, a table, a picture.

use allpet::core::{Dataset, ParallelGeometry};
use allpet::io::{Canvas, Grid, Palette, Tile, Window};
use allpet::sim::{Split, TaskConfig, simulate_task};
use allpet::tasks::study::Cases;
use allpet::tasks::{RestoreRequest, Restored, Restorer};
use ndarray::{Array4, ArrayView2, Axis, Slice, s};
use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;

/// People looked at until one has a lesion to see.
const CANDIDATES: usize = 48;
/// Pixels of a lesion to see, and its uptake over that of the tissue around it.
const LESION: (usize, f32) = (12, 1.5);
/// Columns of `lesions` before the values and hosts of the targets.
const SHAPE_COLUMNS: usize = 5;

/// Picture pixels per bin, pixels between tiles, and tiles in a row.
const UPSCALE: usize = 2;
const GAP: usize = 16;
const COLUMNS: usize = 5;
/// Where the error stands in a row, and the share of the window at which its colours, and those of the deviation, end.
const ERROR: (usize, f32) = (3, 0.25);

/// The first held-out person of a seed with a lesion in the slice that some target shows.
pub(crate) fn subject(geometry: ParallelGeometry, settings: TaskConfig) -> Result<Cases, Box<dyn Error>> {
    let config = TaskConfig {
        split: Split::Test,
        count: CANDIDATES,
        subjects: CANDIDATES,
        geometry,
        image_size: geometry.bins,
        ..settings
    };
    let data = simulate_task(&config, &|_| {})?;
    let (mask, lesions) = (data.array("lesion_mask")?, data.array("lesions")?);
    let shown = |person: usize| {
        let labels = mask.index_axis(Axis(0), person);
        let rows = lesions.index_axis(Axis(0), person);
        rows.outer_iter().enumerate().any(|(row, lesion)| {
            let avid = (0..config.task.targets()).any(|target| {
                let column = SHAPE_COLUMNS + 2 * target;
                lesion[[column]] > LESION.1 * lesion[[column + 1]]
            });
            avid && labels.iter().filter(|v| **v as usize == row + 1).count() >= LESION.0
        })
    };
    let person = (0..CANDIDATES)
        .find(|i| shown(*i))
        .ok_or("nobody with such a lesion")?;
    let one = Dataset {
        arrays: data
            .arrays
            .iter()
            .map(|(name, all)| {
                let own = all.slice_axis(Axis(0), Slice::from(person..person + 1));
                (name.clone(), own.to_owned())
            })
            .collect(),
        subjects: vec![data.subjects[person]],
        prompts: vec![data.prompts[person]],
        geometry: data.geometry,
        metadata: data.metadata.clone(),
    };
    println!("person {} of the test split, {}", one.subjects[0], one.prompts[0]);
    Ok(Cases::new(&one)?)
}

/// Ten evaluations of the network for each of eight samples: their mean is the result, their spread what it is unsure of.
pub(crate) fn restore(model: &Restorer, cases: &Cases, seed: u64) -> Result<Restored, Box<dyn Error>> {
    let request = RestoreRequest {
        shown: cases.shown.clone(),
        steps: 10,
        samples: 8,
        seed,
        keep_samples: true,
        ..RestoreRequest::new(cases.task)
    };
    let mut watch = |_, _| ControlFlow::Continue(());
    Ok(model.restore(cases.inputs.view(), &request, &mut watch)?)
}

/// Prints the scores of sinograms `[1, outputs, view, radial]`, the input's first. Counts are totals over the truth's.
pub(crate) fn table(cases: &Cases, ways: &[(&str, &Array4<f32>)]) -> Result<(), Box<dyn Error>> {
    println!("{:26}{:^24} {:^24}", "", "sinogram", "image (FBP)");
    println!(
        "{:26}{:>8}{:>8}{:>8} {:>8}{:>8}{:>8}{:>8}",
        "", "PSNR", "SSIM", "NMSE", "PSNR", "SSIM", "NMSE", "counts"
    );
    let input = cases.unrestored();
    let total = |all: &Array4<f32>, output: usize| {
        all.slice(s![0, output, .., ..])
            .iter()
            .map(|v| f64::from(*v))
            .sum::<f64>()
    };
    for (way, restored) in [("input", &input)].iter().chain(ways) {
        let row = cases.score(way, restored.view(), None, 0.0)?;
        for output in 0..cases.task.outputs() {
            print!("{:26}", named(cases, output, way));
            for scores in [&row.sinogram, &row.image] {
                let (psnr, ssim, nmse) = (scores.psnr[output], scores.ssim[output], scores.nmse[output]);
                print!("{psnr:8.2}{ssim:8.3}{nmse:8.4} ");
            }
            println!("{:7.3}", total(restored, output) / total(&cases.truth, output));
        }
    }
    Ok(())
}

/// Draws every output, its sinogram above its image. Input, restored and truth share a window, from 0 to the 99.5th percentile
/// of the truth; the colours of error and deviation end at a quarter of it, whatever they are.
pub(crate) fn picture(cases: &Cases, restored: &Restored, path: &Path) -> Result<(), Box<dyn Error>> {
    let samples = restored.samples.as_ref().ok_or("the samples were not kept")?;
    let samples = samples.index_axis(Axis(0), 0);
    let (input, mean, truth) = (cases.unrestored(), &restored.mean, &cases.truth);
    let (image, reference) = (cases.images(mean.view())?, cases.reference().to_owned());
    let input_image = cases.images(input.view())?;
    let domains = [
        (
            "kBq/mL*mm",
            [&input, mean, truth],
            mean - truth,
            samples.to_owned(),
        ),
        (
            "kBq/mL",
            [&input_image, &image, &reference],
            &image - &reference,
            cases.images(samples)?,
        ),
    ];
    let deviations = domains.each_ref().map(|domain| domain.3.std_axis(Axis(1), 1.0));
    let (mut tiles, mut errors) = (Vec::new(), Vec::new());
    for output in 0..cases.task.outputs() {
        for ((unit, shown, error, samples), sd) in domains.iter().zip(&deviations) {
            let shown = shown.map(|all| all.slice(s![0, output, .., ..]));
            let (_, top) = Window::Robust.resolve(shown[2])?;
            let end = ERROR.1 * top;
            let captions = [
                format!("input, 0 to {} {unit}", figure(top)),
                format!("{}, same window", named(cases, output, "restored")),
                format!("{}, same window", named(cases, output, "truth")),
            ];
            for (values, caption) in shown.into_iter().zip(captions) {
                tiles.push(Tile::new(values, caption).window(Window::Fixed(0.0, top)));
            }
            let error = error.slice(s![0, output, .., ..]);
            let caption = format!("error, blue -{0} to red {0}", figure(end));
            tiles.push(Tile::new(error, caption));
            errors.push((error, end));
            let caption = format!("sd of {} samples, 0 to {}", samples.len_of(Axis(1)), figure(end));
            let sd = Tile::new(sd.index_axis(Axis(0), output), caption).palette(Palette::Magma);
            tiles.push(sd.window(Window::Fixed(0.0, end)));
        }
    }
    let layout = Grid {
        upscale: UPSCALE,
        gap: GAP,
        ..Grid::new(COLUMNS)
    };
    let mut canvas = layout.render(&tiles)?;
    for (row, (error, end)) in errors.into_iter().enumerate() {
        diverging(&mut canvas, &layout, row, error, end);
    }
    canvas.write(path, &[])?;
    println!("{}", path.display());
    Ok(())
}

/// Paints the error's tile of a row: white is 0, blue too little, red too much. All tiles are as large as this one.
fn diverging(canvas: &mut Canvas, layout: &Grid, row: usize, error: ArrayView2<'_, f32>, end: f32) {
    let (rows, cols) = error.dim();
    let caption = Canvas::text_height(layout.caption_scale) + 4;
    let left = layout.gap + ERROR.0 * (cols * UPSCALE + layout.gap);
    let top = layout.gap + row * (rows * UPSCALE + caption + layout.gap);
    for ((r, c), value) in error.indexed_iter() {
        let level = (value / end).clamp(-1.0, 1.0);
        let full = if level > 0.0 {
            [178, 24, 43]
        } else {
            [33, 102, 172]
        };
        let colour = full.map(|part: u8| (255.0 + (f32::from(part) - 255.0) * level.abs()).round() as u8);
        canvas.fill(left + c * UPSCALE, top + r * UPSCALE, UPSCALE, UPSCALE, colour);
    }
}

/// What something is called: by its tracer too, where a task names the tracers of its outputs.
fn named(cases: &Cases, output: usize, what: &str) -> String {
    match cases.task.head().outputs()[output] {
        Some(tracer) => format!("{}: {what}", tracer.label()),
        None => what.to_owned(),
    }
}

/// Three figures of a number.
fn figure(value: f32) -> String {
    let places = (2.0 - value.abs().max(1.0).log10().floor()).max(0.0) as usize;
    format!("{value:.places$}")
}
