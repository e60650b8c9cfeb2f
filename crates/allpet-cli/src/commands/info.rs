//! `allpet info`: what a file holds.

use crate::fault::{Fault, Result};
use crate::model_file::{checksum, geometry};
use crate::output::{self, tidy};
use crate::report::Report;
use allpet::core::{CylindricalScanner, Dataset, Prompt};
use allpet::foundation::{Description, ModelConfig, PRESETS, describe};
use allpet::io::{
    Format, InterfileHeader, ListMode, NpyHeader, TensorsHeader, detect, read_dataset, read_metadata,
    read_npy_header, read_npz_headers,
};
use allpet::tasks::{Downstream, PairDescription, TaskDescription, describe_pairs, describe_tasks};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Tell what a file holds: format, shapes, geometry; of a model also its tasks, prompts and training data
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Any file that allpet reads
    file: PathBuf,
}

impl Args {
    pub(crate) fn run(&self) -> Result<Report> {
        let path = &self.file;
        let format = detect(path)?;
        let mut facts = Facts::new(path, format);
        match format {
            Format::Npy => facts.arrays([(String::from("array"), read_npy_header(path)?)]),
            Format::Npz => facts.arrays(read_npz_headers(path)?),
            Format::Safetensors => facts.tensors(path, &read_metadata(path)?)?,
            Format::Interfile | Format::ListMode => facts.list_mode(path)?,
            Format::Png => {}
        }
        Ok(facts.report())
    }
}

/// Facts in order, for people and as JSON.
struct Facts {
    json: Map<String, Value>,
    lines: Vec<String>,
}

impl Facts {
    fn new(path: &Path, format: Format) -> Self {
        let mut facts = Self {
            json: Map::new(),
            lines: Vec::new(),
        };
        facts.add("file", json!(path));
        facts.add("format", json!(format.label()));
        facts
    }

    fn add(&mut self, name: &str, value: Value) {
        let word = name.replace('_', " ");
        match &value {
            Value::Null => return,
            Value::Object(entries) => {
                self.lines.push(format!("{word}:"));
                let lines = entries
                    .iter()
                    .map(|(name, v)| format!("  {}: {}", name.replace('_', " "), plain(v)));
                self.lines.extend(lines);
            }
            Value::Array(items) if items.len() > 1 => {
                self.lines.push(format!("{word}:"));
                self.lines
                    .extend(items.iter().map(|item| format!("  {}", plain(item))));
            }
            Value::Array(items) => {
                self.lines.push(format!(
                    "{word}: {}",
                    items.first().map_or("none".to_owned(), plain)
                ));
            }
            other => self.lines.push(format!("{word}: {}", plain(other))),
        }
        self.json.insert(name.to_owned(), value);
    }

    fn report(self) -> Report {
        Report::new(Value::Object(self.json), self.lines.join("\n"))
    }

    fn list(&mut self, entries: impl IntoIterator<Item = (String, String, Vec<usize>)>) {
        let mut arrays = Vec::new();
        self.lines.push("arrays:".to_owned());
        for (name, dtype, shape) in entries {
            self.lines
                .push(format!("  {name}: {dtype} [{}]", output::by(&shape)));
            arrays.push(json!({ "name": name, "dtype": dtype, "shape": shape }));
        }
        self.json.insert("arrays".to_owned(), Value::Array(arrays));
    }

    fn arrays(&mut self, headers: impl IntoIterator<Item = (String, NpyHeader)>) {
        self.list(
            headers
                .into_iter()
                .map(|(name, header)| (name, header.dtype, header.shape)),
        );
    }

    fn tensors(&mut self, path: &Path, header: &TensorsHeader) -> Result<()> {
        let own = header
            .metadata
            .get("allpet")
            .and_then(|json| serde_json::from_str::<Value>(json).ok());
        let kind = own.as_ref().and_then(|json| json.get("kind")).is_some();
        let dataset = own
            .as_ref()
            .and_then(|json| json.get("format"))
            .is_some_and(Value::is_string)
            || header.tensors.iter().any(|t| t.name == "subject");
        if kind {
            let model = describe(&path.display().to_string(), &header.metadata)?;
            let bytes = std::fs::read(path)
                .map_err(|e| Fault::Given(format!("cannot read {}: {e}", path.display())))?;
            let name = path.display().to_string();
            let tasks = describe_tasks(&name, &header.metadata)?;
            let pairs = describe_pairs(&name, &header.metadata)?;
            self.model(&model, tasks.as_ref(), pairs.as_ref());
            let values: usize = header
                .tensors
                .iter()
                .map(|t| t.shape.iter().product::<usize>())
                .sum();
            self.add("parameters", json!(values));
            self.add("checksum", json!(checksum(&bytes)));
        } else if dataset {
            self.dataset(&read_dataset(path)?);
        } else if let Some(step) = header.metadata.get("step") {
            self.add("kind", json!("checkpoint of a training run"));
            self.add("step", json!(step.parse::<u64>().ok()));
        } else {
            self.add("kind", json!("tensors of another program"));
            self.list(
                header
                    .tensors
                    .iter()
                    .map(|t| (t.name.clone(), t.dtype.clone(), t.shape.clone())),
            );
        }
        Ok(())
    }

    fn model(
        &mut self,
        model: &Description,
        tasks: Option<&TaskDescription>,
        pairs: Option<&PairDescription>,
    ) {
        self.add("kind", json!(model.kind));
        self.add("preset", json!(preset_of(&model.model)));
        self.add("geometry", geometry(&model.model.geometry));
        if let Some(restores) = tasks {
            self.add("method", json!(restores.method));
            self.add("attention", json!(restores.attention.is_some()));
            self.downstream(restores.tasks.iter());
            self.prompts(restores.ratios.iter().map(|r| (r.prompt, r.count)));
        } else if let Some(pairs) = pairs {
            self.downstream(pairs.kinds.iter().map(|kind| &kind.task));
            let ratios = pairs.kinds.iter().flat_map(|kind| &kind.ratios);
            self.prompts(ratios.map(|r| (r.prompt, r.count)));
        } else if let Some(statistics) = &model.statistics {
            let tasks = statistics.scales.iter().map(|s| s.prompt.task.id());
            self.list_tasks(tasks.collect());
            let counts = statistics.scales.iter().map(|s| (s.prompt, s.count));
            self.prompts(counts);
        }
        self.add("training", json!(model.training));
    }

    fn dataset(&mut self, dataset: &Dataset) {
        self.add("kind", json!("dataset"));
        self.add("samples", json!(dataset.len()));
        self.add("subjects", json!(dataset.distinct_subjects().len()));
        if let Some(found) = &dataset.geometry {
            self.add("geometry", geometry(found));
        }
        let mut prompts = dataset.prompts.clone();
        prompts.sort_unstable();
        self.prompts(prompts.chunk_by(|a, b| a == b).map(|same| (same[0], same.len())));
        self.add("metadata", json!(dataset.metadata));
        self.list(
            dataset
                .arrays
                .iter()
                .map(|(name, a)| (name.clone(), "F32".to_owned(), a.shape().to_vec())),
        );
    }

    /// Tasks by name, and with their settings.
    fn downstream<'a>(&mut self, tasks: impl Iterator<Item = &'a Downstream> + Clone) {
        self.list_tasks(tasks.clone().map(|t| t.task().id()).collect());
        let mut settings: Vec<String> = tasks.map(Downstream::to_string).collect();
        settings.dedup();
        self.add("settings", json!(settings));
    }

    fn list_tasks(&mut self, mut tasks: Vec<&str>) {
        tasks.sort_unstable();
        tasks.dedup();
        self.add("tasks", json!(tasks));
    }

    fn prompts(&mut self, counts: impl Iterator<Item = (Prompt, usize)>) {
        let words: Vec<String> = counts
            .map(|(prompt, count)| format!("{prompt} ({count})"))
            .collect();
        if !words.is_empty() {
            self.add("prompts", json!(words));
        }
    }

    fn list_mode(&mut self, path: &Path) -> Result<()> {
        // A header whose data are missing still tells about itself.
        let opened = ListMode::open(path, None);
        let header = match &opened {
            Ok(list_mode) => list_mode.header.clone(),
            Err(_) => InterfileHeader::read(path)?,
        };
        let scanner = header.scanner()?;
        let mmr = CylindricalScanner::mmr();
        let same = scanner.crystals == mmr.crystals
            && (scanner.bins, scanner.rings) == (mmr.bins, mmr.rings)
            && (scanner.ring_radius_mm - mmr.ring_radius_mm).abs() < 1e-6;
        self.add(
            "scanner",
            json!(if same {
                "Siemens Biograph mMR"
            } else {
                "cylindrical"
            }),
        );
        self.add("system", json!(header.get("originating system")));
        self.add("isotope", json!(header.get("isotope name")));
        self.add("radiopharmaceutical", json!(header.get("radiopharmaceutical")));
        self.add("views", json!(scanner.views()));
        self.add("bins", json!(scanner.bins));
        self.add("bin_mm", json!(tidy(scanner.bin_mm)));
        self.add("rings", json!(scanner.rings));
        self.add("planes", json!(scanner.planes()));
        self.add("ring_radius_mm", json!(tidy(scanner.ring_radius_mm)));
        self.add("announced_seconds", json!(header.number("image duration (sec)")?));
        self.add(
            "announced_words",
            json!(header.integer("total listmode word counts")?),
        );
        match opened {
            Ok(list_mode) => {
                self.add("data", json!(list_mode.data));
                self.add("words", json!(list_mode.words));
                if !list_mode.warnings.is_empty() {
                    self.add("warnings", json!(list_mode.warnings));
                }
            }
            Err(fault) => self.add("data_fault", json!(fault.to_string())),
        }
        Ok(())
    }
}

/// The preset that gives this autoencoder and denoiser.
fn preset_of(config: &ModelConfig) -> &'static str {
    let same = |name: &&&str| {
        ModelConfig::preset(name)
            .is_ok_and(|p| p.autoencoder == config.autoencoder && p.denoiser == config.denoiser)
    };
    PRESETS.iter().find(same).copied().unwrap_or("custom")
}

/// A value without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
