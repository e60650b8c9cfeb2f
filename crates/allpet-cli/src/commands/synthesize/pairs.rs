//! Pairs of a task, input and target drawn jointly.

use super::results::{Results, in_geometry};
use super::{Args, provenance_of, samples, stopped};
use crate::fault::{Result, given};
use crate::model_file;
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::candle::Device;
use allpet::core::{Modality, Region, Task, Tracer};
use allpet::io::write_dataset;
use allpet::tasks::{Error, SynthesisOfPairs};
use ndarray::{Array3, Array4, Axis};
use serde_json::json;

pub(super) fn run(args: &Args, task: Task, device: &Device) -> Result<Report> {
    for (option, given_with_it) in [("--guidance", args.guidance != 1.0), ("--masks", args.masks)] {
        if given_with_it {
            return given(format!("{option} with --task; pairs are drawn without it"));
        }
    }
    let request = request(args, task)?;
    output::folder(&args.out)?;
    let (model, origin) = model_file::load_pairs(args.model.as_deref(), device)?;
    let own = *model.geometry();
    let (geometry, fbp) = args.prepare(&own, 2)?;
    let made =
        progress::watched(|progress| model.synthesise_pairs(&request, progress)).map_err(|e| match e {
            Error::Stopped { done, total } => stopped(done, total, "pairs"),
            other => other.into(),
        })?;
    let member = |sinograms: &Array3<f32>| in_geometry(sinograms, &own, &geometry);
    let both = [member(&made.inputs)?, member(&made.targets)?];
    let (count, views, bins) = both[0].dim();
    let mut sinograms = Array4::zeros((count, 2, views, bins));
    for (member, found) in both.iter().enumerate() {
        sinograms.index_axis_mut(Axis(1), member).assign(found);
    }
    let sinograms = sinograms.into_dyn();
    let images = fbp.reconstruct(sinograms.view())?;
    let captions = made.prompts.iter().enumerate().flat_map(|(i, prompt)| {
        let shown = [prompt.tracer.map(Tracer::label), prompt.region.map(Region::id)];
        let shown: Vec<&str> = shown.into_iter().flatten().collect();
        [
            [
                format!("pair {}, input", request.first + i as u64),
                task.label().to_owned(),
            ],
            ["target".to_owned(), shown.join(", ")],
        ]
    });
    let said = json!({
        "model": origin,
        "prompt": args.prompt,
        "task": request.task,
        "seed": request.seed,
        "first": request.first,
        "count": request.count,
        "sampler": request.sampler,
        "steps": request.steps,
        "eta": request.eta,
        "units": {
            "sinograms": "input, target: kBq/mL*mm",
            "reconstructions": "kBq/mL",
            "inconsistency": "rms of C_pos + C_neg - S over rms of S, of input and target",
        },
        "samples": samples(request.first, &made.prompts, &made.inconsistency),
    });
    let results = Results {
        sinograms: &sinograms,
        images: &images,
        captions: captions.collect(),
        provenance: provenance_of(&geometry, geometry != own, said),
    };
    // Training pairs have the model's own geometry.
    let files = results.write(&args.out, |folder| {
        let path = folder.join("pairs.safetensors");
        write_dataset(&path, &made.dataset())?;
        Ok(vec![path])
    })?;
    let json = json!({
        "out": args.out,
        "files": files,
        "count": args.count,
        "task": request.task,
        "sinograms": sinograms.shape(),
        "reconstructions": images.shape(),
        "inconsistency": made.inconsistency,
    });
    let text = format!(
        "{}: pairs of {}, {}, reconstructions of {}, pairs.safetensors, grid.png, provenance.json",
        args.out.display(),
        task.label(),
        output::by(sinograms.shape()),
        output::by(images.shape())
    );
    Ok(Report::new(json, text))
}

/// What the options ask for; without any, whatever the task shows.
fn request(args: &Args, task: Task) -> Result<SynthesisOfPairs> {
    let nothing = args.prompt.is_none() && args.tracer.is_empty() && args.region.is_empty();
    let shown = if nothing && args.modality.is_none() {
        vec![(None, None)]
    } else {
        let prompts = args.prompts()?;
        if prompts.iter().any(|p| p.modality == Modality::Ct) {
            return given("a CT with --task; the tasks are of PET");
        }
        prompts.iter().map(|p| (p.tracer, p.region)).collect()
    };
    let (sampler, eta) = args.sampler();
    Ok(SynthesisOfPairs {
        shown,
        count: args.count,
        first: args.first,
        seed: args.seed,
        sampler,
        steps: args.steps,
        eta,
        batch: args.batch,
        ..SynthesisOfPairs::new(args.settings.downstream(task)?)
    })
}
