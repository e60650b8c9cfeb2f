//! Early stopping with patience (Goodfellow, Bengio & Courville 2016, algorithm 7.1) on the mean loss of a window.
//!
//! After step `n` the watched value is `m(n)`, the mean of the last `window` losses. It improves when it falls below the
//! best one so far by more than `improvement`; `patience` steps after the last improvement the run ends. Slow progress
//! counts as well: the best value moves only where it is beaten by that much, however many steps it takes.

use serde::{Deserialize, Serialize};

/// When a run ends before its last step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EarlyStop {
    /// Steps without an improvement after which the run ends.
    pub patience: usize,
    /// Steps whose losses are averaged.
    #[serde(default = "hundred")]
    pub window: usize,
    /// By how much the mean loss must fall to count as an improvement, in units of the loss.
    #[serde(default)]
    pub improvement: f64,
}

fn hundred() -> usize {
    100
}

impl EarlyStop {
    /// So much patience, the mean of a hundred steps, any improvement.
    pub fn after(patience: usize) -> Self {
        Self {
            patience,
            window: hundred(),
            improvement: 0.0,
        }
    }

    pub(crate) fn faults(&self, faults: &mut Vec<String>) {
        for (name, value) in [("patience", self.patience), ("window", self.window)] {
            if value == 0 {
                faults.push(format!("early_stop.{name} is 0; expected at least 1"));
            }
        }
        if !(self.improvement >= 0.0 && self.improvement.is_finite()) {
            faults.push(format!(
                "early_stop.improvement is {}; expected 0 or more",
                self.improvement
            ));
        }
    }
}

/// What early stopping remembers of the steps done; it goes into the checkpoint, so that a resumed run ends at the same step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plateau {
    /// The last losses, at most a window of them.
    #[serde(with = "exact")]
    losses: Vec<f64>,
    /// The lowest mean that was an improvement; empty before the first window is full.
    #[serde(with = "exact")]
    best: Vec<f64>,
    /// Steps done when it was found.
    best_after: u64,
}

impl Plateau {
    /// Takes in the loss of a step, the `done`-th (from 1); whether the run ends with it.
    pub fn see(&mut self, rule: &EarlyStop, done: u64, loss: f64) -> bool {
        if self.losses.len() >= rule.window {
            self.losses.remove(0);
        }
        self.losses.push(loss);
        if self.losses.len() < rule.window {
            return false;
        }
        let mean = self.losses.iter().sum::<f64>() / rule.window as f64;
        if self.best.iter().all(|best| mean < best - rule.improvement) {
            (self.best, self.best_after) = (vec![mean], done);
        }
        self.is_over(rule, done)
    }

    /// Whether the run ends, or has ended, after `done` steps.
    pub fn is_over(&self, rule: &EarlyStop, done: u64) -> bool {
        !self.best.is_empty() && done.saturating_sub(self.best_after) >= rule.patience as u64
    }
}

/// Numbers as text: a JSON number may lose its last bit when it is read.
mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[f64], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(f64::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
        let words = Vec::<String>::deserialize(from)?;
        let value = |word: &String| {
            let parsed = word.parse();
            parsed.map_err(|_| D::Error::custom(format!("`{word}` is no number")))
        };
        words.iter().map(value).collect()
    }
}
