//! Training runs of the tasks: from a foundation's weights or from nothing, a bridge or the regression beside it.

use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::model::{Restorer, TaskDescription};
use crate::network::{Method, TaskNetwork, start_from_foundation};
use crate::objective::{BridgeObjective, RegressionObjective, measure_moments};
use crate::pairs::{Goal, PairAugmentation, PairSettings, PairSource};
use allpet_core::Dataset;
use allpet_diffusion::{BridgeConfig, BridgeSchedule};
use allpet_foundation::{Description, Ended, Foundation, MODEL_FILE, Place, fingerprint, training_words};
use allpet_nn::Params;
use allpet_train::{Identity, Observer, Outcome, TrainConfig, Trainer};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Pairs over which the moments of a bridge's ends are measured.
const MEASURED: usize = 1024;

/// What a training configuration file of the tasks says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TaskRun {
    /// The foundation model whose autoencoder is used, and whose denoiser the run starts from.
    pub foundation: Option<PathBuf>,
    /// Draw the parameters of the denoiser instead of taking the foundation's.
    pub from_scratch: bool,
    /// Bridge or regression; a regression always starts from nothing.
    pub method: Method,
    /// What is learnt.
    pub goal: Goal,
    /// Train with Radon masks (RMAS, DMM), as the foundation was; without, all masks are empty.
    pub masks: bool,
    /// Train with transparent attention (TMA).
    pub attention: bool,
    /// How pairs are varied.
    pub augmentation: PairAugmentation,
    /// The bridge.
    pub bridge: BridgeConfig,
    /// Fraction of the samples that see the input alone (see [`BridgeObjective::terminal_fraction`]).
    pub terminal_fraction: f64,
    /// The settings of the run.
    pub train: TrainConfig,
}

impl Default for TaskRun {
    fn default() -> Self {
        Self {
            foundation: None,
            from_scratch: false,
            method: Method::Bridge,
            goal: Goal::Clean,
            masks: true,
            attention: true,
            augmentation: PairAugmentation::default(),
            // What a first estimate leaves open is small; so is this bridge's noise.
            bridge: BridgeConfig::new(BridgeSchedule::i2sb()),
            terminal_fraction: 0.25,
            train: TrainConfig::default(),
        }
    }
}

impl TaskRun {
    /// Reports every fault at once.
    ///
    /// # Errors
    /// [`Error::Invalid`], or what the parts say of themselves.
    pub fn validate(&self) -> Result<()> {
        self.train.validate()?;
        self.bridge.validate()?;
        if (0.0..=1.0).contains(&self.terminal_fraction) {
            return Ok(());
        }
        Err(Error::Invalid {
            what: "run".into(),
            faults: vec![format!(
                "terminal_fraction is {}; expected 0 to 1",
                self.terminal_fraction
            )],
        })
    }
}

/// Trains a model on the pairs of one or several tasks; its file is [`MODEL_FILE`] in the run folder.
///
/// # Errors
/// Data or settings that do not fit; whatever stops the run.
pub fn train_tasks(
    config: &TaskRun,
    foundation: &Foundation,
    data: &[Dataset],
    place: Place<'_>,
    observers: &mut [&mut dyn Observer],
) -> Result<Ended> {
    config.validate()?;
    let train = &config.train;
    let mut model = foundation.config().clone();
    model.process = model.process.with_bridge(config.bridge);
    if !config.masks {
        model.augmentation.empty = 1.0;
    }
    let attention = Attention::for_geometry(&model.geometry);
    let source = PairSource::new(
        data,
        &PairSettings {
            model: &model,
            augmentation: &config.augmentation,
            goal: config.goal,
            attention: (config.attention && config.method == Method::Bridge).then_some(&attention),
            batch: train.batch,
            seed: train.seed,
        },
        place.device,
    )?;
    let params = train.precision.on(Params::new(train.seed, place.device))?;
    let network =
        TaskNetwork::new(&params.sub("denoiser"), &model, config.method)?.recomputing(train.recompute);
    let statistics = foundation.statistics().clone();
    let trainer = Trainer {
        params: &params,
        config: train,
        folder: place.folder,
        resume: place.resume,
        identity: Identity {
            architecture: serde_json::json!({ "kind": "tasks", "method": config.method, "model": model }),
            config: serde_json::json!({ "from_scratch": config.from_scratch, "goal": config.goal, "attention": config.attention,
                "augmentation": config.augmentation, "terminal_fraction": config.terminal_fraction,
                "foundation": weights_of(foundation)? }),
            data: fingerprint(data),
        },
        stop: place.stop,
    };
    let (outcome, moments) = match config.method {
        Method::Bridge => {
            let batches = (MEASURED.div_ceil(train.batch.max(1))) as u64;
            let autoencoder = foundation.autoencoder().clone();
            let drawn = (0..batches).map(|step| source.draw(step));
            let moments = measure_moments(source.kinds(), drawn, &autoencoder, &statistics)?;
            if !config.from_scratch {
                start_from_foundation(&params, &foundation.tensors("denoiser."))?;
            }
            let objective = BridgeObjective {
                network,
                autoencoder,
                statistics: statistics.clone(),
                process: model.process.build_bridge()?,
                moments: moments.clone(),
                terminal_fraction: config.terminal_fraction,
                seed: train.seed,
            };
            (trainer.run(&objective, &source, observers)?, moments)
        }
        Method::Regression => {
            let objective = RegressionObjective { network };
            (trainer.run(&objective, &source, observers)?, Vec::new())
        }
    };
    let (steps, ema) = match outcome {
        Outcome::Finished { steps, ema } => (steps, ema),
        Outcome::Interrupted { step, .. } => return Ok(Ended::Interrupted(step)),
        _ => return Ok(Ended::Interrupted(0)),
    };
    let mut description = Description::new("tasks", model, Some(statistics));
    description.training = training_words(train, steps, data);
    let tasks = TaskDescription {
        method: config.method,
        tasks: source.tasks().to_vec(),
        ratios: source.ratios().to_vec(),
        moments,
        attention: config.attention.then_some(attention),
    };
    let mut tensors = foundation.tensors("autoencoder.");
    tensors.extend(ema);
    Restorer::save(&place.folder.join(MODEL_FILE), &tensors, &description, &tasks)?;
    Ok(Ended::Finished)
}

/// What tells one foundation's weights from another's, so that a run is not resumed on others.
pub(crate) fn weights_of(foundation: &Foundation) -> Result<String> {
    let mut sum = 0f64;
    for (number, tensor) in foundation.tensors("").values().enumerate() {
        let values = tensor.flatten_all()?.to_vec1::<f32>()?;
        let of_tensor: f64 = values.iter().map(|v| f64::from(*v).abs()).sum();
        sum += of_tensor * (number + 1) as f64;
    }
    Ok(format!("{sum:e}"))
}
