//! The projector as a differentiable operation.
#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry, fill_normal, stream};
use allpet_radon::tensor::{back_project, project};
use allpet_radon::{LinearOperator, Projector};
use candle_core::{DType, Device, Tensor, Var};
use ndarray::ArrayViewD;
use std::sync::Arc;

fn projector() -> Arc<Projector> {
    let grid = ImageGrid::new(13, 10, 1.5).unwrap();
    let geometry = ParallelGeometry::new(11, 17, 1.3)
        .unwrap()
        .with_start_deg(7.0)
        .with_offset_bins(0.75);
    Arc::new(Projector::new(grid, geometry).unwrap())
}

fn normal(seed: u64, shape: &[usize]) -> Tensor {
    let mut values = vec![0.0; shape.iter().product()];
    fill_normal(&mut stream(seed, "candle test", 0), &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    values(a)
        .iter()
        .zip(values(b))
        .map(|(&a, b)| f64::from(a) * f64::from(b))
        .sum()
}

#[test]
fn tensors_see_what_arrays_see() {
    let p = projector();
    let x = normal(1, &[2, 3, 13, 10]);
    let data = values(&x);
    let expected = p
        .apply(ArrayViewD::from_shape(vec![2, 3, 13, 10], &data).unwrap())
        .unwrap();
    let y = project(&p, &x).unwrap();
    assert_eq!(y.dims(), [2, 3, 11, 17]);
    assert_eq!(values(&y), expected.as_slice().unwrap());
    // A tensor that is a strided view of another.
    let swapped = x
        .transpose(2, 3)
        .unwrap()
        .contiguous()
        .unwrap()
        .transpose(2, 3)
        .unwrap();
    assert!(!swapped.is_contiguous());
    assert_eq!(
        values(&project(&p, &swapped.narrow(1, 1, 2).unwrap()).unwrap()),
        values(&y.narrow(1, 1, 2).unwrap())
    );
}

#[test]
fn gradients_are_the_adjoint_and_match_finite_differences() {
    let p = projector();
    let weight = normal(3, &[2, 11, 17]);
    let x = Var::from_tensor(&normal(2, &[2, 13, 10])).unwrap();
    // A loss that is not linear: Σ w·(Ax)².
    let loss = |x: &Tensor| {
        (project(&p, x).unwrap().sqr().unwrap() * &weight)
            .unwrap()
            .sum_all()
            .unwrap()
    };
    let gradient = loss(x.as_tensor()).backward().unwrap().get(&x).unwrap().clone();
    for seed in 10..14 {
        let direction = normal(seed, &[2, 13, 10]);
        // The loss is quadratic, so the central difference is exact for any step.
        let plus = values(&loss(&(x.as_tensor() + &direction).unwrap()))[0];
        let minus = values(&loss(&(x.as_tensor() - &direction).unwrap()))[0];
        let difference = f64::from(plus - minus) / 2.0;
        let size = dot(&gradient, &gradient).sqrt() * dot(&direction, &direction).sqrt();
        assert!((difference - dot(&gradient, &direction)).abs() < 1e-5 * size);
        assert!((0.98 * difference - dot(&gradient, &direction)).abs() > 1e-5 * size);
    }
    let expected = back_project(
        &p,
        &((project(&p, &x).unwrap() * 2.0).unwrap() * &weight).unwrap(),
    )
    .unwrap();
    let error = (&gradient - &expected).unwrap();
    assert!(dot(&error, &error).sqrt() < 1e-6 * dot(&expected, &expected).sqrt());
}

#[test]
fn the_gradient_of_the_adjoint_is_the_projection() {
    let p = projector();
    let y = Var::from_tensor(&normal(4, &[11, 17])).unwrap();
    let x = normal(5, &[13, 10]);
    let loss = (back_project(&p, &y).unwrap() * &x).unwrap().sum_all().unwrap();
    let gradient = loss.backward().unwrap().get(&y).unwrap().clone();
    assert_eq!(values(&gradient), values(&project(&p, &x).unwrap()));
}

#[test]
fn wrong_tensors_are_errors() {
    let p = projector();
    let error = project(&p, &normal(1, &[10, 13])).unwrap_err().to_string();
    assert!(
        error.contains("[10, 13]") && error.contains("[.., 13, 10]"),
        "{error}"
    );
    let double = normal(1, &[13, 10]).to_dtype(DType::F64).unwrap();
    assert!(project(&p, &double).unwrap_err().to_string().contains("f32"));
    assert!(back_project(&p, &normal(1, &[13, 10])).is_err());
}
