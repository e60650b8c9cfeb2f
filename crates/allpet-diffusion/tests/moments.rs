//! Moments of a bridge's ends: as sums give them, several kinds in a batch, what the network sees, and what is refused.

// Helpers outside `#[test]` functions fail by panicking, as the tests do.
#![allow(clippy::unwrap_used)]

use allpet_diffusion::{
    BatchMoments, BridgeProcess, BridgeSchedule, Conditioning, Denoiser, EndMoments, Error,
    JointlyPreconditioned, MomentSums, Result, training,
};
use candle_core::{DType, Device, Tensor};

mod jointly;
use jointly::{alone, draw, flipped, moments, pairs, values, worst};

#[test]
fn sums_give_the_moments_in_closed_form() {
    let pair = |x0: [[f32; 4]; 3], xt: [[f32; 4]; 3]| {
        // [B, C, H, W] of two samples, two rows each of one column.
        let tensor = |v: [[f32; 4]; 3]| {
            let at = |b: usize, c: usize, i: usize| v[c][2 * b + i];
            let values: Vec<f32> = (0..2)
                .flat_map(|b| (0..3).flat_map(move |c| (0..2).map(move |i| at(b, c, i))))
                .collect();
            Tensor::from_vec(values, (2, 3, 2, 1), &Device::Cpu).unwrap()
        };
        (tensor(x0), tensor(xt))
    };
    let (x0, xt) = pair(
        [[1., 2., 3., 4.], [1., -1., 1., -1.], [0., 0., 1., 1.]],
        [[-2., -4., -6., -8.], [1., 1., -1., -1.], [0., 1., 1., 1.]],
    );
    let mut sums = MomentSums::default();
    sums.add(&x0, &xt).unwrap();
    let found = sums.finish().unwrap();
    let close = |found: &[f64], expected: &[f64]| assert!(worst(found, expected) < 1e-12, "{found:?}");
    close(&found.mean_data, &[2.5, 0.0, 0.5]);
    close(&found.sd_data, &[1.25f64.sqrt(), 1.0, 0.5]);
    close(&found.mean_terminal, &[-5.0, 0.0, 0.75]);
    close(&found.sd_terminal, &[5f64.sqrt(), 1.0, 0.1875f64.sqrt()]);
    // Exactly opposed ends are kept off -1, so that a little is left to predict.
    close(&found.correlation, &[-(1.0 - 1e-6), 0.0, 3f64.sqrt().recip()]);
    // Sample by sample the same; with the ends exchanged not.
    let mut parts = MomentSums::default();
    for i in 0..2 {
        parts
            .add(&x0.narrow(0, i, 1).unwrap(), &xt.narrow(0, i, 1).unwrap())
            .unwrap();
    }
    assert_eq!(parts.finish().unwrap(), found);
    let mut exchanged = MomentSums::default();
    exchanged.add(&xt, &x0).unwrap();
    assert_ne!(exchanged.finish().unwrap(), found);
    // From many samples, to their standard error.
    let (x0, xt) = pairs(&moments(), 20, 5_000, DType::F32);
    let mut many = MomentSums::default();
    many.add(&x0, &xt).unwrap();
    let (many, of) = (many.finish().unwrap(), moments());
    assert!(worst(&many.mean_data, &of.mean_data) < 0.02 && worst(&many.sd_terminal, &of.sd_terminal) < 0.02);
    assert!(worst(&many.correlation, &of.correlation) < 0.02);
    assert!(worst(&many.correlation, &flipped().correlation) > 1.0);
}

#[test]
fn samples_of_several_kinds_are_what_they_are_alone() {
    let process = BridgeProcess::new(BridgeSchedule::i2sb()).unwrap();
    let other = EndMoments {
        mean_data: vec![1.0; 3],
        sd_data: vec![0.1, 0.2, 0.3],
        sd_terminal: vec![3.0, 0.4, 0.9],
        ..flipped()
    };
    let kinds = [moments(), other, flipped()];
    let mixed = BatchMoments::new(kinds.to_vec()).unwrap();
    let (x0, terminal) = pairs(&moments(), 3, 7, DType::F32);
    let times = [1.0, 0.4, 0.01];
    let noise = draw("noise", 0, x0.dims(), DType::F32);
    let x = training::add_noise(&process, &x0, Some(&terminal), &times, &noise).unwrap();
    let all = |of: &BatchMoments, at: usize, count: usize| -> Vec<Vec<u64>> {
        let part = |t: &Tensor| t.narrow(0, at, count).unwrap().contiguous().unwrap();
        let (x, x0, terminal, times) = (part(&x), part(&x0), part(&terminal), &times[at..at + count]);
        let found = [
            of.input(&process, &x, times),
            of.terminal(&terminal),
            of.x0(
                &process,
                &noise.narrow(0, at, count).unwrap(),
                &x,
                &terminal,
                times,
            ),
            of.target(&process, &x0, &x, &terminal, times),
            of.levels(&process, times, &Device::Cpu),
        ];
        let bits = |t: Result<Tensor>| values(&t.unwrap()).into_iter().map(f64::to_bits).collect();
        found.into_iter().map(bits).collect()
    };
    let together = all(&mixed, 0, 3);
    for (i, kind) in kinds.into_iter().enumerate() {
        for (together, one) in together.iter().zip(all(&alone(kind), i, 1)) {
            assert_eq!(together[i * one.len()..(i + 1) * one.len()], one, "sample {i}");
        }
    }
    let one_for_all = all(&alone(moments()), 0, 3);
    assert!(
        together.iter().zip(&one_for_all).all(|(a, b)| a != b),
        "the kinds make no difference"
    );
}

#[test]
fn the_network_sees_both_ends_at_unit_variance() {
    let process = BridgeProcess::new(BridgeSchedule::vp()).unwrap();
    let (x0, terminal) = pairs(&moments(), 2, 5, DType::F32);
    let both = alone(moments());
    let times = [f64::from(0.3f32), f64::from(0.9f32)];
    let noise = draw("noise", 0, x0.dims(), DType::F32);
    let x = training::add_noise(&process, &x0, Some(&terminal), &times, &noise).unwrap();
    let target = both.target(&process, &x0, &x, &terminal, &times).unwrap();
    let expected = [
        both.input(&process, &x, &times).unwrap(),
        both.levels(&process, &times, &Device::Cpu).unwrap(),
        both.terminal(&terminal).unwrap(),
    ];
    let network = |x: &Tensor, level: &Tensor, told: &Conditioning| {
        for (seen, expected) in [x, level, told.terminal.as_ref().unwrap()].iter().zip(&expected) {
            assert_eq!(values(seen), values(expected));
        }
        Ok(target.clone())
    };
    let denoiser = JointlyPreconditioned::new(&process, both.clone(), network);
    let t = training::time_tensor(&times, &Device::Cpu).unwrap();
    let conditioning = Conditioning {
        terminal: Some(terminal),
        ..Conditioning::default()
    };
    let found = denoiser.predict_x0(&x, &t, &conditioning).unwrap();
    assert!(worst(&values(&found), &values(&x0)) < 1e-4);
    let without = denoiser.predict_x0(&x, &t, &Conditioning::default());
    assert!(matches!(without, Err(Error::NoTerminal)));
}

#[test]
fn misfits_are_one_clear_error() {
    let says = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(
            !text.contains('\n') && words.iter().all(|w| text.contains(w)),
            "{text}"
        );
    };
    let broken = |change: &dyn Fn(&mut EndMoments)| {
        let mut of = moments();
        change(&mut of);
        BatchMoments::new(vec![moments(), of]).unwrap_err()
    };
    says(
        broken(&|m| m.sd_data[1] = 0.0),
        &["sd_data of channel 1 is 0", "above 0"],
    );
    says(
        broken(&|m| m.sd_terminal[2] = f64::NAN),
        &["sd_terminal of channel 2 is NaN"],
    );
    says(
        broken(&|m| m.mean_data[0] = f64::INFINITY),
        &["mean_data of channel 0 is inf"],
    );
    says(
        broken(&|m| m.correlation[0] = 1.1),
        &["correlation of channel 0 is 1.1", "-1 to 1"],
    );
    says(
        broken(&|m| m.correlation.truncate(2)),
        &["correlation has 2 channels", "expected 3"],
    );
    let two_faults = broken(&|m| (m.sd_data[0], m.correlation[2]) = (-1.0, f64::NAN));
    says(
        two_faults,
        &["sd_data of channel 0 is -1", "correlation of channel 2 is NaN"],
    );
    says(
        BatchMoments::new(Vec::new()).unwrap_err(),
        &["none", "one for all"],
    );
    let fewer = EndMoments {
        mean_data: vec![0.0],
        sd_data: vec![1.0],
        mean_terminal: vec![0.0],
        sd_terminal: vec![1.0],
        correlation: vec![0.0],
    };
    says(
        BatchMoments::new(vec![moments(), fewer]).unwrap_err(),
        &["1 channels beside 3"],
    );
    let process = BridgeProcess::new(BridgeSchedule::i2sb()).unwrap();
    let (x, _) = pairs(&moments(), 2, 4, DType::F32);
    let both = alone(moments());
    let one_row = x.narrow(0, 0, 1).unwrap();
    let two_channels = x.narrow(1, 0, 2).unwrap();
    says(
        both.input(&process, &two_channels, &[0.5; 2]).unwrap_err(),
        &["[2, 3, ..]", "[2, 2, 4]"],
    );
    says(
        both.x0(&process, &x, &x, &one_row, &[0.5; 2]).unwrap_err(),
        &["[2, 3, ..]", "[1, 3, 4]"],
    );
    says(
        both.input(&process, &x, &[0.5]).unwrap_err(),
        &["[1, 3, ..]", "[2, 3, 4]"],
    );
    let three = BatchMoments::new(vec![moments(); 3]).unwrap();
    says(three.terminal(&x).unwrap_err(), &["[3, 3, ..]", "[2, 3, 4]"]);
    let mut sums = MomentSums::default();
    says(sums.finish().unwrap_err(), &["no channels"]);
    says(
        sums.add(&x, &one_row).unwrap_err(),
        &["terminal state", "[2, 3, 4]", "[1, 3, 4]"],
    );
    sums.add(&x, &x).unwrap();
    says(
        sums.add(&two_channels, &two_channels).unwrap_err(),
        &["[B, 3, ..] as before"],
    );
    let mut still = MomentSums::default();
    let ones = x.ones_like().unwrap();
    still.add(&ones, &x).unwrap();
    says(still.finish().unwrap_err(), &["sd_data of channel 0 is 0"]);
}
