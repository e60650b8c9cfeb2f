//! Models: the file the user names, or the one that is part of the program.

use crate::fault::{Fault, Result, given};
use crate::output::tidy;
use allpet::candle::Device;
use allpet::foundation::{Description, Foundation};
use allpet::tasks::{PairSynthesizer, Restorer};
use allpet::train::Checksum;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::path::Path;

/// What stands for a file's name where there is none.
const SHIPPED: &str = "shipped with allpet";

/// A model and where it is from.
pub(crate) struct Loaded {
    pub(crate) model: Foundation,
    /// File, checksum, geometry and training, for provenance.
    pub(crate) origin: Value,
}

/// The model of `--model`, else the shipped one.
pub(crate) fn load(path: Option<&Path>, device: &Device) -> Result<Loaded> {
    let (name, bytes, model) = match path {
        Some(path) => {
            let (name, bytes) = (path.display().to_string(), read(path)?);
            let model = Foundation::from_bytes(&name, &bytes, device)?;
            (name, Cow::from(bytes), model)
        }
        None => {
            let Some(bytes) = allpet::pretrained_bytes() else {
                return no_weights();
            };
            let model = allpet::pretrained(device).map_err(|e| Fault::Other(e.to_string()))?;
            (SHIPPED.to_owned(), Cow::from(bytes), model)
        }
    };
    let origin = origin(&name, &bytes, model.description());
    Ok(Loaded { model, origin })
}

/// The model of the tasks of `--model`, else the shipped one.
pub(crate) fn load_tasks(path: Option<&Path>, device: &Device) -> Result<Restorer> {
    match path {
        Some(path) => Ok(Restorer::load(path, device)?),
        None if allpet::pretrained_tasks_bytes().is_some() => {
            allpet::pretrained_tasks(device).map_err(|e| Fault::Other(e.to_string()))
        }
        None => no_weights(),
    }
}

/// The model of pairs of `--model`, else the shipped one, and where it is from.
pub(crate) fn load_pairs(path: Option<&Path>, device: &Device) -> Result<(PairSynthesizer, Value)> {
    let (name, bytes, model) = match path {
        Some(path) => {
            let (name, bytes) = (path.display().to_string(), read(path)?);
            let model = PairSynthesizer::from_bytes(&name, &bytes, device)?;
            (name, Cow::from(bytes), model)
        }
        None => {
            let Some(bytes) = allpet::pretrained_pairs_bytes() else {
                return no_weights();
            };
            let model = allpet::pretrained_pairs(device).map_err(|e| Fault::Other(e.to_string()))?;
            (SHIPPED.to_owned(), Cow::from(bytes), model)
        }
    };
    let origin = origin(&name, &bytes, model.description());
    Ok((model, origin))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Fault::Given(format!(
            "cannot read {}: {e}; expected a model file",
            path.display()
        ))
    })
}

fn no_weights<T>() -> Result<T> {
    given("no --model given and this build holds no weights; expected --model FILE.safetensors")
}

/// File, checksum, geometry and training, for provenance.
fn origin(name: &str, bytes: &[u8], description: &Description) -> Value {
    json!({
        "file": name,
        "checksum": checksum(bytes),
        "format": description.format,
        "kind": description.kind,
        "geometry": geometry(&description.model.geometry),
        "training": description.training,
    })
}

/// A geometry with angles in degrees.
pub(crate) fn geometry(geometry: &allpet::core::ParallelGeometry) -> Value {
    json!({
        "views": geometry.views,
        "bins": geometry.bins,
        "bin_mm": geometry.bin_mm,
        "arc_deg": tidy(geometry.arc_rad.to_degrees()),
        "start_deg": tidy(geometry.start_rad.to_degrees()),
        "offset_bins": geometry.offset_bins,
    })
}

/// The checksum of a model file, as in provenance.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    let mut checksum = Checksum::new();
    checksum.add(bytes);
    checksum.hex()
}
