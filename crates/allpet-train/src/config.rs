//! The settings of a training run.

use crate::{AdamWConfig, EarlyStop, Error, RateSchedule, Result};
use allpet_nn::Params;
use candle_core::DType;
use serde::{Deserialize, Serialize};

/// How exactly networks compute; parameters, gradients, moments and losses are 32-bit floats in every case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// The same, with ten digits kept in products of matrices (TensorFloat-32); CUDA only.
    Tf32,
    /// What passes through networks has eight digits; CUDA only.
    Bf16,
}

impl Precision {
    /// Parameters whose networks compute so. For products of matrices this holds in the whole process.
    ///
    /// # Errors
    /// Anything but [`Precision::F32`] elsewhere than on a CUDA device.
    pub fn on(self, params: Params) -> Result<Params> {
        let cuda = cfg!(feature = "cuda") && params.device().is_cuda();
        if self != Self::F32 && !cuda {
            return Err(Error::Invalid {
                what: "training configuration",
                faults: vec![format!(
                    "precision is {}; expected f32, or a CUDA device and a build for it",
                    self.name()
                )],
            });
        }
        if cuda {
            candle_core::cuda::set_gemm_reduced_precision_f32(self == Self::Tf32);
        }
        match self {
            Self::Bf16 => Ok(params.with_activations(DType::BF16)?),
            Self::F32 | Self::Tf32 => Ok(params),
        }
    }

    /// What was written before there was a choice says nothing of it.
    fn is_plain(&self) -> bool {
        *self == Self::F32
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
        }
    }
}

/// The settings of a training run; every field has a default, unknown fields are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Number of optimiser steps.
    pub steps: usize,
    /// Samples in a batch.
    pub batch: usize,
    /// Batches whose gradients are added up before a step is taken: as one large batch, in the memory of a small one.
    pub accumulate: usize,
    /// Base learning rate.
    pub rate: f64,
    /// How the rate goes after the warm-up.
    pub schedule: RateSchedule,
    /// Steps over which the rate rises linearly.
    pub warmup: usize,
    /// Largest global 2-norm of the gradient; longer gradients are scaled down to it.
    pub clip_norm: Option<f64>,
    /// Decoupled weight decay; parameters of one dimension (biases, scales) have none.
    pub weight_decay: f64,
    /// Decay of the moving average of the parameters; its warm-up is [`crate::ema_decay`].
    pub ema: f64,
    /// Ends the run when the loss has stopped falling; without it all steps are done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<EarlyStop>,
    /// Compute the network's blocks again on the way back instead of keeping what they computed: less memory, a third more time,
    /// the same result.
    pub recompute: bool,
    /// Seed of the initial parameters, the batches and their noise.
    pub seed: u64,
    /// How exactly the networks compute.
    #[serde(skip_serializing_if = "Precision::is_plain")]
    pub precision: Precision,
    /// Steps between two checkpoints; 0 writes them by the clock and at the end only.
    pub checkpoint_every_steps: usize,
    /// Minutes between two checkpoints; 0 writes them by the step and at the end only.
    pub checkpoint_every_minutes: f64,
    /// Steps between two lines of the log.
    pub log_every: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 10_000,
            batch: 8,
            accumulate: 1,
            rate: 2e-4,
            schedule: RateSchedule::default(),
            warmup: 200,
            clip_norm: Some(1.0),
            weight_decay: 0.01,
            ema: 0.999,
            early_stop: None,
            recompute: false,
            seed: 0,
            precision: Precision::F32,
            checkpoint_every_steps: 1_000,
            checkpoint_every_minutes: 5.0,
            log_every: 10,
        }
    }
}

impl TrainConfig {
    /// The learning rate of a step, counted from 0.
    pub fn rate_at(&self, step: u64) -> f64 {
        self.schedule
            .rate(step, self.rate, self.steps as u64, self.warmup as u64)
    }

    /// The optimiser's settings.
    pub fn adamw(&self) -> AdamWConfig {
        AdamWConfig {
            weight_decay: self.weight_decay,
            ..AdamWConfig::default()
        }
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`Error::Invalid`] listing every fault.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        for (name, value) in [
            ("steps", self.steps),
            ("batch", self.batch),
            ("accumulate", self.accumulate),
            ("log_every", self.log_every),
        ] {
            if value == 0 {
                faults.push(format!("{name} is 0; expected at least 1"));
            }
        }
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            faults.push(format!("rate is {}; expected a positive number", self.rate));
        }
        self.schedule.faults(&mut faults);
        if self.warmup > self.steps {
            faults.push(format!(
                "warmup is {}; expected at most steps = {}",
                self.warmup, self.steps
            ));
        }
        if let Some(norm) = self.clip_norm
            && !(norm > 0.0 && norm.is_finite())
        {
            faults.push(format!("clip_norm is {norm}; expected a positive number"));
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            faults.push(format!(
                "weight_decay is {}; expected 0 or more",
                self.weight_decay
            ));
        }
        if !(0.0..1.0).contains(&self.ema) {
            faults.push(format!(
                "ema is {}; expected a decay of at least 0 and below 1",
                self.ema
            ));
        }
        if let Some(rule) = &self.early_stop {
            rule.faults(&mut faults);
        }
        if !(self.checkpoint_every_minutes >= 0.0 && self.checkpoint_every_minutes.is_finite()) {
            let got = self.checkpoint_every_minutes;
            faults.push(format!("checkpoint_every_minutes is {got}; expected 0 or more"));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "training configuration",
                faults,
            })
        }
    }

    /// The settings that decide the result, as JSON: everything but when checkpoints and log lines are written, and what is
    /// computed again.
    pub(crate) fn decisive(&self) -> serde_json::Value {
        let mut settings = serde_json::json!({
            "steps": self.steps,
            "batch": self.batch,
            "accumulate": self.accumulate,
            "rate": self.rate,
            "schedule": self.schedule,
            "warmup": self.warmup,
            "clip_norm": self.clip_norm,
            "weight_decay": self.weight_decay,
            "ema": self.ema,
            "seed": self.seed,
        });
        // Absent where it is not asked for, as in checkpoints from before there was one.
        if let Some(rule) = &self.early_stop {
            settings["early_stop"] = serde_json::json!(rule);
        }
        if !self.precision.is_plain() {
            settings["precision"] = self.precision.name().into();
        }
        settings
    }
}
