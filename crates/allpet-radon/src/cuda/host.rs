//! The kernels' text read by a C compiler and run on the host, against the projector of the CPU.
//!
//! Needs a C compiler: `CC`, or else `cc`.
#![allow(clippy::unwrap_used)]

use super::Packing;
use super::run::{Data, Resident, back_project, project, reconstruct};
use crate::check::layouts;
use crate::{Fbp, Filter, Instructions, LinearOperator, Projector};
use allpet_core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet_kernel::{Element, host::Host};
use half::f16;
use ndarray::ArrayD;
use std::convert::Infallible;

/// The kernels of one packing as a library of the host.
struct Bench {
    packing: Packing,
    host: Host,
}

impl Bench {
    fn new(packing: Packing, backward: bool) -> Self {
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
        let host = Host::new(&compiler, packing.element, &packing.definitions(), backward);
        Self { packing, host }
    }
}

/// What a kernel does to `f32` or, by way of them, to 16-bit data.
fn through(
    packing: Packing,
    input: &[f32],
    length: usize,
    slices: usize,
    work: impl Fn(Data) -> Result<(), Infallible>,
) -> Vec<f32> {
    let data = |from: u64, to: u64| Data {
        from,
        to,
        packing,
        slices,
    };
    if packing.element == Element::F16 {
        let from: Vec<f16> = input.iter().map(|v| f16::from_f32(*v)).collect();
        let mut to = vec![f16::NAN; length];
        work(data(from.as_ptr() as u64, to.as_mut_ptr() as u64)).unwrap();
        to.into_iter().map(f16::to_f32).collect()
    } else {
        let mut to = vec![f32::NAN; length];
        work(data(input.as_ptr() as u64, to.as_mut_ptr() as u64)).unwrap();
        to
    }
}

fn resident<'a, T>(tables: &'a T, words: [&[i64]; 3]) -> Resident<'a, T> {
    let at = words.map(|w| w.as_ptr() as u64);
    Resident { tables, at }
}

fn normal(seed: u64, shape: &[usize]) -> ArrayD<f32> {
    let mut values = vec![0.0; shape.iter().product()];
    fill_normal(&mut stream(seed, "host test", 0), &mut values);
    // Exact as halves, so that storage alone does not tell the two precisions apart.
    let values = values.iter().map(|v| f16::from_f32(*v).to_f32()).collect();
    ArrayD::from_shape_vec(shape, values).unwrap()
}

fn relative(got: &[f32], expected: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let sum = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        got.iter()
            .zip(expected)
            .map(|(g, e)| f(f64::from(*g), f64::from(*e)))
            .sum()
    };
    let norm = sum(&|_, e| square(e));
    (sum(&|g, e| square(g - e)) / norm.max(f64::MIN_POSITIVE)).sqrt()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// One slice, and more slices than a pack holds.
const BATCHES: [usize; 2] = [1, 9];

fn cases() -> Vec<(&'static str, ImageGrid, ParallelGeometry)> {
    layouts().unwrap()
}

/// Forward and adjoint of `x` and `y` by the kernels.
fn both(host: &Bench, projector: &Projector, x: &ArrayD<f32>, y: &ArrayD<f32>) -> [Vec<f32>; 2] {
    let tables = projector.tables().unwrap();
    let plan = resident(&tables, [&tables.walks, &tables.rays, &[]]);
    let (x, y, slices) = (x.as_slice().unwrap(), y.as_slice().unwrap(), x.shape()[0]);
    let forward = through(host.packing, x, y.len(), slices, |data| {
        project(&host.host, &plan, data)
    });
    let adjoint = through(host.packing, y, x.len(), slices, |data| {
        back_project(&host.host, &plan, data)
    });
    [forward, adjoint]
}

fn shapes(batch: usize, grid: &ImageGrid, geometry: &ParallelGeometry) -> (Vec<usize>, Vec<usize>) {
    let with = |shape: [usize; 2]| vec![batch, shape[0], shape[1]];
    (with(grid.shape()), with(geometry.shape()))
}

#[test]
fn the_kernels_project_as_the_cpu_does_and_are_transposes() {
    for batch in BATCHES {
        let host = Bench::new(Packing::of(Element::F32, batch), false);
        let backward = Bench::new(Packing::of(Element::F32, batch), true);
        for (name, grid, geometry) in cases() {
            let projector = Projector::new(grid, geometry)
                .unwrap()
                .with_instructions(Instructions::Portable)
                .unwrap();
            let (of_x, of_y) = shapes(batch, &grid, &geometry);
            let (x, y) = (normal(1, &of_x), normal(2, &of_y));
            let [forward, adjoint] = both(&host, &projector, &x, &y);
            let mut expected = ArrayD::zeros(of_y);
            projector.forward(x.view(), expected.view_mut()).unwrap();
            let error = relative(&forward, expected.as_slice().unwrap());
            assert!(error < 2e-6, "forward, {name}, {batch}: {error:.1e}");
            let mut transposed = ArrayD::zeros(of_x);
            projector.adjoint(y.view(), transposed.view_mut()).unwrap();
            let error = relative(&adjoint, transposed.as_slice().unwrap());
            assert!(error < 2e-6, "adjoint, {name}, {batch}: {error:.1e}");
            // <Ax, Ax> = <x, AᵀAx> shows a wrong transpose where random y hide it.
            let again = ArrayD::from_shape_vec(y.raw_dim(), forward.clone()).unwrap();
            let [_, back] = both(&host, &projector, &x, &again);
            let energy = dot(&forward, &forward);
            let mismatch = (energy - dot(&back, x.as_slice().unwrap())).abs() / energy;
            assert!(mismatch < 1e-6, "transpose, {name}, {batch}: {mismatch:.1e}");
            // No phase may depend on the order of its threads.
            assert_eq!(both(&backward, &projector, &x, &y), [forward, adjoint], "{name}");
        }
    }
}

#[test]
fn half_precision_is_that_of_the_storage() {
    for batch in [1, 3, 9] {
        let host = Bench::new(Packing::of(Element::F16, batch), false);
        let (_, grid, geometry) = cases()[1];
        let projector = Projector::new(grid, geometry).unwrap();
        let (of_x, of_y) = shapes(batch, &grid, &geometry);
        let (x, y) = (normal(3, &of_x), normal(4, &of_y));
        let [forward, adjoint] = both(&host, &projector, &x, &y);
        let expected = projector.apply(x.view()).unwrap();
        let mut transposed = ArrayD::zeros(of_x);
        projector.adjoint(y.view(), transposed.view_mut()).unwrap();
        for (got, expected) in [(forward, expected), (adjoint, transposed)] {
            // Rounding to eleven digits leaves 2^-11/√3 of a value at most.
            let error = relative(&got, expected.as_slice().unwrap());
            assert!(error < 2.8e-4 && error > 1e-5, "{batch}: {error:.1e}");
        }
    }
}

#[test]
fn a_shifted_geometry_is_seen() {
    let (name, grid, geometry) = cases()[0];
    let host = Bench::new(Packing::of(Element::F32, 1), false);
    let shifted = geometry.with_offset_bins(geometry.offset_bins + 1e-4);
    let (of_x, of_y) = shapes(1, &grid, &geometry);
    let (x, y) = (normal(5, &of_x), normal(6, &of_y));
    let [forward, _] = both(&host, &Projector::new(grid, shifted).unwrap(), &x, &y);
    let expected = Projector::new(grid, geometry).unwrap().apply(x.view()).unwrap();
    let error = relative(&forward, expected.as_slice().unwrap());
    assert!(error > 1e-5, "{name}: {error:.1e}");
}

#[test]
fn the_kernels_reconstruct_as_the_cpu_does() {
    for (batch, half) in [(1, false), (5, false), (9, true)] {
        let packing = Packing::of(if half { Element::F16 } else { Element::F32 }, batch);
        let host = Bench::new(packing, false);
        let backward = Bench::new(packing, true);
        for (name, grid, geometry) in cases() {
            for (filter, cutoff) in [(Filter::Ramp, 1.0), (Filter::Hann, 0.7)] {
                let fbp = Fbp::new(grid, geometry, filter, cutoff).unwrap();
                let tables = fbp.tables().unwrap();
                let plan = resident(&tables, [&tables.filter, &tables.weights, &tables.rays]);
                let (of_x, of_y) = shapes(batch, &grid, &geometry);
                let y = normal(7, &of_y);
                let length = of_x.iter().product();
                let by = |bench: &Bench| {
                    through(packing, y.as_slice().unwrap(), length, batch, |data| {
                        reconstruct(&bench.host, &plan, data)
                    })
                };
                let image = by(&host);
                let expected = fbp.reconstruct(y.view()).unwrap();
                let error = relative(&image, expected.as_slice().unwrap());
                let bound = if half { 1e-3 } else { 1e-5 };
                assert!(error < bound, "{name}, {batch}, {filter}: {error:.1e}");
                assert_eq!(by(&backward), image, "{name}, {filter}");
            }
        }
    }
}
