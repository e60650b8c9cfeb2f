//! Restoration of a stack by tiny models: the same bytes however the work is split, counts held, wrong requests named.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{Dataset, ImageGrid, ParallelGeometry, Region, Task, Tracer};
use allpet_foundation::resample;
use allpet_mask::attention::{Roi, RoiShape};
use allpet_sim::PairedTask;
use allpet_sim::tasks as simulated;
use allpet_tasks::{
    Conversion, Delayed, Downstream, Error, LowDose, Method, Regions, RestoreRequest, Restored, Restorer,
    Separation, TaskRun,
};
use candle_core::Device;
use ndarray::{Array3, Array4, ArrayView3, Axis, Ix3, s};
use std::ops::ControlFlow;
use std::sync::OnceLock;

mod paired;
mod trained;
mod unpaired;
use paired::{geometry, says, simulate, simulate_with};
use trained::{run, trained};

const TASKS: [Task; 4] = [Task::LowDose, Task::Attenuation, Task::Delayed, Task::Separation];

fn data(task: Task) -> &'static Dataset {
    static DATA: OnceLock<Vec<Dataset>> = OnceLock::new();
    let all = DATA.get_or_init(|| TASKS.iter().map(|task| simulate(*task, 4)).collect());
    &all[TASKS.iter().position(|t| *t == task).unwrap()]
}

fn inputs(task: Task) -> ArrayView3<'static, f32> {
    let input = data(task).array("input").unwrap();
    input.view().into_dimensionality::<Ix3>().unwrap()
}

fn model(method: Method) -> Restorer {
    static BYTES: [OnceLock<Vec<u8>>; 2] = [OnceLock::new(), OnceLock::new()];
    let bytes = BYTES[usize::from(method == Method::Regression)].get_or_init(|| {
        let config = TaskRun { method, ..run(8) };
        trained(&config, &TASKS.map(|task| data(task).clone()))
    });
    Restorer::from_bytes("tiny", bytes, &Device::Cpu).unwrap()
}

fn request(task: Task) -> RestoreRequest {
    RestoreRequest {
        shown: vec![
            (Some(Tracer::Fdg), Some(Region::Trunk)),
            (None, Some(Region::Trunk)),
        ],
        steps: 3,
        samples: 3,
        seed: 9,
        batch: 8,
        keep_samples: true,
        ..RestoreRequest::new(Downstream::new(task).unwrap())
    }
}

fn attempt(
    model: &Restorer,
    stack: ArrayView3<'_, f32>,
    request: &RestoreRequest,
) -> Result<Restored, Error> {
    model.restore(stack, request, &mut |_, _| ControlFlow::Continue(()))
}

fn restore(stack: ArrayView3<'_, f32>, request: &RestoreRequest) -> Restored {
    attempt(&model(Method::Bridge), stack, request).unwrap()
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    values.into_iter().map(|v| v.to_bits()).collect()
}

fn all_bits(restored: &Restored) -> Vec<u32> {
    let samples = restored.samples.as_ref().unwrap();
    bits(restored.mean.iter().chain(&restored.sd).chain(samples))
}

#[test]
fn bytes_do_not_depend_on_batch_split_or_threads() {
    for task in [Task::LowDose, Task::Separation] {
        let stack = inputs(task).slice_move(s![..3, .., ..]);
        let usual = request(task);
        let whole = restore(stack, &usual);
        for batch in [1, 5] {
            let other = restore(
                stack,
                &RestoreRequest {
                    batch,
                    ..usual.clone()
                },
            );
            assert!(
                all_bits(&whole) == all_bits(&other),
                "{}: batch of {batch}",
                task.id()
            );
            assert_eq!(whole.inconsistency, other.inconsistency);
        }
        let part = |from: usize, to: usize, first: u64| {
            let split = RestoreRequest {
                first,
                ..usual.clone()
            };
            bits(&restore(stack.slice(s![from..to, .., ..]), &split).mean)
        };
        let expected = bits(&whole.mean);
        assert!(
            [part(0, 2, 0), part(2, 3, 2)].concat() == expected,
            "{}: split in two",
            task.id()
        );
        assert!(
            [part(0, 2, 0), part(2, 3, 0)].concat() != expected,
            "`first` changes nothing"
        );
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| all_bits(&restore(stack, &usual)))
        };
        assert!(on(1) == on(2), "{}: threads", task.id());
        let seeded = restore(
            stack,
            &RestoreRequest {
                seed: 10,
                ..usual.clone()
            },
        );
        assert!(all_bits(&whole) != all_bits(&seeded), "the seed changes nothing");
    }
}

#[test]
fn first_estimates_may_be_made_beforehand() {
    let (stack, usual) = (inputs(Task::LowDose), request(Task::LowDose));
    let estimates = usual.task.head().first_estimate(stack, &geometry()).unwrap();
    let given = |first_estimates: Array3<f32>| {
        let asked = RestoreRequest {
            first_estimates: Some(first_estimates),
            ..usual.clone()
        };
        all_bits(&restore(stack, &asked))
    };
    let own = all_bits(&restore(stack, &usual));
    assert!(own == given(estimates.clone()));
    assert!(own != given(estimates * 1.5), "what is given changes nothing");
}

#[test]
fn samples_do_not_depend_on_how_many_are_asked_for() {
    let stack = inputs(Task::Separation);
    let three = restore(stack, &request(Task::Separation)).samples.unwrap();
    let one = RestoreRequest {
        samples: 1,
        ..request(Task::Separation)
    };
    let one = restore(stack, &one).samples.unwrap();
    let sample = |i: usize| bits(three.index_axis(Axis(2), i));
    assert!(sample(0) == bits(one.index_axis(Axis(2), 0)));
    assert!(sample(0) != sample(1) && sample(1) != sample(2));
}

#[test]
fn mean_and_deviation_are_those_of_the_samples() {
    let stack = inputs(Task::LowDose);
    let restored = restore(stack, &request(Task::LowDose));
    let samples = restored.samples.as_ref().unwrap();
    let mut control = 0f64;
    for ((at, mean), sd) in restored.mean.indexed_iter().zip(&restored.sd) {
        let values: Vec<f64> = (0..3)
            .map(|k| f64::from(samples[[at.0, at.1, k, at.2, at.3]]))
            .collect();
        let expected = values.iter().sum::<f64>() / 3.0;
        let squares: f64 = values.iter().map(|v| (v - expected).powi(2)).sum();
        let deviation = (squares / 2.0).sqrt();
        // Rounded to f32 once.
        assert!((f64::from(*mean) - expected).abs() <= 6e-8 * expected);
        assert!((f64::from(*sd) - deviation).abs() <= 6e-8 * deviation);
        control = control.max((f64::from(*sd) - (squares / 3.0).sqrt()).abs() / deviation.max(1e-9));
    }
    assert!(control > 0.1, "divided by n it would not be noticed");
    let one = RestoreRequest {
        samples: 1,
        keep_samples: false,
        ..request(Task::LowDose)
    };
    let one = restore(stack, &one);
    assert!(one.sd.iter().all(|v| *v == 0.0) && one.samples.is_none());
    assert!(restored.sd.iter().any(|v| *v > 0.0));
}

fn total<'a>(values: impl IntoIterator<Item = &'a f32>) -> f64 {
    values.into_iter().map(|v| f64::from(*v)).sum()
}

#[test]
fn counts_are_held_and_never_negative() {
    for method in [Method::Bridge, Method::Regression] {
        let model = model(method);
        for task in TASKS {
            let stack = inputs(task);
            let restored = attempt(&model, stack, &request(task)).unwrap();
            let samples = restored.samples.as_ref().unwrap();
            assert!(
                samples
                    .iter()
                    .chain(&restored.mean)
                    .all(|v| *v >= 0.0 && v.is_finite())
            );
            let factor = match task {
                Task::LowDose => 4.0,
                _ => 1.0,
            };
            let worst = (0..stack.len_of(Axis(0)))
                .flat_map(|i| (0..samples.len_of(Axis(2))).map(move |k| (i, k)))
                .map(|(i, k)| {
                    let kept = total(samples.slice(s![i, .., k, .., ..]));
                    (kept / (factor * total(stack.index_axis(Axis(0), i))) - 1.0).abs()
                })
                .fold(0.0, f64::max);
            println!("{} {}: total off by {worst:.1e}", method.id(), task.id());
            // The controls are the tasks that keep no counts.
            let held = matches!(task, Task::LowDose | Task::Separation);
            assert_eq!(worst < 1e-5, held, "{} {}: {worst}", method.id(), task.id());
            assert_eq!(
                samples.len_of(Axis(2)),
                if method == Method::Bridge { 3 } else { 1 }
            );
            assert_eq!(restored.inconsistency.is_empty(), method == Method::Regression);
        }
    }
}

#[test]
fn any_dose_is_taken_and_each_holds_its_counts() {
    let stack = inputs(Task::LowDose);
    for dose in [0.01, 0.5, 1.0] {
        let asked = RestoreRequest {
            task: Downstream::LowDose(LowDose { dose }),
            samples: 1,
            ..request(Task::LowDose)
        };
        let kept = total(&restore(stack, &asked).mean) * dose / total(stack);
        assert!((kept - 1.0).abs() < 1e-5, "{dose}: {kept}");
    }
}

#[test]
fn another_geometry_is_resampled_to_and_fro() {
    let (model, usual) = (model(Method::Bridge), request(Task::LowDose));
    let stack = inputs(Task::LowDose);
    let go = &mut |_: usize, _: usize| ControlFlow::Continue(());
    let own = model.restore_resampled(stack, &geometry(), &usual, go).unwrap();
    assert!(all_bits(&own) == all_bits(&restore(stack, &usual)));
    // The same field in other bins and views.
    let other = ParallelGeometry::new(40, 64, 8.0).unwrap();
    let mut seen = Array3::zeros((4, 40, 64));
    for (from, mut to) in stack.outer_iter().zip(seen.outer_iter_mut()) {
        to.assign(&resample(from, &geometry(), &other).unwrap());
    }
    let restored = model.restore_resampled(seen.view(), &other, &usual, go).unwrap();
    assert_eq!(restored.mean.dim(), (4, 1, 40, 64));
    assert_eq!(restored.samples.as_ref().unwrap().dim(), (4, 1, 3, 40, 64));
    let kept = |i: usize| total(restored.mean.index_axis(Axis(0), i)) / total(seen.index_axis(Axis(0), i));
    let ratios: Vec<f64> = (0..4).map(kept).collect();
    println!("totals over the inputs', 4 expected: {ratios:.4?}");
    assert!(ratios.iter().all(|r| (r / 4.0 - 1.0).abs() < 0.02), "{ratios:?}");
    // The control: taken for sinograms of the model's own, they do not fit.
    says(
        attempt(&model, seen.view(), &usual).unwrap_err(),
        &["32 views x 32 bins", "[4, 40, 64]"],
    );
    // What is wrong is named where it stands, not where resampling would carry it.
    let mut negative = seen.clone();
    negative[[1, 20, 30]] = -1e-3;
    let refused = model
        .restore_resampled(negative.view(), &other, &usual, go)
        .unwrap_err();
    says(refused, &["sinogram 1 at view 20, bin 30", "-0.001"]);
    let short = other.with_arc_deg(90.0);
    says(
        model
            .restore_resampled(seen.view(), &short, &usual, go)
            .unwrap_err(),
        &["90°", "180°"],
    );
}

#[test]
fn the_order_of_tracers_is_the_order_of_outputs() {
    let stack = inputs(Task::Separation);
    // One step draws no noise, so that an output depends on its prompt alone.
    let asked = |tracers: [Tracer; 2]| {
        let asked = RestoreRequest {
            task: Downstream::Separation(Separation { tracers }),
            samples: 1,
            steps: 1,
            ..request(Task::Separation)
        };
        restore(stack, &asked).mean
    };
    let forth = asked([Tracer::Fdg, Tracer::Psma]);
    let back = asked([Tracer::Psma, Tracer::Fdg]);
    let distance = |a: usize, b: usize| {
        let [a, b] = [forth.index_axis(Axis(1), a), back.index_axis(Axis(1), b)];
        let most = a.iter().fold(0f32, |m, v| m.max(*v));
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most
    };
    assert!(distance(0, 1) < 1e-6 && distance(1, 0) < 1e-6);
    assert!(distance(0, 0) > 1e-3, "both outputs are the same");
}

#[test]
fn two_separations_keep_their_tracers_apart() {
    use Tracer::{Dopa, Fdg, Psma};
    let pair =
        |tracers: [Tracer; 2]| simulate_with(PairedTask::Separation(simulated::Separation { tracers }), 4);
    let sets = [pair([Fdg, Psma]), pair([Fdg, Dopa])];
    let model = Restorer::from_bytes("two", &trained(&run(2), &sets), &Device::Cpu).unwrap();
    for (tracers, set) in [[Fdg, Psma], [Fdg, Dopa]].into_iter().zip(&sets) {
        let asked = RestoreRequest {
            task: Downstream::Separation(Separation { tracers }),
            ..request(Task::Separation)
        };
        let stack = set
            .array("input")
            .unwrap()
            .view()
            .into_dimensionality::<Ix3>()
            .unwrap();
        let restored = attempt(&model, stack, &asked).unwrap();
        assert!((total(&restored.mean) / total(stack) - 1.0).abs() < 1e-5);
    }
    let unknown = RestoreRequest {
        task: Downstream::Separation(Separation {
            tracers: [Psma, Dopa],
        }),
        ..request(Task::Separation)
    };
    let stack = inputs(Task::Separation);
    says(
        attempt(&model, stack, &unknown).unwrap_err(),
        &["separation (psma and dopa)", "(fdg and dopa)"],
    );
}

fn roi(shapes: Vec<RoiShape>) -> Regions {
    let grid = ImageGrid::square(32, 16.0).unwrap();
    Regions::Given(Roi::from_shapes(shapes, grid).unwrap())
}

fn disc(x_mm: f64) -> Vec<RoiShape> {
    vec![RoiShape::Ellipse {
        x_mm,
        y_mm: 0.0,
        a_mm: 40.0,
        b_mm: 40.0,
        tilt_deg: 0.0,
    }]
}

#[test]
fn attention_reaches_the_result() {
    let with = |regions: Regions| {
        let asked = RestoreRequest {
            regions,
            ..request(Task::Attenuation)
        };
        bits(&restore(inputs(Task::Attenuation), &asked).mean)
    };
    let off = with(Regions::Off);
    assert!(off != with(roi(disc(60.0))));
    assert!(with(roi(disc(-60.0))) != with(roi(disc(60.0))));
}

#[test]
fn progress_is_told_and_may_stop_the_work() {
    let stack = inputs(Task::Separation);
    let asked = RestoreRequest {
        batch: 4,
        ..request(Task::Separation)
    };
    let mut told = Vec::new();
    let model = model(Method::Bridge);
    model
        .restore(stack, &asked, &mut |done, total| {
            told.push((done, total));
            ControlFlow::Continue(())
        })
        .unwrap();
    // Four inputs of six samples in batches of four: two batches of an input's, three steps each.
    let all = told.len();
    assert!(
        told.iter().enumerate().all(|(i, t)| *t == (i + 1, all)),
        "{told:?}"
    );
    let mut calls = 0;
    let stopped = model.restore(stack, &asked, &mut |_, _| {
        calls += 1;
        if calls < 8 {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    assert_eq!(calls, 8);
    says(stopped.unwrap_err(), &["stopped after", "of 4 samples"]);
}

#[test]
fn wrong_sinograms_are_named() {
    let model = model(Method::Bridge);
    let usual = request(Task::LowDose);
    let refused = |stack: &Array3<f32>, words: &[&str]| {
        says(attempt(&model, stack.view(), &usual).unwrap_err(), words);
    };
    let good = inputs(Task::LowDose).to_owned();
    refused(
        &Array3::ones((2, 32, 31)),
        &["32 views x 32 bins", "resampled", "[2, 32, 31]"],
    );
    refused(&Array3::zeros((0, 32, 32)), &["0 sinograms"]);
    let mut negative = good.clone();
    negative[[2, 5, 7]] = -0.5;
    refused(&negative, &["sinogram 2 at view 5, bin 7", "-0.5", "0 or more"]);
    let mut blank = good.clone();
    blank.index_axis_mut(Axis(0), 1).fill(0.0);
    refused(&blank, &["sinogram 1", "0 in every bin"]);
    let mut nan = good.clone();
    nan[[3, 0, 1]] = f32::NAN;
    refused(&nan, &["sinograms", "NaN"]);
    attempt(&model, good.view(), &usual).unwrap();
    says(model.round_trip(blank.view()).unwrap_err(), &["sinogram 1"]);
}

#[test]
fn wrong_requests_are_named() {
    let model = model(Method::Bridge);
    let stack = inputs(Task::LowDose);
    let refused = |change: &dyn Fn(&mut RestoreRequest), words: &[&str]| {
        let mut asked = request(Task::LowDose);
        change(&mut asked);
        says(attempt(&model, stack, &asked).unwrap_err(), words);
    };
    refused(&|r| r.sampler = "euler".into(), &["euler", "dbim2"]);
    refused(&|r| r.sampler = "ddim".into(), &["ddim", "bridge"]);
    refused(&|r| r.eta = 0.5, &["eta is 0.5"]);
    refused(&|r| r.steps = 0, &["0 steps"]);
    refused(&|r| r.samples = 0, &["0 samples"]);
    refused(&|r| r.samples = (1 << 16) + 1, &["65537 samples"]);
    refused(&|r| r.batch = 0, &["0 batch"]);
    refused(&|r| r.shown.clear(), &["0 prompts"]);
    refused(&|r| (r.steps, r.samples) = (0, 0), &["0 steps", "0 samples"]);
    refused(
        &|r| r.task = Downstream::LowDose(LowDose { dose: 0.0 }),
        &["dose of 0"],
    );
    let minutes = [60.0, 90.0];
    refused(
        &|r| r.task = Downstream::Delayed(Delayed { minutes }),
        &["delayed (60 to 90 min)", "it knows", "delayed (60 to 120 min)"],
    );
    refused(
        &|r| r.task = Downstream::Conversion(Conversion::default()),
        &["conversion (fdg to psma)", "it knows low-dose"],
    );
    refused(&|r| r.regions = roi(Vec::new()), &["region"]);
    refused(
        &|r| r.first_estimates = Some(Array3::ones((4, 32, 31))),
        &["first estimates", "[4, 32, 31]"],
    );
    // Brains and trunks lose different shares to attenuation: which it is must be said.
    let attenuated = Downstream::new(Task::Attenuation).unwrap();
    refused(
        &|r| (r.task, r.shown) = (attenuated, vec![(None, None)]),
        &["no region", "brain or trunk"],
    );
}

#[test]
fn a_round_trip_is_of_the_same_shape_and_near() {
    let model = model(Method::Bridge);
    let stack = inputs(Task::LowDose);
    let back = model.round_trip(stack).unwrap();
    let error = |x: ArrayView3<'_, f32>| {
        let square: f64 = x.iter().zip(stack).map(|(x, y)| f64::from(x - y).powi(2)).sum();
        square / stack.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()
    };
    let restored: Array4<f32> = restore(stack, &request(Task::LowDose)).mean;
    let (near, far) = (error(back.view()), error(restored.index_axis(Axis(1), 0)));
    assert!(near < 0.1 && far > 1.0, "{near} {far}");
}
