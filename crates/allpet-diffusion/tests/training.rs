//! Predictions, noise and times as a trainer uses them; guidance.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

use allpet_diffusion::{
    Conditioning, Denoiser, Error, ForwardProcess, Guided, Prediction, Predictor, ProcessConfig, Result,
    SampleNoise, Schedule, training,
};
use candle_core::{DType, Device, Tensor, Var};
use std::cell::Cell;

fn values(x: &Tensor) -> Vec<f64> {
    x.flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

/// `‖x - y‖ / ‖y‖`.
fn relative(x: &[f64], y: &[f64]) -> f64 {
    let square: f64 = x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum();
    (square / y.iter().map(|y| y * y).sum::<f64>()).sqrt()
}

fn draw(what: &str, count: usize, dtype: DType) -> Tensor {
    SampleNoise::consecutive(1, 0, count)
        .normal(what, 0, &[2, 3], dtype, &Device::Cpu)
        .unwrap()
}

#[test]
fn every_prediction_leads_back_to_x0() {
    let times = [1.0, 2.0, 500.0, 1000.0];
    for zero_terminal_snr in [false, true] {
        for prediction in [Prediction::Epsilon, Prediction::X0, Prediction::V] {
            let config = ProcessConfig {
                zero_terminal_snr,
                prediction,
                ..ProcessConfig::default()
            };
            let Ok(process) = config.build() else {
                assert!(zero_terminal_snr && prediction == Prediction::Epsilon);
                continue;
            };
            let (x0, noise) = (draw("x0", 4, DType::F64), draw("noise", 4, DType::F64));
            let x = training::add_noise(&process, &x0, None, &times, &noise).unwrap();
            let target = prediction.target(&process, &x0, &noise, &times).unwrap();
            let back = prediction.x0(&process, &target, &x, &times, None).unwrap();
            assert!(relative(&values(&back), &values(&x0)) < 1e-12, "{config:?}");
            // The wrong time must not lead back.
            let wrong = [2.0, 3.0, 400.0, 900.0];
            let back = prediction.x0(&process, &target, &x, &wrong, None).unwrap();
            assert_eq!(
                relative(&values(&back), &values(&x0)) < 1e-12,
                prediction == Prediction::X0
            );
        }
    }
    let process = ProcessConfig {
        zero_terminal_snr: true,
        prediction: Prediction::V,
        ..ProcessConfig::default()
    }
    .build()
    .unwrap();
    let x = draw("x", 4, DType::F32);
    let refused = Prediction::Epsilon.x0(&process, &x, &x, &times, None);
    assert!(matches!(refused, Err(Error::EpsilonAtZeroSnr)));
    let network = |x: &Tensor, _: &Tensor, _: &Conditioning| Ok(x.clone());
    assert!(Predictor::new(&process, Prediction::Epsilon, network).is_err());
}

#[test]
fn noise_is_added_as_equation_16_says() {
    let process = ProcessConfig {
        schedule: Schedule::cosine(),
        ..ProcessConfig::default()
    }
    .build()
    .unwrap();
    let (x0, noise) = (draw("x0", 2, DType::F64), draw("noise", 2, DType::F64));
    let x = values(&training::add_noise(&process, &x0, None, &[250.0, 750.0], &noise).unwrap());
    let (x0, noise) = (values(&x0), values(&noise));
    for i in 0..x.len() {
        let alpha_bar = process
            .schedule()
            .alpha_bar(if i < 6 { 250 } else { 750 })
            .unwrap();
        assert!((x[i] - alpha_bar.sqrt() * x0[i] - (1.0 - alpha_bar).sqrt() * noise[i]).abs() < 1e-14);
    }
    let mismatch = draw("x0", 3, DType::F64);
    assert!(training::add_noise(&process, &mismatch, None, &[1.0, 2.0], &mismatch).is_err());
}

#[test]
fn draws_belong_to_sample_and_step() {
    let process = ProcessConfig::default().build().unwrap();
    let indices: Vec<u64> = (0..20_000).collect();
    let times = training::draw_times(&process, 5, 0, &indices);
    assert!(
        times
            .iter()
            .all(|&t| t.fract() == 0.0 && (1.0..=1000.0).contains(&t))
    );
    assert!(times.contains(&1.0) && times.contains(&1000.0));
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    // Standard deviation of the uniform on 1..=1000 over √20000 is 2.04; four of them.
    assert!((mean - 500.5).abs() < 8.2, "{mean}");
    assert_eq!(
        training::draw_times(&process, 5, 0, &[77, 3]),
        [times[77], times[3]]
    );
    assert_ne!(training::draw_times(&process, 5, 1, &indices[..9]), times[..9]);
    assert_ne!(training::draw_times(&process, 6, 0, &indices[..9]), times[..9]);

    let noise = training::draw_noise(5, 3, &[4, 9, 2], &[2, 3], &Device::Cpu).unwrap();
    let alone = training::draw_noise(5, 3, &[9], &[2, 3], &Device::Cpu).unwrap();
    assert_eq!(values(&noise)[6..12], values(&alone));
    assert_ne!(
        values(&training::draw_noise(5, 4, &[9], &[2, 3], &Device::Cpu).unwrap()),
        values(&alone)
    );
}

#[test]
fn the_loss_is_a_mean_square_with_its_gradient() {
    let output = Var::new(&[[1.0f64, 2.0], [3.0, 5.0]], &Device::Cpu).unwrap();
    let target = Tensor::new(&[[1.0f64, 1.0], [1.0, 1.0]], &Device::Cpu).unwrap();
    let loss = training::loss(&output, &target).unwrap();
    assert_eq!(loss.to_scalar::<f64>().unwrap(), (1.0 + 4.0 + 16.0) / 4.0);
    let gradient = loss.backward().unwrap();
    assert_eq!(values(gradient.get(&output).unwrap()), [0.0, 0.5, 1.0, 2.0]);
    assert!(training::loss(&output, &draw("x", 2, DType::F64)).is_err());

    // A loss on the predicted x_0 reaches the network's output.
    let process = ProcessConfig::default().build().unwrap();
    let x0 = Prediction::V
        .x0(&process, &output, &target, &[10.0, 900.0], None)
        .unwrap();
    let gradient = x0.sum_all().unwrap().backward().unwrap();
    let expected = [10.0, 10.0, 900.0, 900.0].map(|t| -process.marginal(t).c);
    assert!(relative(&values(gradient.get(&output).unwrap()), &expected) < 1e-14);
}

/// Adds the embedding's mean to `x` and counts its calls.
struct Prompted(Cell<usize>);

impl Denoiser for Prompted {
    fn predict_x0(&self, x: &Tensor, _: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        self.0.set(self.0.get() + 1);
        let shift = conditioning
            .embedding
            .as_ref()
            .ok_or(Error::NoTerminal)?
            .mean_keepdim(1)?;
        Ok(x.broadcast_add(&shift)?)
    }
}

#[test]
fn guidance_extrapolates_and_costs_nothing_at_one() {
    let x = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
    let t = training::time_tensor(&[5.0, 5.0], &Device::Cpu).unwrap();
    let embedding = Tensor::new(&[[2.0f32, 4.0], [8.0, 8.0]], &Device::Cpu).unwrap();
    let conditioning = Conditioning {
        embedding: Some(embedding),
        ..Conditioning::default()
    };
    let null = Tensor::new(&[[1.0f32, 1.0]], &Device::Cpu).unwrap();
    // Prompts add 3 and 8, no prompt adds 1.
    for (weight, calls, shifts) in [(1.0, 1, [3.0, 8.0]), (0.0, 1, [1.0, 1.0]), (2.5, 2, [6.0, 18.5])] {
        let guided = Guided {
            inner: Prompted(Cell::new(0)),
            weight,
            null: null.clone(),
        };
        let got = guided.predict_x0(&x, &t, &conditioning).unwrap();
        let expected = [1.0 + shifts[0], 2.0 + shifts[0], 3.0 + shifts[1], 4.0 + shifts[1]];
        assert!(relative(&values(&got), &expected) < 1e-6, "weight {weight}");
        assert_eq!(guided.inner.0.get(), calls);
    }
    let wrong = Guided {
        inner: Prompted(Cell::new(0)),
        weight: 2.0,
        null: x,
    };
    assert!(matches!(
        wrong.predict_x0(&wrong.null, &t, &conditioning),
        Err(Error::Shape { .. })
    ));

    let picked = conditioning.select(&[1, 0, 1]).unwrap();
    assert_eq!(values(&picked.embedding.unwrap()), [8.0, 8.0, 2.0, 4.0, 8.0, 8.0]);
}
