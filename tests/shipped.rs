//! The shipped weights: they load, they are what the recipe says, and they answer every prompt they were trained on.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet::foundation::{Description, RunConfig};
use allpet::prelude::*;
use allpet::tasks::{PairRun, TaskRun};
use ndarray::Axis;
use std::ops::ControlFlow;
use std::path::Path;

/// What `docs/recipes/{name}.toml` says.
fn recipe(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes");
    std::fs::read_to_string(folder.join(name).with_extension("toml")).unwrap()
}

/// A file says how it was trained, and that is how its recipe does it.
fn says(file: &Description, train: &TrainConfig) {
    let said = |key: &str| file.training[key].clone();
    assert_eq!(said("steps"), train.steps.to_string());
    assert_eq!(said("batch"), train.batch.to_string());
    assert_eq!(said("rate"), train.rate.to_string());
    assert_eq!(said("seed"), train.seed.to_string());
}

#[test]
fn the_file_is_what_its_recipe_makes() {
    let model = pretrained(&Device::Cpu).unwrap();
    let recipe: RunConfig = toml::from_str(&recipe("small-second")).unwrap();
    assert_eq!(*model.config(), ModelConfig::preset(&recipe.preset).unwrap());
    says(model.description(), &recipe.train);
    // No more than 500 sinograms a tracer or region, and no more than 20 subjects a set.
    let scales = &model.statistics().scales;
    let count = |fits: &dyn Fn(&Prompt) -> bool| -> usize {
        scales.iter().filter(|s| fits(&s.prompt)).map(|s| s.count).sum()
    };
    for tracer in Tracer::ALL {
        let n = count(&|p| p.tracer == Some(*tracer));
        assert!((1..=500).contains(&n), "{tracer}: {n}");
    }
    for region in [Region::Brain, Region::Chest, Region::Abdomen] {
        let n = count(&|p| p.region == Some(region));
        assert!((1..=500).contains(&n), "{region}: {n}");
    }
    let trunk = count(&|p| matches!(p.region, Some(Region::Chest | Region::Abdomen)));
    assert!(trunk <= 500, "trunk: {trunk}");
}

#[test]
fn the_file_of_the_tasks_is_what_its_recipe_makes() {
    let model = allpet::pretrained_tasks(&Device::Cpu).unwrap();
    let recipe: TaskRun = toml::from_str(&recipe("tasks")).unwrap();
    says(model.description(), &recipe.train);
    assert_eq!(model.description().training["sinograms"], "3000");
    assert_eq!(model.tasks().method, recipe.method);
    assert_eq!(model.config().process.bridge, Some(recipe.bridge));
    for task in Task::ALL {
        assert_eq!(model.knows(*task), *task != Task::Synthesis, "{task}");
    }
    // Its latents are the foundation's.
    let foundation = pretrained(&Device::Cpu).unwrap();
    assert_eq!(model.config().autoencoder, foundation.config().autoencoder);
    assert_eq!(model.config().geometry, foundation.config().geometry);
}

#[test]
fn the_file_of_pairs_is_what_its_recipe_makes() {
    let model = pretrained_pairs(&Device::Cpu).unwrap();
    let recipe: PairRun = toml::from_str(&recipe("pairs")).unwrap();
    says(model.description(), &recipe.train);
    assert_eq!(model.description().training["sinograms"], "3000");
    assert_eq!(model.pairs().goal, recipe.goal);
    // Pairs of what the shipped model of the tasks restores, in its geometry.
    let tasks = pretrained_tasks(&Device::Cpu).unwrap();
    assert_eq!(model.tasks(), tasks.tasks().tasks);
    assert_eq!(model.geometry(), tasks.geometry());
}

/// An input is drawn beside its target: restored, it is nearer to it than to another of the same kind.
#[test]
fn a_drawn_input_belongs_to_its_target() {
    let (pairs, tasks) = (
        pretrained_pairs(&Device::Cpu).unwrap(),
        pretrained_tasks(&Device::Cpu).unwrap(),
    );
    let task = Downstream::new(Task::LowDose).unwrap();
    let shown = vec![(Some(Tracer::Fdg), Some(Region::Brain))];
    let request = SynthesisOfPairs {
        shown: shown.clone(),
        count: 4,
        sampler: "dpm++".into(),
        steps: 12,
        seed: 2,
        ..SynthesisOfPairs::new(task)
    };
    let drawn = pairs
        .synthesise_pairs(&request, &mut |_, _| ControlFlow::Continue(()))
        .unwrap();
    let request = RestoreRequest {
        shown,
        steps: 1,
        ..RestoreRequest::new(task)
    };
    let restored = tasks
        .restore(drawn.inputs.view(), &request, &mut |_, _| {
            ControlFlow::Continue(())
        })
        .unwrap();
    let error = |i: usize, target: usize| -> f64 {
        let (x, y) = (
            restored.mean.slice(ndarray::s![i, 0, .., ..]),
            drawn.targets.index_axis(Axis(0), target),
        );
        let scale = y.sum() / x.sum();
        x.iter()
            .zip(&y)
            .map(|(x, y)| f64::from(x * scale - y).powi(2))
            .sum::<f64>()
            / y.iter().map(|y| f64::from(*y).powi(2)).sum::<f64>()
    };
    for i in 0..4 {
        let (own, other) = (error(i, i), error(i, (i + 1) % 4));
        println!("pair {i}: {own:.4} to its own target, {other:.4} to another");
        assert!(own < 0.7 * other);
    }
}

#[test]
fn every_prompt_gives_a_body_of_its_kind() {
    let model = pretrained(&Device::Cpu).unwrap();
    let geometry = model.config().geometry;
    let ask = |text: &str| {
        let request = SynthesisRequest {
            prompts: Prompt::parse(text).unwrap(),
            count: 2,
            steps: 12,
            seed: 4,
            ..SynthesisRequest::default()
        };
        model
            .synthesise(&request, &mut |_, _| ControlFlow::Continue(()))
            .unwrap()
            .sinograms
    };
    // Where the sinogram's mass lies: a head is narrow, a trunk is wide.
    let spread = |text: &str| {
        let sinograms = ask(text);
        let mut widths = Vec::new();
        for sinogram in sinograms.axis_iter(Axis(0)) {
            let profile = sinogram.sum_axis(Axis(0));
            let mass: f64 = profile.iter().map(|v| f64::from(*v)).sum();
            let second: f64 = profile
                .iter()
                .enumerate()
                .map(|(j, v)| f64::from(*v) * geometry.s_mm(j as f64).powi(2))
                .sum();
            widths.push((second / mass).sqrt());
        }
        widths.iter().sum::<f64>() / widths.len() as f64
    };
    let head = spread("brain with 18F-FDG");
    assert!((20.0..70.0).contains(&head), "a head spreads over {head} mm");
    for trunk in ["chest with 18F-FDG", "trunk with 18F-DOPA", "CT of the abdomen"] {
        let width = spread(trunk);
        assert!(
            width > 1.2 * head,
            "{trunk}: {width} mm against the head's {head} mm"
        );
    }
}
