//! The truth about lesions; splits, threads, prompts, raw counts, faults.

use crate::common::{clean, far, low, simulate, small, sum};
use allpet_core::{Dataset, ImageGrid, ParallelGeometry, Prompt, Region, Task, Tracer};
use allpet_sim::dataset::FIRST_TEST_SUBJECT;
use allpet_sim::tasks::{Conversion, Delayed, DoseMode, Separation};
use allpet_sim::{PairedTask, Split, TaskConfig, simulate_task};
use ndarray::{Axis, Slice};

fn all() -> Vec<PairedTask> {
    Task::ALL
        .iter()
        .filter_map(|&task| PairedTask::new(task).ok())
        .collect()
}

#[test]
fn lesions_are_where_and_what_their_table_says() {
    let config = TaskConfig {
        task: low(0.25, DoseMode::Time),
        count: 12,
        subjects: 12,
        tracers: vec![Tracer::Fdg],
        image_size: 256,
        geometry: ParallelGeometry::new(16, 64, 8.0).unwrap(),
        ..clean(small(low(0.25, DoseMode::Time), 12))
    };
    let data = simulate(&config);
    let pixel = 2.0;
    let grid = ImageGrid::square(256, pixel).unwrap();
    let (mut seen, mut inner, mut slices) = (0, 0, 0);
    for i in 0..12 {
        let table = data.arrays["lesions"].index_axis(Axis(0), i).to_owned();
        let mask = data.arrays["lesion_mask"].index_axis(Axis(0), i).to_owned();
        let image = data.arrays["image"].index_axis(Axis(0), i).to_owned();
        slices += usize::from(mask.iter().any(|&m| m > 0.0));
        for (row, lesion) in table.outer_iter().enumerate().filter(|(_, l)| l[2] > 0.0) {
            let (sin, cos) = f64::from(lesion[4]).to_radians().sin_cos();
            let inside = |x: f64, y: f64, scale: f64| {
                let (u, v) = (x - f64::from(lesion[0]), y - f64::from(lesion[1]));
                ((cos * u + sin * v) / (scale * f64::from(lesion[2])))
                    .hypot((cos * v - sin * u) / (scale * f64::from(lesion[3])))
                    < 1.0
            };
            seen += 1;
            for r in 0..256 {
                for c in 0..256 {
                    let (x, y) = (grid.x_mm(c as f64), grid.y_mm(r as f64));
                    if mask[[r, c]] == (row + 1) as f32 {
                        assert!(inside(x, y, 1.01), "sample {i} row {row}");
                        // Well inside, past pixels shared with the host.
                        if (-1..=1).all(|k| {
                            let k = 1.5 * f64::from(k);
                            inside(x + k * pixel, y, 1.0) && inside(x, y + k * pixel, 1.0)
                        }) {
                            let ratio = image[[r, c]] / lesion[5];
                            assert!((0.85..1.18).contains(&ratio), "sample {i} row {row}: {ratio}");
                            inner += 1;
                        }
                    } else if mask[[r, c]] == 0.0 && inside(x, y, 0.99) {
                        // Only where the lesion reaches out of the body.
                        assert!(image[[r, c]] < 0.5 * lesion[5].max(1.0));
                    }
                }
            }
        }
    }
    println!("{seen} lesions in {slices} of 12 slices, {inner} pixels well inside");
    assert!(seen > 5 && slices > 5 && inner > 50);
    assert_eq!(
        data.metadata["lesion_columns"],
        "x_mm,y_mm,a_mm,b_mm,rotation_deg,value,host"
    );
    // Lesions of another size are the same elsewhere.
    let large = simulate(&TaskConfig {
        lesion_scale: 1.5,
        ..config
    });
    let area = |d: &Dataset| d.arrays["lesion_mask"].iter().filter(|&&m| m > 0.0).count();
    assert!(area(&large) > area(&data));
}

#[test]
fn splits_share_nobody_and_a_hundred_samples_show_a_hundred_people() {
    for task in all() {
        let train = simulate(&small(task, 4));
        let test = simulate(&TaskConfig {
            split: Split::Test,
            ..small(task, 4)
        });
        assert_eq!(train.distinct_subjects(), [0, 1, 2]);
        assert_eq!(train.subjects, [0, 1, 2, 0]);
        let shifted: Vec<u32> = [0, 1, 2].iter().map(|s| s + FIRST_TEST_SUBJECT).collect();
        assert_eq!(test.distinct_subjects(), shifted);
        assert!(far(&test.arrays["image"], &train.arrays["image"]) > 0.1);
        train.validate().unwrap();
    }
}

#[test]
fn threads_and_count_leave_every_byte_alone() {
    for task in all() {
        let config = TaskConfig {
            raw: true,
            ..small(task, 5)
        };
        let with = |threads: usize| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| simulate(&config))
        };
        let five = with(2);
        assert_eq!(five, with(1));
        let two = simulate(&TaskConfig {
            count: 2,
            ..config.clone()
        });
        for (name, array) in &two.arrays {
            let head = five.arrays[name].slice_axis(Axis(0), Slice::from(..2));
            assert_eq!(array, &head, "{name}");
        }
        assert_eq!(two.prompts, five.prompts[..2]);
        // Control: another seed is other data.
        let other = simulate(&TaskConfig { seed: 12, ..config });
        assert_ne!(five.arrays["input"], other.arrays["input"]);
    }
}

#[test]
fn prompts_name_task_tracer_and_region_in_turn() {
    let config = TaskConfig {
        subjects: 2,
        ..small(low(0.25, DoseMode::Time), 12)
    };
    let data = simulate(&config);
    let prompt = |tracer, region| Prompt {
        task: Task::LowDose,
        ..Prompt::pet(tracer, region)
    };
    assert_eq!(data.prompts[0], prompt(Tracer::Fdg, Region::Brain));
    // Person 0 in turn 1 starts one cell on; person 1 is one on from there.
    assert_eq!(data.prompts[2], prompt(Tracer::Dopa, Region::Brain));
    assert_eq!(data.prompts[3], prompt(Tracer::Psma, Region::Brain));
    let person: Vec<_> = (0..12).step_by(2).map(|i| data.prompts[i]).collect();
    for &region in &[Region::Brain, Region::Trunk] {
        for &tracer in Tracer::ALL {
            assert!(person.contains(&prompt(tracer, region)));
        }
    }
    assert_eq!(
        PairedTask::Separation(Separation::default()).regions(),
        [Region::Trunk]
    );
}

#[test]
fn raw_counts_give_the_input_back() {
    let data = simulate(&TaskConfig {
        raw: true,
        ..clean(small(low(0.25, DoseMode::Time), 2))
    });
    let of = |name: &str| &data.arrays[name];
    assert!((sum(of("prompts")) / sum(&of("counts").index_axis(Axis(1), 0).to_owned()) - 1.0).abs() < 1e-5);
    let trues = of("prompts") - of("background");
    // Against the target, attenuated again by the picture's own line integrals.
    let attenuated = simulate(&TaskConfig {
        task: PairedTask::new(Task::Attenuation).unwrap(),
        ..clean(small(low(0.25, DoseMode::Time), 2))
    });
    let mut again = of("input")
        * &attenuated.arrays["attenuation_sinogram"].mapv(|d| (-d).exp().max(0.01))
        * of("efficiency");
    for (mut sample, k) in again.outer_iter_mut().zip(of("calibration").outer_iter()) {
        sample *= k[0];
    }
    let path = &attenuated.arrays["attenuation_sinogram"];
    let inside = ndarray::Zip::from(&trues)
        .and(path)
        .map_collect(|&t, &d| if d > 0.0 { t } else { 0.0 });
    let difference = far(&again, &inside);
    println!("modelled from the input {difference:.1e}");
    assert!(difference < 1e-4);
}

#[test]
fn faults_are_told_all_at_once() {
    let broken = TaskConfig {
        count: 0,
        subjects: 0,
        image_size: 0,
        counts: f64::NAN,
        lesion_scale: 0.0,
        geometry: ParallelGeometry {
            views: 0,
            ..TaskConfig::default().geometry
        },
        ..small(low(1.5, DoseMode::Time), 0)
    };
    let message = simulate_task(&broken, &|_| ()).unwrap_err().to_string();
    for word in [
        "dose of 1.5",
        "0 samples",
        "0 subjects",
        "0 pixels",
        "NaN counts",
        "0 times",
        "0 views",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(!message.contains('\n'));
    let same = [Tracer::Fdg, Tracer::Fdg];
    for (task, tracers, word) in [
        (low(0.0, DoseMode::Time), vec![], "dose of 0"),
        (low(f64::NAN, DoseMode::Time), vec![], "dose of NaN"),
        (
            PairedTask::Delayed(Delayed {
                minutes: [120.0, 60.0],
            }),
            vec![],
            "120 and 60 min",
        ),
        (
            PairedTask::Delayed(Delayed { minutes: [0.0, 60.0] }),
            vec![],
            "0 and 60 min",
        ),
        (
            PairedTask::Delayed(Delayed::default()),
            vec![Tracer::Psma],
            "psma as the input of delayed",
        ),
        (
            PairedTask::Conversion(Conversion {
                from: Tracer::Dopa,
                to: Tracer::Dopa,
            }),
            vec![],
            "18F-DOPA and 18F-DOPA",
        ),
        (
            PairedTask::Separation(Separation { tracers: same }),
            vec![],
            "expected two tracers",
        ),
        (
            PairedTask::Conversion(Conversion::default()),
            vec![Tracer::Dopa],
            "expected fdg",
        ),
    ] {
        let config = TaskConfig {
            tracers,
            ..small(task, 1)
        };
        let message = config.validate().unwrap_err().to_string();
        assert!(message.contains(word), "{word}: {message}");
    }
    let message = PairedTask::new(Task::Synthesis).unwrap_err().to_string();
    assert!(message.contains("no pairs"), "{message}");
    TaskConfig::default().validate().unwrap();
}
