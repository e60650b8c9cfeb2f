//! Ends of a bridge that are jointly normal, and small helpers that several tests share.

use allpet_diffusion::{BatchMoments, EndMoments, SampleNoise};
use candle_core::{DType, Device, Tensor};

/// Three channels with nothing in common.
pub(crate) fn moments() -> EndMoments {
    EndMoments {
        mean_data: vec![0.3, -1.2, 2.0],
        sd_data: vec![0.8, 1.5, 0.2],
        mean_terminal: vec![-0.4, 0.7, 1.0],
        sd_terminal: vec![0.6, 2.0, 1.1],
        correlation: vec![0.9, -0.5, 0.0],
    }
}

/// The same with the correlations' signs turned: the broken control.
pub(crate) fn flipped() -> EndMoments {
    EndMoments {
        correlation: moments().correlation.iter().map(|r| -r).collect(),
        ..moments()
    }
}

pub(crate) fn values(x: &Tensor) -> Vec<f64> {
    let flat = x.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    flat.to_vec1().unwrap()
}

pub(crate) fn draw(what: &str, index: u64, dims: &[usize], dtype: DType) -> Tensor {
    SampleNoise::consecutive(8, index, dims[0])
        .normal(what, 0, &dims[1..], dtype, &Device::Cpu)
        .unwrap()
}

/// `[1, C, 1]` of a value for each channel.
pub(crate) fn channels(values: &[f64], dtype: DType) -> Tensor {
    let column = Tensor::from_slice(values, (1, values.len(), 1), &Device::Cpu).unwrap();
    column.to_dtype(dtype).unwrap()
}

/// `x_0` and `x_T [B, 3, N]`, jointly normal with these moments.
pub(crate) fn pairs(of: &EndMoments, batch: usize, count: usize, dtype: DType) -> (Tensor, Tensor) {
    let dims = [batch, 3, count];
    let (u, v) = (draw("u", 0, &dims, dtype), draw("v", 0, &dims, dtype));
    let scaled = |x: &Tensor, by: &[f64]| x.broadcast_mul(&channels(by, dtype)).unwrap();
    let rest: Vec<f64> = of.correlation.iter().map(|r| (1.0 - r * r).sqrt()).collect();
    let mixed = (scaled(&u, &of.correlation) + scaled(&v, &rest)).unwrap();
    let end =
        |x: &Tensor, sd: &[f64], mean: &[f64]| scaled(x, sd).broadcast_add(&channels(mean, dtype)).unwrap();
    (
        end(&mixed, &of.sd_data, &of.mean_data),
        end(&u, &of.sd_terminal, &of.mean_terminal),
    )
}

pub(crate) fn alone(of: EndMoments) -> BatchMoments {
    BatchMoments::new(vec![of]).unwrap()
}

pub(crate) fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}
