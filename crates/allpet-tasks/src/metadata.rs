//! What a model file of this crate says beside its model's description: one JSON under a key of its own.

use crate::error::{Error, Result};
use allpet_foundation::{Description, save_with};
use candle_core::Tensor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::Path;

/// Writes a model file, weights in half precision, with `said` under `key`.
pub(crate) fn save_saying<T: Serialize>(
    path: &Path,
    tensors: &BTreeMap<String, Tensor>,
    description: &Description,
    (key, said): (&str, &T),
) -> Result<()> {
    let json = serde_json::to_string(said).map_err(|e| Error::Mismatch {
        what: path.display().to_string(),
        expected: "a description".into(),
        got: e.to_string(),
    })?;
    let further = BTreeMap::from([(key.to_owned(), json)]);
    Ok(save_with(path, tensors, description, further)?)
}

/// What stands under `key`, a description of its `what`; `None` where nothing does. `name` is the file, for the message.
pub(crate) fn said<T: DeserializeOwned>(
    name: &str,
    metadata: &BTreeMap<String, String>,
    (key, what): (&str, &str),
) -> Result<Option<T>> {
    let parsed = metadata.get(key).map(|json| serde_json::from_str(json));
    parsed.transpose().map_err(|e| Error::Mismatch {
        what: name.to_owned(),
        expected: format!("a description of its {what}"),
        got: e.to_string(),
    })
}
