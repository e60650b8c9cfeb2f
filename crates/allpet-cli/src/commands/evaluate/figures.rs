//! Figures as JSON and as rows of a table.

use crate::fault::Result;
use allpet::metrics::distribution::Neighbour;
use allpet::metrics::{Accumulator, Bootstrap, Interval, Summary};
use serde_json::{Map, Value, json};

/// One row of the table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) metric: String,
    pub(super) value: String,
    pub(super) interval: String,
    pub(super) convention: String,
}

/// Figures as JSON and as rows.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) json: Map<String, Value>,
    pub(super) rows: Vec<Row>,
    /// The reference nearest to each candidate, where it was asked for.
    pub(super) neighbours: Option<Vec<Neighbour>>,
}

impl Figures {
    pub(super) fn add(&mut self, name: &str, json: Value) {
        self.json.insert(name.to_owned(), json);
    }

    /// With what the figures compare with.
    pub(super) fn add_labelled(&mut self, name: &str, label: &str, mut json: Value) {
        json["label"] = label.into();
        self.add(name, json);
    }

    pub(super) fn row(&mut self, metric: &str, value: String, interval: String, convention: &str) {
        self.rows.push(Row {
            metric: metric.to_owned(),
            value,
            interval,
            convention: convention.to_owned(),
        });
    }
}

/// What values over images come to.
pub(super) fn summary(values: impl IntoIterator<Item = f64>, seed: u64) -> Result<Summary> {
    let mut all = Accumulator::new();
    all.update(values)?;
    Ok(all.compute(Some(Bootstrap::new(seed)))?)
}

/// A summary as JSON.
pub(super) fn figures_of(summary: &Summary) -> Value {
    json!({
        "mean": summary.mean,
        "sd": summary.sd,
        "interval": summary.interval.map(|i| [i.low, i.high]),
        "min": summary.min,
        "median": summary.median,
        "max": summary.max,
    })
}

/// Mean ± standard deviation, and how many were infinite.
pub(super) fn shown(summary: &Summary) -> String {
    let mean = match (summary.mean, summary.sd) {
        (Some(mean), Some(sd)) => format!("{} ± {}", digits(mean, 6), digits(sd, 3)),
        (Some(mean), None) => digits(mean, 6),
        (None, _) => return "infinite (all identical)".to_owned(),
    };
    match summary.infinite {
        0 => mean,
        some => format!("{mean} ({some} identical, left out)"),
    }
}

/// The bootstrap interval; empty without one.
pub(super) fn interval(summary: &Summary) -> String {
    let shown = |i: Interval| format!("{} .. {}", digits(i.low, 6), digits(i.high, 6));
    summary.interval.map(shown).unwrap_or_default()
}

/// So many significant digits, with an exponent only where zeros would crowd the table.
pub(super) fn digits(value: f64, significant: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let power = value.abs().log10().floor();
    let places = significant as f64 - 1.0 - power;
    if (-4.0..7.0).contains(&power) {
        format!("{value:.*}", places.max(0.0) as usize)
    } else {
        format!("{value:.*e}", significant - 1)
    }
}
