//! Batches of pairs against the data they are drawn from: the same turn, mask and scale for both ends, by the step alone.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{Dataset, Prompt, Task, Tracer};
use allpet_foundation::ModelConfig;
use allpet_sim::PairedTask;
use allpet_sim::tasks as simulated;
use allpet_tasks::{
    Attention, Downstream, Error, Goal, PairAugmentation, PairBatch, PairSettings, PairSource,
};
use allpet_train::Source;
use candle_core::{Device, Tensor};
use ndarray::{Array2, Array3, ArrayView2, Axis, Ix3, Ix4};

mod paired;
use paired::{geometry, says, simulate, simulate_with};

const SIZE: usize = 32 * 32;

/// How a source is made here.
#[derive(Clone)]
struct Setting {
    model: ModelConfig,
    augmentation: PairAugmentation,
    goal: Goal,
    attention: Option<Attention>,
    seed: u64,
}

impl Default for Setting {
    /// Empty masks, nothing turned, nothing left open.
    fn default() -> Self {
        let mut model = ModelConfig::preset("tiny").unwrap();
        model.augmentation.empty = 1.0;
        model.augmentation.rotate_deg = 0.0;
        Self {
            model,
            augmentation: PairAugmentation {
                attention_dropout: 0.0,
                prompt_dropout: 0.0,
            },
            goal: Goal::Clean,
            attention: None,
            seed: 5,
        }
    }
}

impl Setting {
    fn source(&self, data: &[Dataset], batch: usize) -> Result<PairSource, Error> {
        let settings = PairSettings {
            model: &self.model,
            augmentation: &self.augmentation,
            goal: self.goal,
            attention: self.attention.as_ref(),
            batch,
            seed: self.seed,
        };
        PairSource::new(data, &settings, &Device::Cpu)
    }
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// A batch as bytes and words, for exact comparison.
fn bytes(batch: &PairBatch) -> (Vec<u32>, String) {
    let tensors = [
        &batch.first,
        &batch.input,
        &batch.target,
        &batch.mask,
        &batch.attention,
    ];
    let bits = tensors.iter().flat_map(|t| values(t)).map(f32::to_bits).collect();
    (bits, format!("{:?} {:?}", batch.prompts, batch.kinds))
}

/// What a batch should be made of: a sample's input and first estimate in the unit of the outputs, and its targets.
struct Truth {
    input: Array2<f32>,
    first: Array2<f32>,
    targets: Vec<Array2<f32>>,
    scale: f32,
    prompts: Vec<Prompt>,
}

fn truths(data: &Dataset, name: &str) -> Vec<Truth> {
    let task = Downstream::of(data).unwrap();
    let input = data
        .array("input")
        .unwrap()
        .view()
        .into_dimensionality::<Ix3>()
        .unwrap();
    let first = task.head().first_estimate(input, &geometry()).unwrap();
    let target = data.array(name).unwrap().view();
    let target = if target.ndim() == 3 {
        target.insert_axis(Axis(1))
    } else {
        target
    };
    let target = target.into_dimensionality::<Ix4>().unwrap();
    let intensity = ModelConfig::preset("tiny").unwrap().intensity;
    (0..data.len())
        .map(|i| {
            let first = first.index_axis(Axis(0), i).to_owned();
            Truth {
                input: input
                    .index_axis(Axis(0), i)
                    .mapv(|v| v * task.head().gain() as f32),
                scale: intensity.scale(first.as_slice().unwrap()).unwrap(),
                first,
                targets: target
                    .index_axis(Axis(0), i)
                    .outer_iter()
                    .map(|t| t.to_owned())
                    .collect(),
                prompts: task.prompts(data.prompts[i].tracer, data.prompts[i].region),
            }
        })
        .collect()
}

/// The object turned by `by` views: what a view saw, the one `by` further sees, past the half turn with its bins mirrored.
fn turned(sinogram: ArrayView2<'_, f32>, by: i64) -> Array2<f32> {
    let (views, bins) = sinogram.dim();
    let mut out = Array2::zeros((views, bins));
    for ((view, bin), value) in sinogram.indexed_iter() {
        let to = view as i64 + by;
        let inside = (0..views as i64).contains(&to);
        let bin = if inside { bin } else { bins - 1 - bin };
        out[[to.rem_euclid(views as i64) as usize, bin]] = *value;
    }
    out
}

/// Largest difference of linear values over the largest value.
fn off(found: &[f32], expected: &Array2<f32>) -> f32 {
    let most = expected.iter().fold(0f32, |m, v| m.max(*v));
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / most
}

/// Channel `channel` of slot `slot`, decoded with `scale`.
fn decoded(t: &Tensor, slot: usize, channel: usize, scale: f32) -> Vec<f32> {
    let intensity = ModelConfig::preset("tiny").unwrap().intensity;
    let channels = t.dim(1).unwrap();
    let all = values(t);
    let part = &all[(slot * channels + channel) * SIZE..][..SIZE];
    part.iter().map(|v| intensity.decode(*v, scale)).collect()
}

fn ratio(source: &PairSource, prompt: &Prompt) -> f32 {
    let known = source.ratios().iter().find(|r| r.prompt == *prompt).unwrap();
    known.mean_ln.exp() as f32
}

fn both() -> [Dataset; 2] {
    [simulate(Task::LowDose, 5), simulate(Task::Separation, 4)]
}

#[test]
fn batches_are_a_function_of_the_step() {
    let mut setting = Setting::default();
    setting.model.augmentation.empty = 0.3;
    setting.model.augmentation.rotate_deg = 40.0;
    setting.augmentation = PairAugmentation::default();
    setting.attention = Some(Attention::for_geometry(&geometry()));
    let data = both();
    let (one, two) = (
        setting.source(&data, 3).unwrap(),
        setting.source(&data, 3).unwrap(),
    );
    let forth: Vec<_> = (0..6).map(|step| bytes(&one.draw(step).unwrap())).collect();
    let mut back: Vec<_> = (0..6)
        .rev()
        .map(|step| bytes(&two.batch(step).unwrap()))
        .collect();
    back.reverse();
    assert!(forth == back);
    assert!(forth[0] != forth[1]);
    setting.seed += 1;
    let other = setting.source(&data, 3).unwrap();
    assert!(
        forth[2] != bytes(&other.draw(2).unwrap()),
        "the seed changes nothing"
    );
}

#[test]
fn an_epoch_shows_every_pair_once_with_its_prompt_and_kind() {
    let data = both();
    let source = Setting::default().source(&data, 13).unwrap();
    assert_eq!(
        (source.len(), source.kinds(), source.is_empty()),
        (5 + 2 * 4, 3, false)
    );
    assert_eq!(
        source.tasks(),
        [Task::LowDose, Task::Separation].map(|t| Downstream::new(t).unwrap())
    );
    let batch = source.draw(0).unwrap();
    let inputs = values(&batch.input);
    let mut seen: Vec<(Vec<u32>, usize)> = Vec::new();
    for (slot, (prompt, kind)) in batch.prompts.iter().zip(&batch.kinds).enumerate() {
        let expected = match kind {
            0 => (Task::LowDose, prompt.tracer),
            1 => (Task::Separation, Some(Tracer::Fdg)),
            _ => (Task::Separation, Some(Tracer::Psma)),
        };
        assert_eq!((prompt.task, prompt.tracer), expected);
        assert!(prompt.tracer.is_some() && prompt.region.is_some());
        let bits = inputs[slot * SIZE..][..SIZE]
            .iter()
            .map(|v| v.to_bits())
            .collect();
        seen.push((bits, *kind));
    }
    let of_kind = |kind: usize| seen.iter().filter(|s| s.1 == kind).count();
    assert_eq!([0, 1, 2].map(of_kind), [5, 4, 4]);
    seen.sort();
    let pairs = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), pairs);
    // A second set of a known task adds pairs, not kinds; of another dose it is a task of its own.
    let quarter = simulate(Task::LowDose, 2);
    let hundredth = simulate_with(
        PairedTask::LowDose(simulated::LowDose {
            dose: 0.01,
            ..simulated::LowDose::default()
        }),
        2,
    );
    let kinds = |sets: &[Dataset]| Setting::default().source(sets, 1).unwrap().kinds();
    assert_eq!(kinds(&[quarter.clone(), quarter.clone()]), 1);
    assert_eq!(kinds(&[quarter, hundredth]), 2);
}

#[test]
fn both_ends_are_turned_alike() {
    let mut setting = Setting::default();
    setting.model.augmentation.rotate_deg = 60.0;
    let data = both();
    let source = setting.source(&data, 13).unwrap();
    let truths: Vec<Truth> = data.iter().flat_map(|d| truths(d, "clean")).collect();
    let (mut shifts, mut worst, mut control) = (Vec::new(), [0f32; 3], f32::INFINITY);
    for step in 0..2 {
        let batch = source.draw(step).unwrap();
        for (slot, prompt) in batch.prompts.iter().enumerate() {
            let fit = |truth: &Truth, by: i64| {
                off(
                    &decoded(&batch.input, slot, 0, truth.scale),
                    &turned(truth.input.view(), by),
                )
            };
            let (error, truth, by) = truths
                .iter()
                .flat_map(|truth| (-11..=11).map(move |by| (truth, by)))
                .map(|(truth, by)| (fit(truth, by), truth, by))
                .min_by(|a, b| a.0.total_cmp(&b.0))
                .unwrap();
            let output = truth.prompts.iter().position(|p| p == prompt).unwrap();
            let scale = truth.scale * ratio(&source, prompt);
            let first = decoded(&batch.first, slot, 1, truth.scale);
            let target = decoded(&batch.target, slot, 1, scale);
            let of_target = |by: i64| off(&target, &turned(truth.targets[output].view(), by));
            let errors = [error, off(&first, &turned(truth.first.view(), by)), of_target(by)];
            worst = std::array::from_fn(|i| worst[i].max(errors[i]));
            control = control.min(of_target(by + 1)).min(of_target(by - 1));
            shifts.push(by);
        }
    }
    println!("input, first estimate, target off by {worst:?}; one view further {control:.3}");
    assert!(
        worst.iter().all(|v| *v < 1e-5) && control > 0.01,
        "{worst:?} {control}"
    );
    assert!(
        shifts.iter().any(|k| *k > 3) && shifts.iter().any(|k| *k < -3),
        "{shifts:?}"
    );
}

#[test]
fn both_ends_have_the_same_mask() {
    let mut setting = Setting::default();
    setting.model.augmentation.empty = 0.0;
    let source = setting.source(&both(), 6).unwrap();
    let batch = source.draw(0).unwrap();
    let masks = values(&batch.mask);
    let mask = |slot: usize| &masks[slot * SIZE..][..SIZE];
    assert!(masks.iter().all(|m| (0.0..=1.0).contains(m)));
    // In units of the scale: C_pos = M·S, C_neg = (1 - M)·S.
    let misfit = |ends: &Tensor, slot: usize, mask: &[f32]| {
        let [positive, full, negative] = [0, 1, 2].map(|c| decoded(ends, slot, c, 1.0));
        (0..SIZE)
            .map(|i| {
                (positive[i] - mask[i] * full[i]).abs() + (negative[i] - (1.0 - mask[i]) * full[i]).abs()
            })
            .fold(0.0, f32::max)
    };
    for slot in 0..6 {
        assert!(mask(slot).iter().any(|m| *m > 0.5), "an empty mask");
        for ends in [&batch.first, &batch.target] {
            let (own, other) = (
                misfit(ends, slot, mask(slot)),
                misfit(ends, slot, mask((slot + 1) % 6)),
            );
            assert!(own < 1e-5 && other > 0.05, "slot {slot}: {own} {other}");
        }
    }
    let empty = Setting::default().source(&both(), 6).unwrap().draw(0).unwrap();
    assert!(values(&empty.mask).iter().all(|m| *m == 0.0));
    assert!(decoded(&empty.target, 0, 0, 1.0).iter().all(|v| *v == 0.0));
}

#[test]
fn inputs_are_coded_on_the_scale_of_their_first_estimate() {
    let data = simulate(Task::LowDose, 4);
    let source = Setting::default().source(std::slice::from_ref(&data), 4).unwrap();
    let intensity = ModelConfig::preset("tiny").unwrap().intensity;
    let truths = truths(&data, "clean");
    let coded = |truth: &Truth, gain: f32| -> Vec<u32> {
        let code = |v: &f32| intensity.encode(v * gain, truth.scale).to_bits();
        truth.input.iter().map(code).collect()
    };
    let batch = values(&source.draw(0).unwrap().input);
    for found in batch.chunks_exact(SIZE) {
        let found: Vec<u32> = found.iter().map(|v| v.to_bits()).collect();
        assert!(truths.iter().any(|truth| coded(truth, 1.0) == found));
        assert!(
            truths.iter().all(|truth| coded(truth, 0.25) != found),
            "the gain changes nothing"
        );
    }
    // Ratios in closed form: mean and standard deviation of ln of scales over scales.
    let scales: Vec<(Prompt, f64)> = truths
        .iter()
        .map(|t| {
            let target = intensity.scale(t.targets[0].as_slice().unwrap()).unwrap();
            (t.prompts[0], (f64::from(target) / f64::from(t.scale)).ln())
        })
        .collect();
    for known in source.ratios() {
        let of: Vec<f64> = scales
            .iter()
            .filter(|s| s.0 == known.prompt)
            .map(|s| s.1)
            .collect();
        let mean = of.iter().sum::<f64>() / of.len() as f64;
        let variance = of.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / of.len() as f64;
        assert_eq!(known.count, of.len());
        assert!((known.mean_ln - mean).abs() < 1e-6 && (known.sd_ln - variance.sqrt()).abs() < 1e-6);
    }
    assert_eq!(source.ratios().iter().map(|r| r.count).sum::<usize>(), 4);
}

#[test]
fn the_goal_says_which_array_is_learnt() {
    let data = simulate(Task::LowDose, 3);
    let fits = |source: &PairSource, name: &str| {
        let batch = source.draw(0).unwrap();
        let truths = truths(&data, name);
        (0..3)
            .map(|slot| {
                let scale = |t: &Truth| t.scale * ratio(source, &batch.prompts[slot]);
                let misfit = |t: &Truth| off(&decoded(&batch.target, slot, 1, scale(t)), &t.targets[0]);
                truths.iter().map(misfit).fold(f32::INFINITY, f32::min)
            })
            .fold(0.0, f32::max)
    };
    let source = |goal: Goal, data: &Dataset| {
        let setting = Setting {
            goal,
            ..Setting::default()
        };
        setting.source(std::slice::from_ref(data), 3).unwrap()
    };
    let mut measured_only = data.clone();
    measured_only.arrays.remove("clean");
    for (goal, data, right, wrong) in [
        (Goal::Clean, &data, "clean", "target"),
        (Goal::Target, &data, "target", "clean"),
        (Goal::Clean, &measured_only, "target", "clean"),
    ] {
        let source = source(goal, data);
        let (own, other) = (fits(&source, right), fits(&source, wrong));
        assert!(own < 1e-5 && other > 0.02, "{goal:?}: {own} {other}");
    }
}

#[test]
fn prompts_and_attention_are_left_out_as_often_as_said() {
    let data = both();
    let batch = |prompts: f64, attention: f64| {
        let mut search = Attention::for_geometry(&geometry());
        search.lesions.least_area_mm2 = 0.0;
        search.lesions.greatest_area_mm2 = None;
        search.lesions.hot = Some(allpet_mask::attention::Threshold::OfMean { fraction: 1.2 });
        let setting = Setting {
            augmentation: PairAugmentation {
                attention_dropout: attention,
                prompt_dropout: prompts,
            },
            attention: Some(search),
            ..Setting::default()
        };
        setting.source(&data, 13).unwrap().draw(0).unwrap()
    };
    let shown = |batch: &PairBatch| {
        let all = values(&batch.attention);
        all.chunks_exact(SIZE)
            .filter(|m| m.iter().any(|v| *v > 0.0))
            .count()
    };
    let (none, half, all) = (batch(1.0, 1.0), batch(0.0, 0.5), batch(0.0, 0.0));
    assert_eq!((shown(&none), shown(&all)), (0, 13));
    assert!((1..13).contains(&shown(&half)), "{}", shown(&half));
    for (open, said) in none.prompts.iter().zip(&all.prompts) {
        assert!(open.region.is_none() && said.region.is_some() && said.tracer.is_some());
        // Which output of a separation is meant must be said.
        assert_eq!(open.tracer, said.tracer.filter(|_| said.task == Task::Separation));
    }
}

#[test]
fn data_that_do_not_fit_are_one_clear_error() {
    let good = simulate(Task::LowDose, 3);
    let refused = |change: &dyn Fn(&mut Dataset), words: &[&str]| {
        let mut data = good.clone();
        change(&mut data);
        says(Setting::default().source(&[data], 2).unwrap_err(), words);
    };
    let other = |d: &mut Dataset| d.geometry.as_mut().unwrap().bin_mm = 8.0;
    refused(&other, &["geometry", "bin_mm: 16.0", "bin_mm: 8.0"]);
    refused(&|d| drop(d.arrays.remove("input")), &["input", "target"]);
    let no_target = |d: &mut Dataset| d.arrays.retain(|name, _| name != "target" && name != "clean");
    refused(&no_target, &["target", "input"]);
    refused(&|d| drop(d.metadata.remove("task")), &["no `task`"]);
    let blank = |d: &mut Dataset| {
        d.arrays
            .get_mut("input")
            .unwrap()
            .index_axis_mut(Axis(0), 1)
            .fill(0.0);
    };
    refused(&blank, &["sinogram 1", "some counts"]);
    let two = |d: &mut Dataset| {
        let found = d.arrays["clean"].clone().into_dimensionality::<Ix3>().unwrap();
        let stacked: Vec<_> = vec![found.view(); 2];
        let both = ndarray::stack(Axis(1), &stacked).unwrap();
        d.arrays.insert("clean".into(), both.into_dyn());
    };
    refused(
        &two,
        &[
            "array `clean`",
            "1 target(s) of 32 views x 32 bins",
            "[3, 2, 32, 32]",
        ],
    );
    let flat = |d: &mut Dataset| {
        d.arrays
            .insert("clean".into(), Array3::<f32>::zeros((3, 32, 16)).into_dyn());
    };
    refused(&flat, &["array `clean`", "[3, 32, 16]"]);
    let nan = |d: &mut Dataset| d.arrays.get_mut("target").unwrap()[[2, 1, 0]] = f32::NAN;
    refused(&nan, &["target"]);
    says(Setting::default().source(&[], 2).unwrap_err(), &["no pairs"]);
    let mut setting = Setting::default();
    for (attention_dropout, prompt_dropout, word) in [
        (1.5, 0.0, "attention_dropout is 1.5"),
        (0.0, -0.1, "prompt_dropout is -0.1"),
        (f64::NAN, 0.0, "attention_dropout is NaN"),
    ] {
        setting.augmentation = PairAugmentation {
            attention_dropout,
            prompt_dropout,
        };
        let error = setting.source(std::slice::from_ref(&good), 2).unwrap_err();
        says(error, &[word, "expected 0 to 1"]);
    }
}

/// A target that shows nothing has no scale; the message says which sample.
#[test]
fn a_target_that_shows_nothing_is_named() {
    let mut data = simulate(Task::LowDose, 3);
    data.arrays
        .get_mut("clean")
        .unwrap()
        .index_axis_mut(Axis(0), 2)
        .fill(0.0);
    let error = Setting::default().source(&[data], 2).unwrap_err();
    says(error, &["sample 2", "target"]);
}
