//! `allpet evaluate`: candidate images against reference images, pair by pair or as sets.

mod figures;
mod input;
mod metric;
mod pairs;
mod report;
mod sets;
mod table;

use crate::fault::{Result, given};
use crate::output::by;
use crate::progress;
use crate::report::Report;
use allpet::metrics::Bootstrap;
use allpet::metrics::distribution::{Inception, InceptionFeatures, Resize};
use allpet::metrics::image::SsimConvention;
use figures::Figures;
use indicatif::ProgressBar;
use input::{count, read, size, stack, warn_of_range};
use metric::{DEFAULT, Metric, all_of_sets, names};
use ndarray::{Array2, ArrayViewD, Axis};
use report::Side;
use serde_json::json;
use sets::Features;
use std::path::PathBuf;

/// Compare candidate images or sinograms with reference ones
///
/// psnr, ssim, ms-ssim, nmse, nrmse, rmse and mae compare pair by pair: both files hold arrays of one shape. fid, kid,
/// is, precision-recall and nearest compare sets, whose sizes may differ, through features of the images. With
/// --inception these are the features that published figures stand on; without, seeded random ones, which rank sets but
/// do not compare with published figures. fid, kid and nearest of a held-out set against the same reference tell how
/// small they can be.
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
    /// Weights of Inception v3 in its FID form, .safetensors; metrics of sets stand on it then, and is needs it
    ///
    /// The file that pytorch-fid and torch-fidelity download becomes one by two lines of Python:
    ///
    ///     import torch; from safetensors.torch import save_file
    ///     save_file({k: v.contiguous() for k, v in torch.load("pt_inception-2015-12-05-6726825d.pth",
    ///         map_location="cpu").items()}, "inception.safetensors")
    #[arg(long, value_name = "WEIGHTS", verbatim_doc_comment)]
    inception: Option<PathBuf>,
    /// How images become the 299 x 299 of the network: as in pytorch-fid or in torch-fidelity
    #[arg(long, default_value_t = Resize::default(), requires = "inception", value_name = "CONVENTION")]
    inception_resize: Resize,
    /// Seed of the bootstrap intervals, the random features, the subsets of kid and the splits of is
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the figures as one .html page: tables, box plots, pictures of errors and line profiles
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let metrics = self.asked();
        let range = self.range(&metrics)?;
        self.check_inception(&metrics)?;
        if let Some(path) = &self.report {
            report::check(path)?;
        }
        let (reference, candidate) = (read(&self.reference)?, read(&self.candidate)?);
        let paired = metrics.iter().any(|m| !m.of_sets());
        if paired && reference.shape() != candidate.shape() {
            return given(format!(
                "{}: has shape {:?}; expected {:?}, the shape of {}, for metrics of pairs ({} compare sets of \
                 different size)",
                self.candidate.display(),
                candidate.shape(),
                reference.shape(),
                self.reference.display(),
                names(&all_of_sets())
            ));
        }
        if self.data_range.is_some() {
            warn_of_range(&self.reference, &reference, range);
        }
        let settings = pairs::Settings {
            range,
            ssim: self.ssim,
            seed: self.seed,
        };
        let mut figures = Figures::default();
        let mut pairs = Vec::new();
        for &metric in &metrics {
            if let Some(measured) = pairs::measure(metric, candidate.view(), reference.view(), settings)? {
                measured.write(&mut figures);
                pairs.push(measured);
            }
        }
        let (n, n_reference) = (count(candidate.view()), count(reference.view()));
        let size = size(candidate.view());
        let sets: Vec<Metric> = metrics.into_iter().filter(|m| m.of_sets()).collect();
        let rows_of_pairs = figures.rows.len();
        let features = match sets.is_empty() {
            true => None,
            false => Some(self.features(candidate.view(), reference.view(), range)?),
        };
        if let Some(features) = &features {
            for &metric in &sets {
                features.measure(metric, &mut figures)?;
            }
        }
        let bootstrap = Bootstrap::new(self.seed);
        if let Some(path) = &self.report {
            let content = report::Content {
                reference: Side {
                    path: &self.reference,
                    array: reference.view(),
                },
                candidate: Side {
                    path: &self.candidate,
                    array: candidate.view(),
                },
                data_range: self.data_range,
                ssim: self.ssim,
                bootstrap,
                pairs: &pairs,
                sets: features.as_ref().map(|f| (f, &figures.rows[rows_of_pairs..])),
                neighbours: figures.neighbours.as_deref(),
            };
            report::write(path, &content)?;
        }
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
        lines.extend(table::lines(&figures.rows));
        lines.push(String::new());
        if figures.rows.iter().any(|r| !r.interval.is_empty()) {
            lines.push(format!(
                "± standard deviation (n-1) over images; {:.0} % interval of the mean: bootstrap over images, {} resamples, seed {}",
                100.0 * bootstrap.level,
                bootstrap.resamples,
                self.seed
            ));
        }
        if let Some(features) = features {
            lines.push(format!(
                "{}: {} ({})",
                names(&sets),
                features.label,
                features.origin
            ));
            lines.extend(features.clipped());
            if let Some(of) = &features.inception {
                json["clipped"] =
                    json!({ "candidate": of.candidate_clipped, "reference": of.reference_clipped });
            }
            json["label"] = features.label.into();
        }
        if let Some(path) = &self.report {
            lines.push(format!("{}: the page of these figures", path.display()));
            json["report"] = json!(path);
        }
        Ok(Report::new(json, lines.join("\n")))
    }

    /// Features of both sets, whose images are of one size.
    fn features(
        &self,
        candidate: ArrayViewD<'_, f32>,
        reference: ArrayViewD<'_, f32>,
        range: f64,
    ) -> Result<Features> {
        let (of_candidate, of_reference) = (size(candidate.view()), size(reference.view()));
        if of_candidate != of_reference {
            return given(format!(
                "{}: holds images of {}; expected {}, the size of those in {}",
                self.candidate.display(),
                by(&of_candidate),
                by(&of_reference),
                self.reference.display()
            ));
        }
        match &self.inception {
            None => Features::random(candidate, reference, range, self.seed),
            Some(path) => {
                let network = Inception::load(path)?.with_resize(self.inception_resize);
                let bar = progress::bar(
                    (count(candidate.view()) + count(reference.view())) as u64,
                    "images",
                );
                let candidate = extract(&network, candidate, range, &bar)?;
                let reference = extract(&network, reference, range, &bar)?;
                bar.finish_and_clear();
                Ok(Features::inception(
                    candidate,
                    reference,
                    network.label(),
                    self.seed,
                ))
            }
        }
    }

    /// The weights are given where they are needed, and not where nothing asks for them.
    fn check_inception(&self, metrics: &[Metric]) -> Result<()> {
        match &self.inception {
            None if metrics.contains(&Metric::Is) => given(
                "--metrics is stands on the classes of an Inception network; expected its weights, --inception \
                 WEIGHTS.safetensors",
            ),
            Some(path) if !metrics.iter().any(|m| m.of_sets()) => given(format!(
                "--inception {}: no metric uses it; expected one of {} in --metrics",
                path.display(),
                names(&all_of_sets())
            )),
            _ => Ok(()),
        }
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
}

/// What a network says of images `[.., row, col]`, told to the bar one by one.
fn extract(
    network: &Inception,
    images: ArrayViewD<'_, f32>,
    range: f64,
    bar: &ProgressBar,
) -> Result<InceptionFeatures> {
    let images = stack(images)?;
    let n = images.dim().0;
    let mut all = InceptionFeatures {
        features: Array2::zeros((n, Inception::FEATURES)),
        logits: Array2::zeros((n, Inception::LOGITS)),
        clipped: 0.0,
    };
    for (i, image) in images.axis_chunks_iter(Axis(0), 1).enumerate() {
        let one = network.extract(image, range)?;
        all.features.row_mut(i).assign(&one.features.row(0));
        all.logits.row_mut(i).assign(&one.logits.row(0));
        all.clipped += one.clipped / n as f64;
        bar.inc(1);
    }
    Ok(all)
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
