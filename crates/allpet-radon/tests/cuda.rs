//! The projector on a CUDA device against the CPU. Needs a device: the kernels' text is also tested without one.
#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet_radon::tensor::{back_project, project, reconstruct};
use allpet_radon::{Fbp, Filter, Projector};
use candle_core::{DType, Device, Tensor, Var};
use std::sync::Arc;

fn layouts() -> Vec<(ImageGrid, ParallelGeometry)> {
    let of = |rows, cols, pixel, views, bins, bin, arc, start, offset| {
        let geometry = ParallelGeometry::new(views, bins, bin)
            .unwrap()
            .with_arc_deg(arc)
            .with_start_deg(start)
            .with_offset_bins(offset);
        (ImageGrid::new(rows, cols, pixel).unwrap(), geometry)
    };
    vec![
        of(256, 256, 1.0, 360, 367, 1.0, 180.0, 0.0, 0.0),
        of(61, 47, 2.5, 73, 101, 1.7, 360.0, 13.0, 3.25),
        of(40, 40, 1.0, 40, 21, 1.0, 360.0, 3.0, 17.0),
        of(17, 17, 2.0, 23, 140, 0.26, 180.0, 0.0, 0.0),
        of(50, 50, 1.0, 23, 11, 6.5, 180.0, 0.0, 0.0),
    ]
}

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    fill_normal(&mut stream(seed, "cuda test", 0), &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let tensor = tensor.to_dtype(DType::F32).unwrap().to_device(&Device::Cpu);
    tensor.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn relative(got: &Tensor, expected: &Tensor) -> f64 {
    let (got, expected) = (values(got), values(expected));
    let difference: Vec<f32> = got.iter().zip(&expected).map(|(g, e)| g - e).collect();
    (dot(&difference, &difference) / dot(&expected, &expected)).sqrt()
}

#[test]
fn the_device_gives_what_the_cpu_gives() {
    let device = Device::new_cuda(0).unwrap();
    for (grid, geometry) in layouts() {
        let projector = Arc::new(Projector::new(grid, geometry).unwrap());
        let fbp = Arc::new(Fbp::new(grid, geometry, Filter::Ramp, 1.0).unwrap());
        for batch in [1, 3, 17] {
            let x = normal(1, &[batch, grid.rows, grid.cols]);
            let y = normal(2, &[batch, geometry.views, geometry.bins]);
            let there = |t: &Tensor| t.to_device(&device).unwrap();
            let half = |t: &Tensor| there(&t.to_dtype(DType::F16).unwrap());
            let forward = project(&projector, &there(&x)).unwrap();
            assert!(relative(&forward, &project(&projector, &x).unwrap()) < 1e-5);
            let adjoint = back_project(&projector, &there(&y)).unwrap();
            assert!(relative(&adjoint, &back_project(&projector, &y).unwrap()) < 1e-5);
            let image = reconstruct(&fbp, &there(&y)).unwrap();
            assert!(relative(&image, &reconstruct(&fbp, &y).unwrap()) < 1e-5);
            // Random y hide a wrong transpose; y = Ax shows it.
            let energy = dot(&values(&forward), &values(&forward));
            let back = back_project(&projector, &forward).unwrap();
            assert!((energy - dot(&values(&back), &values(&x))).abs() < 1e-6 * energy);
            for (got, expected) in [
                (project(&projector, &half(&x)).unwrap(), &forward),
                (back_project(&projector, &half(&y)).unwrap(), &adjoint),
            ] {
                assert_eq!(got.dtype(), DType::F16);
                assert!(relative(&got, expected) < 1e-3);
            }
            // Twice the same bytes.
            assert_eq!(
                values(&project(&projector, &there(&x)).unwrap()),
                values(&forward)
            );
        }
    }
}

#[test]
fn gradients_stay_on_the_device() {
    let device = Device::new_cuda(0).unwrap();
    let (grid, geometry) = layouts()[1];
    let projector = Arc::new(Projector::new(grid, geometry).unwrap());
    let x = Var::from_tensor(&normal(3, &[2, grid.rows, grid.cols]).to_device(&device).unwrap()).unwrap();
    let loss = project(&projector, &x).unwrap().sqr().unwrap().sum_all().unwrap();
    let gradient = loss.backward().unwrap().get(&x).unwrap().clone();
    assert!(gradient.device().is_cuda());
    let expected = back_project(
        &projector,
        &(project(&projector, &x.to_device(&Device::Cpu).unwrap()).unwrap() * 2.0).unwrap(),
    );
    assert!(relative(&gradient, &expected.unwrap()) < 1e-5);
}

#[test]
fn other_types_are_errors() {
    let device = Device::new_cuda(0).unwrap();
    let (grid, geometry) = layouts()[1];
    let projector = Arc::new(Projector::new(grid, geometry).unwrap());
    let x = Tensor::zeros((grid.rows, grid.cols), DType::F64, &device).unwrap();
    assert!(project(&projector, &x).unwrap_err().to_string().contains("f16"));
}
