//! The metrics that can be asked for, by the words of the command line.

use clap::ValueEnum;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Metric {
    /// Peak signal-to-noise ratio in dB
    Psnr,
    /// Structural similarity
    Ssim,
    /// Structural similarity over five scales; sides of at least 176
    MsSsim,
    /// Squared error over the squared norm of the reference
    Nmse,
    /// Root of nmse
    Nrmse,
    /// Root mean squared error
    Rmse,
    /// Mean absolute error
    Mae,
    /// Fréchet distance
    Fid,
    /// Kernel distance
    Kid,
    /// Inception score; needs --inception
    Is,
    /// Precision, recall, density and coverage
    PrecisionRecall,
    /// Distance of each candidate to the nearest reference
    Nearest,
}

/// What is measured when nothing is asked for.
pub(super) const DEFAULT: [Metric; 5] = [
    Metric::Psnr,
    Metric::Ssim,
    Metric::Nmse,
    Metric::Rmse,
    Metric::Mae,
];

impl Metric {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Psnr => "psnr",
            Self::Ssim => "ssim",
            Self::MsSsim => "ms-ssim",
            Self::Nmse => "nmse",
            Self::Nrmse => "nrmse",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::Fid => "fid",
            Self::Kid => "kid",
            Self::Is => "is",
            Self::PrecisionRecall => "precision-recall",
            Self::Nearest => "nearest",
        }
    }

    pub(super) fn of_sets(self) -> bool {
        matches!(
            self,
            Self::Fid | Self::Kid | Self::Is | Self::PrecisionRecall | Self::Nearest
        )
    }

    /// Whether a better candidate has a larger value; for metrics of pairs.
    pub(super) fn rises_with_quality(self) -> bool {
        matches!(self, Self::Psnr | Self::Ssim | Self::MsSsim)
    }

    /// What a value is measured in, where it has a unit.
    pub(super) fn unit(self) -> &'static str {
        match self {
            Self::Psnr => "dB",
            Self::Rmse | Self::Mae => "unit of the images",
            _ => "",
        }
    }

    pub(super) fn needs_range(self) -> bool {
        self.of_sets() || matches!(self, Self::Psnr | Self::Ssim | Self::MsSsim)
    }
}

/// Those that compare sets.
pub(super) fn all_of_sets() -> Vec<Metric> {
    let all = Metric::value_variants().iter().copied();
    all.filter(|m| m.of_sets()).collect()
}

/// As in a sentence: psnr, ssim and mae.
pub(super) fn names(metrics: &[Metric]) -> String {
    let names: Vec<&str> = metrics.iter().map(|m| m.name()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.join(", "),
    }
}
