//! The same bytes for any batch and any number of threads.

use super::draw;
use allpet_nn::{Window, attention, conv2d, group_norm, grouped_conv2d, linear, record};
use candle_core::{Device, Tensor, Var};

/// `run(from, count)` of five samples: all at once, one by one, on one to three threads.
fn same_bytes(run: impl Fn(usize, usize) -> Vec<f32> + Sync) {
    let whole = run(0, 5);
    let single: Vec<f32> = (0..5).flat_map(|i| run(i, 1)).collect();
    assert_eq!(whole, single);
    for threads in [1, 2, 3] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        assert_eq!(pool.install(|| run(0, 5)), whole);
    }
}

#[test]
fn bytes_do_not_depend_on_batch_or_threads() {
    let x = Tensor::from_vec(draw("x", &[5, 6, 9, 7]), (5, 6, 9, 7), &Device::Cpu).unwrap();
    let w = Tensor::from_vec(draw("w", &[12, 6, 3, 3]), (12, 6, 3, 3), &Device::Cpu).unwrap();
    let bias = Tensor::from_vec(draw("b", &[12]), 12, &Device::Cpu).unwrap();
    let (gain, offset) = (
        Tensor::ones((5, 12), candle_core::DType::F32, &Device::Cpu).unwrap(),
        draw("o", &[5, 12]),
    );
    let offset = Tensor::from_vec(offset, (5, 12), &Device::Cpu).unwrap();
    let lw = Tensor::from_vec(draw("lw", &[9, 252]), (9, 252), &Device::Cpu).unwrap();
    let lb = Tensor::from_vec(draw("lb", &[9]), 9, &Device::Cpu).unwrap();
    let run = |from: usize, count: usize| -> Vec<f32> {
        let y = conv2d(&x.narrow(0, from, count).unwrap(), &w, &bias, Window::same(3)).unwrap();
        let part = |t: &Tensor| t.narrow(0, from, count).unwrap();
        let y = group_norm(&y, &part(&gain), &part(&offset), 3, true).unwrap();
        let y = attention(&y, 2).unwrap();
        let y = linear(&y.reshape((count, ())).unwrap(), &lw, &lb).unwrap();
        y.flatten_all().unwrap().to_vec1().unwrap()
    };
    same_bytes(run);
}

#[test]
fn bytes_of_a_strided_gradient_do_not_depend_on_batch_or_threads() {
    let window = Window {
        stride: 2,
        padding: 1,
    };
    let constant =
        |name: &str, shape: &[usize]| Tensor::from_vec(draw(name, shape), shape, &Device::Cpu).unwrap();
    for (width, groups) in [(64, 1), (13, 1), (9, 2)] {
        let x = constant("x", &[5, 6, 7, width]);
        let (w, bias) = (constant("w", &[8, 6 / groups, 3, 3]), constant("b", &[8]));
        let r = constant("r", &[5, 8, 4, width.div_ceil(2)]);
        let run = |from: usize, count: usize| -> Vec<f32> {
            let x = Var::from_tensor(&x.narrow(0, from, count).unwrap()).unwrap();
            let (loss, tape) = record(|| {
                let y = grouped_conv2d(x.as_tensor(), &w, &bias, window, groups)?;
                (y * r.narrow(0, from, count)?)?.sum_all()
            });
            let gradients = tape.backward(&loss.unwrap()).unwrap();
            let of_x = gradients.get(&x).unwrap().flatten_all().unwrap();
            of_x.to_vec1().unwrap()
        };
        same_bytes(run);
    }
}
