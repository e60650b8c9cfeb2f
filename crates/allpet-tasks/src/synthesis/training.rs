//! Training runs of paired synthesis, from a foundation's weights or from nothing.

use super::model::{KindOfPairs, PairDescription, PairSynthesizer};
use super::network::JointNetwork;
use super::objective::JointObjective;
use crate::error::Result;
use crate::pairs::{FirstEnd, Goal, PairAugmentation, PairSettings, PairSource};
use crate::statistics::measure_ratios;
use crate::training::weights_of;
use allpet_core::Dataset;
use allpet_foundation::{
    Description, Ended, Foundation, MODEL_FILE, Place, ScaleOf, fingerprint, training_words,
};
use allpet_nn::Params;
use allpet_train::{Identity, Observer, Outcome, TrainConfig, Trainer};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a training configuration file of paired synthesis says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PairRun {
    /// The foundation model whose autoencoder is used, and whose denoiser the run starts from.
    pub foundation: Option<PathBuf>,
    /// Draw the parameters of the denoiser instead of taking the foundation's.
    pub from_scratch: bool,
    /// What the second member of a pair is: the expectation where the data hold it, or as it was measured. The first is the
    /// input as it was measured.
    pub goal: Goal,
    /// Train with Radon masks (RMAS, DMM), as the foundation was, the same for both members; without, all masks are empty.
    pub masks: bool,
    /// The settings of the run.
    pub train: TrainConfig,
}

impl Default for PairRun {
    fn default() -> Self {
        Self {
            foundation: None,
            from_scratch: false,
            goal: Goal::Clean,
            masks: true,
            train: TrainConfig::default(),
        }
    }
}

impl PairRun {
    /// Reports every fault at once.
    ///
    /// # Errors
    /// What the settings of the run say of themselves.
    pub fn validate(&self) -> Result<()> {
        Ok(self.train.validate()?)
    }
}

/// Trains a model that draws pairs of one or several tasks; its file is [`MODEL_FILE`] in the run folder. A separation is
/// learnt as one pair for each of its outputs.
///
/// # Errors
/// Data or settings that do not fit; whatever stops the run.
pub fn train_pairs(
    config: &PairRun,
    foundation: &Foundation,
    data: &[Dataset],
    place: Place<'_>,
    observers: &mut [&mut dyn Observer],
) -> Result<Ended> {
    config.validate()?;
    let train = &config.train;
    let mut model = foundation.config().clone();
    if !config.masks {
        model.augmentation.empty = 1.0;
    }
    // Prompts stay as they are: a choice that a request leaves open is made before the network is asked.
    let augmentation = PairAugmentation {
        attention_dropout: 1.0,
        prompt_dropout: 0.0,
    };
    let settings = PairSettings {
        model: &model,
        augmentation: &augmentation,
        goal: config.goal,
        attention: None,
        batch: train.batch,
        seed: train.seed,
    };
    let source = PairSource::with_first(data, &settings, FirstEnd::Input, place.device)?;
    let params = train.precision.on(Params::new(train.seed, place.device))?;
    let network = match config.from_scratch {
        true => JointNetwork::new(&params.sub("denoiser"), &model, source.kinds())?,
        false => JointNetwork::from_foundation(&params, foundation, source.kinds())?,
    };
    let statistics = foundation.statistics().clone();
    let objective = JointObjective {
        network: network.recomputing(train.recompute),
        autoencoder: foundation.autoencoder().clone(),
        statistics: statistics.clone(),
        process: model.process.build()?,
        prediction: model.process.prediction,
        seed: train.seed,
    };
    let trainer = Trainer {
        params: &params,
        config: train,
        folder: place.folder,
        resume: place.resume,
        identity: Identity {
            architecture: serde_json::json!({ "kind": "pairs", "kinds": source.kinds(), "model": model }),
            config: serde_json::json!({ "from_scratch": config.from_scratch, "goal": config.goal,
                "foundation": weights_of(foundation)? }),
            data: fingerprint(data),
        },
        stop: place.stop,
    };
    let (steps, ema) = match trainer.run(&objective, &source, observers)? {
        Outcome::Finished { steps, ema } => (steps, ema),
        Outcome::Interrupted { step, .. } => return Ok(Ended::Interrupted(step)),
        _ => return Ok(Ended::Interrupted(0)),
    };
    let mut description = Description::new("pairs", model, Some(statistics));
    description.training = training_words(train, steps, data);
    let pairs = PairDescription {
        goal: config.goal,
        kinds: kinds_of(&source),
    };
    let mut tensors = foundation.tensors("autoencoder.");
    tensors.extend(ema);
    PairSynthesizer::save(&place.folder.join(MODEL_FILE), &tensors, &description, &pairs)?;
    Ok(Ended::Finished)
}

fn kinds_of(source: &PairSource) -> Vec<KindOfPairs> {
    let outputs = source.tasks().iter().flat_map(|task| {
        let outputs = task.head().outputs();
        outputs.into_iter().map(|tracer| (*task, tracer))
    });
    outputs
        .zip(source.ratios_of_kinds())
        .enumerate()
        .map(|(kind, ((task, tracer), ratios))| KindOfPairs {
            task,
            tracer,
            scales: measure_ratios(&source.target_scales(kind))
                .into_iter()
                .map(|of| ScaleOf {
                    prompt: of.prompt,
                    count: of.count,
                    mean_ln: of.mean_ln,
                    sd_ln: of.sd_ln,
                })
                .collect(),
            ratios: ratios.clone(),
        })
        .collect()
}
