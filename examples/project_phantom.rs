//! Three ellipses, projected three ways and reconstructed.
//!
//! Writes `project_phantom.png`: image, sinogram, its deviation from the closed form, and the reconstruction.
//! `cargo run --release --example project_phantom [SIZE] [FOLDER]`

#![allow(clippy::print_stdout)]

use allpet::core::{ImageGrid, ParallelGeometry};
use allpet::io::{Grid, Palette, Tile, Window};
use allpet::radon::analytic::{Ellipse, project};
use allpet::radon::{Fbp, Filter, LinearOperator, Projector};
use ndarray::{Array2, Ix2};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let size: usize = arguments.next().map_or(Ok(256), |s| s.parse())?;
    let folder = PathBuf::from(arguments.next().unwrap_or_else(|| "out".into()));
    std::fs::create_dir_all(&folder)?;

    let grid = ImageGrid::square(size, 1.0)?;
    let geometry = ParallelGeometry::new(size * 360 / 256, size * 367 / 256, 1.0)?;
    let unit = size as f64 / 2.0;
    let ellipse = |value, x: f64, y: f64, a: f64, b: f64, tilt_rad| Ellipse {
        value,
        x_mm: x * unit,
        y_mm: y * unit,
        a_mm: a * unit,
        b_mm: b * unit,
        tilt_rad,
    };
    let phantom = [
        ellipse(1.0, 0.05, -0.1, 0.60, 0.42, 0.3),
        ellipse(-0.4, -0.2, 0.15, 0.2, 0.11, -0.7),
        ellipse(0.5, 0.25, 0.2, 0.12, 0.12, 0.0),
    ];

    // Each pixel the mean of 8 x 8 points: what a scanner's voxel would hold.
    let image = Array2::from_shape_fn((size, size), |(row, col)| {
        let mut sum = 0.0;
        for i in 0..64 {
            let shift = |k: usize| (k as f64 + 0.5) / 8.0 - 0.5;
            let (x, y) = (
                grid.x_mm(col as f64 + shift(i % 8)),
                grid.y_mm(row as f64 + shift(i / 8)),
            );
            sum += phantom
                .iter()
                .filter(|e| e.contains(x, y))
                .map(|e| e.value)
                .sum::<f64>();
        }
        (sum / 64.0) as f32
    });

    let exact = project(&phantom, &geometry);
    let projector = Projector::new(grid, geometry)?;
    let sinogram = projector
        .apply(image.view().into_dyn())?
        .into_dimensionality::<Ix2>()?;
    let error = &sinogram - &exact;
    let norm = |a: &Array2<f32>| a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    println!(
        "{size} x {size} pixels, {} views x {} bins",
        geometry.views, geometry.bins
    );
    println!(
        "projection against the closed form: relative L2 error {:.2e}",
        norm(&error) / norm(&exact)
    );

    // The adjoint is the exact transpose: <A x, y> = <x, At y>, here with y = A x.
    let back = projector.apply_adjoint(sinogram.view().into_dyn())?;
    let left = norm(&sinogram).powi(2);
    let right: f64 = image
        .iter()
        .zip(&back)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    println!(
        "adjoint: <Ax, Ax> and <x, AtAx> differ by {:.1e} relative",
        (left - right).abs() / left
    );

    let fbp = Fbp::new(grid, geometry, Filter::Hann, 1.0)?;
    let reconstruction = fbp
        .reconstruct(exact.view().into_dyn())?
        .into_dimensionality::<Ix2>()?;
    let disc: Vec<f32> = image
        .indexed_iter()
        .filter(|((row, col), _)| {
            let (x, y) = (
                grid.x_mm(*col as f64) - 0.35 * unit,
                grid.y_mm(*row as f64) + 0.25 * unit,
            );
            x.hypot(y) < 0.1 * unit
        })
        .map(|((row, col), _)| reconstruction[[row, col]])
        .collect();
    let mean = disc.iter().sum::<f32>() / disc.len().max(1) as f32;
    println!("filtered back-projection: mean {mean:.4} in a disc where the image is 1");

    let path = folder.join("project_phantom.png");
    Grid::new(4).write(
        &path,
        &[
            Tile::new(image.view(), "image").palette(Palette::Magma),
            Tile::new(sinogram.view(), "sinogram").palette(Palette::Magma),
            Tile::new(error.view(), "minus closed form").palette(Palette::Grey),
            Tile::new(reconstruction.view(), "reconstruction")
                .palette(Palette::Magma)
                .window(Window::Fixed(0.0, 1.5)),
        ],
    )?;
    println!("{}", path.display());
    Ok(())
}
