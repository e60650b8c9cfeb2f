//! Eqs. 1 to 3 against oracles: ray clipping, quadrature, conservation, orders of convergence.

#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_mask::{Block, MaskConfig, MaskGenerator, Normalisation, Projection, mask_image, project_blocks};
use allpet_radon::analytic::Shape;
use allpet_radon::{LinearOperator, Projector};
use ndarray::Array2;

/// Length in mm of the ray `x cosθ + y sinθ = s` inside a block, by clipping the ray to two slabs.
///
/// Another way than the trapezoid: no case for the plateau, no areas.
fn chord_mm(block: &Block, grid: &ImageGrid, angle: f64, s: f64) -> f64 {
    let (sin, cos) = angle.sin_cos();
    let half = 0.5 * grid.pixel_mm;
    let last_col = (block.col + block.width - 1) as f64;
    let last_row = (block.row + block.height - 1) as f64;
    let x = (grid.x_mm(block.col as f64) - half, grid.x_mm(last_col) + half);
    let y = (grid.y_mm(last_row) - half, grid.y_mm(block.row as f64) + half);
    let (mut from, mut to) = (f64::NEG_INFINITY, f64::INFINITY);
    // Point on the ray: (s cosθ - t sinθ, s sinθ + t cosθ).
    for (start, step, (low, high)) in [(s * cos, -sin, x), (s * sin, cos, y)] {
        if step.abs() < 1e-14 {
            if start <= low || start >= high {
                return 0.0;
            }
            continue;
        }
        let (a, b) = ((low - start) / step, (high - start) / step);
        from = from.max(a.min(b));
        to = to.min(a.max(b));
    }
    (to - from).max(0.0)
}

fn relative_l2(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    let (mut difference, mut norm) = (0.0, 0.0);
    for (&a, &b) in a.iter().zip(b) {
        difference += f64::from(a - b).powi(2);
        norm += f64::from(b).powi(2);
    }
    (difference / norm).sqrt()
}

const KERNELS: [Projection; 3] = [
    Projection::Nearest,
    Projection::Linear,
    Projection::Gaussian { sigma_bins: 0.5 },
];

#[test]
fn closed_form_is_the_chord_of_every_ray() {
    let blocks = [
        Block {
            row: 3,
            col: 40,
            height: 17,
            width: 9,
        },
        Block {
            row: 0,
            col: 0,
            height: 64,
            width: 64,
        },
        Block {
            row: 63,
            col: 63,
            height: 1,
            width: 1,
        },
        Block {
            row: 20,
            col: 5,
            height: 1,
            width: 50,
        },
    ];
    let grid = ImageGrid::square(64, 2.5).unwrap();
    for (arc, start, offset, bin) in [
        (180.0, 0.0, 0.0, 1.03),
        (360.0, 13.0, 3.25, 1.7),
        (360.0, -77.0, -40.5, 5.3),
        (90.0, 45.0, 1e4, 1.0),
    ] {
        let geometry = ParallelGeometry::new(96, 101, bin)
            .unwrap()
            .with_arc_deg(arc)
            .with_start_deg(start)
            .with_offset_bins(offset);
        for block in &blocks {
            let mask = project_blocks(&[*block], &grid, &geometry, Projection::Analytic).unwrap();
            let mut worst = 0.0_f64;
            for ((view, bin), &value) in mask.indexed_iter() {
                let (angle, s) = (geometry.angle(view), geometry.s_mm(bin as f64));
                let expected = chord_mm(block, &grid, angle, s) / grid.pixel_mm;
                worst = worst.max((f64::from(value) - expected).abs());
                let closed_form = block.rectangle(&grid).line_integral(angle, s) / grid.pixel_mm;
                assert!(
                    (f64::from(value) - closed_form).abs() < 1e-4,
                    "{block:?} {angle} {s}: {value} {closed_form}"
                );
            }
            assert!(worst < 1e-5, "{block:?}: {worst}");
        }
    }
}

#[test]
fn the_edge_of_an_aligned_block_is_half_its_height() {
    // Bins on whole mm, block edges at whole mm: rays run along the edges at 0° and 90°.
    let grid = ImageGrid::square(8, 1.0).unwrap();
    let geometry = ParallelGeometry::new(2, 9, 1.0).unwrap();
    let block = Block {
        row: 2,
        col: 2,
        height: 3,
        width: 4,
    };
    let mask = project_blocks(&[block], &grid, &geometry, Projection::Analytic).unwrap();
    assert_eq!(
        mask.row(0).to_vec(),
        [0.0, 0.0, 1.5, 3.0, 3.0, 3.0, 1.5, 0.0, 0.0]
    );
    assert_eq!(
        mask.row(1).to_vec(),
        [0.0, 0.0, 0.0, 2.0, 4.0, 4.0, 2.0, 0.0, 0.0]
    );
}

#[test]
fn every_projection_keeps_the_area_of_the_block() {
    let grid = ImageGrid::square(48, 1.3).unwrap();
    let geometry = ParallelGeometry::new(60, 90, 0.9)
        .unwrap()
        .with_arc_deg(360.0)
        .with_offset_bins(-2.4);
    let block = Block {
        row: 10,
        col: 20,
        height: 11,
        width: 17,
    };
    for projection in KERNELS
        .into_iter()
        .chain([Projection::Gaussian { sigma_bins: 1.7 }])
    {
        let mask = project_blocks(&[block], &grid, &geometry, projection).unwrap();
        for row in mask.rows() {
            let area = row.iter().map(|&v| f64::from(v)).sum::<f64>() * geometry.bin_mm / grid.pixel_mm;
            // At σ = 0.5 the Gaussian's sum over bins itself ripples by 2·exp(-2π²σ²) = 1.4 % per pixel; over a
            // block that averages out, but not where rows of pixels coincide on bins.
            let tolerance = if projection == (Projection::Gaussian { sigma_bins: 0.5 }) {
                0.015
            } else {
                2e-6
            };
            assert!((area / 187.0 - 1.0).abs() < tolerance, "{projection}: {area}");
        }
    }
}

/// Greatest error of eq. 2 against the kernel's exact average of the chord, bins fixed, block fixed in mm, in mm.
fn kernel_error(projection: Projection, refine: usize, with_area: bool) -> f64 {
    let geometry = ParallelGeometry::new(7, 33, 1.0)
        .unwrap()
        .with_start_deg(8.3)
        .with_arc_deg(170.0);
    let block = |n: usize| Block {
        row: 5 * n,
        col: 9 * n,
        height: 7 * n,
        width: 11 * n,
    };
    let coarse = ImageGrid::square(24, 1.0).unwrap();
    let fine = ImageGrid::square(24 * refine, 1.0 / refine as f64).unwrap();
    let mask = project_blocks(&[block(refine)], &fine, &geometry, projection).unwrap();
    let mut sum = 0.0;
    for ((view, bin), &value) in mask.indexed_iter() {
        let (angle, s) = (geometry.angle(view), geometry.s_mm(bin as f64));
        let n = 2000;
        let reach = match projection {
            Projection::Nearest => 0.5,
            Projection::Linear => 1.0,
            _ => 5.0,
        };
        let mut average = 0.0;
        let mut weights = 0.0;
        for k in 0..n {
            let u = ((f64::from(k) + 0.5) / f64::from(n) * 2.0 - 1.0) * reach;
            let weight = match projection {
                Projection::Nearest => 1.0,
                Projection::Linear => 1.0 - u.abs(),
                Projection::Gaussian { sigma_bins } => (-0.5 * (u / sigma_bins).powi(2)).exp(),
                Projection::Analytic => unreachable!(),
            };
            average += weight * chord_mm(&block(1), &coarse, angle, s + u);
            weights += weight;
        }
        // Undoing the pixel's area, as eq. 2 is printed.
        let area = if with_area {
            1.0
        } else {
            1.0 / fine.pixel_mm.powi(2)
        };
        sum += (f64::from(value) * fine.pixel_mm * area - average / weights).powi(2);
    }
    (sum / mask.len() as f64).sqrt()
}

#[test]
fn eq_2_converges_at_the_order_of_its_kernel_when_pixels_shrink() {
    for (projection, order) in [
        (Projection::Nearest, 1.5),
        (Projection::Linear, 1.8),
        (Projection::Gaussian { sigma_bins: 1.0 }, 1.9),
    ] {
        let errors: Vec<f64> = [1, 2, 4, 8, 16]
            .iter()
            .map(|&n| kernel_error(projection, n, true))
            .collect();
        let measured = (errors[0] / errors[4]).log2() / 4.0;
        println!("{projection}: rms errors in mm {errors:.5?}, order {measured:.2}");
        assert!(
            measured > order,
            "{projection}: order {measured}, errors {errors:?}"
        );
        // Control: the printed eq. 2, without the area, does not converge at all.
        assert!(kernel_error(projection, 8, false) > 10.0 * kernel_error(projection, 1, true));
    }
}

/// Relative L2 distance to the closed form of three blocks, image and bins refined together.
fn distance(n: usize, discrete: impl Fn(&[Block], &ImageGrid, &ParallelGeometry) -> Array2<f32>) -> f64 {
    let grid = ImageGrid::square(n, 256.0 / n as f64).unwrap();
    let geometry = ParallelGeometry::new(90, n, grid.pixel_mm)
        .unwrap()
        .with_start_deg(1.1);
    let blocks = [(1, 4), (4, 2), (5, 5)].map(|(row, col)| Block {
        row: row * n / 8,
        col: col * n / 8,
        height: n / 8,
        width: n / 8,
    });
    let analytic = project_blocks(&blocks, &grid, &geometry, Projection::Analytic).unwrap();
    relative_l2(&discrete(&blocks, &grid, &geometry), &analytic)
}

#[test]
fn analytic_and_discrete_masks_agree_as_the_grid_refines() {
    for (projection, bound) in KERNELS.into_iter().zip([0.06, 0.016, 0.016]) {
        let errors = [32, 64, 128, 256].map(|n| {
            distance(n, |blocks, grid, geometry| {
                project_blocks(blocks, grid, geometry, projection).unwrap()
            })
        });
        println!("{projection}: relative L2 to the closed form at 32, 64, 128, 256: {errors:.5?}");
        assert!(errors.windows(2).all(|e| e[1] < e[0]), "{projection}: {errors:?}");
        assert!(errors[3] < bound, "{projection}: {errors:?}");
    }
    // The projector of the library on the mask image, a third way to the same mask; its integrals are in mm.
    let errors = [32, 64, 128, 256].map(|n| {
        distance(n, |blocks, grid, geometry| {
            let image = mask_image(blocks, grid).unwrap();
            let projector = Projector::new(*grid, *geometry).unwrap();
            let sinogram = projector.apply(image.into_dyn().view()).unwrap();
            sinogram.into_dimensionality().unwrap() / grid.pixel_mm as f32
        })
    });
    println!("projector: relative L2 to the closed form at 32, 64, 128, 256: {errors:.5?}");
    assert!(
        errors.windows(2).all(|e| e[1] < e[0]) && errors[3] < 0.03,
        "{errors:?}"
    );
    // Control: half a pixel of shift is seen.
    let shifted = distance(256, |blocks, grid, geometry| {
        let geometry = geometry.with_offset_bins(0.5);
        project_blocks(blocks, grid, &geometry, Projection::Linear).unwrap()
    });
    assert!(shifted > 2.0 * 0.016, "{shifted}");
}

#[test]
fn the_sum_of_single_masks_is_the_mask_of_the_sum_before_normalisation_only() {
    let geometry = ParallelGeometry::new(64, 96, 0.8).unwrap().with_arc_deg(360.0);
    let config = MaskConfig {
        size: 64,
        block: (6, 15),
        blocks: (4, 4),
        ..MaskConfig::default()
    };
    let grid = config.grid();
    let blocks = MaskGenerator::new(config.clone(), geometry).unwrap().blocks(3, 0);
    for projection in KERNELS.into_iter().chain([Projection::Analytic]) {
        let whole = project_blocks(&blocks, &grid, &geometry, projection).unwrap();
        let singles = blocks
            .iter()
            .map(|b| project_blocks(&[*b], &grid, &geometry, projection).unwrap())
            .fold(Array2::zeros(geometry.shape()), |sum, one| sum + one);
        assert!(relative_l2(&singles, &whole) < 1e-6, "{projection}");
        for normalise in [Normalisation::Clip, Normalisation::Linear] {
            let of = |mut mask: Array2<f32>| {
                normalise.apply(mask.as_slice_mut().unwrap());
                mask
            };
            let sum = blocks
                .iter()
                .map(|b| of(project_blocks(&[*b], &grid, &geometry, projection).unwrap()))
                .fold(Array2::zeros(geometry.shape()), |sum, one| sum + one);
            assert!(
                relative_l2(&sum, &of(whole.clone())) > 0.1,
                "{projection}, {normalise}: eq. 6 must fail"
            );
        }
    }
}

#[test]
fn a_block_of_64_clips_on_all_but_a_128th_of_its_support() {
    let geometry = ParallelGeometry::new(512, 512, 1.0).unwrap();
    let config = MaskConfig {
        blocks: (1, 1),
        normalise: Normalisation::Clip,
        ..MaskConfig::default()
    };
    let generator = MaskGenerator::new(config, geometry).unwrap();
    let mask = generator
        .mask_of(&[Block {
            row: 200,
            col: 260,
            height: 64,
            width: 64,
        }])
        .unwrap();
    let support = mask.iter().filter(|&&v| v > 0.0).count() as f64;
    let clipped = mask.iter().filter(|&&v| v == 1.0).count() as f64;
    println!("clipped {:.4} of the support", clipped / support);
    assert!(
        (clipped / support - (1.0 - 1.0 / 128.0)).abs() < 1e-3,
        "{}",
        clipped / support
    );
}

#[test]
fn bad_blocks_and_buffers_are_errors() {
    let grid = ImageGrid::square(16, 1.0).unwrap();
    let geometry = ParallelGeometry::new(4, 16, 1.0).unwrap();
    for block in [
        Block {
            row: 13,
            col: 0,
            height: 4,
            width: 4,
        },
        Block {
            row: 0,
            col: usize::MAX,
            height: 4,
            width: 4,
        },
        Block {
            row: 0,
            col: 0,
            height: 0,
            width: 4,
        },
    ] {
        let error = project_blocks(&[block], &grid, &geometry, Projection::Analytic)
            .unwrap_err()
            .to_string();
        assert!(error.contains("inside the 16 x 16 mask image"), "{error}");
        assert!(mask_image(&[block], &grid).is_err());
    }
    let block = Block {
        row: 0,
        col: 0,
        height: 4,
        width: 4,
    };
    for sigma_bins in [0.1, f64::NAN, 1e9] {
        assert!(project_blocks(&[block], &grid, &geometry, Projection::Gaussian { sigma_bins }).is_err());
    }
    let mut short = vec![0.0; 63];
    let projection = Projection::Linear;
    assert!(allpet_mask::project_blocks_into(&[block], &grid, &geometry, projection, &mut short).is_err());
    assert!("cubic".parse::<Projection>().is_err() && "gaussian:0".parse::<Projection>().is_err());
    for projection in KERNELS.into_iter().chain([Projection::Analytic]) {
        assert_eq!(projection.to_string().parse::<Projection>().unwrap(), projection);
    }
}
