//! Models: the file the user names, or the one that is part of the program.

use crate::fault::{Fault, Result, given};
use crate::output::tidy;
use allpet::candle::Device;
use allpet::foundation::Foundation;
use allpet::tasks::Restorer;
use allpet::train::Checksum;
use serde_json::{Value, json};
use std::path::Path;

/// A model and where it is from.
pub(crate) struct Loaded {
    pub(crate) model: Foundation,
    /// File, checksum, geometry and training, for provenance.
    pub(crate) origin: Value,
}

/// The model of `--model`, else the shipped one.
pub(crate) fn load(path: Option<&Path>, device: &Device) -> Result<Loaded> {
    let (name, sum, model) = match path {
        Some(path) => {
            let read = |e| {
                Fault::Given(format!(
                    "cannot read {}: {e}; expected a model file",
                    path.display()
                ))
            };
            let bytes = std::fs::read(path).map_err(read)?;
            let name = path.display().to_string();
            let model = Foundation::from_bytes(&name, &bytes, device)?;
            (name, checksum(&bytes), model)
        }
        None => {
            let Some(bytes) = allpet::pretrained_bytes() else {
                return given(
                    "no --model given and this build holds no weights; expected --model FILE.safetensors",
                );
            };
            let model = allpet::pretrained(device).map_err(|e| Fault::Other(e.to_string()))?;
            ("shipped with allpet".to_owned(), checksum(bytes), model)
        }
    };
    let description = model.description();
    let origin = json!({
        "file": name,
        "checksum": sum,
        "format": description.format,
        "kind": description.kind,
        "geometry": geometry(&description.model.geometry),
        "training": description.training,
    });
    Ok(Loaded { model, origin })
}

/// The model of the tasks of `--model`, else the shipped one.
pub(crate) fn load_tasks(path: Option<&Path>, device: &Device) -> Result<Restorer> {
    match path {
        Some(path) => Ok(Restorer::load(path, device)?),
        None if allpet::pretrained_tasks_bytes().is_some() => {
            allpet::pretrained_tasks(device).map_err(|e| Fault::Other(e.to_string()))
        }
        None => given("no --model given and this build holds no weights; expected --model FILE.safetensors"),
    }
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
