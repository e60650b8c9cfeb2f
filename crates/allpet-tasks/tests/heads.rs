//! The five heads: what they say of inputs, outputs and counts, and how they are read from simulated data.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{Dataset, Modality, Prompt, Region, Task, Tracer};
use allpet_sim::PairedTask;
use allpet_sim::tasks as simulated;
use allpet_tasks::{Attenuation, Conversion, CountRule, Delayed, Downstream, LowDose, Separation};
use ndarray::{ArrayView3, Ix3};

mod paired;
use paired::{geometry, says, simulate, simulate_with};

const TASKS: [Task; 5] = [
    Task::LowDose,
    Task::Attenuation,
    Task::Delayed,
    Task::Conversion,
    Task::Separation,
];

/// Each task with settings that are not its defaults, as the simulator and as the head say it.
fn settings() -> [(PairedTask, Downstream); 5] {
    let (dose, minutes) = (0.01, [45.0, 90.5]);
    let (from, to) = (Tracer::Dopa, Tracer::Fdg);
    let tracers = [Tracer::Psma, Tracer::Dopa];
    let low_dose = simulated::LowDose {
        dose,
        ..simulated::LowDose::default()
    };
    [
        (
            PairedTask::LowDose(low_dose),
            Downstream::LowDose(LowDose { dose }),
        ),
        (
            PairedTask::Attenuation(simulated::Attenuation::default()),
            Downstream::Attenuation(Attenuation {}),
        ),
        (
            PairedTask::Delayed(simulated::Delayed { minutes }),
            Downstream::Delayed(Delayed { minutes }),
        ),
        (
            PairedTask::Conversion(simulated::Conversion { from, to }),
            Downstream::Conversion(Conversion { from, to }),
        ),
        (
            PairedTask::Separation(simulated::Separation { tracers }),
            Downstream::Separation(Separation { tracers }),
        ),
    ]
}

#[test]
fn heads_say_what_becomes_of_tracers_and_counts() {
    use Tracer::{Dopa, Fdg, Psma};
    let expected: [(Vec<Option<Tracer>>, f64, CountRule); 5] = [
        (vec![None], 100.0, CountRule::Total(100.0)),
        (vec![None], 1.0, CountRule::Free),
        (vec![None], 1.0, CountRule::Free),
        (vec![Some(Fdg)], 1.0, CountRule::Free),
        (vec![Some(Psma), Some(Dopa)], 1.0, CountRule::Total(1.0)),
    ];
    for (((_, task), word), (outputs, gain, counts)) in settings().iter().zip(TASKS).zip(expected) {
        let head = task.head();
        assert_eq!((head.task(), task.task()), (word, word));
        assert_eq!((head.outputs(), task.outputs()), (outputs.clone(), outputs.len()));
        assert_eq!((head.gain(), head.counts()), (gain, counts));
        task.validate().unwrap();
        Downstream::new(word).unwrap().validate().unwrap();
        // An output of its own tracer says so, another has the input's; the region stays.
        let prompts = task.prompts(Some(Dopa), Some(Region::Trunk));
        let of = |tracer: &Option<Tracer>| Prompt {
            tracer: tracer.or(Some(Dopa)),
            region: Some(Region::Trunk),
            modality: Modality::Pet,
            task: word,
        };
        assert_eq!(prompts, outputs.iter().map(of).collect::<Vec<_>>());
        let open = task.prompts(None, None);
        assert!(
            open.iter()
                .zip(&outputs)
                .all(|(p, t)| p.tracer == *t && p.region.is_none())
        );
    }
    says(
        Downstream::new(Task::Synthesis).unwrap_err(),
        &["synthesis", "low-dose", "separation"],
    );
}

#[test]
fn simulated_data_say_which_task_they_are_of() {
    for ((simulated, expected), word) in settings().into_iter().zip(TASKS) {
        let data = simulate_with(simulated, 2);
        assert_eq!(Downstream::of(&data).unwrap(), expected);
        // The control: the settings are read, not assumed.
        let defaults = Downstream::of(&simulate(word, 2)).unwrap();
        assert_eq!(defaults, Downstream::new(word).unwrap());
        assert_eq!(defaults == expected, word == Task::Attenuation);
        assert_eq!(
            data.array("target").unwrap().ndim(),
            if expected.outputs() == 1 { 3 } else { 4 }
        );
    }
}

fn said(pairs: &[(&str, &str)]) -> Dataset {
    Dataset {
        metadata: pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
        ..Dataset::default()
    }
}

#[test]
fn other_metadata_are_one_clear_error() {
    let refused = |pairs: &[(&str, &str)], words: &[&str]| {
        says(Downstream::of(&said(pairs)).unwrap_err(), words);
    };
    refused(&[], &["no `task`"]);
    refused(&[("task", "synthesis")], &["synthesis", "low-dose"]);
    refused(&[("task", "denoising")], &["denoising", "low-dose"]);
    let low = ("task", "low-dose");
    refused(&[low], &["no `dose`"]);
    refused(
        &[low, ("dose", "a quarter")],
        &["`dose`", "1 numbers", "a quarter"],
    );
    refused(&[low, ("dose", "0.1,0.2")], &["`dose`", "1 numbers", "0.1,0.2"]);
    refused(&[low, ("dose", "1.5")], &["dose of 1.5", "at most 1"]);
    refused(&[low, ("dose", "NaN")], &["dose of NaN"]);
    let delayed = ("task", "delayed");
    refused(&[delayed, ("minutes", "60")], &["`minutes`", "2 numbers", "`60`"]);
    refused(
        &[delayed, ("minutes", "120,60")],
        &["120 and 60 min", "earlier first"],
    );
    let conversion = ("task", "conversion");
    refused(&[conversion, ("from", "fdg")], &["no `to`"]);
    refused(&[conversion, ("from", "fdg"), ("to", "gold")], &["gold", "dopa"]);
    refused(
        &[conversion, ("from", "fdg"), ("to", "18F-FDG")],
        &["two tracers"],
    );
    let separation = ("task", "separation");
    refused(
        &[separation, ("tracers", "fdg")],
        &["`tracers`", "two tracers", "fdg"],
    );
    refused(&[separation, ("tracers", "fdg,dopa,psma")], &["two tracers"]);
    refused(&[separation, ("tracers", "fdg,fdg")], &["two tracers"]);
    // The control: the same words, right, are read.
    let found = Downstream::of(&said(&[delayed, ("minutes", " 30, 90 ")])).unwrap();
    assert_eq!(
        found,
        Downstream::Delayed(Delayed {
            minutes: [30.0, 90.0]
        })
    );
}

#[test]
fn settings_outside_their_range_are_refused() {
    let low = |dose: f64| Downstream::LowDose(LowDose { dose });
    for dose in [0.0, -0.1, 1.01, f64::NAN, f64::INFINITY] {
        says(
            low(dose).validate().unwrap_err(),
            &["low-dose", "more than 0 and at most 1"],
        );
    }
    low(1.0).validate().unwrap();
    for minutes in [
        [0.0, 60.0],
        [60.0, 60.0],
        [90.0, 60.0],
        [60.0, f64::INFINITY],
        [f64::NAN, 60.0],
    ] {
        let task = Downstream::Delayed(Delayed { minutes });
        says(
            task.validate().unwrap_err(),
            &["delayed-frame", "the earlier first"],
        );
    }
    let (from, to) = (Tracer::Psma, Tracer::Psma);
    let same = Downstream::Conversion(Conversion { from, to });
    says(same.validate().unwrap_err(), &["conversion", "two tracers"]);
    let same = Downstream::Separation(Separation { tracers: [from, to] });
    says(same.validate().unwrap_err(), &["separation", "two tracers"]);
}

fn stack<'a>(data: &'a Dataset, name: &str) -> ArrayView3<'a, f32> {
    data.array(name)
        .unwrap()
        .view()
        .into_dimensionality::<Ix3>()
        .unwrap()
}

fn total(values: ArrayView3<'_, f32>) -> f64 {
    values.iter().map(|v| f64::from(*v)).sum()
}

/// `‖x - y‖²/‖y‖²`.
fn relative(x: ArrayView3<'_, f32>, y: ArrayView3<'_, f32>) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let error: f64 = x.iter().zip(y).map(|(x, y)| square(x - y)).sum();
    error / y.iter().map(|y| square(*y)).sum::<f64>()
}

#[test]
fn first_estimates_stand_in_the_unit_of_the_outputs() {
    let [(hundredth, _), (attenuated, _), (early, _), ..] = settings();
    for (simulated, at_most) in [(hundredth, 0.5), (attenuated, 0.5), (early, f64::INFINITY)] {
        let word = simulated.task();
        let data = simulate_with(simulated, 4);
        let head = Downstream::of(&data).unwrap();
        let (input, clean) = (stack(&data, "input"), stack(&data, "clean"));
        let estimate = head.head().first_estimate(input, &geometry()).unwrap();
        assert!(estimate.iter().all(|v| v.is_finite() && *v >= 0.0));
        let raised = input.mapv(|v| v * head.head().gain() as f32);
        let (ours, plain) = (relative(estimate.view(), clean), relative(raised.view(), clean));
        println!("{}: first estimate {ours:.4}, input {plain:.4}", word.id());
        // What a first estimate is for: nearer to the truth than the input where noise or attenuation can go.
        assert!(ours < at_most * plain, "{}: {ours} {plain}", word.id());
        if let CountRule::Total(factor) = head.head().counts() {
            let kept = total(estimate.view()) / (factor * total(input));
            assert!((kept - 1.0).abs() < 0.03, "{kept}");
            // The control: an input left in its own unit has a hundredth of it.
            assert!((total(input) / (factor * total(input)) - 1.0).abs() > 0.7);
        }
    }
}

#[test]
fn tasks_are_written_as_files_say_them() {
    for (_, task) in settings() {
        let json = serde_json::to_string(&task).unwrap();
        assert!(
            json.contains(&format!("\"task\":\"{}\"", task.task().id())),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Downstream>(&json).unwrap(), task);
    }
    let read = |json: &str| serde_json::from_str::<Downstream>(json);
    assert_eq!(
        read(r#"{"task":"low-dose"}"#).unwrap(),
        Downstream::new(Task::LowDose).unwrap()
    );
    says(
        read(r#"{"task":"low-dose","dos":0.1}"#).unwrap_err(),
        &["dos", "dose"],
    );
    says(
        read(r#"{"task":"synthesis"}"#).unwrap_err(),
        &["synthesis", "low-dose"],
    );
}
