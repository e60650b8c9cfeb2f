//! The PAC-Bayes bound: closed cases, coverage of a known true risk, and a control that must not cover.

#![allow(clippy::unwrap_used)]

use allpet_core::stream;
use allpet_metrics::Error;
use allpet_metrics::pac_bayes::{
    BoundedLoss, CertificateSettings, Complexity, Gaussian, GibbsRisk, PriorCandidate, binary_kl,
    binary_kl_upper, certify, certify_over_priors, gibbs_risk, kl_checkpoint, kl_isotropic, unit_means,
};
use ndarray::{Array2, arr1, arr2};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-10 * b.abs().max(1.0)
}

/// Standard normal distribution function by its power series (Abramowitz & Stegun 26.2.11), 1e-13 within |x| < 6.
fn phi(x: f64) -> f64 {
    if x.abs() > 8.0 {
        return f64::from(u8::from(x > 0.0));
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-18 * sum.abs() {
        odd += 2.0;
        term *= x * x / odd;
        sum += term;
    }
    0.5 + sum * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[test]
fn binary_kl_and_its_inverse_in_closed_cases() {
    assert!(close(phi(1.959_963_984_540_054), 0.975));
    assert_eq!(binary_kl(0.3, 0.3).unwrap(), 0.0);
    assert_eq!(binary_kl(0.0, 0.0).unwrap(), 0.0);
    assert_eq!(binary_kl(1.0, 1.0).unwrap(), 0.0);
    assert_eq!(binary_kl(0.2, 0.0).unwrap(), f64::INFINITY);
    assert_eq!(binary_kl(0.2, 1.0).unwrap(), f64::INFINITY);
    assert!(close(binary_kl(1.0, 0.25).unwrap(), 4.0_f64.ln()));
    // kl(1/2‖q) = -½ ln(4q(1-q)): the inverse is ½ + ½√(1 - e^{-2ε}).
    for epsilon in [1e-8_f64, 1e-4, 0.01, 0.3, 2.0, 40.0] {
        let q = 0.5 + 0.5 * (-(-2.0 * epsilon).exp_m1()).sqrt();
        let got = binary_kl_upper(0.5, epsilon).unwrap();
        assert!(close(got, q), "{epsilon}: {got} {q}");
        assert!(close(
            binary_kl_upper(0.0, epsilon).unwrap(),
            -(-epsilon).exp_m1()
        ));
        assert_eq!(binary_kl_upper(1.0, epsilon).unwrap(), 1.0);
        for p in [1e-6, 0.1, 0.9, 0.999] {
            let q = binary_kl_upper(p, epsilon).unwrap();
            assert!(q > p && q <= 1.0);
            let back = binary_kl(p, q.min(1.0 - f64::EPSILON)).unwrap();
            assert!(
                q > 1.0 - 1e-12 || (back - epsilon).abs() < 1e-7 * epsilon,
                "{p} {epsilon}: {back}"
            );
            let wrong = (p + (0.5 * epsilon).sqrt()).min(1.0);
            assert!(q <= wrong, "Pinsker's inequality");
        }
    }
    assert_eq!(binary_kl_upper(0.4, 0.0).unwrap(), 0.4);
    assert_eq!(binary_kl_upper(0.4, f64::INFINITY).unwrap(), 1.0);
}

#[test]
fn gaussian_divergences_in_closed_cases() {
    assert!(close(kl_checkpoint(10.0, 4.0).unwrap(), 1.25));
    // One dimension: ln(σp/σq) + (σq² + Δ²)/(2σp²) - ½.
    let expected = (3.0_f64 / 2.0).ln() + (4.0 + 0.49) / 18.0 - 0.5;
    assert!(close(kl_isotropic(1, 0.49, 4.0, 9.0).unwrap(), expected));
    let q = Gaussian::new(arr1(&[1.7]), arr2(&[[4.0]])).unwrap();
    let p = Gaussian::new(arr1(&[1.0]), arr2(&[[9.0]])).unwrap();
    assert!(close(q.kl(&p).unwrap(), expected));
    assert_eq!(p.kl(&p).unwrap(), 0.0);
    // Two dimensions against the inverse and determinants written out.
    let (sq, sp) = (arr2(&[[2.0, 0.6], [0.6, 1.0]]), arr2(&[[3.0, -0.5], [-0.5, 1.5]]));
    let (dq, dp): (f64, f64) = (2.0 - 0.36, 4.5 - 0.25);
    let inverse = arr2(&[[1.5, 0.5], [0.5, 3.0]]) / dp;
    let delta = arr1(&[0.3, -1.1]);
    let expected: f64 =
        0.5 * ((dp / dq).ln() - 2.0 + inverse.dot(&sq).diag().sum() + delta.dot(&inverse.dot(&delta)));
    let q = Gaussian::new(delta, sq).unwrap();
    let p = Gaussian::new(arr1(&[0.0, 0.0]), sp).unwrap();
    assert!(close(q.kl(&p).unwrap(), expected));
    assert!((q.kl(&p).unwrap() - p.kl(&q).unwrap()).abs() > 0.01);
    let isotropic = |d: usize, v: f64| Gaussian::new(ndarray::Array1::zeros(d), Array2::eye(d) * v).unwrap();
    assert!(close(
        isotropic(5, 0.3).kl(&isotropic(5, 2.0)).unwrap(),
        kl_isotropic(5, 0.0, 0.3, 2.0).unwrap()
    ));
    let shrunk = kl_isotropic(1_000_000, 0.0, 1e-300, 1e300).unwrap();
    assert!(close(shrunk, 0.5e6 * (600.0 * 10.0_f64.ln() - 1.0)));
}

#[test]
fn the_bound_is_the_corrected_formula() {
    let risk = GibbsRisk::exact(0.1, 50).unwrap();
    let settings = CertificateSettings {
        delta: 0.05,
        ..Default::default()
    };
    let certificate = certify(&risk, 3.0, &settings).unwrap();
    let epsilon = (3.0 + (51.0_f64 / 0.05).ln()) / 50.0;
    assert!(close(certificate.epsilon, epsilon));
    assert!(close(binary_kl(0.1, certificate.bound).unwrap(), epsilon));
    assert!(close(certificate.closed_form, 0.1 + (epsilon / 2.0).sqrt()));
    assert!(close(certificate.confidence(), 0.95));
    assert!(certificate.bound < certificate.closed_form);
    let tighter = CertificateSettings {
        complexity: Complexity::Maurer,
        ..settings
    };
    let tighter = certify(&risk, 3.0, &tighter).unwrap();
    assert!(close(
        tighter.epsilon,
        (3.0 + (2.0 * 50.0_f64.sqrt() / 0.05).ln()) / 50.0
    ));
    assert!(tighter.bound < certificate.bound);
    assert_eq!(
        certify(&GibbsRisk::exact(1.0, 50).unwrap(), 3.0, &settings)
            .unwrap()
            .bound,
        1.0
    );
}

#[test]
fn monte_carlo_risk_its_error_and_its_price() {
    let risk = gibbs_risk::<Error>(4, |j| Ok(vec![0.1 * j as f64, 0.3])).unwrap();
    assert!(close(risk.mean(), 0.225));
    let sd = [-0.075_f64, -0.025, 0.025, 0.075]
        .map(|d| d * d)
        .iter()
        .sum::<f64>()
        / 3.0;
    assert!(close(risk.standard_error(), (sd / 4.0).sqrt()));
    assert_eq!((risk.draws(), risk.units()), (Some(4), 2));
    let settings = CertificateSettings::default();
    let certificate = certify(&risk, 0.0, &settings).unwrap();
    assert!(close(certificate.confidence(), 0.95));
    assert!(close(
        binary_kl(0.225, certificate.risk_upper).unwrap(),
        80.0_f64.ln() / 4.0
    ));
    let exact = certify(&GibbsRisk::exact(0.225, 2).unwrap(), 0.0, &settings).unwrap();
    assert!(exact.bound < certificate.bound);
    let one = gibbs_risk::<Error>(1, |_| Ok(vec![0.0])).unwrap();
    assert_eq!(one.standard_error(), f64::INFINITY);
    assert!(certify(&one, 0.0, &settings).unwrap().bound <= 1.0);
}

#[test]
fn patients_count_not_slices() {
    let means = unit_means(&[0.1, 0.9, 0.3, 0.5], &["b", "a", "b", "b"]).unwrap();
    assert_eq!(means.len(), 2);
    assert!(close(means[0], 0.9) && close(means[1], 0.3));
    let loss = BoundedLoss::new(4.0).unwrap();
    assert_eq!(
        [0.0, 1.0, 4.0, 9.0].map(|l| loss.apply(l).unwrap()),
        [0.0, 0.25, 1.0, 1.0]
    );
}

/// y ~ N(0, 1), loss `[y > θ]`, Q = N(μ, σ²) about a threshold fitted to the sample: R(Q) = Φ(-μ/√(1+σ²)).
struct Toy {
    truth: f64,
    kl: f64,
    exact: GibbsRisk,
    sampled: GibbsRisk,
}

fn toy(repetition: u64, n: usize, draws: usize) -> Toy {
    let sigma = 0.2;
    let mut generator = stream(11, "toy", repetition);
    let sample: Vec<f64> = (0..n).map(|_| StandardNormal.sample(&mut generator)).collect();
    let mu = sample
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max)
        .clamp(-3.0, 3.0);
    let risk = sample.iter().map(|y| phi((y - mu) / sigma)).sum::<f64>() / n as f64;
    let sampled = gibbs_risk::<Error>(draws, |j| {
        let normal: f64 = StandardNormal.sample(&mut stream(repetition, "posterior", j as u64));
        let theta = mu + sigma * normal;
        Ok(sample.iter().map(|y| f64::from(u8::from(*y > theta))).collect())
    });
    Toy {
        truth: phi(-mu / (1.0 + sigma * sigma).sqrt()),
        kl: kl_isotropic(1, mu * mu, sigma * sigma, 1.0).unwrap(),
        exact: GibbsRisk::exact(risk, n).unwrap(),
        sampled: sampled.unwrap(),
    }
}

#[test]
fn the_bound_covers_and_an_overstated_sample_does_not() {
    let (n, delta) = (20, 0.05);
    let mut missed = [0; 4];
    let mut vacuous = 0;
    for repetition in 0..1000 {
        let toy = toy(repetition, n, 200);
        let settings = CertificateSettings {
            delta,
            delta_monte_carlo: delta,
            ..Default::default()
        };
        let maurer = CertificateSettings {
            complexity: Complexity::Maurer,
            ..settings
        };
        let overstated = GibbsRisk::exact(toy.exact.mean(), 50 * n).unwrap();
        let certificates = [
            certify(&toy.exact, toy.kl, &settings).unwrap(),
            certify(&toy.exact, toy.kl, &maurer).unwrap(),
            certify(&toy.sampled, toy.kl, &settings).unwrap(),
            certify(&overstated, toy.kl, &settings).unwrap(),
        ];
        for (count, certificate) in missed.iter_mut().zip(&certificates) {
            *count += usize::from(toy.truth > certificate.bound);
            vacuous += usize::from(certificate.is_vacuous());
        }
    }
    println!("missed of 1000: exact, Maurer, Monte Carlo, overstated: {missed:?}; vacuous {vacuous}");
    assert!(missed[0] <= 50 && missed[1] <= 50, "{missed:?}");
    assert!(missed[2] <= 100, "{missed:?}");
    assert!(missed[3] > 50, "the control covers: {missed:?}");
    assert_eq!(vacuous, 0);
}

/// The Monte Carlo price alone: R̂ known, few draws; without the inversion the estimate fails half the time.
#[test]
fn the_monte_carlo_inversion_covers_and_the_plain_estimate_does_not() {
    let (truth, draws, delta) = (0.3, 40, 0.1);
    let (mut missed, mut plain) = (0, 0);
    for repetition in 0..1000 {
        let mut generator = stream(5, "draws", repetition);
        let risk = gibbs_risk::<Error>(draws, |_| {
            Ok(vec![f64::from(u8::from(generator.random_bool(truth)))])
        });
        let risk = risk.unwrap();
        missed += usize::from(truth > risk.upper(delta).unwrap());
        plain += usize::from(truth > risk.mean());
    }
    println!("missed of 1000: inverted {missed}, plain {plain}");
    assert!(missed <= 100 && plain > 300);
}

#[test]
fn a_vacuous_bound_says_so() {
    let settings = CertificateSettings::default();
    let vacuous = certify(&GibbsRisk::exact(0.4, 10).unwrap(), 1e4, &settings).unwrap();
    assert!(vacuous.is_vacuous() && vacuous.to_string().starts_with("vacuous: "));
    let says = certify(&GibbsRisk::exact(0.1, 5000).unwrap(), 3.0, &settings).unwrap();
    println!("{says}\n{vacuous}");
    assert!(!says.is_vacuous() && !says.to_string().contains("vacuous"));
    assert!(says.to_string().contains("confidence 0.975"), "{says}");
}

#[test]
fn a_prior_chosen_on_the_data_is_paid_for() {
    let risk = gibbs_risk::<Error>(300, |j| Ok(vec![f64::from(u8::from(j % 10 == 0)); 100])).unwrap();
    let settings = CertificateSettings::default();
    let grid: Vec<PriorCandidate> = [0.1, 1.0, 10.0]
        .map(|variance| PriorCandidate {
            variance,
            kl: kl_isotropic(3, 2.0, 1.0, variance).unwrap(),
            risk,
        })
        .to_vec();
    let (variance, chosen) = certify_over_priors(&grid, &settings).unwrap();
    assert_eq!((variance, chosen.priors), (1.0, 3));
    let single = certify(&risk, chosen.kl, &settings).unwrap();
    assert!(close(chosen.epsilon - single.epsilon, 3.0_f64.ln() / 100.0));
    assert!(chosen.bound > single.bound && chosen.risk_upper > single.risk_upper);
    assert!(chosen.to_string().contains("3 prior variances"));
    let (_, alone) = certify_over_priors(&grid[1..2], &settings).unwrap();
    assert_eq!(alone, single);
}

#[test]
fn what_certifies_nothing_is_refused() {
    let settings = CertificateSettings::default();
    let risk = GibbsRisk::exact(0.1, 5).unwrap();
    let sampled = gibbs_risk::<Error>(2, |_| Ok(vec![0.5])).unwrap();
    let with = |delta, delta_monte_carlo| CertificateSettings {
        delta,
        delta_monte_carlo,
        ..settings
    };
    let maurer = CertificateSettings {
        complexity: Complexity::Maurer,
        ..settings
    };
    let one_variance = PriorCandidate {
        variance: 1.0,
        kl: 1.0,
        risk,
    };
    let errors = [
        certify(&risk, f64::NAN, &settings).unwrap_err(),
        certify(&risk, -1.0, &settings).unwrap_err(),
        certify(&risk, f64::INFINITY, &settings).unwrap_err(),
        certify(&risk, 1.0, &with(0.0, 0.1)).unwrap_err(),
        certify(&risk, 1.0, &with(f64::NAN, 0.1)).unwrap_err(),
        certify(&sampled, 1.0, &with(0.6, 0.5)).unwrap_err(),
        certify(&sampled, 1.0, &with(0.1, 0.0)).unwrap_err(),
        certify(&risk, 1.0, &maurer).unwrap_err(),
        certify_over_priors(&[], &settings).unwrap_err(),
        certify_over_priors(&[one_variance, one_variance], &settings).unwrap_err(),
        GibbsRisk::exact(1.1, 5).unwrap_err(),
        GibbsRisk::exact(0.1, 0).unwrap_err(),
        gibbs_risk::<Error>(0, |_| Ok(vec![0.1])).unwrap_err(),
        gibbs_risk::<Error>(2, |_| Ok(Vec::new())).unwrap_err(),
        gibbs_risk::<Error>(2, |_| Ok(vec![f64::NAN])).unwrap_err(),
        gibbs_risk::<Error>(2, |_| Ok(vec![1.5])).unwrap_err(),
        gibbs_risk::<Error>(2, |j| Ok(vec![0.1; j + 1])).unwrap_err(),
        unit_means(&[0.1], &[1, 2]).unwrap_err(),
        unit_means::<u8>(&[], &[]).unwrap_err(),
        unit_means(&[f64::NAN], &[1]).unwrap_err(),
        BoundedLoss::new(0.0).unwrap_err(),
        BoundedLoss::new(1.0).unwrap().apply(f64::NAN).unwrap_err(),
        BoundedLoss::new(1.0).unwrap().apply(-1.0).unwrap_err(),
        binary_kl(f64::NAN, 0.1).unwrap_err(),
        binary_kl(0.1, 1.1).unwrap_err(),
        binary_kl_upper(0.1, f64::NAN).unwrap_err(),
        binary_kl_upper(0.1, -1.0).unwrap_err(),
        kl_checkpoint(f64::NAN, 1.0).unwrap_err(),
        kl_checkpoint(1.0, 0.0).unwrap_err(),
        kl_isotropic(3, 1.0, -1.0, 1.0).unwrap_err(),
        Gaussian::new(arr1(&[0.0]), arr2(&[[0.0]])).unwrap_err(),
        Gaussian::new(arr1(&[f64::NAN]), arr2(&[[1.0]])).unwrap_err(),
        Gaussian::new(arr1(&[0.0, 0.0]), arr2(&[[1.0]])).unwrap_err(),
    ];
    for error in errors {
        assert!(!error.to_string().is_empty() && !error.to_string().contains('\n'));
    }
}
