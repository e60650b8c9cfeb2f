//! The optimiser's kernels read by a C compiler, against the CPU's optimiser. Needs a C compiler: `CC`, or else `cc`.
#![allow(clippy::unwrap_used)]

use super::{UPDATED, parts, squares, update};
use crate::adamw::Scalars;
use crate::{AdamW, AdamWConfig, Update, global_norm};
use allpet_core::{fill_normal, stream};
use allpet_kernel::{Element, host::Host};
use candle_core::{Device, Tensor, Var};
use std::collections::BTreeMap;

fn host(definitions: &str, backward: bool) -> Host {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    Host::new(&compiler, Element::F32, definitions, backward)
}

fn draw(name: &str, length: usize) -> Vec<f32> {
    let mut values = vec![0f32; length];
    fill_normal(&mut stream(3, name, 0), &mut values);
    values
}

/// Parameter, moments and average after three updates, the last without a gradient.
fn by_kernel(host: &Host, length: usize) -> [Vec<f32>; 4] {
    let w = draw("w", length);
    let mut all = [w.clone(), vec![0.0; length], vec![0.0; length], w];
    for step in 0..3 {
        let g = draw(&format!("g{step}"), length);
        let gradient = if step < 2 { g.as_ptr() as u64 } else { 0 };
        let [w, m, v, e] = all.each_mut().map(|t| t.as_mut_ptr() as u64);
        let scalars = Scalars::new(&AdamWConfig::default(), &the_update(step), true);
        update(host, [w, m, v, e, gradient], length, scalars).unwrap();
    }
    all
}

fn the_update(step: u64) -> Update {
    Update {
        step,
        rate: 1e-2,
        gradient_factor: 0.7,
        ema_decay: 0.9,
    }
}

fn by_cpu(length: usize) -> [Vec<f32>; 4] {
    let tensor = |name: &str| Tensor::from_vec(draw(name, length), (1, length), &Device::Cpu).unwrap();
    let params = BTreeMap::from([("w".to_owned(), Var::from_tensor(&tensor("w")).unwrap())]);
    let mut adamw = AdamW::new(AdamWConfig::default(), &params).unwrap();
    for step in 0..3 {
        let gradients = match step {
            2 => BTreeMap::new(),
            _ => BTreeMap::from([("w".to_owned(), tensor(&format!("g{step}")))]),
        };
        adamw.update(&gradients, &the_update(step)).unwrap();
    }
    let list = |t: &Tensor| t.flatten_all().unwrap().to_vec1().unwrap();
    [
        list(params["w"].as_tensor()),
        list(&adamw.first_moments()["w"]),
        list(&adamw.second_moments()["w"]),
        list(&adamw.ema()["w"]),
    ]
}

/// Largest deviation, relative to the largest entry of each.
fn worst(got: &[Vec<f32>; 4], expected: &[Vec<f32>; 4]) -> f32 {
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let each = got.iter().zip(expected).map(|(got, expected)| {
        assert!(got.iter().all(|v| v.is_finite()));
        let far = largest(&mut got.iter().zip(expected).map(|(g, e)| (g - e).abs()));
        far / largest(&mut expected.iter().map(|e| e.abs()))
    });
    largest(&mut each.into_iter())
}

#[test]
fn updates_are_those_of_the_cpu() {
    let (rising, falling) = (host("", false), host("", true));
    for length in [1, 37, UPDATED, 2 * UPDATED + 5] {
        let (got, expected) = (by_kernel(&rising, length), by_cpu(length));
        assert!(
            worst(&got, &expected) < 1e-6,
            "{length}: {}",
            worst(&got, &expected)
        );
        assert_eq!(by_kernel(&falling, length), got);
    }
    // The control: a root that is off by one in a thousand.
    let coarse = host(
        "#include <math.h>\n#define sqrtf(x) (1.001f * (sqrtf)(x))\n",
        false,
    );
    assert!(worst(&by_kernel(&coarse, 37), &by_cpu(37)) > 1e-6);
}

#[test]
fn norms_are_those_of_the_cpu() {
    let (rising, falling) = (host("", false), host("", true));
    for length in [1, 1000, 16_384, 50_001] {
        let x = draw("x", length);
        let norm = |host: &Host| {
            let mut sums = vec![f64::NAN; parts(length)];
            squares(host, x.as_ptr() as u64, length, sums.as_mut_ptr() as u64).unwrap();
            sums.iter().sum::<f64>().sqrt()
        };
        let expected = global_norm([&Tensor::from_slice(&x, length, &Device::Cpu).unwrap()]).unwrap();
        assert!((norm(&rising) / expected - 1.0).abs() < 1e-12);
        assert_eq!(norm(&rising).to_bits(), norm(&falling).to_bits());
    }
}
