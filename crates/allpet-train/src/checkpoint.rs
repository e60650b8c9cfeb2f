//! Checkpoints: everything a step depends on, in one safetensors file.
//!
//! Tensors `model.*` (parameters), `adam.m.*`, `adam.v.*` (moments) and `ema.*` (moving average); metadata `format`,
//! `step` (steps done), `architecture`, `config`, `data` (JSON), `early_stop` (JSON, in runs that may stop early), and a
//! checksum of all of it. The file appears whole or not at all, and the one before it stays as `checkpoint.previous.safetensors`.

use crate::weights::{self, Contents, encode, write};
use crate::{Error, Plateau, Result};
use candle_core::{Device, Tensor};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The newest checkpoint in a run folder.
pub const FILE: &str = "checkpoint.safetensors";
/// The one before it.
pub const PREVIOUS: &str = "checkpoint.previous.safetensors";

const FORMAT: &str = "allpet checkpoint 1";
const EARLY_STOP: &str = "early_stop";
const KINDS: [&str; 4] = ["model.", "adam.m.", "adam.v.", "ema."];

/// What a run is of. A checkpoint resumes only under the same identity.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Identity {
    /// The model's configuration.
    pub architecture: Value,
    /// The training configuration (the executor fills in its own under `train`).
    pub config: Value,
    /// What stands for the data: a fingerprint, a file's checksum, the simulator's settings.
    pub data: Value,
}

/// The state of a run after `step` steps; each set has exactly the parameters' names.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// Steps done.
    pub step: u64,
    /// What early stopping remembers, in runs that have it.
    pub plateau: Option<Plateau>,
    /// What the run is of.
    pub identity: Identity,
    /// The parameters.
    pub model: BTreeMap<String, Tensor>,
    /// The first moments.
    pub m: BTreeMap<String, Tensor>,
    /// The second moments.
    pub v: BTreeMap<String, Tensor>,
    /// The moving average of the parameters.
    pub ema: BTreeMap<String, Tensor>,
}

/// Writes [`FILE`] into `folder` after keeping the one that was there as [`PREVIOUS`].
///
/// # Errors
/// [`Error::Core`] when the disk refuses; the checkpoints that were there stay.
pub fn save(folder: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let mut tensors = BTreeMap::new();
    let sets = [&checkpoint.model, &checkpoint.m, &checkpoint.v, &checkpoint.ema];
    for (kind, set) in KINDS.into_iter().zip(sets) {
        for (name, tensor) in set {
            let name = format!("{kind}{name}");
            let encoded = encode(&name, tensor, false)?;
            tensors.insert(name, encoded);
        }
    }
    let mut metadata = BTreeMap::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("step".to_owned(), checkpoint.step.to_string()),
        (
            "architecture".to_owned(),
            checkpoint.identity.architecture.to_string(),
        ),
        ("config".to_owned(), checkpoint.identity.config.to_string()),
        ("data".to_owned(), checkpoint.identity.data.to_string()),
    ]);
    if let Some(plateau) = &checkpoint.plateau {
        metadata.insert(EARLY_STOP.to_owned(), serde_json::json!(plateau).to_string());
    }
    let newest = folder.join(FILE);
    keep_previous(folder, &newest)?;
    write(&newest, &tensors, &metadata)
}

/// Gives the newest checkpoint its second name, so that at every instant a whole checkpoint has a name.
fn keep_previous(folder: &Path, newest: &Path) -> Result<()> {
    if !newest.exists() {
        return Ok(());
    }
    let previous = folder.join(PREVIOUS);
    let beside = folder.join(format!(".{PREVIOUS}.tmp"));
    let _ = std::fs::remove_file(&beside);
    // A file system without hard links: for a moment only the previous one has a name, and `find` looks there too.
    let kept = std::fs::hard_link(newest, &beside)
        .and_then(|()| std::fs::rename(&beside, &previous))
        .or_else(|_| std::fs::rename(newest, &previous));
    // Renaming one name of a file to another name of the same file does nothing (POSIX), as after a process that was
    // killed between here and the writing of the newest checkpoint.
    let _ = std::fs::remove_file(&beside);
    kept.map_err(|source| {
        Error::from(allpet_core::Error::Io {
            action: "keep",
            path: newest.to_owned(),
            source,
        })
    })
}

/// The newest checkpoint of a run folder, if it holds one.
pub fn find(folder: &Path) -> Option<PathBuf> {
    [FILE, PREVIOUS]
        .into_iter()
        .map(|name| folder.join(name))
        .find(|path| path.exists())
}

/// Removes the unfinished files that a process killed while it wrote `path` has left beside it.
pub(crate) fn remove_leftovers(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return;
    };
    let start = format!(".{}.", name.to_string_lossy());
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&start) && name.ends_with(".tmp") {
            // One that cannot be removed does no harm: nothing is ever read from it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Reads a checkpoint.
///
/// # Errors
/// [`Error::Damaged`] when it is cut short or changed, naming the previous checkpoint if that one is whole;
/// [`Error::Core`] when it cannot be read.
pub fn load(path: &Path, device: &Device) -> Result<Checkpoint> {
    match read(path, device) {
        Err(Error::Damaged { path, reason, .. }) => {
            let previous = path.with_file_name(PREVIOUS);
            let whole = if previous == path {
                None
            } else {
                read(&previous, &Device::Cpu).ok()
            };
            let advice = whole.map(|c| {
                format!(
                    "; {} (step {}) is whole: remove the damaged file to resume from it",
                    previous.display(),
                    c.step
                )
            });
            Err(Error::Damaged { path, reason, advice })
        }
        other => other,
    }
}

fn read(path: &Path, device: &Device) -> Result<Checkpoint> {
    let Contents {
        tensors,
        metadata,
        verified,
    } = weights::read(path, device)?;
    let damaged = |reason: String| Error::Damaged {
        path: path.to_owned(),
        reason,
        advice: None,
    };
    if !verified {
        return Err(damaged("it has no checksum".into()));
    }
    let word = |key: &str| {
        metadata
            .get(key)
            .map(String::as_str)
            .ok_or_else(|| damaged(format!("metadata `{key}` is missing")))
    };
    let format = word("format")?;
    if format != FORMAT {
        return Err(damaged(format!("its format is `{format}`; expected `{FORMAT}`")));
    }
    let json = |key: &str| {
        serde_json::from_str(word(key)?).map_err(|e| damaged(format!("metadata `{key}` is no JSON: {e}")))
    };
    let step = word("step")?;
    let step = step
        .parse()
        .map_err(|_| damaged(format!("its step is `{step}`; expected a number")))?;
    let identity = Identity {
        architecture: json("architecture")?,
        config: json("config")?,
        data: json("data")?,
    };
    let plateau = metadata.get(EARLY_STOP).map(|text| serde_json::from_str(text));
    let plateau = plateau
        .transpose()
        .map_err(|e| damaged(format!("metadata `{EARLY_STOP}` does not fit: {e}")))?;
    let mut sets = KINDS.map(|_| BTreeMap::new());
    for (name, tensor) in tensors {
        let found = KINDS
            .iter()
            .zip(&mut sets)
            .find_map(|(kind, set)| name.strip_prefix(kind).map(|n| (n, set)));
        match found {
            Some((name, set)) => set.insert(name.to_owned(), tensor),
            None => return Err(damaged(format!("it holds a foreign tensor `{name}`"))),
        };
    }
    let [model, m, v, ema] = sets;
    Ok(Checkpoint {
        step,
        plateau,
        identity,
        model,
        m,
        v,
        ema,
    })
}

impl Identity {
    /// Refuses a checkpoint (`self`, read from `path`) of another run than `expected`, naming the first difference.
    ///
    /// # Errors
    /// [`Error::OtherRun`].
    pub fn check(&self, expected: &Self, path: &Path) -> Result<()> {
        let pairs = [
            ("architecture", &self.architecture, &expected.architecture),
            ("config", &self.config, &expected.config),
            ("data", &self.data, &expected.data),
        ];
        let differs =
            |(name, got, expected): (&str, &Value, &Value)| first_difference(name, got, &read_back(expected));
        match pairs.into_iter().find_map(differs) {
            None => Ok(()),
            Some((what, got, expected)) => Err(Error::OtherRun {
                path: path.to_owned(),
                what,
                expected,
                got,
            }),
        }
    }
}

/// The value as a file gives it back: a float may lose its last bit in the JSON text, and a NaN becomes null.
fn read_back(value: &Value) -> Value {
    serde_json::from_str(&value.to_string()).unwrap_or_else(|_| value.clone())
}

/// The dotted name of the first value that differs, and both values.
fn first_difference(name: &str, a: &Value, b: &Value) -> Option<(String, String, String)> {
    if a == b {
        return None;
    }
    if let (Value::Object(x), Value::Object(y)) = (a, b) {
        let keys: std::collections::BTreeSet<_> = x.keys().chain(y.keys()).collect();
        return keys.into_iter().find_map(|key| {
            let absent = Value::String("absent".into());
            let (left, right) = (x.get(key).unwrap_or(&absent), y.get(key).unwrap_or(&absent));
            first_difference(&format!("{name}.{key}"), left, right)
        });
    }
    Some((name.to_owned(), a.to_string(), b.to_string()))
}
