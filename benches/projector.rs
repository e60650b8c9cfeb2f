//! Forward projection, adjoint and filtered back-projection; ids name image/views/bins and slices.

use allpet_core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet_radon::{Fbp, Filter, LinearOperator, Projector};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ndarray::{ArrayD, IxDyn};
use std::hint::black_box;
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

criterion_group!(benches, projector);
criterion_main!(benches);
