//! Transparent medical attention, step by step: a coarse image, the lesions a threshold finds on it, their projection
//! over the sinogram and at the resolution of a feature map, and the gates (eqs. 10-12).
//!
//! Simulates a chest with a hot lesion in the lung and writes `transparent_attention.png`.
//! `cargo run --release --example transparent_attention [SIZE] [FOLDER] [SHAPES.toml]`; `[[include]]` and `[[exclude]]`
//! tables in SHAPES.toml are a physician's corrections, ellipses and polygons in mm.

#![allow(clippy::print_stdout)]

use allpet::core::{ImageGrid, ParallelGeometry, Tracer, stream};
use allpet::io::{Canvas, Grid, Palette, Tile, Window};
use allpet::mask::attention::{
    AttentionConfig, Body, CoarseConfig, CoarseMethod, Gate, RoiConfig, RoiShapes, Threshold,
    feature_geometry, find_lesions,
};
use allpet::sim::raster::{Pose, render, resample};
use allpet::sim::tracer::KBQ_PER_ML_PER_SUV;
use allpet::sim::{Acquisition, Part, Section, Subject, Tissue, Uptake};
use ndarray::Array2;
use std::path::PathBuf;

const SEED: u64 = 3;
const FIELD_MM: f64 = 440.0;
const CELL: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let size: usize = arguments.next().map_or(Ok(128), |s| s.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out".into()));
    let corrections: RoiShapes = match arguments.next() {
        Some(path) => toml::from_str(&std::fs::read_to_string(path)?)?,
        None => RoiShapes::default(),
    };
    std::fs::create_dir_all(&folder)?;

    // The first person with an avid lesion of some size in the lung, cut through its middle.
    let (subject, height) = (0..500)
        .map(|id| Subject::draw(SEED, id))
        .find_map(|subject| {
            let lesion = subject.lesions().iter().find(|l| {
                l.host == Tissue::Lung
                    && l.radii_mm.iter().all(|r| *r > 12.0)
                    && l.suv(Tracer::Fdg).is_some_and(|suv| suv > 6.0)
            })?;
            let [low, high] = Part::Chest.heights_mm();
            let height = f64::from((lesion.centre_mm[2] - low) / (high - low));
            Some((subject, height))
        })
        .ok_or("no subject with such a lesion")?;
    let section = subject.section(Part::Chest, height);
    let uptake = Uptake::draw(&subject, Tracer::Fdg);
    let fine = ImageGrid::square(256, FIELD_MM / 256.0)?;
    let truth = render(&section, Some(&uptake), Pose::default(), fine, 2);
    let geometry = ParallelGeometry::new(size, size, FIELD_MM / size as f64)?;
    let acquisition = Acquisition::draw(&mut stream(SEED, "acquisition", 0), 1e6);
    let measured = acquisition.measure(&truth, geometry, Some(&mut stream(SEED, "counts", 0)))?;
    let sinogram = measured.precorrected();

    // Eq. 10: what lies above SUV 2.5 inside the body, small enough not to be the heart.
    let coarse = CoarseConfig {
        size,
        method: CoarseMethod::Osem {
            iterations: 3,
            subsets: 8,
        },
    };
    let grid = coarse.grid(&geometry)?;
    let image = coarse.reconstruct(sinogram.view(), &geometry)?;
    let search = RoiConfig {
        hot: Some(Threshold::Suv {
            suv: 2.5,
            image_per_suv: f64::from(KBQ_PER_ML_PER_SUV),
        }),
        body: Some(Body::default()),
        smooth_mm: 6.0,
        least_area_mm2: 120.0,
        greatest_area_mm2: Some(3000.0),
        ..RoiConfig::default()
    };
    let found = find_lesions(image.view(), &grid, &search)?;
    let roi = found.roi()?.with_shapes(&corrections)?.non_empty()?;
    let mask = roi.mask();
    let lesions = lesion_mask(&section, &grid);
    let count = |test: &dyn Fn([usize; 2]) -> bool| {
        mask.indexed_iter()
            .filter(|((row, col), _)| test([*row, *col]))
            .count()
    };
    let hits = count(&|at| mask[at] && lesions[at]) as f64;
    println!(
        "region of {} pixels of {:.1} mm; the lesions that this section cuts have {}",
        count(&|at| mask[at]),
        grid.pixel_mm,
        count(&|at| lesions[at])
    );
    println!(
        "recall {:.2}, precision {:.2}",
        hits / count(&|at| lesions[at]) as f64,
        hits / count(&|at| mask[at]) as f64
    );

    // Eq. 11, at the resolution of the sinogram and at that of a feature map whose cells are 4 views × 4 bins.
    let attention = roi.attention(&geometry, &AttentionConfig::default())?;
    let latent = feature_geometry(&geometry, size / CELL, size / CELL)?;
    let cells = roi.attention(&latent, &AttentionConfig::for_cells(CELL, CELL))?;
    let on = |a: &Array2<f32>| 100.0 * a.iter().filter(|v| **v > 0.0).count() as f64 / a.len() as f64;
    println!(
        "rays through the region: {:.1} % of {} x {}, {:.1} % of {} x {} cells",
        on(&attention),
        geometry.views,
        geometry.bins,
        on(&cells),
        latent.views,
        latent.bins
    );

    // Eq. 12: how much of the sinogram each gate lets pass.
    let total = |a: &Array2<f32>| a.iter().map(|v| f64::from(*v)).sum::<f64>();
    for gate in [Gate::Printed, Gate::Residual { strength: 1.0 }] {
        let gated = gate
            .apply(sinogram.view().into_dyn(), attention.view())?
            .into_dimensionality()?;
        println!(
            "{gate:?}: {:.3} of the activity",
            total(&gated) / total(&sinogram)
        );
    }

    let activity = resample(&truth.activity, fine, grid);
    let spread = Array2::from_shape_fn(sinogram.dim(), |(v, b)| {
        cells[[(v / CELL).min(latent.views - 1), (b / CELL).min(latent.bins - 1)]]
    });
    let layout = Grid {
        upscale: 256_usize.div_ceil(size),
        ..Grid::new(3)
    };
    let window = Window::Fixed(0.0, 4.0 * KBQ_PER_ML_PER_SUV);
    let mut canvas = layout.render(&[
        Tile::new(activity.view(), "truth, its lesions").window(window),
        Tile::new(image.view(), "OSEM, region found").window(window),
        Tile::new(sinogram.view(), "sinogram").window(Window::Robust),
        Tile::new(sinogram.view(), "attention over sinogram").window(Window::Robust),
        Tile::new(attention.view(), "attention").palette(Palette::Magma),
        Tile::new(spread.view(), "attention, feature cells").palette(Palette::Magma),
    ])?;
    let corner = |tile: usize| corner(&layout, size, tile);
    outline(&mut canvas, corner(0), &lesions, layout.upscale, [0, 140, 60]);
    outline(&mut canvas, corner(1), &mask, layout.upscale, [215, 40, 20]);
    tint(&mut canvas, corner(3), &attention, layout.upscale, [225, 60, 0]);
    let path = folder.join("transparent_attention.png");
    canvas.write(&path, &[])?;
    println!("{}", path.display());
    Ok(())
}

/// Pixels whose centre lies in a lesion that FDG shows.
fn lesion_mask(section: &Section<'_>, grid: &ImageGrid) -> Array2<bool> {
    Array2::from_shape_fn(grid.shape(), |(row, col)| {
        section
            .lesion_at(grid.x_mm(col as f64) as f32, grid.y_mm(row as f64) as f32)
            .is_some_and(|i| section.lesions()[i].suv(Tracer::Fdg).is_some())
    })
}

/// Upper left pixel of a tile in a picture whose tiles are all `size × size`.
fn corner(layout: &Grid, size: usize, tile: usize) -> (usize, usize) {
    let cell = size * layout.upscale + layout.gap;
    let caption = Canvas::text_height(layout.caption_scale) + 4;
    (
        layout.gap + tile % layout.columns * cell,
        layout.gap + tile / layout.columns * (cell + caption),
    )
}

/// Draws the border of a mask just outside its pixels.
fn outline(
    canvas: &mut Canvas,
    (left, top): (usize, usize),
    mask: &Array2<bool>,
    scale: usize,
    colour: [u8; 3],
) {
    let inside = |row: Option<usize>, col: Option<usize>| match (row, col) {
        (Some(row), Some(col)) => mask.get([row, col]).is_some_and(|v| *v),
        _ => false,
    };
    for (row, col) in ndarray::indices(mask.dim()) {
        let (r, c) = (Some(row), Some(col));
        let (x, y) = (left + col * scale, top + row * scale);
        if mask[[row, col]] {
            continue;
        }
        if inside(r, Some(col + 1)) {
            canvas.fill(x + scale - 1, y, 1, scale, colour);
        }
        if inside(r, col.checked_sub(1)) {
            canvas.fill(x, y, 1, scale, colour);
        }
        if inside(Some(row + 1), c) {
            canvas.fill(x, y + scale - 1, scale, 1, colour);
        }
        if inside(row.checked_sub(1), c) {
            canvas.fill(x, y, scale, 1, colour);
        }
    }
}

/// Blends a colour into a tile, as strongly as the attention is.
fn tint(
    canvas: &mut Canvas,
    (left, top): (usize, usize),
    attention: &Array2<f32>,
    scale: usize,
    colour: [u8; 3],
) {
    for ((row, col), &m) in attention.indexed_iter() {
        let (x, y) = (left + col * scale, top + row * scale);
        let Some(under) = canvas.get(x, y) else { continue };
        let share = 0.75 * m;
        let mixed = [0, 1, 2]
            .map(|i| (f32::from(under[i]) * (1.0 - share) + f32::from(colour[i]) * share).round() as u8);
        canvas.fill(x, y, scale, scale, mixed);
    }
}
