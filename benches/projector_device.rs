//! Forward projection, adjoint and filtered back-projection on a CUDA device, single and half precision; ids as in `projector`.
//!
//! Arrays stay on the device; every pass waits for it.

use allpet::candle::{DType, Device, Result, Tensor};
use allpet_core::{ImageGrid, ParallelGeometry};
use allpet_radon::tensor::{back_project, project, reconstruct};
use allpet_radon::{Fbp, Filter, Projector};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

/// Image size, views, bins, slices.
const SETTINGS: [(usize, usize, usize, usize); 4] = [
    (256, 360, 367, 1),
    (256, 360, 367, 16),
    (512, 512, 512, 1),
    (512, 512, 512, 16),
];

fn projector(c: &mut Criterion) {
    let device = Device::new_cuda(0).expect("a CUDA device");
    let mut group = c.benchmark_group("projector on cuda:0");
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for (size, views, bins, slices) in SETTINGS {
        let grid = ImageGrid::square(size, 1.0).expect("valid settings");
        let geometry = ParallelGeometry::new(views, bins, 1.0).expect("valid settings");
        let projector = Arc::new(Projector::new(grid, geometry).expect("valid settings"));
        let fbp = Arc::new(Fbp::new(grid, geometry, Filter::Ramp, 1.0).expect("valid settings"));
        group.throughput(Throughput::Elements((slices * views * bins) as u64));
        for dtype in [DType::F32, DType::F16] {
            let image = Tensor::ones((slices, size, size), dtype, &device).expect("room on the device");
            let sinogram = project(&projector, &image).expect("shapes fit");
            let mut measure = |what: &str, pass: &dyn Fn() -> Result<Tensor>| {
                let id = format!("{size}/{views}/{bins}x{slices}, {}", dtype.as_str());
                group.bench_function(BenchmarkId::new(what, id), |b| {
                    b.iter(|| {
                        let done = black_box(pass().expect("shapes fit"));
                        device.synchronize().expect("a device that answers");
                        done
                    });
                });
            };
            measure("forward", &|| project(&projector, &image));
            measure("adjoint", &|| back_project(&projector, &sinogram));
            measure("fbp", &|| reconstruct(&fbp, &sinogram));
        }
    }
    group.finish();
}

criterion_group!(benches, projector);
criterion_main!(benches);
