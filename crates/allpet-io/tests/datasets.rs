//! Datasets and tensor files against the `safetensors` crate, round trips, and wrong content.

#![allow(clippy::unwrap_used)]

use allpet_core::{Dataset, Modality, ParallelGeometry, Prompt, Region, Task, Tracer, stream};
use allpet_io::{Tensors, read_dataset, read_metadata, read_tensors, write_dataset, write_tensors};
use ndarray::{ArrayD, IxDyn};
use rand::Rng;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

fn random(shape: &[usize], index: u64) -> ArrayD<f32> {
    let mut draws = stream(12, "io datasets", index);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || draws.random_range(-3.0..3.0))
}

fn example() -> Dataset {
    let prompts = vec![
        Prompt::pet(Tracer::Psma, Region::Abdomen),
        Prompt::ct(Region::Brain),
        Prompt {
            tracer: None,
            region: None,
            modality: Modality::Pet,
            task: Task::Separation,
        },
        Prompt {
            tracer: Some(Tracer::Fdg),
            region: None,
            modality: Modality::Pet,
            task: Task::LowDose,
        },
    ];
    // Numbers without a short decimal form: they must come back to the last bit.
    let mut geometry = ParallelGeometry::new(6, 5, 4.0 / 3.0)
        .unwrap()
        .with_start_deg(13.0)
        .with_offset_bins(0.1 + 0.2);
    geometry.arc_rad = 1.0f64.exp();
    Dataset {
        arrays: BTreeMap::from([
            ("input".to_owned(), random(&[4, 6, 5], 0)),
            ("image".to_owned(), random(&[4, 7, 3], 1)),
            ("weights".to_owned(), random(&[4], 2)),
        ]),
        subjects: vec![7, 7, 4_000_000_000, 0],
        prompts,
        geometry: Some(geometry),
        metadata: (0..20)
            .map(|i| (format!("key {i}"), format!("\"värde\" {i}\n")))
            .collect(),
    }
}

fn failure(path: &Path) -> String {
    let text = read_dataset(path).unwrap_err().to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

/// Writes tensors through the other implementation.
fn foreign(path: &Path, tensors: &[(&str, Dtype, Vec<usize>)], metadata: Option<HashMap<String, String>>) {
    let bytes = vec![0u8; 1 << 12];
    let size = |dtype: Dtype, shape: &[usize]| shape.iter().product::<usize>() * dtype.bitsize() / 8;
    let views = tensors.iter().map(|(name, dtype, shape)| {
        (
            *name,
            TensorView::new(*dtype, shape.clone(), &bytes[..size(*dtype, shape)]).unwrap(),
        )
    });
    std::fs::write(path, serialize(views, metadata).unwrap()).unwrap();
}

#[test]
fn a_dataset_comes_back_to_the_last_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.safetensors");
    let dataset = example();
    write_dataset(&path, &dataset).unwrap();
    assert_eq!(read_dataset(&path).unwrap(), dataset);
    let first = std::fs::read(&path).unwrap();
    write_dataset(&path, &dataset.clone()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);

    // The other implementation reads the same file.
    let other = SafeTensors::deserialize(&first).unwrap();
    let input = other.tensor("input").unwrap();
    assert_eq!((input.dtype(), input.shape()), (Dtype::F32, &[4, 6, 5][..]));
    let values: Vec<f32> = input
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(values, dataset.arrays["input"].as_slice().unwrap());
    let prompt = other.tensor("prompt").unwrap();
    assert_eq!((prompt.dtype(), prompt.shape()), (Dtype::U32, &[4, 4][..]));
    let words: Vec<u32> = prompt
        .data()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    assert_eq!(words, [3, 4, 0, 0, 0, 1, 1, 0, 0, 0, 0, 5, 1, 0, 0, 1]);
    assert_eq!(other.tensor("subject").unwrap().dtype(), Dtype::U32);

    for dataset in [
        Dataset {
            prompts: vec![],
            geometry: None,
            metadata: BTreeMap::new(),
            ..example()
        },
        Dataset {
            arrays: BTreeMap::from([("input".to_owned(), random(&[0, 6, 5], 0))]),
            ..Dataset::default()
        },
    ] {
        write_dataset(&path, &dataset).unwrap();
        assert_eq!(read_dataset(&path).unwrap(), dataset);
    }
}

#[test]
fn every_prompt_has_its_row() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.safetensors");
    let mut prompts = Vec::new();
    for tracer in [None].into_iter().chain(Tracer::ALL.iter().copied().map(Some)) {
        for region in [None].into_iter().chain(Region::ALL.iter().copied().map(Some)) {
            for &modality in Modality::ALL {
                prompts.extend(Task::ALL.iter().map(|&task| Prompt {
                    tracer,
                    region,
                    modality,
                    task,
                }));
            }
        }
    }
    let n = prompts.len();
    let dataset = Dataset {
        arrays: BTreeMap::from([("image".to_owned(), random(&[n, 1], 3))]),
        subjects: (0..n as u32).collect(),
        prompts,
        ..Dataset::default()
    };
    write_dataset(&path, &dataset).unwrap();
    assert_eq!(read_dataset(&path).unwrap(), dataset);
}

#[test]
fn wrong_content_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.safetensors");
    let good = ("subject", Dtype::U32, vec![2]);
    foreign(
        &path,
        &[("weight", Dtype::F32, vec![2]), ("bias", Dtype::F32, vec![2])],
        None,
    );
    let text = failure(&path);
    assert!(
        text.contains("`subject`") && text.contains("it holds bias, weight"),
        "{text}"
    );
    foreign(&path, std::slice::from_ref(&good), None);
    assert!(failure(&path).contains("input, target"));
    foreign(
        &path,
        &[
            ("subject", Dtype::I64, vec![2]),
            ("input", Dtype::F32, vec![2, 3]),
        ],
        None,
    );
    assert!(failure(&path).contains("`subject` of") && failure(&path).contains("I64; expected U32"));
    foreign(&path, &[good.clone(), ("input", Dtype::F64, vec![2, 3])], None);
    assert!(failure(&path).contains("`input` of") && failure(&path).contains("F64; expected F32"));
    foreign(&path, &[good.clone(), ("input", Dtype::F32, vec![3, 3])], None);
    assert!(failure(&path).contains("expected 2 samples"));
    foreign(
        &path,
        &[
            good.clone(),
            ("input", Dtype::F32, vec![2, 3]),
            ("prompt", Dtype::U32, vec![2, 3]),
        ],
        None,
    );
    assert!(failure(&path).contains("`prompt`") && failure(&path).contains("[2, 3]"));
    foreign(
        &path,
        &[
            ("subject", Dtype::U32, vec![2, 1]),
            ("input", Dtype::F32, vec![2, 3]),
        ],
        None,
    );
    assert!(failure(&path).contains("[n]"));
    // The control: right names, types and shapes from other hands, without our metadata.
    foreign(
        &path,
        &[
            good.clone(),
            ("input", Dtype::F32, vec![2, 3]),
            ("prompt", Dtype::U32, vec![2, 4]),
        ],
        None,
    );
    assert_eq!(read_dataset(&path).unwrap().prompts, [Prompt::default(); 2]);

    let described = |json: &str| Some(HashMap::from([("allpet".to_owned(), json.to_owned())]));
    let tensors = [good, ("input", Dtype::F32, vec![2, 3])];
    let version =
        |n: u32| format!(r#"{{"format":"allpet-dataset","version":{n},"geometry":null,"metadata":{{}}}}"#);
    foreign(&path, &tensors, described(&version(9)));
    assert!(failure(&path).contains("version 9; expected allpet-dataset version 1"));
    foreign(&path, &tensors, described("{"));
    assert!(failure(&path).contains("metadata `allpet`"));
    foreign(&path, &tensors, described(&version(1)));
    read_dataset(&path).unwrap();
}

#[test]
fn words_outside_the_vocabulary_and_nan_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("d.safetensors");
    write_dataset(&path, &example()).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let offset = |name: &str| start + header[name]["data_offsets"][0].as_u64().unwrap() as usize;
    let with = |at: usize, word: [u8; 4]| {
        let mut changed = bytes.clone();
        changed[at..at + 4].copy_from_slice(&word);
        std::fs::write(&path, changed).unwrap();
        failure(&path)
    };
    for (column, word) in [(0, 4u32), (1, 5), (2, 2), (3, 6), (0, u32::MAX)] {
        assert!(with(offset("prompt") + 16 + 4 * column, word.to_le_bytes()).contains("row 1 of `prompt`"));
    }
    let text = with(offset("input") + 4 * (30 + 5 + 2), f32::NAN.to_le_bytes());
    assert!(
        text.contains("d.safetensors") && text.contains("input holds NaN at index [1, 1, 2]"),
        "{text}"
    );

    let mut dataset = example();
    dataset.subjects.pop();
    assert!(write_dataset(&folder.path().join("bad.safetensors"), &dataset).is_err());
    assert!(!folder.path().join("bad.safetensors").exists());
    dataset = example();
    dataset.arrays.insert("prompt".to_owned(), random(&[4], 5));
    assert!(
        write_dataset(&path, &dataset)
            .unwrap_err()
            .to_string()
            .contains("`prompt`")
    );
}

#[test]
fn tensors_and_their_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.safetensors");
    let tensors: Tensors = (0..30)
        .map(|i| (format!("layer.{i}"), (vec![i, 3], vec![i as f32 + 0.25; i * 3])))
        .collect();
    let metadata: BTreeMap<String, String> = (0..30).map(|i| (format!("k{i}"), format!("v{i}"))).collect();
    write_tensors(&path, &tensors, &metadata).unwrap();
    let first = std::fs::read(&path).unwrap();
    assert_eq!(read_tensors(&path).unwrap(), (tensors.clone(), metadata.clone()));
    let header = read_metadata(&path).unwrap();
    assert_eq!(header.metadata, metadata);
    assert_eq!(header.tensors.len(), 30);
    assert_eq!(
        (header.tensors[1].name.as_str(), header.tensors[1].dtype.as_str()),
        ("layer.1", "F32")
    );
    assert_eq!(header.tensors[1].shape, [1, 3]);
    let other = SafeTensors::deserialize(&first).unwrap();
    assert_eq!(
        other.tensor("layer.7").unwrap().data()[..4],
        7.25f32.to_le_bytes()
    );
    for _ in 0..5 {
        write_tensors(&path, &tensors, &metadata).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), first);
    }
    let wrong: Tensors = BTreeMap::from([("x".to_owned(), (vec![2, 2], vec![0.0; 3]))]);
    assert!(
        write_tensors(&path, &wrong, &metadata)
            .unwrap_err()
            .to_string()
            .contains("3 elements")
    );

    // Headers of other element types are readable all the same.
    foreign(
        &path,
        &[("a", Dtype::BF16, vec![4]), ("b", Dtype::I64, vec![2])],
        None,
    );
    let kinds: Vec<String> = read_metadata(&path)
        .unwrap()
        .tensors
        .into_iter()
        .map(|t| t.dtype)
        .collect();
    assert_eq!(kinds, ["BF16", "I64"]);
    assert!(
        read_tensors(&path)
            .unwrap_err()
            .to_string()
            .contains("expected F32")
    );
}
