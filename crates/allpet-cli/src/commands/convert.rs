//! `allpet convert`: between exchange formats.

use crate::efficiencies;
use crate::fault::{Fault, Result, given};
use crate::options::{Span, fits_in_memory};
use crate::output;
use crate::report::{Report, note};
use allpet::core::ParallelGeometry;
use allpet::io::{
    Format, Histogram, HistogramOptions, ListMode, Thinning, detect, npz_names, read_dataset, read_npy,
    read_npz_all, write_array, write_npy, write_npz,
};
use allpet::radon::{Efficiencies, GapFilling, precorrect, regrid_counts};
use allpet::sim::positivity::non_negative;
use ndarray::{Array2, ArrayD, ArrayViewD};
use serde_json::json;
use std::path::PathBuf;

/// Convert between formats: list-mode to sinograms, .npy to .npz and back, a dataset to .npz
///
/// List-mode data become prompts and delayeds [view, radial], summed over planes, and radial_mm, the positions of
/// the radial bins, as the scanner has them: without arc correction, which is for `reconstruct`.
///
/// --corrected writes one sinogram that `task` takes: randoms subtracted, divided by the efficiencies, gaps between detector
/// blocks filled from an image of all other bins, on equal bins; not corrected for attenuation and scatter. Values below 0 are
/// taken from positive neighbours, so that the total is that of the true coincidences.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Interfile list-mode header (.hdr) or data (.l), .npy, .npz, or a dataset .safetensors
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Result, .npz or .npy
    #[arg(long)]
    out: PathBuf,
    /// List-mode: the data file, instead of the one the header names
    #[arg(long, value_name = "RAW")]
    data: Option<PathBuf>,
    /// List-mode: keep the planes, [plane, view, radial] by single-slice rebinning
    #[arg(long)]
    planes: bool,
    /// List-mode: only events from a to b seconds
    #[arg(long, value_name = "A..B")]
    seconds: Option<Span<f64>>,
    /// List-mode: also write efficiencies of the bins [view, radial] for `reconstruct`, estimated from the delayeds, with
    /// 0 for gaps between detector blocks; .npy or .npz, Biograph mMR only
    #[arg(long, value_name = "SINOGRAM")]
    normalisation: Option<PathBuf>,
    /// List-mode: only a part of the events, each kept with this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    thin: Option<f64>,
    /// With --thin: seed of the choice [default: 0]
    #[arg(long)]
    seed: Option<u64>,
    /// With --thin: the events that are not kept, instead
    #[arg(long)]
    rest: bool,
    /// List-mode: also write the corrected sinogram [view, radial], summed over planes; .npy or .npz, Biograph mMR only
    #[arg(long, value_name = "SINOGRAM")]
    corrected: Option<PathBuf>,
    /// With --corrected: spacing of its bins [default: the scanner's at the centre]
    #[arg(long, value_name = "MM", allow_negative_numbers = true)]
    bin_mm: Option<f64>,
    /// With --corrected: its bins [default: as many as the scanner's field of view holds]
    #[arg(long)]
    bins: Option<usize>,
    /// With --corrected: its views over 180 degrees [default: the scanner's]
    #[arg(long)]
    views: Option<usize>,
}

/// A sinogram for a task, and what it holds.
struct Corrected {
    sinogram: Array2<f32>,
    bin_mm: f64,
    total: f64,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let from = detect(&self.input)?;
        let to = Format::from_extension(&self.out);
        let list_mode = matches!(from, Format::Interfile | Format::ListMode);
        let of_list_mode = [
            self.data.is_some(),
            self.planes,
            self.seconds.is_some(),
            self.normalisation.is_some(),
            self.thin.is_some(),
            self.corrected.is_some(),
        ];
        if !list_mode && of_list_mode.contains(&true) {
            return given(format!(
                "{}: is {from}; expected list-mode data with --data, --planes, --seconds, --normalisation, --thin or --corrected",
                self.input.display()
            ));
        }
        self.options_fit()?;
        match (from, to) {
            (Format::Interfile | Format::ListMode, Some(Format::Npz)) => self.histogram(),
            (Format::Npy, Some(Format::Npy | Format::Npz)) => {
                output::file(&self.out, output::ARRAYS)?;
                self.write(&[("array".to_owned(), read_npy(&self.input)?)])
            }
            (Format::Npz, Some(Format::Npz)) => {
                output::file(&self.out, output::ARRAYS)?;
                self.write(&read_npz_all(&self.input)?)
            }
            (Format::Npz, Some(Format::Npy)) => {
                output::file(&self.out, output::ARRAYS)?;
                match npz_names(&self.input)?.as_slice() {
                    [_] => self.write(&read_npz_all(&self.input)?),
                    names => given(format!(
                        "{}: holds {} arrays ({}); expected one for an .npy",
                        self.input.display(),
                        names.len(),
                        names.join(", ")
                    )),
                }
            }
            (Format::Safetensors, Some(Format::Npz)) => {
                output::file(&self.out, output::ARRAYS)?;
                let dataset = read_dataset(&self.input)?;
                // Below 2²⁴, so that f32 holds them exactly.
                let subjects: Vec<f32> = dataset.subjects.iter().map(|&s| s as f32).collect();
                let mut arrays: Vec<_> = dataset.arrays.into_iter().collect();
                arrays.push(("subject".to_owned(), ndarray::Array1::from(subjects).into_dyn()));
                self.write(&arrays)
            }
            (from, to) => {
                let to = to.map_or("a name without a known extension".to_owned(), |f| f.to_string());
                given(format!(
                    "{} to {}: no way from {from} to {to}; expected list-mode, .npy, .npz or a dataset to .npz, or \
                     .npy, .npz to .npy",
                    self.input.display(),
                    self.out.display()
                ))
            }
        }
    }

    fn write(&self, arrays: &[(String, ArrayD<f32>)]) -> Result<Report> {
        if let (Some(Format::Npy), [(_, array)]) = (Format::from_extension(&self.out), arrays) {
            write_npy(&self.out, array.view())?;
        } else {
            let views: Vec<(&str, ArrayViewD<'_, f32>)> =
                arrays.iter().map(|(n, a)| (n.as_str(), a.view())).collect();
            write_npz(&self.out, &views, true)?;
        }
        let shapes: serde_json::Map<_, _> = arrays
            .iter()
            .map(|(n, a)| (n.clone(), json!(a.shape())))
            .collect();
        let words: Vec<String> = arrays
            .iter()
            .map(|(n, a)| format!("{n} {}", output::by(a.shape())))
            .collect();
        Ok(Report::new(
            json!({ "out": self.out, "arrays": shapes }),
            format!("{}: {}", self.out.display(), words.join(", ")),
        ))
    }

    /// Options that say more about another one, without it.
    fn options_fit(&self) -> Result<()> {
        let of_thin = [("--seed", self.seed.is_some()), ("--rest", self.rest)];
        let of_corrected = [
            ("--bin-mm", self.bin_mm.is_some()),
            ("--bins", self.bins.is_some()),
            ("--views", self.views.is_some()),
        ];
        for (name, there, options) in [
            ("--thin", self.thin.is_some(), &of_thin[..]),
            ("--corrected", self.corrected.is_some(), &of_corrected[..]),
        ] {
            if let (false, Some((option, _))) = (there, options.iter().find(|(_, is_given)| *is_given)) {
                return given(format!(
                    "{option}: says nothing without {name}; expected {name} too"
                ));
            }
        }
        Ok(())
    }

    fn histogram(&self) -> Result<Report> {
        output::file(&self.out, &[Format::Npz])?;
        for (option, path) in [
            ("--normalisation", &self.normalisation),
            ("--corrected", &self.corrected),
        ] {
            if let Some(path) = path {
                output::file_of(option, path, output::ARRAYS)?;
            }
        }
        let list_mode = ListMode::open(&self.input, self.data.as_deref())?;
        let target = self.target(&list_mode)?;
        let options = HistogramOptions {
            seconds: self.seconds.map(|s| s.from..=s.to),
            planes: self.planes,
            thinning: self.thin.map(|fraction| Thinning {
                fraction,
                seed: self.seed.unwrap_or(0),
                rest: self.rest,
            }),
        };
        let histogram = list_mode.histogram(&options)?;
        let found = if self.normalisation.is_some() || self.corrected.is_some() {
            let estimate =
                efficiencies::estimate(&histogram.prompts, &histogram.delayeds, &list_mode.scanner);
            match estimate {
                Ok(found) => Some(found),
                Err(Fault::Given(why)) => return given(format!("{}: {why}", self.input.display())),
                Err(other) => return Err(other),
            }
        } else {
            None
        };
        let corrected = match (&self.corrected, &found) {
            (Some(_), Some(found)) => Some(corrected(&histogram, found, &list_mode, &target)?),
            _ => None,
        };
        histogram.write_npz(&self.out)?;
        if let (Some(path), Some(found)) = (&self.normalisation, &found) {
            write_array(path, "normalisation", found.sinogram().view().into_dyn())?;
        }
        if let (Some(path), Some(corrected)) = (&self.corrected, &corrected) {
            write_array(path, "sinograms", corrected.sinogram.view().into_dyn())?;
        }
        histogram.warnings.iter().for_each(|w| note(w));
        if corrected.is_some() {
            note("the corrected sinogram still holds attenuation and scatter");
        }
        Ok(self.told(&histogram, corrected.as_ref()))
    }

    /// Where the corrected sinogram's bins lie.
    fn target(&self, list_mode: &ListMode) -> Result<ParallelGeometry> {
        let scanner = &list_mode.scanner;
        let bin_mm = self.bin_mm.unwrap_or(output::tidy(scanner.bin_mm));
        let bins = self
            .bins
            .unwrap_or((2.0 * scanner.s_mm(0).abs() / bin_mm).floor().max(1.0) as usize);
        let views = self.views.unwrap_or(scanner.views());
        let target = ParallelGeometry::new(views, bins, bin_mm)?;
        fits_in_memory("a sinogram", &target.shape())?;
        Ok(target)
    }

    fn told(&self, histogram: &Histogram, corrected: Option<&Corrected>) -> Report {
        let json = json!({
            "out": self.out,
            "prompts": histogram.prompt_count,
            "delayeds": histogram.delayed_count,
            "time_tags": histogram.time_tags,
            "time_ms": histogram.time_ms.map(|(first, last)| [first, last]),
            "largest_plane": histogram.largest_plane,
            "shape": histogram.prompts.shape(),
            "normalisation": self.normalisation,
            "corrected": corrected.map(|c| json!({
                "out": self.corrected,
                "shape": c.sinogram.shape(),
                "bin_mm": c.bin_mm,
                "total": c.total,
            })),
            "warnings": histogram.warnings,
        });
        let mut text = format!(
            "{}: {} prompts and {} delayeds, {} time tags, each {}",
            self.out.display(),
            histogram.prompt_count,
            histogram.delayed_count,
            histogram.time_tags,
            output::by(histogram.prompts.shape())
        );
        if let Some(path) = &self.normalisation {
            text += &format!("; {}: efficiencies", path.display());
        }
        if let (Some(path), Some(c)) = (&self.corrected, corrected) {
            let shape = output::by(c.sinogram.shape());
            text += &format!(
                "; {}: corrected {shape}, bins of {} mm, {:.0} counts",
                path.display(),
                c.bin_mm,
                c.total
            );
        }
        Report::new(json, text)
    }
}

/// The counts, summed over planes, as [`precorrect`] leaves them, on the bins of `target` and not negative.
fn corrected(
    histogram: &Histogram,
    found: &Efficiencies,
    list_mode: &ListMode,
    target: &ParallelGeometry,
) -> Result<Corrected> {
    let prompts = efficiencies::summed(&histogram.prompts)?;
    let (n, randoms) = (found.sinogram(), found.randoms());
    let scanner = &list_mode.scanner;
    let ring = precorrect(
        prompts.view(),
        n.view(),
        randoms.view(),
        scanner,
        &GapFilling::default(),
    )?;
    let sinogram = non_negative(regrid_counts(ring.view(), scanner, target)?);
    Ok(Corrected {
        total: sinogram.iter().map(|v| f64::from(*v)).sum(),
        sinogram,
        bin_mm: target.bin_mm,
    })
}
