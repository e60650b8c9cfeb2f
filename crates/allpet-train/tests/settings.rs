//! Rate schedules at their golden points, and what a configuration accepts.

use allpet_nn::Params;
use allpet_train::{EarlyStop, Precision, RateSchedule, TrainConfig};
use candle_core::{DType, Device};

#[test]
fn rates_at_their_golden_points() {
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-15, "{a} {b}");
    let cosine = RateSchedule::Cosine { floor: 0.1 };
    // Warm-up: a straight line that reaches the base rate at its last step.
    near(cosine.rate(0, 2.0, 110, 10), 0.2);
    near(cosine.rate(4, 2.0, 110, 10), 1.0);
    near(cosine.rate(9, 2.0, 110, 10), 2.0);
    // Cosine: cos 0 = 1, cos π/3 = 1/2, cos π/2 = 0, cos 2π/3 = -1/2, cos π = -1.
    near(cosine.rate(10, 2.0, 130, 10), 2.0);
    near(cosine.rate(50, 2.0, 130, 10), 2.0 * (0.1 + 0.9 * 0.75));
    near(cosine.rate(70, 2.0, 130, 10), 2.0 * 0.55);
    near(cosine.rate(90, 2.0, 130, 10), 2.0 * (0.1 + 0.9 * 0.25));
    near(cosine.rate(130, 2.0, 130, 10), 0.2);
    near(cosine.rate(1_000, 2.0, 130, 10), 0.2);

    near(RateSchedule::Constant.rate(77, 3.0, 100, 0), 3.0);
    let step = RateSchedule::Step {
        every: 30,
        factor: 0.5,
    };
    near(step.rate(5, 1.0, 100, 5), 1.0);
    near(step.rate(34, 1.0, 100, 5), 1.0);
    near(step.rate(35, 1.0, 100, 5), 0.5);
    near(step.rate(95, 1.0, 100, 5), 0.125);
}

#[test]
fn every_fault_is_listed_and_unknown_fields_are_refused() {
    TrainConfig::default().validate().unwrap();
    let bad = TrainConfig {
        steps: 0,
        rate: f64::NAN,
        ema: 1.0,
        clip_norm: Some(0.0),
        schedule: RateSchedule::Step {
            every: 0,
            factor: 2.0,
        },
        ..TrainConfig::default()
    };
    let text = bad.validate().unwrap_err().to_string();
    for name in [
        "steps",
        "rate",
        "ema",
        "clip_norm",
        "schedule.every",
        "schedule.factor",
        "warmup",
    ] {
        assert!(text.contains(name), "{name} is not in: {text}");
    }
    let given = r#"{ "steps": 5, "schedule": { "kind": "cosine", "floor": 0.2 }, "warmup": 0 }"#;
    let config: TrainConfig = serde_json::from_str(given).unwrap();
    assert_eq!(config.schedule, RateSchedule::Cosine { floor: 0.2 });
    assert_eq!(config.rate_at(0), TrainConfig::default().rate);
    for wrong in [
        r#"{ "step": 5 }"#,
        r#"{ "schedule": { "kind": "cosine", "flor": 0.2 } }"#,
    ] {
        let error = serde_json::from_str::<TrainConfig>(wrong)
            .unwrap_err()
            .to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn faults_of_early_stopping_are_named() {
    let rule = EarlyStop {
        patience: 0,
        window: 0,
        improvement: -1.0,
    };
    let bad = TrainConfig {
        early_stop: Some(rule),
        ..TrainConfig::default()
    };
    let text = bad.validate().unwrap_err().to_string();
    for name in ["patience is 0", "window is 0", "improvement is -1"] {
        assert!(text.contains(name), "{name} is not in: {text}");
    }
    let given = r#"{ "early_stop": { "patience": 7 } }"#;
    let config: TrainConfig = serde_json::from_str(given).unwrap();
    assert_eq!(config.early_stop, Some(EarlyStop::after(7)));
    let wrong = serde_json::from_str::<TrainConfig>(r#"{ "early_stop": { "window": 7 } }"#);
    assert!(wrong.unwrap_err().to_string().contains("patience"));
}

#[test]
fn other_precisions_are_refused_on_the_cpu() {
    let params = || Params::new(0, &Device::Cpu);
    assert_eq!(Precision::F32.on(params()).unwrap().activations(), DType::F32);
    for (name, precision) in [("tf32", Precision::Tf32), ("bf16", Precision::Bf16)] {
        let read: TrainConfig = serde_json::from_str(&format!("{{\"precision\": \"{name}\"}}")).unwrap();
        assert_eq!(read.precision, precision);
        let error = precision.on(params()).unwrap_err().to_string();
        assert!(
            error.contains(name) && error.contains("CUDA") && !error.contains('\n'),
            "{error}"
        );
    }
    assert!(params().with_activations(DType::BF16).is_err());
    // Files of ordinary runs are what they were.
    let written = serde_json::to_string(&TrainConfig::default()).unwrap();
    assert!(!written.contains("precision"));
}
