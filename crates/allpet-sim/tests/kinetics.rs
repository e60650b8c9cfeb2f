//! FDG in time against the differential equations, published values and closed forms; decay.

use allpet_core::Tracer;
use allpet_sim::kinetics::{FengInput, Kinetics, TwoTissue};
use allpet_sim::nuclide::Nuclide;
use allpet_sim::tasks::separation::emission_factor;
use allpet_sim::{Subject, Tissue, Uptake};

/// Both compartments at `t` by the classical Runge-Kutta method.
fn integrated([k1, k2, k3, k4]: [f64; 4], input: &FengInput, t: f64) -> f64 {
    let n = 10_000;
    let h = t / f64::from(n);
    let slope = |t: f64, [a, b]: [f64; 2]| [k1 * input.plasma(t) - (k2 + k3) * a + k4 * b, k3 * a - k4 * b];
    let at = |c: [f64; 2], s: [f64; 2], h: f64| [c[0] + h * s[0], c[1] + h * s[1]];
    let mut c = [0.0; 2];
    for i in 0..n {
        let t = f64::from(i) * h;
        let s1 = slope(t, c);
        let s2 = slope(t + h / 2.0, at(c, s1, h / 2.0));
        let s3 = slope(t + h / 2.0, at(c, s2, h / 2.0));
        let s4 = slope(t + h, at(c, s3, h));
        for k in 0..2 {
            c[k] += h / 6.0 * (s1[k] + 2.0 * s2[k] + 2.0 * s3[k] + s4[k]);
        }
    }
    c[0] + c[1]
}

#[test]
fn the_input_function_has_its_published_values() {
    let input = FengInput::standard();
    for (t, published) in [(1.0, 52.970), (10.0, 25.399), (60.0, 11.145), (120.0, 5.950)] {
        let ours = input.plasma(t) / 37.0;
        assert!((ours - published).abs() < 6e-4, "{t}: {ours} {published}");
    }
    // The area by Simpson's rule.
    let n = 20_000;
    let h = 60.0 / f64::from(n);
    let simpson: f64 = (0..=n)
        .map(|i| {
            let weight = match i {
                0 => 1.0,
                _ if i == n => 1.0,
                _ if i % 2 == 1 => 4.0,
                _ => 2.0,
            };
            weight * input.plasma(f64::from(i) * h)
        })
        .sum::<f64>()
        * h
        / 3.0;
    assert!((input.convolved(0.0, 60.0) / simpson - 1.0).abs() < 1e-8);
}

#[test]
fn tissue_solves_the_two_tissue_equations() {
    let input = FengInput::standard();
    let mut worst = 0.0f64;
    for rates in [
        [0.102, 0.130, 0.062, 0.0068],
        [0.054, 0.109, 0.045, 0.0058],
        [0.108, 0.735, 0.016, 0.013],
        [0.864, 0.981, 0.005, 0.016],
        [0.6, 1.2, 0.1, 0.001],
        [0.243, 0.78, 0.1, 0.0],
        // An exponent equal to one of the input's.
        [0.1, input.rates[1], 0.0, 0.0],
        [0.1, input.rates[0], 0.0, 0.0],
        // Two equal exponents.
        [0.1, 0.05, 0.0, 0.05],
    ] {
        for t in [0.7, 15.0, 60.0, 120.0, 240.0] {
            let (ours, oracle) = (
                TwoTissue(rates).concentration(&input, t),
                integrated(rates, &input, t),
            );
            worst = worst.max((ours / oracle - 1.0).abs());
        }
    }
    println!("worst relative difference to Runge-Kutta {worst:.1e}");
    assert!(worst < 1e-6);
    // Control: without return from the second compartment grey matter is another curve.
    let grey = TwoTissue([0.102, 0.130, 0.062, 0.0]).concentration(&input, 120.0);
    assert!((grey / integrated([0.102, 0.130, 0.062, 0.0068], &input, 120.0) - 1.0).abs() > 0.1);
}

#[test]
fn brain_gains_liver_and_blood_lose() {
    let typical = Kinetics::typical(Tracer::Fdg).unwrap();
    for (tissue, ratio) in [
        (Tissue::Grey, 1.13),
        (Tissue::Liver, 0.61),
        (Tissue::Blood, 5.950 / 11.145),
        (Tissue::Air, 1.0),
    ] {
        let ours = typical.factor(tissue, 120.0).unwrap();
        assert!((ours - ratio).abs() < 6e-3, "{tissue:?} {ours}");
        assert_eq!(typical.factor(tissue, 60.0).unwrap(), 1.0);
    }
    assert!((typical.tumour_factor(0, 120.0).unwrap() - 1.36).abs() < 6e-3);
    // Muscle, bone, fat, marrow keep their level; urine gathers.
    for (tissue, low, high) in [
        (Tissue::Muscle, 0.9, 1.1),
        (Tissue::Marrow, 0.9, 1.1),
        (Tissue::Spleen, 0.7, 0.95),
        (Tissue::Bladder, 0.7, 1.4),
    ] {
        let ours = typical.factor(tissue, 120.0).unwrap();
        println!("{tissue:?} {ours:.3}");
        assert!((low..high).contains(&ours), "{tissue:?} {ours}");
    }
    for bad in [0.0, -1.0, f64::NAN] {
        assert!(typical.factor(Tissue::Grey, bad).is_err());
    }
    let message = Kinetics::typical(Tracer::Psma).unwrap_err().to_string();
    assert!(
        message.contains("68Ga-PSMA") && message.contains("18F-FDG"),
        "{message}"
    );
}

#[test]
fn people_differ_about_the_typical_course_and_agree_with_themselves() {
    let ratios: Vec<f64> = (0..200)
        .map(|id| {
            let kinetics = Kinetics::draw(&Subject::draw(3, id), Tracer::Fdg).unwrap();
            kinetics.factor(Tissue::Grey, 120.0).unwrap()
        })
        .collect();
    let mean = ratios.iter().sum::<f64>() / 200.0;
    let sd = (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / 199.0).sqrt();
    println!("grey matter 120 to 60 min: {mean:.3} ± {sd:.3}");
    assert!((mean - 1.13).abs() < 0.02 && (0.02..0.1).contains(&sd));
    let subject = Subject::draw(3, 7);
    let hour = Uptake::draw(&subject, Tracer::Fdg);
    let two = hour.at_minutes(&subject, 120.0).unwrap();
    let kinetics = Kinetics::draw(&subject, Tracer::Fdg).unwrap();
    for tissue in [Tissue::Grey, Tissue::Liver, Tissue::Muscle] {
        let ratio = f64::from(two.suv(tissue) / hour.suv(tissue));
        assert!((ratio / kinetics.factor(tissue, 120.0).unwrap() - 1.0).abs() < 1e-6);
    }
    assert_eq!(
        hour.at_minutes(&subject, 60.0).unwrap().suv(Tissue::Grey),
        hour.suv(Tissue::Grey)
    );
    for (number, lesion) in subject.lesions().iter().enumerate() {
        let (Some(before), Some(after)) = (hour.lesion_suv(number, lesion), two.lesion_suv(number, lesion))
        else {
            continue;
        };
        let ratio = f64::from(after / before);
        if before > hour.suv(lesion.host) {
            assert!((1.1..1.6).contains(&ratio), "hot lesion {ratio}");
        } else {
            assert!((ratio / kinetics.factor(lesion.host, 120.0).unwrap() - 1.0).abs() < 1e-5);
        }
    }
}

#[test]
fn nuclides_decay_and_emit_as_tabulated() {
    assert!((Nuclide::F18.remaining(6584.04) - 0.5).abs() < 1e-12);
    assert!((Nuclide::GA68.remaining(2.0 * 4069.8) - 0.25).abs() < 1e-12);
    let fdg = 0.9686 * (-3600.0 * 2f64.ln() / 6584.04).exp();
    let psma = 150.0 / 350.0 * 0.889 * (-3600.0 * 2f64.ln() / 4069.8).exp();
    assert!((emission_factor(Tracer::Fdg) - fdg).abs() < 1e-9);
    assert!((emission_factor(Tracer::Psma) - psma).abs() < 1e-9);
}
