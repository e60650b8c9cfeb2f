//! [`Dataset`]s as safetensors.
//!
//! Arrays are f32 tensors under their own names; `subject` is u32 `[n]`; `prompt` is u32 `[n, 4]` with the columns
//! tracer + 1 or 0, region + 1 or 0, modality, task, by the vocabulary's stable positions. The metadata key
//! `allpet` holds JSON: format, version, geometry and the dataset's own metadata.

use crate::error::{Error, Result, listed};
use crate::tensors::{Part, TensorsFile, malformed, write_parts};
use allpet_core::{Dataset, Modality, ParallelGeometry, Prompt, Region, Task, Tracer};
use ndarray::{ArrayD, IxDyn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

const KEY: &str = "allpet";
const FORMAT: &str = "allpet-dataset";
const VERSION: u32 = 1;
const SUBJECT: &str = "subject";
const PROMPT: &str = "prompt";
const ARRAYS: [&str; 4] = ["attenuation", "image", "input", "target"];

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: String,
    version: u32,
    geometry: Option<ParallelGeometry>,
    metadata: BTreeMap<String, String>,
}

/// Writes a dataset, whole or not at all; the same dataset gives the same bytes.
///
/// # Errors
/// A dataset that does not pass [`Dataset::validate`]; an array named `subject` or `prompt`; the file system's.
pub fn write_dataset(path: &Path, dataset: &Dataset) -> Result<()> {
    let content = |source| Error::Content {
        path: path.to_owned(),
        source,
    };
    dataset.validate().map_err(content)?;
    let mut parts = BTreeMap::new();
    for (name, array) in &dataset.arrays {
        if [SUBJECT, PROMPT].contains(&name.as_str()) {
            let fault = format!("an array is named `{name}`, which the format keeps for itself");
            return Err(content(allpet_core::Error::Invalid {
                what: "dataset".to_owned(),
                faults: vec![fault],
            }));
        }
        parts.insert(name.as_str(), Part::F32(array.view()));
    }
    parts.insert(SUBJECT, Part::U32(vec![dataset.len()], dataset.subjects.clone()));
    if !dataset.prompts.is_empty() {
        let rows = dataset.prompts.iter().flat_map(|p| encode(*p)).collect();
        parts.insert(PROMPT, Part::U32(vec![dataset.prompts.len(), 4], rows));
    }
    let description = Description {
        format: FORMAT.to_owned(),
        version: VERSION,
        geometry: dataset.geometry,
        metadata: dataset.metadata.clone(),
    };
    let json = serde_json::to_string(&description).map_err(|e| malformed(path, e.to_string()))?;
    write_parts(path, &parts, &BTreeMap::from([(KEY.to_owned(), json)]))
}

/// Reads a dataset.
///
/// `prompt` and the metadata may be absent (a file made by other hands); `subject` and one of `input`, `target`,
/// `image`, `attenuation` may not.
///
/// # Errors
/// A missing or damaged file, wrong names, element types or shapes, an unknown format version, and whatever
/// [`Dataset::validate`] finds, NaN included.
pub fn read_dataset(path: &Path) -> Result<Dataset> {
    let mut file = TensorsFile::open(path)?;
    let header = file.header();
    let names: Vec<&str> = header.tensors.iter().map(|t| t.name.as_str()).collect();
    if !names.contains(&SUBJECT) || !ARRAYS.iter().any(|a| names.contains(a)) {
        return Err(Error::Missing {
            path: path.to_owned(),
            expected: format!("dataset (`{SUBJECT}` and at least one of {})", ARRAYS.join(", ")),
            got: listed(&names),
        });
    }
    let mut dataset = Dataset::default();
    if let Some(json) = header.metadata.get(KEY) {
        let fault = |fault: String| malformed(path, format!("its metadata `{KEY}`: {fault}"));
        let description: Description = serde_json::from_str(json).map_err(|e| fault(e.to_string()))?;
        if description.format != FORMAT || description.version != VERSION {
            let found = format!("{} version {}", description.format, description.version);
            return Err(fault(format!("{found}; expected {FORMAT} version {VERSION}")));
        }
        dataset.geometry = description.geometry;
        dataset.metadata = description.metadata;
    }
    for info in &header.tensors {
        let name = info.name.as_str();
        let shape = |expected: &str| Error::Shape {
            place: format!("`{name}` of {}", path.display()),
            got: info.shape.clone(),
            expected: expected.to_owned(),
        };
        match name {
            SUBJECT if info.shape.len() != 1 => return Err(shape("[n], one number for each sample")),
            SUBJECT => dataset.subjects = file.read_u32(name)?,
            PROMPT if info.shape.len() != 2 || info.shape[1] != 4 => {
                return Err(shape("[n, 4]: tracer, region, modality, task"));
            }
            PROMPT => {
                let words = file.read_u32(name)?;
                let decoded = words.chunks_exact(4).enumerate().map(|(row, words)| {
                    decode(words).ok_or_else(|| {
                        malformed(
                            path,
                            format!("row {row} of `{PROMPT}` is {words:?}, outside the vocabulary"),
                        )
                    })
                });
                dataset.prompts = decoded.collect::<Result<_>>()?;
            }
            _ => {
                let values = file.read_f32(name)?;
                let array = ArrayD::from_shape_vec(IxDyn(&info.shape), values)
                    .map_err(|_| shape("a shape that fits in memory"))?;
                dataset.arrays.insert(name.to_owned(), array);
            }
        }
    }
    dataset.validate().map_err(|source| Error::Content {
        path: path.to_owned(),
        source,
    })?;
    Ok(dataset)
}

fn encode(prompt: Prompt) -> [u32; 4] {
    let tracer = prompt.tracer.map_or(0, |t| t.index() + 1);
    let region = prompt.region.map_or(0, |r| r.index() + 1);
    [tracer, region, prompt.modality.index(), prompt.task.index()].map(|i| i as u32)
}

fn decode(words: &[u32]) -> Option<Prompt> {
    let tracer = match words[0] {
        0 => None,
        t => Some(Tracer::from_index(t as usize - 1)?),
    };
    let region = match words[1] {
        0 => None,
        r => Some(Region::from_index(r as usize - 1)?),
    };
    let (modality, task) = (
        Modality::from_index(words[2] as usize)?,
        Task::from_index(words[3] as usize)?,
    );
    Some(Prompt {
        tracer,
        region,
        modality,
        task,
    })
}
