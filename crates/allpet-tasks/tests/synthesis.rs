//! Paired synthesis: what it starts from, what it learns, and that the same seed draws the same pairs.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{Dataset, Prompt, Region, Task, Tracer, fill_normal, stream};
use allpet_foundation::{Ended, Foundation, MODEL_FILE, ModelConfig, Place};
use allpet_nn::Params;
use allpet_tasks::{
    Attenuation, Downstream, End, Error, FIRST_SYNTHETIC_SUBJECT, FirstEnd, Goal, JointNetwork, LowDose,
    PairAugmentation, PairRun, PairSettings, PairSource, PairSynthesizer, Restorer, Separation,
    SynthesisOfPairs, SynthesisedPairs, train_pairs,
};
use allpet_train::{Observer, StepInfo, TrainConfig};
use candle_core::{Device, Tensor};
use ndarray::{ArrayView2, Axis};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

mod paired;
mod trained;
use paired::{geometry, says, simulate};
use trained::{foundation, run, train, trained};

/// Keeps the losses, and stops after as many steps as it is told.
#[derive(Default)]
struct Watch {
    losses: Vec<f64>,
    stop_after: Option<u64>,
}

impl Observer for Watch {
    fn on_step(&mut self, info: &StepInfo<'_>) -> ControlFlow<()> {
        self.losses.push(info.loss);
        match self.stop_after {
            Some(steps) if info.step + 1 == steps => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn data() -> Vec<Dataset> {
    [Task::LowDose, Task::Attenuation, Task::Separation]
        .map(|task| simulate(task, 6))
        .into()
}

fn pairs(steps: usize) -> PairRun {
    PairRun {
        train: train(steps),
        ..PairRun::default()
    }
}

fn train_in(
    folder: &Path,
    config: &PairRun,
    data: &[Dataset],
    watch: &mut Watch,
    resume: bool,
) -> Result<Ended, Error> {
    let stop = AtomicBool::new(false);
    let place = Place {
        folder,
        resume,
        stop: &stop,
        device: &Device::Cpu,
    };
    train_pairs(config, &foundation(), data, place, &mut [watch])
}

fn losses(config: &PairRun, data: &[Dataset]) -> Vec<f64> {
    let (folder, mut watch) = (tempfile::tempdir().unwrap(), Watch::default());
    train_in(folder.path(), config, data, &mut watch, false).unwrap();
    watch.losses
}

fn bytes_of(config: &PairRun, data: &[Dataset]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    train_in(folder.path(), config, data, &mut Watch::default(), false).unwrap();
    std::fs::read(folder.path().join(MODEL_FILE)).unwrap()
}

fn model() -> PairSynthesizer {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| bytes_of(&pairs(6), &data()));
    PairSynthesizer::from_bytes("tiny", bytes, &Device::Cpu).unwrap()
}

fn asked(task: Downstream, count: usize) -> SynthesisOfPairs {
    SynthesisOfPairs {
        count,
        steps: 4,
        seed: 9,
        ..SynthesisOfPairs::new(task)
    }
}

fn draw(request: &SynthesisOfPairs) -> Result<SynthesisedPairs, Error> {
    model().synthesise_pairs(request, &mut |_, _| ControlFlow::Continue(()))
}

fn low_dose() -> Downstream {
    Downstream::LowDose(LowDose::default())
}

fn normal(shape: &[usize], name: &str) -> Tensor {
    let mut values = vec![0f32; shape.iter().product()];
    fill_normal(&mut stream(2, name, 0), &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn furthest(a: &Tensor, b: &Tensor) -> f32 {
    let apart = (a - b).unwrap().abs().unwrap().flatten_all().unwrap();
    apart.max(0).unwrap().to_scalar::<f32>().unwrap()
}

/// The foundation itself is the oracle: at the start a target is what it would draw, and so is an input, whatever is beside it.
#[test]
fn pairs_start_from_the_foundation() {
    let foundation = foundation();
    let config = foundation.config().clone();
    let [channels, height, width] = config.latent_shape();
    let [views, bins] = config.geometry.shape();
    let network = JointNetwork::from_foundation(&Params::new(4, &Device::Cpu), &foundation, 3).unwrap();
    let (input, target) = (
        normal(&[2, channels, height, width], "input"),
        normal(&[2, channels, height, width], "target"),
    );
    let t = Tensor::new(&[900f32, 40.0], &Device::Cpu).unwrap();
    let mask = normal(&[2, 1, views, bins], "mask").abs().unwrap();
    let prompt = |task| Prompt {
        task,
        ..Prompt::pet(Tracer::Dopa, Region::Brain)
    };
    let alone = |x: &Tensor, task| {
        let told = foundation
            .denoiser()
            .condition(&[prompt(task); 2], &mask, config.autoencoder.factor())
            .unwrap();
        let denoiser = foundation.denoiser();
        denoiser
            .predict(x, &t, &told, foundation.autoencoder(), foundation.statistics())
            .unwrap()
    };
    let told = |network: &JointNetwork, end| {
        network
            .condition(&[prompt(Task::LowDose); 2], &[0, 2], &[end; 2], &mask)
            .unwrap()
    };
    let drawn = |network: &JointNetwork| {
        network
            .predict_target(&target, &t, &told(network, End::Target))
            .unwrap()
    };
    let beside = |network: &JointNetwork| {
        network
            .predict_input(&input, &target, &t, &told(network, End::Input))
            .unwrap()
    };
    assert_eq!(drawn(&network).dims(), [2, channels, height, width]);
    let expected = alone(&target, Task::Synthesis);
    let size = furthest(&expected, &expected.zeros_like().unwrap());
    assert!(
        size > 0.01,
        "the foundation predicts nothing: {size}, so the test says nothing"
    );
    assert!(furthest(&drawn(&network), &expected) < 1e-5 * size);
    assert!(furthest(&beside(&network), &expected) < 1e-5 * size);
    // Controls: another latent, the task's own untrained vector, a network that starts from nothing.
    assert!(furthest(&drawn(&network), &alone(&input, Task::Synthesis)) > 0.05 * size);
    assert!(furthest(&drawn(&network), &alone(&target, Task::LowDose)) > 0.01 * size);
    let scratch = JointNetwork::new(&Params::new(4, &Device::Cpu), &config, 3).unwrap();
    assert_eq!(furthest(&drawn(&scratch), &expected.zeros_like().unwrap()), 0.0);
    says(
        network
            .condition(&[prompt(Task::LowDose)], &[3], &[End::Target], &mask)
            .unwrap_err(),
        &["kind of pair", "less than 3"],
    );
}

/// Targets know nothing of inputs, inputs see their targets, and both know which end is drawn.
#[test]
fn an_input_is_drawn_beside_its_target() {
    let model = trained_network();
    let [channels, height, width] = ModelConfig::preset("tiny").unwrap().latent_shape();
    let [views, bins] = geometry().shape();
    let x = normal(&[1, channels, height, width], "x");
    let t = Tensor::new(&[500f32], &Device::Cpu).unwrap();
    let mask = Tensor::zeros((1, 1, views, bins), candle_core::DType::F32, &Device::Cpu).unwrap();
    let told = |end| {
        let prompt = Prompt {
            task: Task::LowDose,
            ..Prompt::pet(Tracer::Fdg, Region::Brain)
        };
        model.condition(&[prompt], &[0], &[end], &mask).unwrap()
    };
    let input = |target: &str, end| {
        let target = normal(&[1, channels, height, width], target);
        model.predict_input(&x, &target, &t, &told(end)).unwrap()
    };
    let one = input("one", End::Input);
    assert_eq!(furthest(&one, &input("one", End::Input)), 0.0);
    assert!(
        furthest(&one, &input("other", End::Input)) > 1e-5,
        "the target changes nothing"
    );
    assert!(
        furthest(&one, &input("one", End::Target)) > 1e-5,
        "the end changes nothing"
    );
}

/// A joint network after a few steps, from its file.
fn trained_network() -> JointNetwork {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MODEL_FILE);
    std::fs::write(&path, bytes_of(&pairs(6), &data())).unwrap();
    let (tensors, _) = allpet_train::load_model(&path, &Device::Cpu).unwrap();
    let params = Params::new(0, &Device::Cpu);
    let config = ModelConfig::preset("tiny").unwrap();
    let network = JointNetwork::new(&params.sub("denoiser"), &config, 4).unwrap();
    let own = tensors
        .into_iter()
        .filter(|(name, _)| name.starts_with("denoiser."));
    params.load(&own.collect()).unwrap();
    network
}

/// Both ends by the definition of the coding: the target by its own scale, the input by that over the mean ratio of its kind.
#[test]
fn an_input_enters_as_it_was_measured() {
    let data = [simulate(Task::LowDose, 1)];
    let mut model = ModelConfig::preset("tiny").unwrap();
    model.augmentation.empty = 1.0;
    model.augmentation.rotate_deg = 0.0;
    let settings = PairSettings {
        model: &model,
        augmentation: &PairAugmentation {
            attention_dropout: 1.0,
            prompt_dropout: 0.0,
        },
        goal: Goal::Target,
        attention: None,
        batch: 1,
        seed: 1,
    };
    let draw = |first| {
        let source = PairSource::with_first(&data, &settings, first, &Device::Cpu).unwrap();
        source.draw(0).unwrap()
    };
    let batch = draw(FirstEnd::Input);
    let raw = |name: &str, gain: f32| -> Vec<f32> { data[0].arrays[name].iter().map(|v| v * gain).collect() };
    let scale = |values: &[f32]| model.intensity.scale(values).unwrap();
    let full = |t: &Tensor| -> Vec<f32> {
        let full = t.narrow(1, 1, 1).unwrap().flatten_all().unwrap();
        full.to_vec1().unwrap()
    };
    // With a single pair the mean ratio is its own, so that either member stands on its own scale.
    for (got, values) in [
        (full(&batch.first), raw("input", 4.0)),
        (full(&batch.target), raw("target", 1.0)),
    ] {
        let own = scale(&values);
        let apart = got
            .iter()
            .zip(&values)
            .map(|(got, v)| (got - (2.0 * (v / own).max(0.0).sqrt() - 1.0)).abs())
            .fold(0f32, f32::max);
        assert!(apart < 1e-5, "{apart}");
    }
    let estimate = draw(FirstEnd::Estimate);
    assert!(
        furthest(&estimate.first, &batch.first) > 0.1,
        "the estimate is no input"
    );
}

#[test]
fn training_lowers_the_loss() {
    let data = data();
    let with = |rate| PairRun {
        train: TrainConfig { rate, ..train(60) },
        ..PairRun::default()
    };
    // The control has the same batches, times and noise, and learns nothing.
    let (learnt, control) = (losses(&with(3e-3), &data), losses(&with(1e-12), &data));
    let late = |losses: &[f64]| losses[40..].iter().sum::<f64>() / 20.0;
    println!(
        "last 20 of 60 losses {:.4}, without learning {:.4}",
        late(&learnt),
        late(&control)
    );
    assert!((learnt[0] - control[0]).abs() < 1e-9);
    assert!(late(&learnt) < 0.9 * late(&control));
}

#[test]
fn an_interrupted_run_ends_with_the_same_bytes() {
    let (data, config) = (data(), pairs(4));
    let straight = bytes_of(&config, &data);
    let folder = tempfile::tempdir().unwrap();
    let mut watch = Watch {
        stop_after: Some(2),
        ..Watch::default()
    };
    let ended = train_in(folder.path(), &config, &data, &mut watch, false).unwrap();
    assert_eq!(ended, Ended::Interrupted(2));
    assert!(
        !folder.path().join(MODEL_FILE).exists(),
        "no model before the end"
    );
    let refused = train_in(folder.path(), &config, &data, &mut Watch::default(), false).unwrap_err();
    says(refused, &["resume"]);
    let other = PairRun {
        goal: Goal::Target,
        ..config.clone()
    };
    let refused = train_in(folder.path(), &other, &data, &mut Watch::default(), true).unwrap_err();
    says(refused, &["goal"]);
    // Computing stages again on the way back changes the memory, not the run.
    let mut again = config.clone();
    again.train.recompute = true;
    let ended = train_in(folder.path(), &again, &data, &mut Watch::default(), true).unwrap();
    assert_eq!(ended, Ended::Finished);
    let resumed = std::fs::read(folder.path().join(MODEL_FILE)).unwrap();
    assert!(resumed == straight, "other bytes after an interruption");
    let reseeded = PairRun {
        train: TrainConfig { seed: 7, ..train(4) },
        ..config
    };
    assert!(bytes_of(&reseeded, &data) != straight, "the seed changes nothing");
}

#[test]
fn files_say_what_can_be_drawn() {
    let model = model();
    assert_eq!(model.description().kind, "pairs");
    assert_eq!(model.pairs().goal, Goal::Clean);
    assert_eq!(
        model.tasks(),
        [
            low_dose(),
            Downstream::Attenuation(Attenuation {}),
            Downstream::Separation(Separation::default())
        ]
    );
    let tracers: Vec<_> = model.pairs().kinds.iter().map(|kind| kind.tracer).collect();
    assert_eq!(tracers, [None, None, Some(Tracer::Fdg), Some(Tracer::Psma)]);
    // Scales and ratios against sums over the data: every simulated prompt stands in the table with its own mean.
    let set = &data()[0];
    let intensity = model.config().intensity;
    let scale = |name: &str, gain: f32, i: usize| {
        let values: Vec<f32> = set.arrays[name]
            .index_axis(Axis(0), i)
            .iter()
            .map(|v| v.max(0.0) * gain)
            .collect();
        f64::from(intensity.scale(&values).unwrap())
    };
    let kind = &model.pairs().kinds[0];
    assert!(kind.scales.len() > 1);
    for (of, ratio) in kind.scales.iter().zip(&kind.ratios) {
        let members: Vec<usize> = (0..set.len()).filter(|i| set.prompts[*i] == of.prompt).collect();
        let mean =
            |f: &dyn Fn(usize) -> f64| members.iter().map(|i| f(*i)).sum::<f64>() / members.len() as f64;
        assert_eq!(
            (of.count, ratio.count, ratio.prompt),
            (members.len(), members.len(), of.prompt)
        );
        assert!((of.mean_ln - mean(&|i| scale("clean", 1.0, i).ln())).abs() < 1e-5);
        let expected = mean(&|i| (scale("clean", 1.0, i) / scale("input", 4.0, i)).ln());
        assert!((ratio.mean_ln - expected).abs() < 1e-5);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(MODEL_FILE);
    std::fs::write(&path, bytes_of(&pairs(1), &data()[..1])).unwrap();
    let loaded = PairSynthesizer::load(&path, &Device::Cpu).unwrap();
    assert_eq!(
        (loaded.tasks(), *loaded.geometry()),
        (vec![low_dose()], geometry())
    );
    // It is no other model, and no other model is one of pairs.
    says(
        Foundation::load(&path, &Device::Cpu).unwrap_err(),
        &["a foundation model", "kind `pairs`"],
    );
    says(
        Restorer::load(&path, &Device::Cpu).unwrap_err(),
        &["a model of the tasks", "kind `pairs`"],
    );
    let other = trained(&run(1), &data()[..1]);
    says(
        PairSynthesizer::from_bytes("other", &other, &Device::Cpu).unwrap_err(),
        &["a model of pairs", "kind `tasks`"],
    );
}

#[test]
fn a_seed_draws_the_same_pairs_in_any_batch() {
    let whole = SynthesisOfPairs {
        batch: 4,
        ..asked(low_dose(), 5)
    };
    let drawn = draw(&whole).unwrap();
    assert_eq!(drawn.inputs.dim(), (5, 32, 32));
    assert_eq!(drawn.targets.dim(), (5, 32, 32));
    let values = || drawn.inputs.iter().chain(&drawn.targets);
    assert!(values().all(|v| v.is_finite() && *v >= 0.0) && values().any(|v| *v > 0.0));
    let single = draw(&SynthesisOfPairs {
        batch: 1,
        ..whole.clone()
    })
    .unwrap();
    assert!(single.inputs == drawn.inputs && single.targets == drawn.targets);
    assert_eq!(
        (&single.prompts, &single.inconsistency),
        (&drawn.prompts, &drawn.inconsistency)
    );
    let pool = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
    };
    for threads in [1, 3] {
        let again = pool(threads).install(|| draw(&whole).unwrap());
        assert!(again.inputs == drawn.inputs && again.targets == drawn.targets);
    }
    let later = draw(&SynthesisOfPairs {
        first: 3,
        count: 2,
        ..whole.clone()
    })
    .unwrap();
    for (from, to) in [(3, 0), (4, 1)] {
        assert!(later.inputs.index_axis(Axis(0), to) == drawn.inputs.index_axis(Axis(0), from));
        assert!(later.targets.index_axis(Axis(0), to) == drawn.targets.index_axis(Axis(0), from));
        assert_eq!(later.prompts[to], drawn.prompts[from]);
    }
    let other = draw(&SynthesisOfPairs { seed: 10, ..whole }).unwrap();
    assert!(other.inputs != drawn.inputs, "the seed changes nothing");
}

/// At a quarter of the dose an input holds a quarter of its target's counts; attenuation keeps none (the control).
#[test]
fn inputs_hold_the_counts_of_their_targets() {
    let shares = |task| -> Vec<f64> {
        let drawn = draw(&asked(task, 4)).unwrap();
        let total = |a: ArrayView2<'_, f32>| a.iter().map(|v| f64::from(*v)).sum::<f64>();
        let both = drawn.inputs.outer_iter().zip(drawn.targets.outer_iter());
        both.map(|(input, target)| total(input) / total(target)).collect()
    };
    assert!(shares(low_dose()).iter().all(|share| (share - 0.25).abs() < 1e-5));
    let corrected = shares(Downstream::Attenuation(Attenuation {}));
    assert!(corrected.windows(2).any(|two| (two[0] - two[1]).abs() > 1e-3));
}

#[test]
fn drawn_pairs_are_a_dataset_to_train_on() {
    for task in [low_dose(), Downstream::Attenuation(Attenuation {})] {
        let drawn = draw(&SynthesisOfPairs {
            first: 2,
            sampler: "dpm++".into(),
            ..asked(task, 3)
        })
        .unwrap();
        let set = drawn.dataset();
        set.validate().unwrap();
        assert_eq!(Downstream::of(&set).unwrap(), task);
        assert_eq!(set.prompts, drawn.prompts);
        assert_eq!(set.subjects, [2, 3, 4].map(|i| FIRST_SYNTHETIC_SUBJECT + i));
        let simulated = simulate(task.task(), 4);
        assert!(simulated.subjects.iter().all(|s| *s < FIRST_SYNTHETIC_SUBJECT));
        for (key, word) in [
            ("synthetic", "true"),
            ("sampler", "dpm++"),
            ("seed", "9"),
            ("steps", "4"),
        ] {
            assert_eq!(set.metadata[key], word);
        }
        // Beside simulated pairs, and it makes a difference. (Six steps of training draw nothing with the outline of a body
        // in it, without which there is no first estimate of attenuation.)
        if task != low_dose() {
            continue;
        }
        let with = trained(&run(2), &[simulated.clone(), set]);
        assert!(with != trained(&run(2), &[simulated]));
    }
    // One output for an input cannot stand for both.
    let separated = draw(&asked(Downstream::Separation(Separation::default()), 2))
        .unwrap()
        .dataset();
    separated.validate().unwrap();
    let settings = PairSettings {
        model: &ModelConfig::preset("tiny").unwrap(),
        augmentation: &PairAugmentation::default(),
        goal: Goal::Clean,
        attention: None,
        batch: 1,
        seed: 0,
    };
    let refused = PairSource::new(&[separated], &settings, &Device::Cpu).unwrap_err();
    says(refused, &["array `target`", "2 target(s)"]);
}

#[test]
fn open_choices_are_drawn_and_given_ones_kept() {
    let separation = Downstream::Separation(Separation {
        tracers: [Tracer::Psma, Tracer::Fdg],
    });
    let of = |tracer, region, task: Downstream, count| {
        let drawn = draw(&SynthesisOfPairs {
            shown: vec![(tracer, region)],
            steps: 1,
            ..asked(task, count)
        });
        drawn.unwrap().prompts
    };
    let drawn = of(None, None, separation, 12);
    for tracer in [Tracer::Fdg, Tracer::Psma] {
        assert!(drawn.iter().any(|p| p.tracer == Some(tracer)));
        assert!(
            of(Some(tracer), None, separation, 4)
                .iter()
                .all(|p| p.tracer == Some(tracer))
        );
    }
    let brains = of(None, Some(Region::Brain), low_dose(), 4);
    assert!(
        brains
            .iter()
            .all(|p| p.region == Some(Region::Brain) && p.task == Task::LowDose)
    );
    // A chest is a trunk to a model that knows trunks.
    let chests = of(None, Some(Region::Chest), low_dose(), 2);
    assert!(chests.iter().all(|p| p.region == Some(Region::Trunk)));
    assert!(
        drawn
            .iter()
            .chain(&brains)
            .all(|p| p.tracer.is_some() && p.region.is_some())
    );
}

#[test]
fn what_cannot_be_drawn_is_said_in_one_line() {
    let lower = Downstream::LowDose(LowDose { dose: 0.01 });
    says(
        draw(&asked(lower, 1)).unwrap_err(),
        &[
            "no pairs of low-dose (0.01)",
            "low-dose (0.25), attenuation, separation (fdg and psma)",
        ],
    );
    let separation = Downstream::Separation(Separation::default());
    let request = SynthesisOfPairs {
        shown: vec![(Some(Tracer::Dopa), None)],
        ..asked(separation, 1)
    };
    says(
        draw(&request).unwrap_err(),
        &[
            "not trained on `any region with 18F-DOPA",
            "it knows: trunk with 18F-FDG",
        ],
    );
    let request = SynthesisOfPairs {
        count: 0,
        batch: 0,
        shown: Vec::new(),
        ..asked(low_dose(), 1)
    };
    says(
        draw(&request).unwrap_err(),
        &["count is 0", "batch is 0", "prompts is 0"],
    );
    for (sampler, word) in [("dbim2", "made for"), ("euler", "unknown")] {
        let request = SynthesisOfPairs {
            sampler: sampler.into(),
            ..asked(low_dose(), 1)
        };
        says(draw(&request).unwrap_err(), &[sampler, word, "ddpm"]);
    }
    let request = SynthesisOfPairs {
        steps: 0,
        ..asked(low_dose(), 1)
    };
    says(draw(&request).unwrap_err(), &["steps"]);
    let mut calls = 0;
    let stopped = model().synthesise_pairs(
        &SynthesisOfPairs {
            batch: 1,
            ..asked(low_dose(), 3)
        },
        &mut |done, total| {
            calls += 1;
            assert_eq!((done, total), (calls, 24));
            if calls == 12 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    );
    says(stopped.unwrap_err(), &["stopped after 1 of 3"]);
    let folder = tempfile::tempdir().unwrap();
    let no_pairs = Dataset {
        metadata: [("task".to_owned(), "synthesis".to_owned())].into(),
        ..simulate(Task::LowDose, 1)
    };
    let refused = train_in(
        folder.path(),
        &pairs(1),
        &[no_pairs],
        &mut Watch::default(),
        false,
    );
    says(refused.unwrap_err(), &["task", "low-dose"]);
}
