//! One optimiser step: the losses of its batches, their gradients added up, clipped, AdamW, moving average.

use crate::{
    AdamW, Error, Objective, Result, TrainConfig, Update, clip_factor, ema_decay, global_norm,
    objective::Loss,
};
use allpet_nn::{Params, Tape, record};
use candle_core::{DType, Tensor};
use std::collections::BTreeMap;

/// What optimiser steps change: the parameters, their moments, their moving average.
#[derive(Debug)]
pub struct Learner {
    adamw: AdamW,
}

/// What a step came to.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The loss, averaged over the step's batches.
    pub loss: f64,
    /// Its named parts, averaged likewise.
    pub parts: Vec<(&'static str, f64)>,
    /// The learning rate.
    pub rate: f64,
    /// Global 2-norm of the gradient, before it was clipped.
    pub grad_norm: f64,
}

impl Learner {
    /// For the parameters there are now, with fresh moments.
    ///
    /// # Errors
    /// Settings out of their range, parameters that are not f32.
    pub fn new(config: &TrainConfig, params: &Params) -> Result<Self> {
        Ok(Self {
            adamw: AdamW::new(config.adamw(), &params.named())?,
        })
    }

    /// The optimiser's state.
    pub fn adamw(&self) -> &AdamW {
        &self.adamw
    }

    pub(crate) fn adamw_mut(&mut self) -> &mut AdamW {
        &mut self.adamw
    }

    /// Step `step` (from 0) on `config.accumulate` batches: the gradient is that of their mean loss. The objective is
    /// told the batch's own number, `step · accumulate + i`.
    ///
    /// # Errors
    /// As [`crate::Trainer::run`]; nothing is changed then. Fewer batches than `accumulate`.
    pub fn step<B>(
        &mut self,
        config: &TrainConfig,
        objective: &dyn Objective<Batch = B>,
        batches: impl IntoIterator<Item = Result<B>>,
        step: u64,
    ) -> Result<Taken> {
        let share = 1.0 / config.accumulate as f64;
        let (mut value, mut parts) = (0.0, Vec::new());
        let mut gradients = BTreeMap::new();
        let mut batches = batches.into_iter();
        for i in 0..config.accumulate {
            let batch = batches.next().ok_or(Error::NoBatch { step })??;
            let number = step * config.accumulate as u64 + i as u64;
            let (loss, tape) = record(|| objective.loss(&batch, number));
            let loss = loss.map_err(|source| Error::Objective { step, source })?;
            value += share * scalar(&loss.total, step)?;
            add_parts(&mut parts, &loss.parts, share);
            self.add_gradients(&mut gradients, tape, loss)?;
        }
        if gradients.is_empty() {
            return Err(Error::NoGradient {
                parameters: self.adamw.params().count(),
                step,
            });
        }
        let grad_norm = share * global_norm(gradients.values())?;
        if !grad_norm.is_finite() {
            return Err(Error::NotFinite {
                what: "the gradient norm",
                value: grad_norm,
                step,
            });
        }
        let rate = config.rate_at(step);
        let update = Update {
            step,
            rate,
            gradient_factor: share * clip_factor(grad_norm, config.clip_norm),
            ema_decay: ema_decay(config.ema, step),
        };
        self.adamw.update(&gradients, &update)?;
        Ok(Taken {
            loss: value,
            parts,
            rate,
            grad_norm,
        })
    }

    /// Adds the gradient of every parameter that has one.
    fn add_gradients(&self, sums: &mut BTreeMap<String, Tensor>, tape: Tape, loss: Loss) -> Result<()> {
        let mut store = tape.backward(&loss.total)?;
        for (name, var) in self.adamw.params() {
            let Some(gradient) = store.remove(var) else {
                continue;
            };
            let gradient = gradient.detach().contiguous()?;
            let sum = match sums.remove(name) {
                Some(sum) => (sum + gradient)?,
                None => gradient,
            };
            sums.insert(name.to_owned(), sum);
        }
        Ok(())
    }
}

fn add_parts(sums: &mut Vec<(&'static str, f64)>, parts: &[(&'static str, f64)], share: f64) {
    for (name, value) in parts {
        match sums.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += share * value,
            None => sums.push((name, share * value)),
        }
    }
}

fn scalar(loss: &Tensor, step: u64) -> Result<f64> {
    if loss.elem_count() != 1 {
        return Err(Error::Tensor {
            what: "the loss".into(),
            expected: "one number".into(),
            got: format!("of shape {:?}", loss.dims()),
        });
    }
    let value = loss
        .detach()
        .to_dtype(DType::F64)?
        .flatten_all()?
        .to_vec1::<f64>()?[0];
    if !value.is_finite() {
        return Err(Error::NotFinite {
            what: "the loss",
            value,
            step,
        });
    }
    Ok(value)
}
