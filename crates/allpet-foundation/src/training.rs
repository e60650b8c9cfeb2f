//! Training runs: the autoencoder first, then the denoiser on its latents.

use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::model::{Denoiser, Description, describe, save};
use crate::objective::FoundationObjective;
use crate::statistics::Statistics;
use allpet_autoencoder::{Autoencoder, AutoencoderObjective, SinogramSource};
use allpet_core::Dataset;
use allpet_nn::Params;
use allpet_train::{Identity, Observer, Outcome, TrainConfig, Trainer, load_model};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// File of the trained model in a run folder.
pub const MODEL_FILE: &str = "model.safetensors";

/// What a training configuration file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The preset the model starts from.
    #[serde(default = "small")]
    pub preset: String,
    /// The whole model, instead of a preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// For the foundation: the trained autoencoder's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoencoder: Option<PathBuf>,
    /// A trained file of the same model whose parameters the run starts from, instead of drawing them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<PathBuf>,
    /// The settings of the run.
    #[serde(default)]
    pub train: TrainConfig,
}

fn small() -> String {
    "small".to_owned()
}

impl RunConfig {
    /// The model for data of a geometry.
    pub fn model_for(&self, data: &[Dataset]) -> Result<ModelConfig> {
        let model = match &self.model {
            Some(model) => model.clone(),
            None => ModelConfig::preset(&self.preset)?,
        };
        let model = match data.iter().find_map(|d| d.geometry) {
            Some(geometry) => model.with_geometry(geometry),
            None => model,
        };
        model.validate()?;
        Ok(model)
    }
}

/// Where a run happens and what it listens to.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The run folder.
    pub folder: &'a Path,
    /// Continue from its checkpoint.
    pub resume: bool,
    /// Set from elsewhere to stop after the current step.
    pub stop: &'a AtomicBool,
    /// Where tensors live.
    pub device: &'a Device,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps done, or as many as early stopping wants; the model file was written.
    Finished,
    /// Stopped; a checkpoint was written after this many steps.
    Interrupted(u64),
}

/// A fingerprint of the data, so that a checkpoint is not resumed on others.
pub fn fingerprint(data: &[Dataset]) -> serde_json::Value {
    let sets: Vec<_> = data
        .iter()
        .map(|d| {
            let sum: f64 = d.arrays.values().flat_map(|a| a.iter()).map(|v| f64::from(*v)).sum();
            serde_json::json!({ "samples": d.len(), "subjects": d.distinct_subjects().len(), "sum": format!("{sum:e}") })
        })
        .collect();
    serde_json::json!(sets)
}

fn identity(kind: &str, model: &ModelConfig, data: &[Dataset], config: &RunConfig) -> Identity {
    Identity {
        architecture: serde_json::json!({ "kind": kind, "model": model }),
        config: serde_json::json!({ "start": config.start.as_deref().and_then(Path::file_name) }),
        data: fingerprint(data),
    }
}

/// What a model file says of its training: the settings, how many steps were done, and how much data there were.
pub fn training_words(train: &TrainConfig, steps: u64, data: &[Dataset]) -> BTreeMap<String, String> {
    let subjects: usize = data.iter().map(|d| d.distinct_subjects().len()).sum();
    BTreeMap::from([
        ("steps".into(), steps.to_string()),
        ("batch".into(), train.batch.to_string()),
        ("rate".into(), train.rate.to_string()),
        ("seed".into(), train.seed.to_string()),
        (
            "sinograms".into(),
            data.iter().map(Dataset::len).sum::<usize>().to_string(),
        ),
        ("subjects".into(), subjects.to_string()),
    ])
}

/// Trains the autoencoder; its file holds `autoencoder.*`, the moving average.
///
/// # Errors
/// Data or settings that do not fit; whatever stops the run.
pub fn train_autoencoder(
    config: &RunConfig,
    data: &[Dataset],
    place: Place<'_>,
    observers: &mut [&mut dyn Observer],
) -> Result<Ended> {
    let model = config.model_for(data)?;
    let train = &config.train;
    let source = source(&model, data, train, place.device)?;
    let params = train.precision.on(Params::new(train.seed, place.device))?;
    let autoencoder = Autoencoder::new(&params.sub("autoencoder"), &model.autoencoder)?;
    let autoencoder = autoencoder.recomputing(train.recompute);
    let objective = AutoencoderObjective {
        model: autoencoder,
        intensity: model.intensity,
        seed: train.seed,
    };
    let trainer = Trainer {
        params: &params,
        config: train,
        folder: place.folder,
        resume: place.resume,
        identity: identity("autoencoder", &model, data, config),
        stop: place.stop,
    };
    if let Some(path) = &config.start {
        start_from(path, &model, &params, "autoencoder.")?;
    }
    match trainer.run(&objective, &source, observers)? {
        Outcome::Interrupted { step, .. } => Ok(Ended::Interrupted(step)),
        Outcome::Finished { steps, ema } => {
            let mut description = Description::new("autoencoder", model, None);
            description.training = training_words(train, steps, data);
            save(&place.folder.join(MODEL_FILE), &ema, &description)?;
            Ok(Ended::Finished)
        }
        _ => Ok(Ended::Interrupted(0)),
    }
}

/// Trains the denoiser on the latents of a trained autoencoder; the file holds `autoencoder.*` and `denoiser.*`.
///
/// # Errors
/// No autoencoder given, or one of another model; data or settings that do not fit; whatever stops the run.
pub fn train_foundation(
    config: &RunConfig,
    data: &[Dataset],
    place: Place<'_>,
    observers: &mut [&mut dyn Observer],
) -> Result<Ended> {
    let model = config.model_for(data)?;
    let train = &config.train;
    let Some(path) = &config.autoencoder else {
        return Err(Error::Invalid {
            what: "configuration".into(),
            faults: vec!["no `autoencoder`; expected the file of a trained one".into()],
        });
    };
    let (frozen, autoencoder) = load_autoencoder(path, &model, place.device)?;
    let source = source(&model, data, train, place.device)?;
    let statistics = Statistics::measure(&autoencoder, &source, (256 / train.batch.max(1)).max(1) as u64)?;
    let params = train.precision.on(Params::new(train.seed, place.device))?;
    let objective = FoundationObjective {
        denoiser: Denoiser::new(&params.sub("denoiser"), &model)?.recomputing(train.recompute),
        process: model.process.build()?,
        statistics: statistics.clone(),
        autoencoder,
        config: model.clone(),
        seed: train.seed,
    };
    let trainer = Trainer {
        params: &params,
        config: train,
        folder: place.folder,
        resume: place.resume,
        identity: identity("foundation", &model, data, config),
        stop: place.stop,
    };
    if let Some(path) = &config.start {
        start_from(path, &model, &params, "denoiser.")?;
    }
    match trainer.run(&objective, &source, observers)? {
        Outcome::Interrupted { step, .. } => Ok(Ended::Interrupted(step)),
        Outcome::Finished { steps, ema } => {
            let mut tensors = frozen;
            tensors.extend(ema);
            let mut description = Description::new("foundation", model, Some(statistics));
            description.training = training_words(train, steps, data);
            save(&place.folder.join(MODEL_FILE), &tensors, &description)?;
            Ok(Ended::Finished)
        }
        _ => Ok(Ended::Interrupted(0)),
    }
}

/// Puts the values of a trained file into the parameters of its part of the same model.
fn start_from(path: &Path, model: &ModelConfig, params: &Params, part: &str) -> Result<()> {
    let (tensors, metadata) = load_model(path, params.device())?;
    let name = path.display().to_string();
    let found = describe(&name, &metadata)?.model;
    let same = (&found.autoencoder, &found.intensity) == (&model.autoencoder, &model.intensity)
        && (part == "autoencoder." || found.denoiser == model.denoiser && found.process == model.process);
    let tensors: BTreeMap<_, _> = tensors
        .into_iter()
        .filter(|(name, _)| name.starts_with(part))
        .collect();
    if !same || tensors.is_empty() {
        return Err(Error::File {
            what: name,
            expected: format!("a trained `{part}*` of the model to be trained, to start from"),
            got: if same {
                "none".into()
            } else {
                "another model".into()
            },
        });
    }
    Ok(params.load(&tensors)?)
}

fn source(
    model: &ModelConfig,
    data: &[Dataset],
    train: &TrainConfig,
    device: &Device,
) -> Result<SinogramSource> {
    let (geometry, augmentation) = (&model.geometry, &model.augmentation);
    Ok(SinogramSource::new(
        data,
        geometry,
        augmentation,
        model.intensity,
        train.batch,
        train.seed,
        device,
    )?)
}

fn load_autoencoder(
    path: &Path,
    model: &ModelConfig,
    device: &Device,
) -> Result<(BTreeMap<String, Tensor>, Autoencoder)> {
    let (tensors, metadata) = load_model(path, device)?;
    let name = path.display().to_string();
    let description = describe(&name, &metadata)?;
    let found = &description.model;
    if (&found.autoencoder, &found.intensity) != (&model.autoencoder, &model.intensity) {
        return Err(Error::File {
            what: name,
            expected: format!(
                "the autoencoder {:?} with {:?}",
                model.autoencoder, model.intensity
            ),
            got: format!("{:?} with {:?}", found.autoencoder, found.intensity),
        });
    }
    let tensors: BTreeMap<_, _> = tensors
        .into_iter()
        .filter(|(name, _)| name.starts_with("autoencoder."))
        .collect();
    let params = Params::new(0, device);
    let autoencoder = Autoencoder::new(&params.sub("autoencoder"), &model.autoencoder)?;
    params.load(&tensors)?;
    Ok((tensors, autoencoder))
}
