//! `allpet reconstruct`: a sinogram to an image.

use crate::efficiencies;
use crate::fault::{Fault, Result, given};
use crate::on_device;
use crate::options::{Device, Geometry, Size, fits_in_memory};
use crate::output::{self, tidy};
use crate::progress;
use crate::report::{Report, note};
use allpet::core::{CylindricalScanner, ImageGrid, ParallelGeometry};
use allpet::io::{
    Format, HistogramOptions, ListMode, detect, npz_names, read_array, read_npz, read_sinogram, write_array,
};
use allpet::radon::{Error, Fbp, Filter, Osem, OsemConfig, arc_correct, arc_correct_efficiencies};
use clap::ValueEnum;
use ndarray::{Array1, Array2, ArrayD, ArrayViewD, Axis};
use serde_json::json;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Reconstruct an image from a sinogram or from list-mode data
///
/// Bins that are not equally spaced (list-mode data, and what `convert` makes of them) are arc-corrected first, to
/// bins of --bin-mm [default there: the spacing at the centre]; pixels then have that size unless --pixel-mm is given.
///
/// mlem and osem take counts, which are not negative, and model ȳ = n·exp(-∫μ)·P(G x) + b. Where the input holds
/// prompts and delayeds, delayeds are the background unless --background is given; fbp subtracts them. Where these are
/// of a Biograph mMR, the background is the mean randoms that the delayeds tell of its crystals, and the crystals'
/// efficiencies and the gaps between detector blocks are estimated with them unless --normalisation is given. Efficiencies and background may have the bins of the input: they are
/// arc-corrected with it.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Sinogram [.., view, radial] as .npy or .npz, or an Interfile list-mode header
    #[arg(long = "in", value_name = "SINOGRAM")]
    input: PathBuf,
    /// Image [.., row, col], .npy or .npz
    #[arg(long, value_name = "IMAGE")]
    out: PathBuf,
    /// Size of the image: 256, or rows x columns as 200x256
    #[arg(long)]
    size: Size,
    /// Method
    #[arg(long, value_enum, default_value_t = Method::Fbp)]
    method: Method,
    /// fbp: ramp, shepp-logan, cosine, hamming or hann [default: ramp]
    #[arg(long)]
    filter: Option<Filter>,
    /// fbp: where the filter ends, as a fraction of the Nyquist frequency [default: 1]
    #[arg(long, allow_negative_numbers = true)]
    cutoff: Option<f64>,
    /// mlem, osem: passes over all views [default: 4]
    #[arg(long, value_name = "N")]
    iterations: Option<usize>,
    /// osem: subsets; subset m takes views m, m+S, m+2S, .. [default: 12]
    #[arg(long, value_name = "S")]
    subsets: Option<usize>,
    /// mlem, osem: attenuation image in cm⁻¹, of the size of the image
    #[arg(long, value_name = "IMAGE")]
    attenuation: Option<PathBuf>,
    /// mlem, osem: efficiencies of the bins, which multiply; 0 is a dead bin
    #[arg(long, value_name = "SINOGRAM")]
    normalisation: Option<PathBuf>,
    /// mlem, osem: counts of randoms and scatter in every bin
    #[arg(long, value_name = "SINOGRAM")]
    background: Option<PathBuf>,
    /// mlem, osem: resolution of the scanner, full width at half maximum in mm [default: 0]
    #[arg(long, value_name = "MM", allow_negative_numbers = true)]
    psf_mm: Option<f64>,
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    geometry: Geometry,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Method {
    /// Filtered back-projection
    Fbp,
    /// Maximum likelihood by expectation maximisation
    Mlem,
    /// The same with ordered subsets of views
    Osem,
}

/// Factors and background of the counts, in the bins of the reconstruction.
struct Model {
    normalisation: Option<ArrayD<f32>>,
    background: Option<ArrayD<f32>>,
    /// Delayeds in the bins of the scanner, from which efficiencies can be estimated.
    delayeds: Option<ArrayD<f32>>,
    /// `given`, `estimated` or `uniform`.
    efficiencies: &'static str,
}

/// What is reconstructed.
struct Input {
    sinogram: ArrayD<f32>,
    /// Delayeds of a sinogram of prompts.
    delayeds: Option<ArrayD<f32>>,
    radial_mm: Option<Array1<f32>>,
    notes: Vec<String>,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let device = match self.method {
            Method::Fbp => self.device.open()?,
            Method::Mlem | Method::Osem => self.device.cpu()?,
        };
        output::file(&self.out, output::ARRAYS)?;
        // Faults of the options show before a long file is read.
        self.options_fit()?;
        let mut flags = self.geometry.clone();
        flags.image(self.size.rows, self.size.cols)?;
        flags.sinogram(1, 1)?;
        let Input {
            mut sinogram,
            delayeds,
            radial_mm,
            notes,
        } = match self.method {
            Method::Fbp => net(&self.input)?,
            Method::Mlem | Method::Osem => counts(&self.input)?,
        };
        notes.iter().for_each(|n| note(n));
        let mut model = self.model(delayeds)?;
        if let Some(positions) = radial_mm {
            let scanner = self.scanner(&positions)?;
            let bin_mm = *flags.bin_mm.get_or_insert(tidy(scanner.bin_mm));
            flags.pixel_mm.get_or_insert(bin_mm);
            self.estimated(&mut model, &sinogram, &scanner)?;
            model = model.equally_spaced(&sinogram, &scanner, &flags)?;
            sinogram = equally_spaced(sinogram, &scanner, &flags, arc_correct)?;
            let (bins, mm) = (sinogram.shape()[sinogram.ndim() - 1], bin_mm);
            let attenuation = if self.attenuation.is_some() {
                ""
            } else {
                ", not corrected for attenuation"
            };
            note(&format!(
                "arc-corrected to {bins} bins of {mm} mm; counts{attenuation}"
            ));
        }
        let [.., views, bins] = *sinogram.shape() else {
            return given(format!(
                "{}: expected a sinogram [.., view, radial]",
                self.input.display()
            ));
        };
        let grid = flags.image(self.size.rows, self.size.cols)?;
        let geometry = flags.sinogram(views, bins)?;
        let batch = &sinogram.shape()[..sinogram.ndim() - 2];
        fits_in_memory("an image", &[batch, &grid.shape()].concat())?;
        let (image, likelihood) = match self.method {
            Method::Fbp => {
                let (filter, cutoff) = (self.filter.unwrap_or(Filter::Ramp), self.cutoff.unwrap_or(1.0));
                let fbp = Fbp::new(grid, geometry, filter, cutoff)?;
                let image = on_device::reconstruct(&device, fbp, sinogram.view())?;
                (image, None)
            }
            Method::Mlem | Method::Osem => {
                let (image, likelihood) = self.likeliest(grid, geometry, &sinogram, &model)?;
                (image, Some(likelihood))
            }
        };
        write_array(&self.out, "reconstructions", image.view())?;
        let mut json = json!({
            "out": self.out,
            "shape": image.shape(),
            "pixel_mm": grid.pixel_mm,
            "bins": bins,
            "bin_mm": geometry.bin_mm,
        });
        if let Some(likelihood) = likelihood {
            json["iterations"] = json!(likelihood.len());
            json["subsets"] = json!(self.config().subsets);
            json["efficiencies"] = json!(model.efficiencies);
            json["log_likelihood"] = json!(likelihood);
        }
        let shape = output::by(image.shape());
        Ok(Report::new(
            json,
            format!(
                "{}: image of {shape}, pixels of {} mm",
                self.out.display(),
                grid.pixel_mm
            ),
        ))
    }

    /// Options of one method beside another are a misunderstanding.
    fn options_fit(&self) -> Result<()> {
        let of_fbp = [
            ("--filter", self.filter.is_some()),
            ("--cutoff", self.cutoff.is_some()),
        ];
        let of_likelihood = [
            ("--iterations", self.iterations.is_some()),
            ("--subsets", self.subsets.is_some()),
            ("--attenuation", self.attenuation.is_some()),
            ("--normalisation", self.normalisation.is_some()),
            ("--background", self.background.is_some()),
            ("--psf-mm", self.psf_mm.is_some()),
        ];
        let (name, foreign, expected) = match self.method {
            Method::Fbp => ("fbp", &of_likelihood[..], "mlem or osem"),
            Method::Mlem => ("mlem", &of_fbp[..], "fbp"),
            Method::Osem => ("osem", &of_fbp[..], "fbp"),
        };
        if let Some((option, _)) = foreign.iter().find(|(_, is_given)| *is_given) {
            return given(format!(
                "{option}: does not apply to --method {name}; expected --method {expected}"
            ));
        }
        if matches!(self.method, Method::Mlem) && self.subsets.is_some_and(|subsets| subsets != 1) {
            return given("--subsets: --method mlem has one; expected --method osem");
        }
        Ok(())
    }

    fn config(&self) -> OsemConfig {
        let usual = OsemConfig::default();
        OsemConfig {
            iterations: self.iterations.unwrap_or(usual.iterations),
            subsets: match self.method {
                Method::Osem => self.subsets.unwrap_or(usual.subsets),
                Method::Fbp | Method::Mlem => 1,
            },
        }
    }

    /// What was given, in the bins it was given in; delayeds are the background where none is given.
    fn model(&self, delayeds: Option<ArrayD<f32>>) -> Result<Model> {
        let normalisation = match &self.normalisation {
            Some(path) => Some(single(read_array(path)?)),
            None => None,
        };
        let background = match &self.background {
            Some(path) => Some(read_array(path)?),
            None => delayeds.clone(),
        };
        Ok(Model {
            efficiencies: if normalisation.is_some() {
                "given"
            } else {
                "uniform"
            },
            normalisation,
            background,
            delayeds,
        })
    }

    /// Efficiencies and mean randoms from the delayeds where none are given; where the counts do not allow it, a note says why.
    fn estimated(
        &self,
        model: &mut Model,
        prompts: &ArrayD<f32>,
        scanner: &CylindricalScanner,
    ) -> Result<()> {
        let Some(delayeds) = &model.delayeds else {
            return Ok(());
        };
        if self.normalisation.is_some() && self.background.is_some() {
            return Ok(());
        }
        match efficiencies::estimate(prompts, delayeds, scanner) {
            Ok(found) => {
                if self.background.is_none() {
                    model.background = Some(shared_out(&found.randoms(), delayeds));
                }
                if self.normalisation.is_none() {
                    note("efficiencies and gaps between detector blocks estimated from the delayeds");
                    model.normalisation = Some(found.sinogram().into_dyn());
                    model.efficiencies = "estimated";
                }
            }
            Err(Fault::Given(why)) if self.normalisation.is_none() => {
                note(&format!(
                    "{}: {why}; efficiencies taken as uniform",
                    self.input.display()
                ));
            }
            Err(Fault::Given(_)) => {}
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// The image by MLEM or OSEM, and the log-likelihood of all sinograms together after each iteration.
    fn likeliest(
        &self,
        grid: ImageGrid,
        geometry: ParallelGeometry,
        counts: &ArrayD<f32>,
        model: &Model,
    ) -> Result<(ArrayD<f32>, Vec<f64>)> {
        let config = self.config();
        let mut osem = Osem::new(grid, geometry, config)?;
        if let Some(fwhm_mm) = self.psf_mm {
            osem = osem.with_psf_mm(fwhm_mm)?;
        }
        if let Some(path) = &self.attenuation {
            // cm⁻¹ in files, mm⁻¹ inside.
            let mu_per_mm = single(read_array(path)?) * 0.1;
            osem = osem.with_attenuation(mu_per_mm.view()).map_err(of_file(path))?;
        }
        if let Some(efficiencies) = &model.normalisation {
            let path = self.normalisation.as_ref().unwrap_or(&self.input);
            osem = osem
                .with_normalisation(efficiencies.view())
                .map_err(of_file(path))?;
        }
        if let Some(background) = &model.background {
            let path = self.background.as_ref().unwrap_or(&self.input);
            let background = if background.shape() == counts.shape() {
                background.clone()
            } else {
                single(background.clone())
            };
            osem = osem.with_background(background.view()).map_err(of_file(path))?;
        }
        let bar = progress::bar(config.iterations as u64, "iterations");
        let mut likelihood = Vec::with_capacity(config.iterations);
        let image = osem
            .reconstruct_observed(counts.view(), &mut |step| {
                bar.set_position(step.iteration as u64);
                likelihood.push(step.log_likelihood.iter().sum());
                ControlFlow::Continue(())
            })
            .map_err(of_file(&self.input))?;
        bar.finish_and_clear();
        Ok((image, likelihood))
    }

    /// The scanner whose bins lie at these positions: the one in the header, else the one that is known.
    fn scanner(&self, positions: &Array1<f32>) -> Result<CylindricalScanner> {
        let scanner = match detect(&self.input)? {
            Format::Interfile | Format::ListMode => ListMode::open(&self.input, None)?.scanner,
            _ => CylindricalScanner::mmr(),
        };
        let near = |(bin, &s): (usize, &f32)| (scanner.s_mm(bin) - f64::from(s)).abs() < 1e-3;
        if positions.len() == scanner.bins && positions.iter().enumerate().all(near) {
            return Ok(scanner);
        }
        given(format!(
            "{}: its `radial_mm` are not the {} bins of the Biograph mMR; expected those, or equally spaced bins \
             without `radial_mm`",
            self.input.display(),
            scanner.bins
        ))
    }
}

/// True coincidences: prompts minus delayeds where they are apart.
fn net(path: &Path) -> Result<Input> {
    let (sinogram, radial_mm, notes) = read_sinogram(path)?;
    Ok(Input {
        sinogram,
        delayeds: None,
        radial_mm,
        notes,
    })
}

/// What was counted: prompts, and delayeds beside them, where they are apart.
fn counts(path: &Path) -> Result<Input> {
    let format = detect(path)?;
    if matches!(format, Format::Interfile | Format::ListMode) {
        let histogram = ListMode::open(path, None)?.histogram(&HistogramOptions::default())?;
        let mut notes = histogram.warnings;
        notes.push("prompts, summed over planes; delayeds are the background".to_owned());
        return Ok(Input {
            sinogram: histogram.prompts,
            delayeds: Some(histogram.delayeds),
            radial_mm: Some(histogram.radial_mm),
            notes,
        });
    }
    let mut input = net(path)?;
    if format == Format::Npz {
        let names = npz_names(path)?;
        let has = |name: &str| names.iter().any(|n| n == name);
        if !has("sinograms") && has("prompts") && has("delayeds") {
            let mut arrays = read_npz(path, &["prompts", "delayeds"])?;
            input.delayeds = arrays.pop();
            if let Some(prompts) = arrays.pop() {
                input.sinogram = prompts;
            }
            input.notes = vec!["prompts; delayeds are the background".to_owned()];
        }
    }
    Ok(input)
}

/// Without leading axes of length 1.
fn single(mut array: ArrayD<f32>) -> ArrayD<f32> {
    while array.ndim() > 2 && array.shape()[0] == 1 {
        array = array.index_axis_move(Axis(0), 0);
    }
    array
}

/// Mean randoms of all delayeds `[.., view, radial]`, each sinogram's share by its own delayeds.
fn shared_out(randoms: &Array2<f32>, delayeds: &ArrayD<f32>) -> ArrayD<f32> {
    let all: f64 = delayeds.iter().map(|v| f64::from(*v)).sum();
    let mut out = ArrayD::zeros(delayeds.raw_dim());
    let size = randoms.len().max(1);
    let flat = delayeds.as_standard_layout();
    if let (Some(from), Some(to)) = (flat.as_slice(), out.as_slice_mut()) {
        for (from, to) in from.chunks(size).zip(to.chunks_mut(size)) {
            let own: f64 = from.iter().map(|v| f64::from(*v)).sum();
            let share = if all > 0.0 { (own / all) as f32 } else { 0.0 };
            for (to, &mean) in to.iter_mut().zip(randoms) {
                *to = share * mean;
            }
        }
    }
    out
}

/// A fault in what a file holds, with the name of the file.
fn of_file(path: &Path) -> impl FnOnce(Error) -> Fault {
    move |error| Fault::Given(format!("{}: {error}", path.display()))
}

impl Model {
    /// Arc-corrected where it has the views and bins of the counts; the delayeds have served.
    fn equally_spaced(
        self,
        counts: &ArrayD<f32>,
        scanner: &CylindricalScanner,
        flags: &Geometry,
    ) -> Result<Self> {
        let ring = &counts.shape()[counts.ndim() - 2..];
        let correct = |array: Option<ArrayD<f32>>, by: ArcCorrection| match array {
            Some(array) if array.shape().ends_with(ring) => {
                equally_spaced(array, scanner, flags, by).map(Some)
            }
            other => Ok(other),
        };
        Ok(Self {
            normalisation: correct(self.normalisation, arc_correct_efficiencies)?,
            background: correct(self.background, arc_correct)?,
            delayeds: None,
            efficiencies: self.efficiencies,
        })
    }
}

/// Arc correction of counts, or of efficiencies.
type ArcCorrection =
    fn(ArrayViewD<'_, f32>, &CylindricalScanner, &ParallelGeometry) -> allpet::radon::Result<ArrayD<f32>>;

/// Arc correction to as many bins as the scanner's field of view holds.
fn equally_spaced(
    counts: ArrayD<f32>,
    scanner: &CylindricalScanner,
    flags: &Geometry,
    correct: ArcCorrection,
) -> Result<ArrayD<f32>> {
    let bin_mm = flags.bin_mm.unwrap_or(scanner.bin_mm);
    let bins = (2.0 * scanner.s_mm(0).abs() / bin_mm).floor().max(1.0) as usize;
    let views = counts.shape()[counts.ndim() - 2];
    let target = ParallelGeometry::new(views, bins, bin_mm)?.with_offset_bins(0.0);
    let batch = &counts.shape()[..counts.ndim() - 2];
    fits_in_memory("a sinogram", &[batch, &target.shape()].concat())?;
    Ok(correct(counts.view(), scanner, &target)?)
}
