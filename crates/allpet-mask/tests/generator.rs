//! Masks: normalised, reproducible byte for byte, and settings that report all their faults.

#![allow(clippy::unwrap_used)]

use allpet_core::ParallelGeometry;
use allpet_mask::{MaskConfig, MaskGenerator, Normalisation, Projection, project_blocks};
use ndarray::{Axis, s};
use std::ops::ControlFlow;

fn small(normalise: Normalisation, projection: Projection) -> MaskGenerator {
    let config = MaskConfig {
        size: 64,
        block: (6, 14),
        blocks: (1, 4),
        normalise,
        projection,
        ..MaskConfig::default()
    };
    MaskGenerator::new(
        config,
        ParallelGeometry::new(48, 64, 1.0).unwrap().with_arc_deg(360.0),
    )
    .unwrap()
}

#[test]
fn a_mask_is_the_same_bytes_whatever_is_drawn_beside_it_and_on_any_number_of_threads() {
    for projection in [
        Projection::Analytic,
        Projection::Linear,
        Projection::Gaussian { sigma_bins: 0.7 },
    ] {
        let generator = small(Normalisation::Linear, projection);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| generator.masks(7, 10, 9).unwrap())
        };
        let nine = on(1);
        assert_eq!(nine, on(2));
        assert_eq!(nine, on(5));
        assert_eq!(nine.slice(s![3..7, .., ..]), generator.masks(7, 13, 4).unwrap());
        for (i, mask) in nine.axis_iter(Axis(0)).enumerate() {
            assert_eq!(mask, generator.mask(7, 10 + i as u64));
            let mut out = vec![f32::NAN; 48 * 64];
            generator.mask_into(7, 10 + i as u64, &mut out).unwrap();
            assert_eq!(out, mask.iter().copied().collect::<Vec<_>>());
            assert_eq!(
                mask,
                generator.mask_of(&generator.blocks(7, 10 + i as u64)).unwrap()
            );
        }
        assert_ne!(nine, generator.masks(8, 10, 9).unwrap());
        assert_ne!(nine, generator.masks(7, 11, 9).unwrap());
    }
}

#[test]
fn masks_pass_by_in_order_without_being_held() {
    let generator = small(Normalisation::Linear, Projection::Analytic);
    let all = generator.masks(7, 5, 11).unwrap();
    let mut seen = Vec::new();
    generator
        .for_each_batch(7, 5, 11, 4, |first, masks| {
            for (i, mask) in masks.outer_iter().enumerate() {
                assert_eq!(mask, all.index_axis(Axis(0), (first - 5) as usize + i));
            }
            seen.push((first, masks.len_of(Axis(0))));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seen, [(5, 4), (9, 4), (13, 3)]);
    let mut calls = 0;
    generator
        .for_each_batch(7, 0, u64::MAX, 2, |_, _| {
            calls += 1;
            match calls {
                3 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .unwrap();
    assert_eq!(calls, 3);
}

#[test]
fn a_normalised_mask_is_the_projected_blocks_normalised() {
    for normalise in [Normalisation::Linear, Normalisation::Clip] {
        let generator = small(normalise, Projection::Analytic);
        for index in 0..20 {
            let (blocks, grid) = (generator.blocks(3, index), generator.config().grid());
            let mut expected =
                project_blocks(&blocks, &grid, generator.geometry(), Projection::Analytic).unwrap();
            normalise.apply(expected.as_slice_mut().unwrap());
            assert_eq!(generator.mask(3, index), expected);
        }
    }
}

#[test]
fn normalised_masks_lie_in_0_to_1_and_reach_1() {
    for projection in [Projection::Analytic, Projection::Nearest, Projection::Linear] {
        for normalise in [Normalisation::Linear, Normalisation::Clip] {
            for mask in small(normalise, projection)
                .masks(1, 0, 40)
                .unwrap()
                .axis_iter(Axis(0))
            {
                assert!(mask.iter().all(|v| (0.0..=1.0).contains(v)));
                assert_eq!(mask.iter().copied().fold(0.0, f32::max), 1.0);
                assert!(mask.iter().any(|&v| v == 0.0));
            }
        }
    }
}

#[test]
fn an_empty_mask_stays_empty() {
    for normalise in [Normalisation::Linear, Normalisation::Clip] {
        let none = MaskConfig {
            size: 64,
            block: (4, 8),
            blocks: (0, 0),
            normalise,
            ..MaskConfig::default()
        };
        let geometry = ParallelGeometry::new(8, 64, 1.0).unwrap();
        let mask = MaskGenerator::new(none.clone(), geometry).unwrap().mask(1, 1);
        assert!(mask.iter().all(|&v| v == 0.0));
        // Blocks that no ray meets: the detector looks past the image.
        let away = MaskConfig {
            blocks: (2, 2),
            ..none
        };
        let mask = MaskGenerator::new(away, geometry.with_offset_bins(500.0))
            .unwrap()
            .mask(1, 1);
        assert!(mask.iter().all(|&v| v == 0.0));
    }
}

#[test]
fn settings_report_all_faults_at_once() {
    let config = MaskConfig {
        size: 64,
        pixel_mm: -1.0,
        block: (80, 70),
        blocks: (5, 2000),
        projection: Projection::Gaussian { sigma_bins: 0.0 },
        ..MaskConfig::default()
    };
    let error = config.validate().unwrap_err().to_string();
    for part in [
        "pixel of -1 mm",
        "blocks of 80 to 70",
        "up to 70 pixels",
        "up to 2000 blocks",
        "Gaussian of 0 bins",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
    assert!(!error.contains('\n'));
    let error = MaskConfig {
        blocks: (9, 2),
        ..MaskConfig::default()
    }
    .validate()
    .unwrap_err()
    .to_string();
    assert!(error.contains("9 to 2 blocks"), "{error}");
    // 16 blocks of 16 tile 64; a 17th, or one more pixel, does not fit.
    let tiling = MaskConfig {
        size: 64,
        block: (16, 16),
        blocks: (1, 16),
        ..MaskConfig::default()
    };
    assert!(tiling.validate().is_ok());
    let error = MaskConfig {
        blocks: (1, 17),
        ..tiling.clone()
    }
    .validate()
    .unwrap_err()
    .to_string();
    assert!(error.contains("at most 16"), "{error}");
    assert!(
        MaskConfig {
            block: (17, 17),
            ..tiling
        }
        .validate()
        .is_err()
    );
    for config in [
        MaskConfig {
            size: 0,
            ..MaskConfig::default()
        },
        MaskConfig {
            size: usize::MAX,
            block: (usize::MAX, usize::MAX),
            ..MaskConfig::default()
        },
        MaskConfig {
            pixel_mm: f64::NAN,
            ..MaskConfig::default()
        },
    ] {
        let _ = config.validate();
    }
    assert!(MaskConfig::default().validate().is_ok());
}

#[test]
fn settings_read_from_text_and_refuse_unknown_words() {
    let text = "size = 128\npixel_mm = 2.0\nblock = [16, 24]\nblocks = [1, 3]\nsquare = false\n\
                normalise = \"clip\"\nprojection = { gaussian = { sigma_bins = 0.8 } }\n";
    let config: MaskConfig = toml::from_str(text).unwrap();
    assert_eq!(config.block, (16, 24));
    assert_eq!(config.normalise, Normalisation::Clip);
    assert_eq!(config.projection, Projection::Gaussian { sigma_bins: 0.8 });
    assert_eq!(
        toml::from_str::<MaskConfig>(&toml::to_string(&config).unwrap()).unwrap(),
        config
    );
    assert_eq!(toml::from_str::<MaskConfig>("").unwrap(), MaskConfig::default());
    assert!(toml::from_str::<MaskConfig>("sides = [1, 2]").is_err());
    assert_eq!("clip".parse::<Normalisation>().unwrap(), Normalisation::Clip);
    let error = "minmax".parse::<Normalisation>().unwrap_err().to_string();
    assert!(error.contains("linear, clip"), "{error}");
}

#[test]
fn requests_that_cannot_be_met_are_errors() {
    let generator = small(Normalisation::Linear, Projection::Analytic);
    let error = generator.masks(1, 0, usize::MAX / 2).unwrap_err().to_string();
    assert!(error.contains("do not fit in memory"), "{error}");
    assert!(generator.masks(1, 0, 1 << 45).is_err());
    assert!(generator.mask_into(1, 0, &mut [0.0; 3]).is_err());
    assert_eq!(generator.masks(1, u64::MAX, 2).unwrap().dim(), (2, 48, 64));
    assert_eq!(generator.masks(1, 0, 0).unwrap().dim(), (0, 48, 64));
    let huge = ParallelGeometry {
        views: usize::MAX,
        ..ParallelGeometry::new(1, 64, 1.0).unwrap()
    };
    assert!(MaskGenerator::new(MaskConfig::default(), huge).is_err());
}

#[test]
fn a_mask_of_512_by_512_takes_milliseconds() {
    let generator = MaskGenerator::new(
        MaskConfig::default(),
        ParallelGeometry::new(512, 512, 1.0).unwrap(),
    )
    .unwrap();
    let mut out = vec![0.0; 512 * 512];
    let start = std::time::Instant::now();
    for index in 0..40 {
        generator.mask_into(1, index, &mut out).unwrap();
    }
    let each = start.elapsed().as_secs_f64() / 40.0 * 1e3;
    println!("{each:.2} ms a mask");
    assert!(each < 50.0, "{each} ms");
}
