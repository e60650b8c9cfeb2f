//! The PAC-Bayes bound before and after augmentation (ALL-PET, Fig. 7), on the part of the model that a laptop trains twice.
//!
//! Two autoencoders of the preset `small` learn the same sinograms, one of each subject: one plainly, one with Radon masks and
//! turns. Parameters `θ̂` come with posterior `Q = N(θ̂, σ²I)`; the loss of a sinogram is `min(NMSE/C, 1)` of its round trip, both fixed
//! beforehand. Three bounds on the risk at new subjects are shown:
//! - *about the start*: prior `N(θ_0, σ_P²I)` about the parameters before training, `σ_P` from a grid that a union bound pays for, `n` the
//!   number of subjects. It is what eqs. 15-24 give.
//! - *masks counted as samples*: the same with `n` the number of masked sinograms. This is **no bound**, since they are not independent; it
//!   shows what counting them buys.
//! - *on other subjects*: `P = Q`, fixed before subjects came that neither saw, so that no divergence is to be paid for.

use super::markdown::{table, warning};
use super::restoration::Workshop;
use super::{Args, finish, kept};
use crate::fault::{Fault, Result};
use crate::output;
use crate::progress;
use crate::report::{Report, note};
use allpet::autoencoder::sample::split;
use allpet::autoencoder::{Autoencoder, Intensity};
use allpet::candle::{Device, Tensor};
use allpet::core::{Dataset, fill_normal, stream};
use allpet::foundation::{MODEL_FILE, ModelConfig, RunConfig, train_autoencoder};
use allpet::metrics::pac_bayes::{
    BoundedLoss, Certificate, CertificateSettings, GibbsRisk, PriorCandidate, certify, certify_over_priors,
    gibbs_risk, kl_isotropic,
};
use allpet::nn::{Params, without_gradients};
use allpet::sim::{Split, SynthesisConfig, simulate_synthesis};
use allpet::train::load_model;
use ndarray::{ArrayView3, Axis, Ix3};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const AUTOENCODER: &str = include_str!("../../../../../docs/recipes/small-autoencoder.toml");

/// The loss reaches 1 where a round trip misses so much of a sinogram's energy.
const LOSS_SCALE: f64 = 0.05;
/// Standard deviation of the posterior.
const SIGMA: f64 = 1e-3;
/// Standard deviations of the priors about the start.
const PRIOR_SIGMAS: [f64; 5] = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1];
/// Masks of the paper's augmentation: every place of a 64-block in 512 × 512.
const MASKS: usize = 201_601;
const SEED: u64 = 51;
/// Sinograms computed at once.
const BATCH: usize = 25;

/// How much is computed.
struct Scale {
    subjects: usize,
    draws: usize,
    steps: usize,
}

pub(super) fn run(args: &Args) -> Result<Report> {
    progress::stop_flag();
    let device = args.device.cpu()?;
    let scale = if args.quick {
        Scale {
            subjects: 4,
            draws: 2,
            steps: 2,
        }
    } else {
        Scale {
            subjects: 100,
            draws: 100,
            steps: 200,
        }
    };
    let workshop = Workshop {
        out: &args.out,
        resume: args.resume,
        device: &device,
    };
    let [sample, others] = [Split::Train, Split::Test].map(|split| sinograms(split, scale.subjects));
    let (sample, others) = (sample?, others?);
    let mut all = serde_json::Map::new();
    for (name, folder, augmented) in [("before", "plain", false), ("after", "augmented", true)] {
        let value = kept(&args.out, args.resume, &format!("pac-bayes-{folder}"), || {
            let model = Checkpoint::obtain(&workshop, folder, augmented, &sample, &scale)?;
            note(&format!("{folder}: {} draws of the posterior", scale.draws));
            model.judge(&sample, &others, &scale)
        })?;
        all.insert(name.to_owned(), value);
    }
    let text = markdown(&all, &scale, args.quick);
    finish(
        args,
        "pac-bayes",
        &text,
        all,
        "bounds before and after augmentation",
    )
}

/// One sinogram of every subject.
fn sinograms(split: Split, subjects: usize) -> Result<Dataset> {
    let config = SynthesisConfig {
        split,
        count: subjects,
        subjects,
        seed: SEED,
        ..SynthesisConfig::default()
    };
    Ok(simulate_synthesis(&config, &|_| {})?)
}

/// A trained autoencoder and where its training began.
struct Checkpoint {
    params: Params,
    autoencoder: Autoencoder,
    intensity: Intensity,
    start: Vec<f64>,
    end: Vec<f64>,
}

impl Checkpoint {
    fn obtain(
        workshop: &Workshop<'_>,
        folder: &str,
        augmented: bool,
        sample: &Dataset,
        scale: &Scale,
    ) -> Result<Self> {
        let mut config: RunConfig =
            toml::from_str(AUTOENCODER).map_err(|e| Fault::Other(e.message().to_owned()))?;
        let mut model = ModelConfig::preset(&config.preset)?;
        if !augmented {
            model.augmentation.empty = 1.0;
            model.augmentation.rotate_deg = 0.0;
        }
        config.train.steps = scale.steps;
        config.train.warmup = config.train.warmup.min(scale.steps / 2);
        config.model = Some(model.clone());
        let path = workshop.out.join(folder).join(MODEL_FILE);
        if !(workshop.resume && path.exists()) {
            note(&format!("{folder}: training {} steps", scale.steps));
            output::make(&workshop.out.join(folder))?;
            let data = std::slice::from_ref(sample);
            workshop.train(folder, |place, observers| {
                Ok(train_autoencoder(&config, data, place, observers)?)
            })?;
        }
        // The seed of the run draws the same parameters again.
        let params = Params::new(config.train.seed, workshop.device);
        let autoencoder = Autoencoder::new(&params.sub("autoencoder"), &model.autoencoder)?;
        let start = flat(&params)?;
        params.load(&load_model(&path, workshop.device)?.0)?;
        Ok(Self {
            end: flat(&params)?,
            params,
            autoencoder,
            intensity: model.intensity,
            start,
        })
    }

    fn judge(&self, sample: &Dataset, others: &Dataset, scale: &Scale) -> Result<Value> {
        let settings = CertificateSettings::default();
        let risk = self.gibbs(sample, scale)?;
        let elsewhere = self.gibbs(others, scale)?;
        let moved: f64 = self
            .end
            .iter()
            .zip(&self.start)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        let grid = PRIOR_SIGMAS
            .iter()
            .map(|sigma| {
                let kl = kl_isotropic(self.end.len(), moved, SIGMA * SIGMA, sigma * sigma)?;
                Ok(PriorCandidate {
                    variance: sigma * sigma,
                    kl,
                    risk,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let (variance, about_start) = certify_over_priors(&grid, &settings)?;
        let on_others = certify(&elsewhere, 0.0, &settings)?;
        // With n masked sinograms instead of n subjects, everything else alike.
        let counted = scale.subjects * MASKS;
        let epsilon = (about_start.kl
            + ((counted as f64 + 1.0) * PRIOR_SIGMAS.len() as f64 / settings.delta).ln())
            / counted as f64;
        let as_samples = allpet::metrics::pac_bayes::binary_kl_upper(about_start.risk_upper, epsilon)?;
        Ok(json!({
            "parameters": self.end.len(),
            "squared_distance": moved,
            "prior_sigma": variance.sqrt(),
            "sample_risk": risk.mean(),
            "others_risk": elsewhere.mean(),
            "others_standard_error": elsewhere.standard_error(),
            "about_start": told(&about_start),
            "masks_as_samples": as_samples,
            "on_others": told(&on_others),
        }))
    }

    /// Monte Carlo risk of the posterior on sinograms, one a subject.
    fn gibbs(&self, data: &Dataset, scale: &Scale) -> Result<GibbsRisk> {
        let loss = BoundedLoss::new(LOSS_SCALE)?;
        let stack = data.array("target")?.view();
        let stack = stack
            .into_dimensionality::<Ix3>()
            .map_err(|e| Fault::Other(e.to_string()))?;
        let bar = progress::bar(scale.draws as u64, "draws");
        let risk = gibbs_risk(scale.draws, |draw| {
            bar.inc(1);
            if progress::stopped() {
                return Err(Fault::Other(
                    "interrupted; the same command with --resume goes on".into(),
                ));
            }
            self.draw(draw as u64)?;
            let errors = without_gradients(|| self.errors(stack))?;
            errors.into_iter().map(|e| Ok(loss.apply(e)?)).collect()
        });
        bar.finish_and_clear();
        risk
    }

    /// Puts draw `index` of the posterior into the network.
    fn draw(&self, index: u64) -> Result<()> {
        let mut noise = vec![0f32; self.end.len()];
        fill_normal(&mut stream(SEED, "posterior", index), &mut noise);
        let mut drawn = self
            .end
            .iter()
            .zip(noise)
            .map(|(m, z)| (m + SIGMA * f64::from(z)) as f32);
        let mut tensors = BTreeMap::new();
        for (name, var) in self.params.named() {
            let values: Vec<f32> = drawn.by_ref().take(var.elem_count()).collect();
            tensors.insert(name, Tensor::from_vec(values, var.dims(), var.device())?);
        }
        Ok(self.params.load(&tensors)?)
    }

    /// Squared error of every round trip over the squared sinogram.
    fn errors(&self, stack: ArrayView3<'_, f32>) -> Result<Vec<f64>> {
        let (_, views, bins) = stack.dim();
        let size = views * bins;
        let no_mask = vec![0f32; size];
        let mut errors = Vec::with_capacity(stack.len_of(Axis(0)));
        for batch in stack.axis_chunks_iter(Axis(0), BATCH) {
            let count = batch.len_of(Axis(0));
            let mut coded = vec![0f32; count * 3 * size];
            let mut scales = Vec::with_capacity(count);
            let sinograms: Vec<Vec<f32>> = batch
                .outer_iter()
                .map(|s| s.iter().map(|v| v.max(0.0)).collect())
                .collect();
            for (sinogram, out) in sinograms.iter().zip(coded.chunks_exact_mut(3 * size)) {
                let scale = self.intensity.scale(sinogram)?;
                split(sinogram, &no_mask, scale, self.intensity, out);
                scales.push(scale);
            }
            let coded = Tensor::from_vec(coded, (count, 3, views, bins), &Device::Cpu)?;
            let back = self.autoencoder.decode(&self.autoencoder.encode(&coded)?.mean)?;
            let full: Vec<f32> = back.narrow(1, 1, 1)?.flatten_all()?.to_vec1()?;
            for ((sinogram, found), scale) in sinograms.iter().zip(full.chunks_exact(size)).zip(scales) {
                let (mut error, mut energy) = (0f64, 0f64);
                for (truth, coded) in sinogram.iter().zip(found) {
                    let value = self.intensity.decode(*coded, scale);
                    error += f64::from(value - truth).powi(2);
                    energy += f64::from(*truth).powi(2);
                }
                errors.push(error / energy.max(f64::MIN_POSITIVE));
            }
        }
        Ok(errors)
    }
}

fn flat(params: &Params) -> Result<Vec<f64>> {
    let mut values = Vec::with_capacity(params.count());
    for var in params.named().values() {
        let of_var: Vec<f32> = var.flatten_all()?.to_vec1()?;
        values.extend(of_var.into_iter().map(f64::from));
    }
    Ok(values)
}

fn told(certificate: &Certificate) -> Value {
    json!({
        "bound": certificate.bound,
        "vacuous": certificate.is_vacuous(),
        "confidence": certificate.confidence(),
        "kl": certificate.kl,
        "epsilon": certificate.epsilon,
        "words": certificate.to_string(),
    })
}

fn markdown(all: &serde_json::Map<String, Value>, scale: &Scale, quick: bool) -> String {
    let mut text = format!(
        "{}{} subjects in the sample and as many others, one sinogram each; loss min(NMSE/{LOSS_SCALE}, 1) of the round trip; posterior σ \
         {SIGMA}, {} draws; confidence 95 %.\n\n",
        warning(quick),
        scale.subjects,
        scale.draws
    );
    let heading = [
        "augmentation",
        "risk on the sample",
        "risk on others",
        "KL (nats), prior about the start",
        "bound about the start",
        "masks counted as samples (no bound)",
        "bound on other subjects",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for name in ["before", "after"] {
        let value = &all[name];
        let number = |key: &str| value[key].as_f64().unwrap_or(f64::NAN);
        let bound = |key: &str| {
            let found = value[key]["bound"].as_f64().unwrap_or(f64::NAN);
            match value[key]["vacuous"].as_bool() {
                Some(true) => format!("{found:.4}, vacuous"),
                _ => format!("{found:.4}"),
            }
        };
        rows.push(vec![
            name.to_owned(),
            format!("{:.4}", number("sample_risk")),
            format!(
                "{:.4} ± {:.4}",
                number("others_risk"),
                number("others_standard_error")
            ),
            format!("{:.3e}", value["about_start"]["kl"].as_f64().unwrap_or(f64::NAN)),
            bound("about_start"),
            format!("{:.4}", number("masks_as_samples")),
            bound("on_others"),
        ]);
    }
    text.push_str(&table(&rows));
    text
}
