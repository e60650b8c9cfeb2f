//! A trained model of pairs, and its file.

use super::network::JointNetwork;
use crate::error::{Error, Result};
use crate::heads::Downstream;
use crate::metadata::{said, save_saying};
use crate::pairs::Goal;
use crate::statistics::ScaleRatio;
use allpet_autoencoder::Autoencoder;
use allpet_core::{ParallelGeometry, Tracer};
use allpet_diffusion::GaussianProcess;
use allpet_foundation::{Description, ModelConfig, ScaleOf, Statistics, describe};
use allpet_nn::Params;
use allpet_train::{load_model, load_model_bytes};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of the pairs' description in the file's metadata, beside the model's own.
const KEY: &str = "allpet_pairs";

/// The kind that a file of this model has in its description.
const KIND: &str = "pairs";

/// A kind of pair: one output of a task with its settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KindOfPairs {
    /// The task.
    pub task: Downstream,
    /// The target's tracer, where the task decides it.
    pub tracer: Option<Tracer>,
    /// Scales of the targets, by prompt.
    pub scales: Vec<ScaleOf>,
    /// Scales of the targets over those of their inputs (in the target's unit), by prompt.
    pub ratios: Vec<ScaleRatio>,
}

/// What a file of pairs says beside its model's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairDescription {
    /// What the targets are.
    pub goal: Goal,
    /// The kinds of pairs it was trained on.
    pub kinds: Vec<KindOfPairs>,
}

/// A trained model that draws pairs.
#[derive(Debug, Clone)]
pub struct PairSynthesizer {
    pub(super) description: Description,
    pub(super) pairs: PairDescription,
    pub(super) statistics: Statistics,
    pub(super) autoencoder: Autoencoder,
    pub(super) network: JointNetwork,
    pub(super) process: GaussianProcess,
    pub(super) device: Device,
}

impl PairSynthesizer {
    /// Reads a model file.
    ///
    /// # Errors
    /// A file that is missing, damaged, of another kind, or whose tensors do not fit its configuration.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let (tensors, metadata) = load_model(path, device)?;
        Self::from_parts(&path.display().to_string(), &tensors, &metadata, device)
    }

    /// The same from bytes in memory, for embedded weights; `name` stands for the file in errors.
    ///
    /// # Errors
    /// As [`PairSynthesizer::load`].
    pub fn from_bytes(name: &str, bytes: &[u8], device: &Device) -> Result<Self> {
        let (tensors, metadata) = load_model_bytes(name, bytes, device)?;
        Self::from_parts(name, &tensors, &metadata, device)
    }

    /// The same from what a file holds.
    ///
    /// # Errors
    /// As [`PairSynthesizer::load`].
    pub fn from_parts(
        name: &str,
        tensors: &BTreeMap<String, Tensor>,
        metadata: &BTreeMap<String, String>,
        device: &Device,
    ) -> Result<Self> {
        let description = describe(name, metadata)?;
        let (Some(statistics), Some(pairs), true) = (
            description.statistics.clone(),
            describe_pairs(name, metadata)?,
            description.kind == KIND,
        ) else {
            return Err(Error::Mismatch {
                what: name.to_owned(),
                expected: "a model of pairs".into(),
                got: format!("kind `{}`", description.kind),
            });
        };
        for kind in &pairs.kinds {
            kind.task.validate()?;
        }
        let config = &description.model;
        config.validate()?;
        let params = Params::new(0, device);
        let autoencoder = Autoencoder::new(&params.sub("autoencoder"), &config.autoencoder)?;
        let network = JointNetwork::new(&params.sub("denoiser"), config, pairs.kinds.len())?;
        params.load(tensors)?;
        Ok(Self {
            statistics,
            autoencoder,
            network,
            process: config.process.build()?,
            device: device.clone(),
            pairs,
            description,
        })
    }

    /// Writes a model file, weights in half precision.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(
        path: &Path,
        tensors: &BTreeMap<String, Tensor>,
        description: &Description,
        pairs: &PairDescription,
    ) -> Result<()> {
        save_saying(path, tensors, description, (KEY, pairs))
    }

    /// What the file says of the model.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What the file says of its pairs.
    pub fn pairs(&self) -> &PairDescription {
        &self.pairs
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.description.model
    }

    /// The geometry of the sinograms it gives.
    pub fn geometry(&self) -> &ParallelGeometry {
        &self.description.model.geometry
    }

    /// The tasks it draws pairs of, with their settings.
    pub fn tasks(&self) -> Vec<Downstream> {
        let mut tasks: Vec<Downstream> = self.pairs.kinds.iter().map(|kind| kind.task).collect();
        tasks.dedup();
        tasks
    }
}

/// What the pairs' metadata of a file say, for programs that only look.
///
/// # Errors
/// Metadata that cannot be read; `name` is the file, for the message. `None` for a model of another kind.
pub fn describe_pairs(name: &str, metadata: &BTreeMap<String, String>) -> Result<Option<PairDescription>> {
    said(name, metadata, (KEY, "pairs"))
}
