//! Samplers of the bridge on the same weights: means of samples of DBIM beside those of DDBM's hybrid Heun sampler.

use super::restoration::{Walks, given, restored, section, test_set};
use super::{Args, finish, kept};
use crate::fault::Result;
use crate::model_file;
use crate::progress;
use crate::report::{Report, note};
use allpet::core::Task;
use allpet::diffusion::sampler_by_name;
use allpet::sim::tasks::PairedTask;
use allpet::sim::{TaskConfig, simulate_task};
use allpet::tasks::study::Cases;
use allpet::tasks::{Error, Restorer};
use serde_json::{Value, json};

/// Names and steps; DDBM's takes three evaluations in all steps but the last.
const SAMPLERS: [(&str, usize); 7] = [
    ("dbim2", 10),
    ("dbim2", 1),
    ("dbim2", 5),
    ("dbim2", 20),
    ("dbim1", 10),
    ("ddbm", 4),
    ("ddbm", 40),
];

pub(super) fn run(args: &Args) -> Result<Report> {
    progress::stop_flag();
    let device = args.device.cpu()?;
    let given = args.model.as_deref().filter(|path| path.as_os_str() != "shipped");
    let model = model_file::load_tasks(given, &device)?;
    let (count, samples) = if args.quick { (2, 2) } else { (25, 8) };
    let mut text = String::new();
    let mut all = serde_json::Map::new();
    for (id, title, task) in [
        ("low-dose-4", "Low dose, 1/4", Task::LowDose),
        ("attenuation", "Attenuation correction", Task::Attenuation),
    ] {
        let set = test_set(PairedTask::new(task)?, count, *model.geometry());
        let value = kept(&args.out, args.resume, &format!("samplers-{id}"), || {
            note(&format!("{title}: restoring"));
            judge(title, &set, &model, samples, args.quick)
        })?;
        text.push_str(value["markdown"].as_str().unwrap_or_default());
        all.insert(id.to_owned(), value);
    }
    finish(
        args,
        "samplers",
        &text,
        all,
        &format!("{} samplers", SAMPLERS.len()),
    )
}

/// The mean of `samples` walks of every sampler, beside the first estimate.
fn judge(title: &str, set: &TaskConfig, model: &Restorer, samples: usize, quick: bool) -> Result<Value> {
    let cases = Cases::new(&simulate_task(set, &|_| {})?)?;
    let mut rows = vec![given(&cases, "first estimate", cases.estimated().view())?];
    let mut first = String::new();
    for (sampler, steps) in SAMPLERS {
        let steps = if quick { steps.min(2) } else { steps };
        let evaluations = sampler_by_name(sampler, 0.0)
            .map_err(Error::from)?
            .evaluations(steps);
        let name = format!("{sampler}, {evaluations} eval.");
        let walks = Walks {
            sampler,
            steps,
            samples,
        };
        rows.push(restored(&cases, model, &name, walks)?);
        if first.is_empty() {
            first = name;
        }
    }
    let markdown = section(title, set, &rows, &first, quick)?;
    Ok(json!({ "title": title, "seed": set.seed, "samples": samples, "rows": rows, "markdown": markdown }))
}
