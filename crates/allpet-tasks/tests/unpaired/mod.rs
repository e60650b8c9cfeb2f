//! Restoration without pairs by a tiny foundation: the counts pull, the same bytes however the work is split, wrong requests named.

use crate::paired::{geometry, says, simulate};
use crate::trained::foundation;
use allpet_core::{Dataset, ParallelGeometry, Region, Task, Tracer};
use allpet_tasks::{Error, Head, LowDose, Restored, UnpairedRequest, restore_unpaired};
use ndarray::{Array3, ArrayView3, Axis, Ix3, s};
use std::ops::ControlFlow;
use std::sync::OnceLock;

fn inputs() -> ArrayView3<'static, f32> {
    static DATA: OnceLock<Dataset> = OnceLock::new();
    let data = DATA.get_or_init(|| simulate(Task::LowDose, 3));
    data.array("input")
        .unwrap()
        .view()
        .into_dimensionality::<Ix3>()
        .unwrap()
}

fn request() -> UnpairedRequest {
    UnpairedRequest {
        shown: vec![(Some(Tracer::Fdg), Some(Region::Trunk)), (None, None)],
        steps: 3,
        samples: 3,
        seed: 5,
        batch: 4,
        ..UnpairedRequest::new(LowDose::default())
    }
}

fn restore(sinograms: ArrayView3<'_, f32>, request: &UnpairedRequest) -> Result<Restored, Error> {
    restore_unpaired(&foundation(), sinograms, &geometry(), request, &mut |_, _| {
        ControlFlow::Continue(())
    })
}

/// Squared distance to the measured counts, over that of the first estimate.
fn misfit(restored: &Restored) -> f64 {
    let inputs = inputs();
    let estimate = LowDose::default().first_estimate(inputs, &geometry()).unwrap();
    let distance = |a: ArrayView3<'_, f32>| -> f64 {
        a.iter()
            .zip(&inputs)
            .map(|(a, y)| f64::from(a - 4.0 * y).powi(2))
            .sum()
    };
    distance(restored.mean.index_axis(Axis(1), 0)) / distance(estimate.view())
}

/// A prior of a few steps of training draws nonsense; the counts must pull it back, and the more they may the further.
#[test]
fn counts_pull_the_prior() {
    let with = |spread, iterations| {
        let request = UnpairedRequest {
            spread,
            iterations,
            start: Some(0.6),
            ..request()
        };
        misfit(&restore(inputs(), &request).unwrap())
    };
    let (alone, held, free) = (with(3.0, 0), with(0.1, 3), with(30.0, 3));
    assert!(held < alone && free < held, "{alone} {held} {free}");
    // No room for the data is no data.
    assert!((with(0.0, 3) - alone).abs() < 1e-3 * alone);
}

#[test]
fn a_seed_gives_the_same_bytes_in_any_batch() {
    let whole = restore(inputs(), &request()).unwrap();
    assert_eq!(whole.mean.dim(), (3, 1, 32, 32));
    assert!(whole.mean.iter().all(|v| v.is_finite() && *v >= 0.0));
    assert!(whole.sd.iter().any(|v| *v > 0.0));
    for (sample, input) in whole.mean.outer_iter().zip(inputs().outer_iter()) {
        assert!((sample.sum() / (4.0 * input.sum()) - 1.0).abs() < 1e-4, "counts");
    }
    for batch in [1, 9] {
        let other = restore(inputs(), &UnpairedRequest { batch, ..request() }).unwrap();
        assert!(other.mean == whole.mean && other.sd == whole.sd);
    }
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let single = pool.install(|| restore(inputs(), &request()).unwrap());
    assert!(single.mean == whole.mean);
    let later = UnpairedRequest {
        first: 2,
        ..request()
    };
    let later = restore(inputs().slice(s![2.., .., ..]), &later).unwrap();
    assert!(later.mean.index_axis(Axis(0), 0) == whole.mean.index_axis(Axis(0), 2));
    let other = restore(inputs(), &UnpairedRequest { seed: 6, ..request() }).unwrap();
    assert!(other.mean != whole.mean, "the seed changes nothing");
}

#[test]
fn another_geometry_goes_there_and_back() {
    let finer = ParallelGeometry {
        bins: 40,
        bin_mm: geometry().bin_mm * 0.8,
        ..geometry()
    };
    let mut stack = Array3::zeros((1, 32, 40));
    let moved = allpet_foundation::resample(inputs().index_axis(Axis(0), 0), &geometry(), &finer).unwrap();
    stack
        .index_axis_mut(Axis(0), 0)
        .assign(&moved.mapv(|v| v.max(0.0)));
    let restored = restore_unpaired(&foundation(), stack.view(), &finer, &request(), &mut |_, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(restored.mean.dim(), (1, 1, 32, 40));
    assert!(restored.mean.sum() > 3.0 * stack.sum());
    says(
        restore(stack.view(), &request()).unwrap_err(),
        &["sinograms", "32 views x 32 bins"],
    );
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let wrong = UnpairedRequest {
        task: LowDose { dose: 2.0 },
        samples: 0,
        steps: 0,
        start: Some(0.0),
        spread: -1.0,
        ..request()
    };
    says(
        restore(inputs(), &wrong).unwrap_err(),
        &["dose of 2", "0 samples", "0 steps", "start at 0", "spread of -1"],
    );
    let wrong = UnpairedRequest {
        sampler: "dbim2".into(),
        ..request()
    };
    says(restore(inputs(), &wrong).unwrap_err(), &["dbim2"]);
    let mut dark = inputs().to_owned();
    dark.index_axis_mut(Axis(0), 1).fill(0.0);
    says(restore(dark.view(), &request()).unwrap_err(), &["sinogram 1"]);
    dark[[1, 3, 4]] = -1.0;
    says(
        restore(dark.view(), &request()).unwrap_err(),
        &["sinogram 1 at view 3, bin 4", "-1"],
    );
    let mut calls = 0;
    let stopped = restore_unpaired(&foundation(), inputs(), &geometry(), &request(), &mut |_, _| {
        calls += 1;
        if calls == 8 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    says(stopped.unwrap_err(), &["stopped after 2 of 3"]);
}
