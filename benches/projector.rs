//! Forward projection, adjoint, filtered back-projection, OSEM and masks; ids name image/views/bins and slices.

use allpet_core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet_mask::{MaskConfig, MaskGenerator};
use allpet_radon::{Fbp, Filter, LinearOperator, Osem, OsemConfig, Projector};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{ArrayD, IxDyn};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Duration;

/// Image size, views, bins, slices.
const SETTINGS: [(usize, usize, usize, usize); 4] = [
    (128, 180, 183, 1),
    (256, 360, 367, 1),
    (256, 360, 367, 16),
    (512, 512, 512, 1),
];

fn projector(c: &mut Criterion) {
    let mut group = c.benchmark_group("projector");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (size, views, bins, slices) in SETTINGS {
        let grid = ImageGrid::square(size, 1.0).expect("valid settings");
        let geometry = ParallelGeometry::new(views, bins, 1.0).expect("valid settings");
        let projector = Projector::new(grid, geometry).expect("valid settings");
        let fbp = Fbp::new(grid, geometry, Filter::Ramp, 1.0).expect("valid settings");
        let mut image = ArrayD::<f32>::zeros(IxDyn(&[slices, size, size]));
        fill_normal(
            &mut stream(1, "bench", 0),
            image.as_slice_mut().expect("standard layout"),
        );
        let mut sinogram = projector.apply(image.view()).expect("shapes fit");
        let id = |what| BenchmarkId::new(what, format!("{size}/{views}/{bins}x{slices}"));
        group.throughput(Throughput::Elements((slices * views * bins) as u64));
        group.bench_function(id("forward"), |b| {
            b.iter(|| {
                projector
                    .forward(black_box(image.view()), sinogram.view_mut())
                    .expect("shapes fit")
            });
        });
        let mut back = image.clone();
        group.bench_function(id("adjoint"), |b| {
            b.iter(|| {
                projector
                    .adjoint(black_box(sinogram.view()), back.view_mut())
                    .expect("shapes fit")
            });
        });
        group.bench_function(id("fbp"), |b| {
            b.iter(|| fbp.reconstruct(black_box(sinogram.view())).expect("shapes fit"));
        });
    }
    group.finish();
}

/// One pass over all subsets, with attenuation, background and resolution; a call with one iteration, setting up included.
fn osem(c: &mut Criterion) {
    let mut group = c.benchmark_group("osem");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (size, views, bins, slices, subsets) in [(256, 360, 367, 1, 12), (256, 360, 367, 16, 12)] {
        let grid = ImageGrid::square(size, 1.0).expect("valid settings");
        let geometry = ParallelGeometry::new(views, bins, 1.0).expect("valid settings");
        let image = ArrayD::<f32>::ones(IxDyn(&[slices, size, size]));
        let projector = Projector::new(grid, geometry).expect("valid settings");
        let counts = projector.apply(image.view()).expect("shapes fit");
        let config = OsemConfig {
            iterations: 1,
            subsets,
        };
        let osem = Osem::new(grid, geometry, config)
            .and_then(|o| o.with_attenuation(ArrayD::from_elem(IxDyn(&[size, size]), 1e-3).view()))
            .and_then(|o| o.with_background(ArrayD::from_elem(IxDyn(&[views, bins]), 0.1).view()))
            .and_then(|o| o.with_psf_mm(4.0))
            .expect("valid settings");
        group.throughput(Throughput::Elements((slices * views * bins) as u64));
        let id = BenchmarkId::new(
            "iteration",
            format!("{size}/{views}/{bins}x{slices}, {subsets} subsets"),
        );
        group.bench_function(id, |b| {
            b.iter(|| osem.reconstruct(black_box(counts.view())).expect("shapes fit"));
        });
    }
    group.finish();
}

/// RMAS masks of one block of an eighth of the side, dense, in a buffer that is used again.
fn masks(c: &mut Criterion) {
    const MANY: u64 = 64;
    let mut group = c.benchmark_group("masks");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for size in [128, 512] {
        let config = MaskConfig {
            size,
            block: (size / 8, size / 8),
            blocks: (1, 1),
            ..MaskConfig::default()
        };
        let geometry = ParallelGeometry::new(size, size, 1.0).expect("valid settings");
        let generator = MaskGenerator::new(config, geometry).expect("valid settings");
        group.throughput(Throughput::Elements(MANY));
        group.bench_function(BenchmarkId::new("rmas", format!("{size}/{size}/{size}")), |b| {
            b.iter(|| {
                generator
                    .for_each_batch(1, 0, MANY, 16, |_, masks| {
                        black_box(masks);
                        ControlFlow::Continue(())
                    })
                    .expect("fits in memory");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, projector, osem, masks);
criterion_main!(benches);
