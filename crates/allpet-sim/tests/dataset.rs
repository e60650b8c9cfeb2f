//! Datasets: bytes that depend on the settings alone, splits that share nobody, faults told all at once.

use allpet_core::{Dataset, Modality, ParallelGeometry, Prompt, Region, Tracer};
use allpet_sim::dataset::FIRST_TEST_SUBJECT;
use allpet_sim::{Split, SynthesisConfig, simulate_synthesis};
use ndarray::Axis;
use std::sync::atomic::{AtomicUsize, Ordering};

fn small(count: usize) -> SynthesisConfig {
    SynthesisConfig {
        count,
        subjects: 2,
        seed: 11,
        geometry: ParallelGeometry::new(32, 64, 8.0).expect("a valid geometry"),
        image_size: 64,
        ..SynthesisConfig::default()
    }
}

fn simulate(config: &SynthesisConfig) -> Dataset {
    simulate_synthesis(config, &|_| ()).expect("a valid configuration")
}

fn with_threads(threads: usize, config: &SynthesisConfig) -> Dataset {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("a pool")
        .install(|| simulate(config))
}

#[test]
fn threads_and_count_leave_every_byte_alone() {
    let eight = with_threads(2, &small(8));
    assert_eq!(eight, with_threads(1, &small(8)));
    let four = simulate(&small(4));
    for (name, array) in &four.arrays {
        for i in 0..4 {
            assert_eq!(
                array.index_axis(Axis(0), i),
                eight.arrays[name].index_axis(Axis(0), i),
                "{name} {i}"
            );
        }
    }
    assert_eq!(four.subjects, eight.subjects[..4]);
    assert_eq!(four.prompts, eight.prompts[..4]);
    // Control: another seed is other data.
    let other = simulate(&SynthesisConfig { seed: 12, ..small(4) });
    assert_ne!(four.arrays["target"], other.arrays["target"]);
}

#[test]
fn splits_share_no_subject_and_a_subject_is_one_person() {
    let train = simulate(&small(13));
    let test = simulate(&SynthesisConfig {
        split: Split::Test,
        ..small(13)
    });
    assert_eq!(train.distinct_subjects(), [0, 1]);
    assert_eq!(
        test.distinct_subjects(),
        [FIRST_TEST_SUBJECT, FIRST_TEST_SUBJECT + 1]
    );
    assert_ne!(train.arrays["image"], test.arrays["image"]);
}

#[test]
fn cells_are_taken_in_turn_and_a_trunk_is_chest_and_abdomen() {
    let config = SynthesisConfig {
        count: 12,
        regions: vec![Region::Trunk, Region::Brain],
        ..small(1)
    };
    let heard = AtomicUsize::new(0);
    let data = simulate_synthesis(&config, &|done| {
        heard.fetch_max(done, Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(heard.into_inner(), 12);
    data.validate().unwrap();
    let expected: Vec<Prompt> = [Region::Trunk, Region::Brain]
        .iter()
        .flat_map(|&region| Tracer::ALL.iter().map(move |&tracer| Prompt::pet(tracer, region)))
        .collect();
    assert_eq!(data.prompts[..6], expected);
    assert_eq!(data.prompts[6..], expected);
    // Lungs are seen in the first round's trunks (chests), and not in the second's.
    let lung_share = |i: usize| {
        let mu = data.arrays["attenuation"].index_axis(Axis(0), i).to_owned();
        let body = mu.iter().filter(|&&m| m > 0.01).count() as f64;
        mu.iter().filter(|&&m| (0.025..0.05).contains(&m)).count() as f64 / body
    };
    for i in 0..3 {
        assert!(
            lung_share(i) > 0.12 && lung_share(i) > lung_share(i + 6),
            "{i}: {}",
            lung_share(i)
        );
    }
}

#[test]
fn shapes_units_and_geometry_come_along() {
    let config = small(3);
    let data = simulate(&config);
    assert_eq!(data.arrays["target"].shape(), [3, 32, 64]);
    assert_eq!(data.arrays["image"].shape(), [3, 64, 64]);
    assert_eq!(data.arrays["attenuation"].shape(), [3, 64, 64]);
    assert_eq!(data.geometry, Some(config.geometry));
    for key in [
        "task",
        "seed",
        "split",
        "target_unit",
        "image_unit",
        "description",
    ] {
        assert!(data.metadata.contains_key(key), "{key}");
    }
    let ct = simulate(&SynthesisConfig {
        modality: Modality::Ct,
        tracers: Vec::new(),
        ..small(2)
    });
    assert_eq!(ct.prompts, [Prompt::ct(Region::Brain), Prompt::ct(Region::Trunk)]);
    assert_eq!(ct.arrays["image"], ct.arrays["attenuation"]);
    // A head is some 15-20 cm of 0.1 cm⁻¹ behind 2 cm of bone: ∫μ of about 2.
    let deepest = ct.arrays["target"]
        .index_axis(Axis(0), 0)
        .iter()
        .fold(0.0f32, |a, &b| a.max(b));
    assert!((1.6..3.2).contains(&deepest), "{deepest}");
}

#[test]
fn noise_free_data_are_the_mean_of_noisy_ones() {
    let clean = simulate(&SynthesisConfig {
        noise: false,
        ..small(2)
    });
    let noisy = simulate(&small(2));
    let many = simulate(&SynthesisConfig {
        counts: 1e9,
        ..small(2)
    });
    let distance = |a: &Dataset| {
        let (x, y) = (&a.arrays["target"], &clean.arrays["target"]);
        let square = |v: f32| f64::from(v) * f64::from(v);
        let far: f64 = x.iter().zip(y).map(|(&a, &b)| square(a - b)).sum();
        (far / y.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
    };
    let (at_1e6, at_1e9) = (distance(&noisy), distance(&many));
    println!("relative noise {at_1e6:.4} at 1e6 counts, {at_1e9:.5} at 1e9");
    assert_eq!(clean.arrays["image"], noisy.arrays["image"]);
    // A thousand times the counts is √1000 = 32 times less noise.
    assert!((20.0..45.0).contains(&(at_1e6 / at_1e9)), "{}", at_1e6 / at_1e9);
}

#[test]
fn faults_are_told_all_at_once() {
    let config = SynthesisConfig {
        tracers: Vec::new(),
        regions: Vec::new(),
        count: 0,
        subjects: 0,
        image_size: 0,
        counts: f64::NAN,
        geometry: ParallelGeometry {
            views: 0,
            bin_mm: -1.0,
            ..SynthesisConfig::default().geometry
        },
        ..SynthesisConfig::default()
    };
    let message = simulate_synthesis(&config, &|_| ()).unwrap_err().to_string();
    for word in [
        "tracer",
        "region",
        "0 samples",
        "0 subjects",
        "0 pixels",
        "NaN counts",
        "0 views",
        "-1 mm",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(!message.contains('\n'));
    SynthesisConfig::default().validate().unwrap();
}
