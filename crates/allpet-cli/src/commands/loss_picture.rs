//! The picture of a run's loss, drawn from its log.

use allpet::io::{Curve, CurvePlot};
use allpet::train::{BoxError, Observer, StepInfo};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A smoothed point averages so large a part of the log.
const PIECES: usize = 20;
/// From this ratio of the largest to the smallest loss on, the axis counts in decades.
const DECADES_FROM: f64 = 20.0;

/// Draws `loss.png` anew with every checkpoint.
pub(crate) struct LossPicture {
    pub(crate) log: PathBuf,
    pub(crate) picture: PathBuf,
    pub(crate) title: String,
}

impl Observer for LossPicture {
    fn on_step(&mut self, _step: &StepInfo<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn on_checkpoint(&mut self, _step: u64, _path: &Path) -> Result<(), BoxError> {
        let losses = read(&self.log);
        if losses.len() < 2 {
            return Ok(());
        }
        let smoothed = Curve {
            name: "average".to_owned(),
            points: averages(&losses),
        };
        let (low, high) = losses.iter().fold((f64::INFINITY, 0.0f64), |(low, high), p| {
            (low.min(p.1), high.max(p.1))
        });
        let plot = CurvePlot {
            title: self.title.clone(),
            x_label: "step".to_owned(),
            curves: vec![
                Curve {
                    name: "loss".to_owned(),
                    points: losses,
                },
                smoothed,
            ],
            log_y: low > 0.0 && high / low > DECADES_FROM,
        };
        Ok(plot.write(&self.picture)?)
    }
}

/// Steps and losses; lines that hold none (a run that was killed while writing) are passed over.
fn read(log: &Path) -> Vec<(f64, f64)> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let point = |line: &str| {
        let line: Value = serde_json::from_str(line).ok()?;
        Some((line.get("step")?.as_f64()?, line.get("loss")?.as_f64()?))
    };
    text.lines().filter_map(point).collect()
}

/// Means over windows centred at every point.
fn averages(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let half = points.len() / PIECES / 2 + 1;
    (0..points.len())
        .map(|i| {
            let near = &points[i.saturating_sub(half)..(i + half + 1).min(points.len())];
            (
                points[i].0,
                near.iter().map(|p| p.1).sum::<f64>() / near.len() as f64,
            )
        })
        .collect()
}
