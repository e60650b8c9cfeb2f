//! The weights and images of `golden/inception.py` by its formulas, and what the programs made of them.

use ndarray::Array2;
use serde_json::Value;
use std::sync::LazyLock;

pub(crate) static GOLDEN: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../golden/inception.json")).unwrap());

/// The data range of the images.
pub(crate) fn range() -> f64 {
    GOLDEN["range"].as_f64().unwrap()
}

fn uniform(tensor: u64, count: usize) -> impl Iterator<Item = f64> {
    (1..=count as u64).map(move |element| {
        let mut z = ((tensor << 32) + element).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 11) as f64 * 2_f64.powi(-53)
    })
}

fn fill(tensor: u64, name: &str, shape: &[usize]) -> Vec<f32> {
    let fan_in: usize = shape[1..].iter().product();
    let reach = (6.0 / fan_in as f64).sqrt();
    uniform(tensor, shape.iter().product())
        .map(|u| {
            let value = match name {
                _ if name.ends_with(".conv.weight") || name == "fc.weight" => (2.0 * u - 1.0) * reach,
                _ if name.ends_with(".bn.weight") || name.ends_with(".bn.running_var") => 0.75 + 0.5 * u,
                _ => 0.4 * u - 0.2,
            };
            value as f32
        })
        .collect()
}

/// Name, shape and values of every tensor of the program's own network.
pub(crate) fn tensors() -> impl Iterator<Item = (String, Vec<usize>, Vec<f32>)> {
    let shapes = GOLDEN["tensors"].as_object().unwrap();
    shapes.iter().enumerate().map(|(index, (name, shape))| {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
        let values = fill(index as u64, name, &shape);
        (name.clone(), shape, values)
    })
}

/// Image `n`, `k/96` of the data range.
pub(crate) fn image(n: usize, rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let k = (i * i + (n + 2) * j + i * j / (n + 3)) % 97;
        (k as f64 / 96.0 * range()) as f32
    })
}
