//! `allpet convert`: between exchange formats.

use crate::efficiencies;
use crate::fault::{Fault, Result, given};
use crate::options::Span;
use crate::output;
use crate::report::{Report, note};
use allpet::io::{
    Format, HistogramOptions, ListMode, detect, npz_names, read_dataset, read_npy, read_npz_all, write_array,
    write_npy, write_npz,
};
use ndarray::{ArrayD, ArrayViewD};
use serde_json::json;
use std::path::PathBuf;

/// Convert between formats: list-mode to sinograms, .npy to .npz and back, a dataset to .npz
///
/// List-mode data become prompts and delayeds [view, radial], summed over planes, and radial_mm, the positions of
/// the radial bins, as the scanner has them: without arc correction, which is for `reconstruct`.
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
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let from = detect(&self.input)?;
        let to = Format::from_extension(&self.out);
        let list_mode = matches!(from, Format::Interfile | Format::ListMode);
        let of_list_mode =
            self.data.is_some() || self.planes || self.seconds.is_some() || self.normalisation.is_some();
        if !list_mode && of_list_mode {
            return given(format!(
                "{}: is {from}; expected list-mode data with --data, --planes, --seconds or --normalisation",
                self.input.display()
            ));
        }
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

    fn histogram(&self) -> Result<Report> {
        output::file(&self.out, &[Format::Npz])?;
        if let Some(path) = &self.normalisation {
            output::file_of("--normalisation", path, output::ARRAYS)?;
        }
        let list_mode = ListMode::open(&self.input, self.data.as_deref())?;
        let options = HistogramOptions {
            seconds: self.seconds.map(|s| s.from..=s.to),
            planes: self.planes,
        };
        let histogram = list_mode.histogram(&options)?;
        let (prompts, delayeds) = (&histogram.prompts, &histogram.delayeds);
        let efficiencies = match &self.normalisation {
            Some(path) => match efficiencies::estimate(prompts, delayeds, &list_mode.scanner) {
                Ok(efficiencies) => Some((path, efficiencies)),
                Err(Fault::Given(why)) => return given(format!("{}: {why}", self.input.display())),
                Err(other) => return Err(other),
            },
            None => None,
        };
        histogram.write_npz(&self.out)?;
        if let Some((path, efficiencies)) = &efficiencies {
            write_array(path, "normalisation", efficiencies.view().into_dyn())?;
        }
        histogram.warnings.iter().for_each(|w| note(w));
        let json = json!({
            "out": self.out,
            "prompts": histogram.prompt_count,
            "delayeds": histogram.delayed_count,
            "time_tags": histogram.time_tags,
            "time_ms": histogram.time_ms.map(|(first, last)| [first, last]),
            "largest_plane": histogram.largest_plane,
            "shape": histogram.prompts.shape(),
            "normalisation": self.normalisation,
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
        if let Some((path, efficiencies)) = &efficiencies {
            let shape = output::by(efficiencies.shape());
            text += &format!("; {}: efficiencies {shape}", path.display());
        }
        Ok(Report::new(json, text))
    }
}
