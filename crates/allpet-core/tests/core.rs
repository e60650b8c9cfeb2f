//! Geometry, prompts, streams, finite checks, datasets and whole-or-nothing files.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use allpet_core::{
    CylindricalScanner, Dataset, Error, ImageGrid, Modality, ParallelGeometry, Prompt, Region, Task, Tracer,
    check_finite, fill_normal, stream, write_atomically, write_bytes_atomically,
};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::Rng;

#[test]
fn pixels_and_bins_lie_where_the_conventions_say() {
    let grid = ImageGrid::new(4, 5, 2.0).unwrap();
    assert_eq!((grid.x_mm(0.0), grid.x_mm(2.0), grid.x_mm(4.0)), (-4.0, 0.0, 4.0));
    assert_eq!((grid.y_mm(0.0), grid.y_mm(3.0)), (3.0, -3.0));
    let g = ParallelGeometry::new(4, 10, 1.5)
        .unwrap()
        .with_arc_deg(360.0)
        .with_start_deg(90.0)
        .with_offset_bins(1.5);
    assert_eq!(g.centre_bin(), 6.0);
    assert_eq!(g.s_mm(8.0), 3.0);
    assert!((g.angle(1) - std::f64::consts::PI).abs() < 1e-15);
}

#[test]
fn every_fault_of_a_geometry_is_reported_at_once() {
    let text = ParallelGeometry::new(0, 0, -1.0).unwrap_err().to_string();
    assert!(
        text.contains("0 views") && text.contains("0 bins") && text.contains("-1 mm"),
        "{text}"
    );
    assert!(!text.contains('\n'));
    for bad in [f64::NAN, 0.0, 361.0, -10.0] {
        assert!(
            ParallelGeometry::new(3, 3, 1.0)
                .unwrap()
                .with_arc_deg(bad)
                .validate()
                .is_err(),
            "{bad}"
        );
    }
    assert!(ImageGrid::new(0, 3, f64::INFINITY).is_err());
    let odd = CylindricalScanner {
        crystals: 7,
        rings: 2,
        max_ring_difference: 2,
        ..CylindricalScanner::mmr()
    };
    let text = odd.validate().unwrap_err().to_string();
    assert!(
        text.contains("7 crystals") && text.contains("ring difference") && text.contains("radial bins"),
        "{text}"
    );
}

#[test]
fn the_mmr_has_the_planes_and_bins_of_its_data() {
    let scanner = CylindricalScanner::mmr();
    scanner.validate().unwrap();
    assert_eq!((scanner.views(), scanner.planes()), (252, 4084));
    assert_eq!(scanner.s_mm(172), 0.0);
    // Near the centre the spacing is the published one, at the edge it is smaller.
    assert!((scanner.s_mm(173) - 2.0863).abs() < 1e-3);
    assert!(scanner.s_mm(343) - scanner.s_mm(342) < 1.1);
    // Each pair of rings up to the difference stands once.
    let mut pairs: Vec<_> = (0..scanner.planes())
        .map(|p| scanner.plane_rings(p).unwrap())
        .collect();
    assert_eq!(scanner.plane_rings(scanner.planes()), None);
    assert!(
        pairs
            .iter()
            .all(|(a, b)| *a < 64 && *b < 64 && a.abs_diff(*b) <= 60)
    );
    pairs.sort_unstable();
    pairs.dedup();
    assert_eq!(pairs.len(), 4084);
}

#[test]
fn prompts_are_read_as_people_write_them() {
    let read = |text: &str| Prompt::parse(text).unwrap();
    assert_eq!(
        read("brain with 18F-FDG"),
        [Prompt::pet(Tracer::Fdg, Region::Brain)]
    );
    assert_eq!(
        read("Trunk with 18F-DOPA"),
        [Prompt::pet(Tracer::Dopa, Region::Trunk)]
    );
    let either = [
        Prompt::pet(Tracer::Psma, Region::Chest),
        Prompt::pet(Tracer::Psma, Region::Abdomen),
    ];
    assert_eq!(read("chest or abdomen with 68Ga-PSMA"), either);
    assert_eq!(read("CT of the abdomen"), [Prompt::ct(Region::Abdomen)]);
    assert_eq!(
        read("fdg"),
        [Prompt {
            tracer: Some(Tracer::Fdg),
            ..Prompt::default()
        }]
    );
    for prompt in either {
        assert_eq!(read(&prompt.to_string()), [prompt]);
    }
}

#[test]
fn unknown_and_contradictory_prompts_say_what_is_known() {
    let text = Prompt::parse("brian with 18F-FDG").unwrap_err().to_string();
    assert!(
        text.contains("brian") && text.contains("brain") && text.contains("psma"),
        "{text}"
    );
    for bad in [
        "",
        "  ",
        "with the",
        "brain chest",
        "fdg and dopa brain",
        "CT with FDG",
        "pet ct",
    ] {
        let text = Prompt::parse(bad).unwrap_err().to_string();
        assert!(!text.contains('\n') && text.contains("prompt"), "{bad}: {text}");
    }
    assert!(
        "kidney"
            .parse::<Region>()
            .unwrap_err()
            .to_string()
            .contains("abdomen")
    );
}

#[test]
fn vocabularies_are_stable() {
    // Files and weights hold these numbers.
    assert_eq!(
        Tracer::ALL.iter().map(|t| t.id()).collect::<Vec<_>>(),
        ["fdg", "dopa", "psma"]
    );
    assert_eq!(
        Region::ALL.iter().map(|t| t.id()).collect::<Vec<_>>(),
        ["brain", "trunk", "chest", "abdomen"]
    );
    assert_eq!(
        Modality::ALL.iter().map(|t| t.id()).collect::<Vec<_>>(),
        ["pet", "ct"]
    );
    let tasks = [
        "synthesis",
        "low-dose",
        "attenuation",
        "delayed",
        "conversion",
        "separation",
    ];
    assert_eq!(Task::ALL.iter().map(|t| t.id()).collect::<Vec<_>>(), tasks);
    for (i, task) in Task::ALL.iter().enumerate() {
        assert_eq!(
            (task.index(), Task::from_index(i), task.id().parse().ok()),
            (i, Some(*task), Some(*task))
        );
    }
    assert_eq!(Task::from_index(6), None);
}

#[test]
fn streams_differ_by_seed_name_and_index_and_by_nothing_else() {
    let draw = |seed, name: &str, index| stream(seed, name, index).random::<u64>();
    let base = draw(1, "a", 0);
    assert_eq!(base, draw(1, "a", 0));
    assert!(
        [draw(2, "a", 0), draw(1, "b", 0), draw(1, "a", 1), draw(0, "a", 1)]
            .iter()
            .all(|v| *v != base)
    );
    let mut values = vec![0f32; 40_000];
    fill_normal(&mut stream(3, "normal", 0), &mut values);
    let n = values.len() as f64;
    let moment = |k: i32| values.iter().map(|v| f64::from(*v).powi(k)).sum::<f64>() / n;
    assert!(moment(1).abs() < 4.0 / n.sqrt());
    assert!((moment(2) - 1.0).abs() < 4.0 * (2.0 / n).sqrt());
    assert!((moment(4) - 3.0).abs() < 4.0 * (96.0 / n).sqrt());
}

#[test]
fn the_first_value_that_is_no_number_is_named() {
    let mut values = ArrayD::<f32>::zeros(IxDyn(&[2, 3, 4]));
    check_finite("x", values.view()).unwrap();
    values[[1, 0, 2]] = f32::NAN;
    values[[1, 2, 3]] = f32::INFINITY;
    match check_finite("x", values.view()).unwrap_err() {
        Error::NotFinite { index, .. } => assert_eq!(index, [1, 0, 2]),
        other => panic!("{other}"),
    }
    // Also through a view that is not contiguous.
    let turned = values.view().reversed_axes();
    let text = check_finite("x", turned).unwrap_err().to_string();
    assert!(text.contains("[2, 0, 1]"), "{text}");
}

#[test]
fn a_dataset_is_checked_as_a_whole() {
    let geometry = ParallelGeometry::new(3, 4, 1.0).unwrap();
    let mut set = Dataset {
        arrays: [("target".to_owned(), ArrayD::zeros(IxDyn(&[2, 3, 4])))].into(),
        subjects: vec![7, 7],
        prompts: vec![Prompt::default(); 2],
        geometry: Some(geometry),
        ..Dataset::default()
    };
    set.validate().unwrap();
    assert_eq!((set.len(), set.distinct_subjects()), (2, vec![7]));
    assert!(set.array("input").unwrap_err().to_string().contains("target"));
    set.prompts.pop();
    set.arrays
        .insert("input".into(), Array2::zeros((3, 4)).into_dyn());
    let text = set.validate().unwrap_err().to_string();
    assert!(text.contains("1 prompts") && text.contains("`input`"), "{text}");
}

#[test]
fn a_file_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.bin");
    write_bytes_atomically(&path, b"first").unwrap();
    let failed = write_atomically(&path, |file| {
        file.write_all(b"half")?;
        Err(std::io::Error::other("the writer gave up"))
    });
    let text = failed.unwrap_err().to_string();
    assert!(text.contains("x.bin") && text.contains("gave up"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "no leftover"
    );
    let absent = folder.path().join("none").join("x.bin");
    assert!(
        write_bytes_atomically(&absent, b"x")
            .unwrap_err()
            .to_string()
            .contains("none")
    );
}

#[test]
fn samples_are_selected_with_all_that_belongs_to_them() {
    let input = ndarray::ArrayD::from_shape_fn(ndarray::IxDyn(&[4, 2, 3]), |i| (i[0] * 10 + i[2]) as f32);
    let data = Dataset {
        arrays: [("input".to_owned(), input.clone())].into(),
        subjects: vec![7, 8, 8, 9],
        prompts: Tracer::ALL
            .iter()
            .chain(&[Tracer::ALL[0]])
            .map(|t| Prompt::pet(*t, Region::Brain))
            .collect(),
        ..Dataset::default()
    };
    let some = data.select(&[3, 1]).unwrap();
    assert_eq!((some.len(), &some.subjects[..]), (2, &[9, 8][..]));
    assert_eq!(some.prompts, [data.prompts[3], data.prompts[1]]);
    assert_eq!(
        some.array("input").unwrap().index_axis(ndarray::Axis(0), 0),
        input.index_axis(ndarray::Axis(0), 3)
    );
    assert!(data.select(&[]).unwrap().is_empty());
    let error = data.select(&[0, 4]).unwrap_err().to_string();
    assert!(error.contains("sample 4 of 4"), "{error}");
}
