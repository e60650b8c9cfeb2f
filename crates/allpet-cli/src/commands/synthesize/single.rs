//! One sinogram a sample.

use super::results::{Results, in_geometry};
use super::{Args, provenance_of, samples, stopped};
use crate::fault::Result;
use crate::model_file;
use crate::output;
use crate::progress;
use crate::report::Report;
use allpet::candle::Device;
use allpet::core::{Modality, ParallelGeometry};
use allpet::foundation::{Error, Foundation, Synthesis, SynthesisRequest};
use serde_json::{Value, json};

pub(super) fn run(args: &Args, device: &Device) -> Result<Report> {
    let prompts = args.prompts()?;
    output::folder(&args.out)?;
    let loaded = model_file::load(args.model.as_deref(), device)?;
    let own = loaded.model.config().geometry;
    let (geometry, fbp) = args.prepare(&own, 1)?;
    let (sampler, eta) = args.sampler();
    let request = SynthesisRequest {
        prompts,
        count: args.count,
        first: args.first,
        seed: args.seed,
        sampler,
        steps: args.steps,
        eta,
        guidance: args.guidance,
        batch: args.batch,
        masks: args.masks,
    };
    let made = synthesise(&loaded.model, &request)?;
    let sinograms = in_geometry(&made.sinograms, &own, &geometry)?.into_dyn();
    let images = fbp.reconstruct(sinograms.view())?;
    let number = |i: usize| format!("sample {}", request.first + i as u64);
    let captions = made.prompts.iter().enumerate();
    let results = Results {
        sinograms: &sinograms,
        images: &images,
        captions: captions
            .map(|(i, prompt)| [number(i), prompt.to_string()])
            .collect(),
        provenance: provenance(args, &request, &made, &loaded.origin, &geometry, geometry != own),
    };
    let files = results.write(&args.out, |_| Ok(Vec::new()))?;
    let json = json!({
        "out": args.out,
        "files": files,
        "count": args.count,
        "sinograms": sinograms.shape(),
        "reconstructions": images.shape(),
        "inconsistency": made.inconsistency,
    });
    let text = format!(
        "{}: sinograms of {}, reconstructions of {}, grid.png, provenance.json",
        args.out.display(),
        output::by(sinograms.shape()),
        output::by(images.shape())
    );
    Ok(Report::new(json, text))
}

fn provenance(
    args: &Args,
    request: &SynthesisRequest,
    made: &Synthesis,
    origin: &Value,
    geometry: &ParallelGeometry,
    resampled: bool,
) -> Value {
    let units = |pet: &str, ct: &str| {
        let ct_only = made.prompts.iter().all(|p| p.modality == Modality::Ct);
        if ct_only { ct.to_owned() } else { pet.to_owned() }
    };
    provenance_of(
        geometry,
        resampled,
        json!({
            "model": origin,
            "prompt": args.prompt,
            "seed": request.seed,
            "first": request.first,
            "count": request.count,
            "sampler": request.sampler,
            "steps": request.steps,
            "eta": request.eta,
            "guidance": request.guidance,
            "masks": request.masks,
            "units": {
                "sinograms": units("kBq/mL*mm", "1 (line integral of attenuation)"),
                "reconstructions": units("kBq/mL", "1/mm"),
                "inconsistency": "rms of C_pos + C_neg - S over rms of S",
            },
            "samples": samples(request.first, &made.prompts, &made.inconsistency),
        }),
    )
}

fn synthesise(model: &Foundation, request: &SynthesisRequest) -> Result<Synthesis> {
    progress::watched(|progress| model.synthesise(request, progress)).map_err(|e| match e {
        Error::Stopped { done, total } => stopped(done, total, "samples"),
        other => other.into(),
    })
}
