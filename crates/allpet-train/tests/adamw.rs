//! AdamW, clipping and the moving average against an `f64` reference, candle-nn's AdamW and closed forms.

#![allow(clippy::unwrap_used)]

use allpet_core::{fill_normal, stream};
use allpet_train::{AdamW, AdamWConfig, Update, clip_factor, ema_decay, global_norm};
use candle_core::{Device, Tensor, Var};
use candle_nn::Optimizer;
use std::collections::BTreeMap;

type Set<T> = BTreeMap<String, T>;

fn values(name: &str, index: u64, n: usize) -> Vec<f32> {
    let mut out = vec![0f32; n];
    fill_normal(&mut stream(3, name, index), &mut out);
    out
}

fn var(name: &str, shape: &[usize]) -> Var {
    Var::from_vec(values(name, 0, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

fn flat(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

fn set<T>(name: &str, item: T) -> Set<T> {
    Set::from([(name.to_owned(), item)])
}

fn update(step: u64, rate: f64) -> Update {
    Update {
        step,
        rate,
        gradient_factor: 1.0,
        ema_decay: ema_decay(0.99, step),
    }
}

fn relative(a: &[f32], b: &[f64]) -> f64 {
    let difference: f64 = a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - b).powi(2)).sum();
    (difference / b.iter().map(|b| b * b).sum::<f64>()).sqrt()
}

/// Textbook AdamW in `f64` on the gradient `w - target`, with a switch for L2 regularisation (Adam, coupled).
fn reference(w: &[f32], target: &[f32], steps: u64, config: AdamWConfig, coupled: bool) -> [Vec<f64>; 2] {
    let mut w: Vec<f64> = w.iter().map(|&v| f64::from(v)).collect();
    let (mut m, mut v, mut e) = (vec![0.0; w.len()], vec![0.0; w.len()], w.clone());
    for n in 1..=steps {
        let (rate, decay) = (0.05 / n as f64, config.weight_decay);
        let d = ema_decay(0.99, n - 1);
        for i in 0..w.len() {
            let mut g = w[i] - f64::from(target[i]);
            if coupled {
                g += decay * w[i];
            } else {
                w[i] -= rate * decay * w[i];
            }
            m[i] = config.beta1 * m[i] + (1.0 - config.beta1) * g;
            v[i] = config.beta2 * v[i] + (1.0 - config.beta2) * g * g;
            let corrected = (v[i] / (1.0 - config.beta2.powi(n as i32))).sqrt() + config.eps;
            w[i] -= rate * m[i] / (1.0 - config.beta1.powi(n as i32)) / corrected;
            e[i] = d * e[i] + (1.0 - d) * w[i];
        }
    }
    [w, e]
}

fn descend(steps: u64, config: AdamWConfig, shape: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let (w, target) = (var("w", shape), var("target", shape));
    let mut adamw = AdamW::new(config, &set("w", w.clone())).unwrap();
    for step in 0..steps {
        let g = (w.as_tensor() - target.as_tensor()).unwrap();
        adamw
            .update(&set("w", g), &update(step, 0.05 / (step + 1) as f64))
            .unwrap();
    }
    (flat(&w), flat(&adamw.ema()["w"]))
}

#[test]
fn fifty_steps_follow_the_reference_with_decoupled_decay() {
    let config = AdamWConfig {
        weight_decay: 0.3,
        ..AdamWConfig::default()
    };
    let (w, ema) = descend(50, config, &[8, 16]);
    let start = values("w", 0, 128);
    let target = values("target", 0, 128);
    let [expected, average] = reference(&start, &target, 50, config, false);
    assert!(relative(&w, &expected) < 1e-6, "{}", relative(&w, &expected));
    assert!(relative(&ema, &average) < 1e-6, "{}", relative(&ema, &average));
    let [coupled, _] = reference(&start, &target, 50, config, true);
    assert!(
        relative(&w, &coupled) > 1e-3,
        "the control, coupled decay, must differ"
    );
}

#[test]
fn one_dimensional_parameters_do_not_decay() {
    let config = AdamWConfig {
        weight_decay: 0.3,
        ..AdamWConfig::default()
    };
    let (w, _) = descend(50, config, &[128]);
    let (start, target) = (values("w", 0, 128), values("target", 0, 128));
    let [free, _] = reference(
        &start,
        &target,
        50,
        AdamWConfig {
            weight_decay: 0.0,
            ..config
        },
        false,
    );
    let [decayed, _] = reference(&start, &target, 50, config, false);
    assert!(relative(&w, &free) < 1e-6);
    assert!(relative(&w, &decayed) > 1e-3);
}

#[test]
fn agrees_with_candle_nn() {
    let (ours, theirs) = (var("w", &[12, 10]), var("w", &[12, 10]));
    let mut adamw = AdamW::new(AdamWConfig::default(), &set("w", ours.clone())).unwrap();
    let params = candle_nn::ParamsAdamW {
        lr: 2e-2,
        weight_decay: 0.01,
        ..Default::default()
    };
    let mut oracle = candle_nn::AdamW::new(vec![theirs.clone()], params).unwrap();
    for step in 0..50 {
        let x = Tensor::from_vec(values("x", step, 60), (5, 12), &Device::Cpu).unwrap();
        let loss = |w: &Var| x.matmul(w).unwrap().sqr().unwrap().mean_all().unwrap();
        let gradient = loss(&ours).backward().unwrap().remove(&ours).unwrap();
        adamw.update(&set("w", gradient), &update(step, 2e-2)).unwrap();
        oracle.step(&loss(&theirs).backward().unwrap()).unwrap();
    }
    let theirs: Vec<f64> = flat(&theirs).into_iter().map(f64::from).collect();
    assert!(
        relative(&flat(&ours), &theirs) < 1e-5,
        "{}",
        relative(&flat(&ours), &theirs)
    );
}

#[test]
fn the_first_step_is_the_rate_times_the_sign() {
    let w = var("w", &[6, 7]);
    let before = flat(&w);
    let g = values("g", 0, 42);
    let config = AdamWConfig {
        weight_decay: 0.0,
        ..AdamWConfig::default()
    };
    let mut adamw = AdamW::new(config, &set("w", w.clone())).unwrap();
    let gradient = Tensor::from_vec(g.clone(), (6, 7), &Device::Cpu).unwrap();
    adamw.update(&set("w", gradient), &update(0, 0.25)).unwrap();
    for ((after, before), g) in flat(&w).iter().zip(before).zip(g) {
        // g / (|g| + ε): the sign, but for gradients as small as ε.
        let direction = f64::from(g) / (f64::from(g).abs() + 1e-8);
        assert!((f64::from(*after) - (f64::from(before) - 0.25 * direction)).abs() < 1e-6);
        assert!((direction - f64::from(g.signum())).abs() < 1e-4);
    }
}

#[test]
fn tensor_operators_do_the_same() {
    let (a, b) = (var("w", &[40, 30]), var("w", &[40, 30]));
    let mut fused = AdamW::new(AdamWConfig::default(), &set("w", a.clone())).unwrap();
    let mut tensors = AdamW::new(AdamWConfig::default(), &set("w", b.clone())).unwrap();
    for step in 0..20 {
        let g = set(
            "w",
            Tensor::from_vec(values("g", step, 1200), (40, 30), &Device::Cpu).unwrap(),
        );
        let update = Update {
            gradient_factor: 0.7,
            ..update(step, 1e-2)
        };
        fused.update(&g, &update).unwrap();
        tensors.update_by_tensors(&g, &update).unwrap();
    }
    let pairs = [
        (a.as_tensor().clone(), b.as_tensor().clone()),
        (
            fused.first_moments()["w"].clone(),
            tensors.first_moments()["w"].clone(),
        ),
        (
            fused.second_moments()["w"].clone(),
            tensors.second_moments()["w"].clone(),
        ),
        (fused.ema()["w"].clone(), tensors.ema()["w"].clone()),
    ];
    for (x, y) in pairs {
        let y: Vec<f64> = flat(&y).into_iter().map(f64::from).collect();
        assert!(relative(&flat(&x), &y) < 1e-6);
    }
}

#[test]
fn a_missing_gradient_counts_as_zero() {
    let run = |given: bool| {
        let w = var("w", &[4, 4]);
        let mut adamw = AdamW::new(AdamWConfig::default(), &set("w", w.clone())).unwrap();
        for step in 0..6 {
            let g = values("g", step, 16)
                .iter()
                .map(|v| if step < 3 { *v } else { 0.0 })
                .collect();
            let mut gradients = set("w", Tensor::from_vec(g, (4, 4), &Device::Cpu).unwrap());
            if step >= 3 && !given {
                gradients.clear();
            }
            adamw.update(&gradients, &update(step, 1e-2)).unwrap();
        }
        flat(&w)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn same_bytes_for_any_number_of_threads() {
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let w = var("w", &[300, 701]);
            let mut adamw = AdamW::new(AdamWConfig::default(), &set("w", w.clone())).unwrap();
            let mut norms = Vec::new();
            for step in 0..3 {
                let g = Tensor::from_vec(values("g", step, 300 * 701), (300, 701), &Device::Cpu).unwrap();
                let norm = global_norm([&g]).unwrap();
                norms.push(norm.to_bits());
                let update = Update {
                    gradient_factor: clip_factor(norm, Some(1.0)),
                    ..update(step, 1e-2)
                };
                adamw.update(&set("w", g), &update).unwrap();
            }
            let all: Vec<u32> = [w.as_tensor().clone(), adamw.ema()["w"].clone()]
                .iter()
                .flat_map(flat)
                .map(f32::to_bits)
                .collect();
            (norms, all)
        })
    };
    assert!(run(1) == run(2));
}

#[test]
fn the_norm_and_the_clip_are_exact() {
    let a = values("a", 0, 100_003);
    let b = values("b", 0, 12);
    let expected = a
        .iter()
        .chain(&b)
        .map(|&v| f64::from(v).powi(2))
        .sum::<f64>()
        .sqrt();
    let a = Tensor::from_vec(a, 100_003, &Device::Cpu).unwrap();
    // A transposed gradient takes the other path.
    let b = Tensor::from_vec(b, (3, 4), &Device::Cpu).unwrap().t().unwrap();
    let norm = global_norm([&a, &b]).unwrap();
    assert!((norm / expected - 1.0).abs() < 1e-12, "{norm} {expected}");

    let factor = clip_factor(norm, Some(1.5));
    let clipped = [(&a * factor).unwrap(), (&b * factor).unwrap()];
    assert!((global_norm(&clipped).unwrap() - 1.5).abs() < 1e-6);
    assert_eq!(clip_factor(norm, Some(norm * 1.01)), 1.0);
    assert_eq!(clip_factor(norm, None), 1.0);
}

#[test]
fn the_average_of_a_constant_path_has_its_closed_form() {
    // Rate 0 keeps w; started elsewhere, the average closes in by the product of the decays.
    let w = var("w", &[2, 3]);
    let mut adamw = AdamW::new(AdamWConfig::default(), &set("w", w.clone())).unwrap();
    let zero = set("w", w.zeros_like().unwrap());
    let shifted = set("w", (w.as_tensor() + 1.0).unwrap());
    adamw.restore(&zero, &zero, &shifted).unwrap();
    let mut left = 1.0;
    for step in 0..30 {
        adamw.update(&zero, &update(step, 0.0)).unwrap();
        left *= ((1.0 + step as f64) / (10.0 + step as f64)).min(0.99);
        for (e, w) in flat(&adamw.ema()["w"]).iter().zip(flat(&w)) {
            assert!((f64::from(e - w) - left).abs() < 1e-6);
        }
    }
    assert_eq!(ema_decay(0.99, 0), 0.1);
    assert_eq!(ema_decay(0.99, 10_000), 0.99);
}

#[test]
fn wrong_shapes_change_nothing() {
    let w = var("w", &[2, 3]);
    let before = flat(&w);
    let mut adamw = AdamW::new(AdamWConfig::default(), &set("w", w.clone())).unwrap();
    let wrong = set(
        "w",
        Tensor::zeros((3, 2), candle_core::DType::F32, &Device::Cpu).unwrap(),
    );
    let error = adamw.update(&wrong, &update(0, 1.0)).unwrap_err().to_string();
    assert_eq!(error, "the gradient of `w` is F32 [3, 2]; expected f32 [2, 3]");
    let error = adamw.restore(&wrong, &wrong, &wrong).unwrap_err().to_string();
    assert_eq!(
        error,
        "the first moment of `w` is of shape [3, 2]; expected of shape [2, 3]"
    );
    assert_eq!(flat(&w), before);
    assert!(
        AdamW::new(
            AdamWConfig {
                beta2: 1.0,
                ..Default::default()
            },
            &set("w", w)
        )
        .is_err()
    );
}
