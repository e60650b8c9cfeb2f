//! A trained model of the tasks, and its file.

use crate::attention::Attention;
use crate::error::{Error, Result};
use crate::heads::Downstream;
use crate::metadata::{said, save_saying};
use crate::network::{Method, TaskNetwork};
use crate::pairs::kind_of;
use crate::statistics::{ScaleRatio, knows, ratio_of};
use allpet_autoencoder::Autoencoder;
use allpet_core::{ParallelGeometry, Prompt, Task};
use allpet_diffusion::{BridgeProcess, EndMoments};
use allpet_foundation::{Description, ModelConfig, Statistics, describe};
use allpet_nn::Params;
use allpet_train::{load_model, load_model_bytes};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Key of the tasks' description in the file's metadata, beside the model's own.
const KEY: &str = "allpet_tasks";

/// The kind that a file of this crate has in its description.
const KIND: &str = "tasks";

/// What a file of the tasks says beside its model's description.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskDescription {
    /// Bridge or regression.
    pub method: Method,
    /// The tasks it was trained on, with their settings.
    pub tasks: Vec<Downstream>,
    /// Scales of targets over those of inputs.
    pub ratios: Vec<ScaleRatio>,
    /// Moments of the bridge's ends, for every output of every task in turn; empty for a regression.
    pub moments: Vec<EndMoments>,
    /// How attention was found in training; absent where there was none.
    pub attention: Option<Attention>,
}

/// A trained model of the tasks.
#[derive(Debug, Clone)]
pub struct Restorer {
    pub(crate) description: Description,
    pub(crate) tasks: TaskDescription,
    pub(crate) statistics: Statistics,
    pub(crate) autoencoder: Autoencoder,
    pub(crate) network: TaskNetwork,
    pub(crate) walk: Walk,
    pub(crate) device: Device,
}

/// What the method needs beside the network.
#[derive(Debug, Clone)]
pub(crate) enum Walk {
    Bridge(BridgeProcess),
    Regression,
}

impl Restorer {
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
    /// As [`Restorer::load`].
    pub fn from_bytes(name: &str, bytes: &[u8], device: &Device) -> Result<Self> {
        let (tensors, metadata) = load_model_bytes(name, bytes, device)?;
        Self::from_parts(name, &tensors, &metadata, device)
    }

    fn from_parts(
        name: &str,
        tensors: &BTreeMap<String, Tensor>,
        metadata: &BTreeMap<String, String>,
        device: &Device,
    ) -> Result<Self> {
        let mismatch = |expected: &str, got: String| Error::Mismatch {
            what: name.to_owned(),
            expected: expected.to_owned(),
            got,
        };
        let description = describe(name, metadata)?;
        let kind = description.kind.clone();
        let (Some(statistics), Some(tasks), true) = (
            description.statistics.clone(),
            describe_tasks(name, metadata)?,
            kind == KIND,
        ) else {
            return Err(mismatch("a model of the tasks", format!("kind `{kind}`")));
        };
        for task in &tasks.tasks {
            task.validate()?;
        }
        let config = &description.model;
        config.validate()?;
        let params = Params::new(0, device);
        let autoencoder = Autoencoder::new(&params.sub("autoencoder"), &config.autoencoder)?;
        let network = TaskNetwork::new(&params.sub("denoiser"), config, tasks.method)?;
        params.load(tensors)?;
        let walk = match tasks.method {
            Method::Regression => Walk::Regression,
            Method::Bridge => {
                let kinds = kind_of(&tasks.tasks, tasks.tasks.len(), 0);
                let wrong = tasks
                    .moments
                    .iter()
                    .find(|m| m.channels() != config.autoencoder.latent);
                if tasks.moments.len() != kinds || wrong.is_some() {
                    return Err(mismatch(
                        &format!(
                            "moments of {kinds} outputs with {} channels",
                            config.autoencoder.latent
                        ),
                        format!("{} of {:?}", tasks.moments.len(), wrong.map(EndMoments::channels)),
                    ));
                }
                for moments in &tasks.moments {
                    moments.validate()?;
                }
                Walk::Bridge(config.process.build_bridge()?)
            }
        };
        Ok(Self {
            statistics,
            autoencoder,
            network,
            walk,
            device: device.clone(),
            description,
            tasks,
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
        tasks: &TaskDescription,
    ) -> Result<()> {
        save_saying(path, tensors, description, (KEY, tasks))
    }

    /// What the file says of the model.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// What the file says of its tasks.
    pub fn tasks(&self) -> &TaskDescription {
        &self.tasks
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.description.model
    }

    /// The geometry of the sinograms it takes and gives.
    pub fn geometry(&self) -> &ParallelGeometry {
        &self.description.model.geometry
    }

    /// Whether it was trained on this task.
    pub fn knows(&self, task: Task) -> bool {
        knows(&self.tasks.ratios, task)
    }

    /// The moments for output `output` of a task: of the task itself, or of the same with the nearest dose.
    pub(crate) fn moments(&self, task: &Downstream, output: usize) -> Option<&EndMoments> {
        let known = &self.tasks.tasks;
        let distance = |known: &Downstream| match (known, task) {
            (Downstream::LowDose(known), Downstream::LowDose(asked)) => {
                Some((known.dose / asked.dose).ln().abs())
            }
            (Downstream::Separation(known), Downstream::Separation(asked)) => {
                known.same_tracers(asked).then_some(0.0)
            }
            _ => (known == task).then_some(0.0),
        };
        let (at, _) = known
            .iter()
            .enumerate()
            .filter_map(|(i, known)| Some((i, distance(known)?)))
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        // The outputs of a separation may be asked for in another order than they were learnt in.
        let tracer = task.head().outputs().get(output).copied()?;
        let output = known[at].head().outputs().iter().position(|t| *t == tracer)?;
        self.tasks.moments.get(kind_of(known, at, output))
    }

    /// The scale of a target over that of its first estimate; 1 under a prompt that the model was not trained on.
    pub(crate) fn ratio(&self, prompt: &Prompt) -> f64 {
        ratio_of(&self.tasks.ratios, prompt).unwrap_or(1.0)
    }
}

/// What the tasks' metadata of a file say, for programs that only look.
///
/// # Errors
/// Metadata that cannot be read; `name` is the file, for the message. `None` for a model of another kind.
pub fn describe_tasks(name: &str, metadata: &BTreeMap<String, String>) -> Result<Option<TaskDescription>> {
    said(name, metadata, (KEY, "tasks"))
}
