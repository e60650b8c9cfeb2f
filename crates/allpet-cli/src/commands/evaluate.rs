//! `allpet evaluate`: candidate images against reference images, pair by pair or as sets.

use crate::fault::{Fault, Result, given};
use crate::output::by;
use crate::report::{Report, note};
use allpet::io::{Format, detect, read_array, read_dataset};
use allpet::metrics::distribution::{
    KernelSettings, RandomFeatures, frechet_distance_of, kernel_distance, nearest_neighbours,
    precision_recall,
};
use allpet::metrics::image::{MsSsimConvention, SsimConvention, mae, ms_ssim, nmse, nrmse, psnr, rmse, ssim};
use allpet::metrics::{Accumulator, Bootstrap, Summary};
use clap::ValueEnum;
use ndarray::{Array2, Array3, ArrayD, ArrayViewD};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Neighbours that set the radius of a ball in precision and recall, as published.
const NEIGHBOURS: usize = 3;
/// Most samples in a subset of the kernel distance, as published.
const KID_SUBSET: usize = 1000;

/// Compare candidate images or sinograms with reference ones
///
/// psnr, ssim, ms-ssim, nmse, nrmse, rmse and mae compare pair by pair: both files hold arrays of one shape. fid, kid,
/// precision-recall and nearest compare sets, whose sizes may differ. They stand on seeded random features here, not on
/// those of an Inception network, so they rank sets but do not compare with published figures; fid, kid and nearest of a
/// held-out set against the same reference tell how small they can be.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is true: array [.., row, col] as .npy or .npz, or a dataset .safetensors (its `target`)
    #[arg(long, value_name = "ARRAY")]
    reference: PathBuf,
    /// What is judged, in the same formats
    #[arg(long, value_name = "ARRAY")]
    candidate: PathBuf,
    /// Metrics, separated by commas [default: psnr,ssim,nmse,rmse,mae]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "METRIC,..")]
    metrics: Vec<Metric>,
    /// Largest minus smallest value that an image may hold; psnr, ssim, ms-ssim and all metrics of sets need it
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    data_range: Option<f64>,
    /// Convention of ssim: wang (Gaussian, interior), skimage (7 x 7 uniform) or torchmetrics (Gaussian, mirrored)
    #[arg(long, default_value_t = SsimConvention::Wang, value_name = "CONVENTION")]
    ssim: SsimConvention,
    /// Seed of the bootstrap intervals, the random features and the subsets of kid
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Metric {
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
    /// Precision, recall, density and coverage
    PrecisionRecall,
    /// Distance of each candidate to the nearest reference
    Nearest,
}

const DEFAULT: [Metric; 5] = [
    Metric::Psnr,
    Metric::Ssim,
    Metric::Nmse,
    Metric::Rmse,
    Metric::Mae,
];

impl Metric {
    fn name(self) -> &'static str {
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
            Self::PrecisionRecall => "precision-recall",
            Self::Nearest => "nearest",
        }
    }

    fn of_sets(self) -> bool {
        matches!(
            self,
            Self::Fid | Self::Kid | Self::PrecisionRecall | Self::Nearest
        )
    }

    fn needs_range(self) -> bool {
        self.of_sets() || matches!(self, Self::Psnr | Self::Ssim | Self::MsSsim)
    }
}

/// One row of the table.
struct Row {
    metric: String,
    value: String,
    interval: String,
    convention: String,
}

/// Figures as JSON and as rows.
#[derive(Default)]
struct Figures {
    json: Map<String, Value>,
    rows: Vec<Row>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let metrics = self.asked();
        let range = self.range(&metrics)?;
        let (reference, candidate) = (read(&self.reference)?, read(&self.candidate)?);
        let pairs = metrics.iter().any(|m| !m.of_sets());
        if pairs && reference.shape() != candidate.shape() {
            return given(format!(
                "{}: has shape {:?}; expected {:?}, the shape of {}, for metrics of pairs (fid, kid, precision-recall \
                 and nearest compare sets of different size)",
                self.candidate.display(),
                candidate.shape(),
                reference.shape(),
                self.reference.display()
            ));
        }
        if self.data_range.is_some() {
            warn_of_range(&self.reference, &reference, range);
        }
        let mut figures = Figures::default();
        for &metric in metrics.iter().filter(|m| !m.of_sets()) {
            self.pair(metric, range, candidate.view(), reference.view(), &mut figures)?;
        }
        let (n, n_reference, size) = (count(&candidate), count(&reference), size(&candidate));
        let sets: Vec<Metric> = metrics.into_iter().filter(|m| m.of_sets()).collect();
        if !sets.is_empty() {
            self.sets(&sets, range, candidate, reference, &mut figures)?;
        }
        let bootstrap = Bootstrap::new(self.seed);
        let mut json = json!({
            "n": n,
            "n_reference": n_reference,
            "data_range": self.data_range,
            "seed": self.seed,
            "bootstrap": { "level": bootstrap.level, "resamples": bootstrap.resamples },
            "metrics": figures.json,
        });
        let mut lines = vec![format!(
            "{} of {}{}",
            match n == n_reference {
                true => plural(n, "image"),
                false => format!(
                    "{} and {n_reference} reference images",
                    plural(n, "candidate image")
                ),
            },
            by(&size),
            self.data_range
                .map_or(String::new(), |r| format!(", data range {r}"))
        )];
        lines.push(String::new());
        lines.extend(table(&figures.rows));
        lines.push(String::new());
        if figures.rows.iter().any(|r| !r.interval.is_empty()) {
            lines.push(format!(
                "± standard deviation (n-1) over images; {:.0} % interval of the mean: bootstrap over images, {} resamples, seed {}",
                100.0 * bootstrap.level,
                bootstrap.resamples,
                self.seed
            ));
        }
        if !sets.is_empty() {
            json["label"] = RandomFeatures::LABEL.into();
            lines.push(format!(
                "{}: {} ({} features, seed {})",
                names(&sets),
                RandomFeatures::LABEL,
                RandomFeatures::COUNT,
                self.seed
            ));
        }
        Ok(Report::new(json, lines.join("\n")))
    }

    /// Each metric once, in the order asked for.
    fn asked(&self) -> Vec<Metric> {
        let asked = match self.metrics.as_slice() {
            [] => &DEFAULT,
            some => some,
        };
        let mut once = Vec::new();
        for metric in asked {
            if !once.contains(metric) {
                once.push(*metric);
            }
        }
        once
    }

    /// The data range, which the metrics that need one never see unless it was given.
    fn range(&self, metrics: &[Metric]) -> Result<f64> {
        let needy: Vec<Metric> = metrics.iter().copied().filter(|m| m.needs_range()).collect();
        match self.data_range {
            Some(range) if range.is_finite() && range > 0.0 => Ok(range),
            Some(range) => given(format!(
                "--data-range is {range}; expected a finite number above 0"
            )),
            None if needy.is_empty() => Ok(f64::NAN),
            None => given(format!(
                "--data-range is missing; {} {} it: expected the largest minus the smallest value that an image may hold",
                names(&needy),
                if needy.len() == 1 { "needs" } else { "need" }
            )),
        }
    }

    fn pair(
        &self,
        metric: Metric,
        range: f64,
        x: ArrayViewD<'_, f32>,
        y: ArrayViewD<'_, f32>,
        figures: &mut Figures,
    ) -> Result<()> {
        let (values, convention) = match metric {
            Metric::Psnr => (psnr(x, y, range)?, "10 log10(R²/MSE) in dB"),
            Metric::Ssim => (ssim(x, y, range, self.ssim)?, self.ssim.name()),
            Metric::MsSsim => {
                let convention = MsSsimConvention::Wang;
                (ms_ssim(x, y, range, convention)?, convention.name())
            }
            Metric::Nmse => (nmse(x, y)?, "‖x-y‖²/‖y‖², y the reference"),
            Metric::Nrmse => (nrmse(x, y)?, "‖x-y‖/‖y‖, y the reference"),
            Metric::Rmse => (rmse(x, y)?, "root of the mean of (x-y)²"),
            Metric::Mae => (mae(x, y)?, "mean of |x-y|"),
            Metric::Fid | Metric::Kid | Metric::PrecisionRecall | Metric::Nearest => return Ok(()),
        };
        let summary = self.summary(values)?;
        let mut json = figures_of(&summary);
        json["convention"] = convention.into();
        if metric == Metric::Psnr {
            json["infinite"] = summary.infinite.into();
        }
        figures.add(metric.name(), json);
        figures.row(metric.name(), shown(&summary), interval(&summary), convention);
        Ok(())
    }

    fn sets(
        &self,
        metrics: &[Metric],
        range: f64,
        candidate: ArrayD<f32>,
        reference: ArrayD<f32>,
        figures: &mut Figures,
    ) -> Result<()> {
        if size(&candidate) != size(&reference) {
            return given(format!(
                "{}: holds images of {}; expected {}, the size of those in {}",
                self.candidate.display(),
                by(&size(&candidate)),
                by(&size(&reference)),
                self.reference.display()
            ));
        }
        let bank = RandomFeatures::new(self.seed);
        let features = |images| -> Result<Array2<f64>> { Ok(bank.extract(stack(images)?.view(), range)?) };
        let (candidate, reference) = (features(candidate)?, features(reference)?);
        let (x, y) = (candidate.view(), reference.view());
        for metric in metrics {
            match metric {
                Metric::Fid => {
                    let frechet = frechet_distance_of(x, y)?;
                    figures.add_labelled(
                        "fid",
                        json!({
                            "value": frechet.distance,
                            "mean_term": frechet.mean_term,
                            "covariance_term": frechet.covariance_term,
                            "samples": frechet.samples,
                            "features": frechet.features,
                            "singular_covariance": frechet.is_singular(),
                        }),
                    );
                    let convention = match frechet.is_singular() {
                        true => "Fréchet; fewer images than features, biased upwards: see kid",
                        false => "Fréchet",
                    };
                    figures.row("fid", digits(frechet.distance, 6), String::new(), convention);
                }
                Metric::Kid => {
                    // Half of the smaller set: subsets nearly as large would share most samples, and their spread
                    // would say little.
                    let settings = KernelSettings {
                        subset_size: (x.nrows().min(y.nrows()) / 2).clamp(2, KID_SUBSET),
                        seed: self.seed,
                        ..KernelSettings::default()
                    };
                    let kernel = kernel_distance(x, y, &settings)?;
                    figures.add_labelled(
                        "kid",
                        json!({
                            "mean": kernel.mean,
                            "sd": kernel.sd,
                            "subsets": kernel.subsets,
                            "subset_size": kernel.subset_size,
                        }),
                    );
                    figures.row(
                        "kid",
                        format!("{} ± {}", digits(kernel.mean, 6), digits(kernel.sd, 3)),
                        String::new(),
                        &format!(
                            "(x·y/d + 1)³, unbiased; ± over {} subsets of {}",
                            kernel.subsets, kernel.subset_size
                        ),
                    );
                }
                Metric::PrecisionRecall => {
                    let shares = precision_recall(x, y, NEIGHBOURS)?;
                    figures.add_labelled(
                        "precision-recall",
                        json!({
                            "precision": shares.precision,
                            "recall": shares.recall,
                            "density": shares.density,
                            "coverage": shares.coverage,
                            "neighbours": shares.neighbours,
                        }),
                    );
                    let balls = format!("balls reach to neighbour {NEIGHBOURS} of each image");
                    for (name, value) in [
                        ("precision", shares.precision),
                        ("recall", shares.recall),
                        ("density", shares.density),
                        ("coverage", shares.coverage),
                    ] {
                        figures.row(name, digits(value, 4), String::new(), &balls);
                    }
                }
                _ => self.nearest(x, y, figures)?,
            }
        }
        Ok(())
    }

    fn nearest(
        &self,
        x: ndarray::ArrayView2<'_, f64>,
        y: ndarray::ArrayView2<'_, f64>,
        figures: &mut Figures,
    ) -> Result<()> {
        let neighbours = nearest_neighbours(x, y)?;
        let copies = neighbours.iter().filter(|n| n.distance == 0.0).count();
        let summary = self.summary(neighbours.iter().map(|n| n.relative))?;
        let mut json = figures_of(&summary);
        json["convention"] = "distance over the norm of the reference".into();
        json["copies"] = copies.into();
        figures.add_labelled("nearest", json);
        figures.row(
            "nearest",
            shown(&summary),
            interval(&summary),
            &format!(
                "distance over the norm of the reference; least {}, {}",
                digits(summary.min.unwrap_or_default(), 3),
                match copies {
                    1 => "1 copy".to_owned(),
                    many => format!("{many} copies"),
                }
            ),
        );
        Ok(())
    }

    fn summary(&self, values: impl IntoIterator<Item = f64>) -> Result<Summary> {
        let mut all = Accumulator::new();
        all.update(values)?;
        Ok(all.compute(Some(Bootstrap::new(self.seed)))?)
    }
}

impl Figures {
    fn add(&mut self, name: &str, json: Value) {
        self.json.insert(name.to_owned(), json);
    }

    fn add_labelled(&mut self, name: &str, mut json: Value) {
        json["label"] = RandomFeatures::LABEL.into();
        self.add(name, json);
    }

    fn row(&mut self, metric: &str, value: String, interval: String, convention: &str) {
        self.rows.push(Row {
            metric: metric.to_owned(),
            value,
            interval,
            convention: convention.to_owned(),
        });
    }
}

/// An array of at least one image.
fn read(path: &Path) -> Result<ArrayD<f32>> {
    let array = match detect(path)? {
        Format::Npy | Format::Npz => read_array(path)?,
        Format::Safetensors => {
            let mut dataset = read_dataset(path)?;
            match dataset.arrays.remove("target") {
                Some(target) => target,
                None => {
                    let there: Vec<&String> = dataset.arrays.keys().collect();
                    return given(format!(
                        "{}: holds no `target`, only {there:?}; expected a dataset of sinograms",
                        path.display()
                    ));
                }
            }
        }
        other => {
            return given(format!(
                "{}: is {other}; expected .npy, .npz or a dataset .safetensors",
                path.display()
            ));
        }
    };
    if array.ndim() < 2 || array.is_empty() {
        return given(format!(
            "{}: has shape {:?}; expected [.., row, col] with at least 1 element",
            path.display(),
            array.shape()
        ));
    }
    Ok(array)
}

/// Says when the data range cannot be that of the reference: figures would look better or worse than they are.
fn warn_of_range(path: &Path, reference: &ArrayD<f32>, range: f64) {
    let start = (f64::INFINITY, f64::NEG_INFINITY);
    let (low, high) = reference.iter().fold(start, |(low, high), &v| {
        let v = f64::from(v);
        (low.min(v), high.max(v))
    });
    // Room for the rounding of values and of the range itself to float32.
    if high - low > range * (1.0 + 1e-6) {
        note(&format!(
            "{}: values from {low} to {high} span more than --data-range {range}",
            path.display()
        ));
    }
}

/// Rows and columns.
fn size(array: &ArrayD<f32>) -> Vec<usize> {
    array.shape()[array.ndim().saturating_sub(2)..].to_vec()
}

/// Images in `[.., row, col]`.
fn count(array: &ArrayD<f32>) -> usize {
    array.len() / size(array).iter().product::<usize>().max(1)
}

/// `[.., row, col]` as `[n, row, col]`.
fn stack(array: ArrayD<f32>) -> Result<Array3<f32>> {
    let (n, size) = (count(&array), size(&array));
    let shape = (n, size[0], size[1]);
    let flat = array.as_standard_layout().into_owned();
    flat.into_shape_with_order(shape)
        .map_err(|e| Fault::Other(e.to_string()))
}

fn figures_of(summary: &Summary) -> Value {
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
fn shown(summary: &Summary) -> String {
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

fn interval(summary: &Summary) -> String {
    let shown = |i: allpet::metrics::Interval| format!("{} .. {}", digits(i.low, 6), digits(i.high, 6));
    summary.interval.map(shown).unwrap_or_default()
}

/// So many significant digits, with an exponent only where zeros would crowd the table.
fn digits(value: f64, significant: usize) -> String {
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

fn names(metrics: &[Metric]) -> String {
    let names: Vec<&str> = metrics.iter().map(|m| m.name()).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.join(", "),
    }
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Columns of one width each.
fn table(rows: &[Row]) -> Vec<String> {
    let intervals = rows.iter().any(|r| !r.interval.is_empty());
    let heads = [
        "metric",
        "value",
        if intervals { "95 % interval" } else { "" },
        "convention",
    ];
    let cells: Vec<[&str; 4]> = std::iter::once(heads)
        .chain(rows.iter().map(|r| {
            [
                r.metric.as_str(),
                r.value.as_str(),
                r.interval.as_str(),
                r.convention.as_str(),
            ]
        }))
        .collect();
    let width = |column: usize| cells.iter().map(|c| c[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2].map(width);
    cells
        .iter()
        .map(|[metric, value, interval, convention]| {
            let [a, b, c] = widths;
            let gap = if c == 0 { "" } else { "  " };
            format!("{metric:a$}  {value:b$}  {interval:c$}{gap}{convention}")
        })
        .collect()
}
