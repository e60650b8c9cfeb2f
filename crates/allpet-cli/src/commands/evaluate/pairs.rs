//! Metrics of pairs: one value for each candidate image against its own reference.

use super::figures::{Figures, figures_of, interval, shown, summary};
use super::metric::Metric;
use crate::fault::Result;
use allpet::metrics::Summary;
use allpet::metrics::image::{MsSsimConvention, SsimConvention, mae, ms_ssim, nmse, nrmse, psnr, rmse, ssim};
use ndarray::ArrayViewD;

/// How pairs are measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// Largest minus smallest value; not a number where no metric needs it.
    pub(super) range: f64,
    pub(super) ssim: SsimConvention,
    pub(super) seed: u64,
}

/// A metric over all pairs.
#[derive(Debug)]
pub(super) struct PairFigures {
    pub(super) metric: Metric,
    pub(super) convention: &'static str,
    /// One per image, in the order of the file; +∞ is the PSNR of identical images.
    pub(super) values: Vec<f64>,
    pub(super) summary: Summary,
}

/// Measures candidates `x` against references `y`, both `[.., row, col]`; nothing where the metric is one of sets.
pub(super) fn measure(
    metric: Metric,
    x: ArrayViewD<'_, f32>,
    y: ArrayViewD<'_, f32>,
    settings: Settings,
) -> Result<Option<PairFigures>> {
    let Settings { range, seed, .. } = settings;
    let (values, convention) = match metric {
        Metric::Psnr => (psnr(x, y, range)?, "10 log10(R²/MSE) in dB"),
        Metric::Ssim => (ssim(x, y, range, settings.ssim)?, settings.ssim.name()),
        Metric::MsSsim => {
            let convention = MsSsimConvention::Wang;
            (ms_ssim(x, y, range, convention)?, convention.name())
        }
        Metric::Nmse => (nmse(x, y)?, "‖x-y‖²/‖y‖², y the reference"),
        Metric::Nrmse => (nrmse(x, y)?, "‖x-y‖/‖y‖, y the reference"),
        Metric::Rmse => (rmse(x, y)?, "root of the mean of (x-y)²"),
        Metric::Mae => (mae(x, y)?, "mean of |x-y|"),
        Metric::Fid | Metric::Kid | Metric::Is | Metric::PrecisionRecall | Metric::Nearest => {
            return Ok(None);
        }
    };
    let values: Vec<f64> = values.iter().copied().collect();
    Ok(Some(PairFigures {
        metric,
        convention,
        summary: summary(values.iter().copied(), seed)?,
        values,
    }))
}

impl PairFigures {
    pub(super) fn write(&self, figures: &mut Figures) {
        let Self {
            metric,
            convention,
            summary,
            ..
        } = self;
        let mut json = figures_of(summary);
        json["convention"] = (*convention).into();
        if *metric == Metric::Psnr {
            json["infinite"] = summary.infinite.into();
        }
        figures.add(metric.name(), json);
        figures.row(metric.name(), shown(summary), interval(summary), convention);
    }
}
