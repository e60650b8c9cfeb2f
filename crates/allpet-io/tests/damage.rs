//! Cut and damaged files never panic, failed writes leave nothing behind.

#![allow(clippy::unwrap_used)]

use allpet_core::{
    AtomicFile, CylindricalScanner, Dataset, ParallelGeometry, Prompt, Region, Tracer, stream,
};
use allpet_io::{
    Announcement, Curve, CurvePlot, HistogramOptions, InterfileHeader, ListMode, ListModeWriter, NpyStream,
    Window, detect, read_array, read_dataset, read_metadata, read_npy, read_npy_header, read_npz_all,
    read_npz_headers, read_sinogram, read_tensors, write_dataset, write_npy, write_npz, write_png16,
    write_tensors,
};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::Rng;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

fn random(shape: &[usize]) -> ArrayD<f32> {
    let mut draws = stream(13, "io damage", 0);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || draws.random_range(-3.0..3.0))
}

fn dataset() -> Dataset {
    Dataset {
        arrays: BTreeMap::from([("input".to_owned(), random(&[3, 12, 9]))]),
        subjects: vec![1, 2, 3],
        prompts: vec![Prompt::pet(Tracer::Fdg, Region::Brain); 3],
        geometry: Some(ParallelGeometry::new(12, 9, 4.0).unwrap()),
        metadata: BTreeMap::from([("seed".to_owned(), "1".to_owned())]),
    }
}

fn acquisition(header: &Path) -> allpet_io::Result<()> {
    let scanner = CylindricalScanner {
        crystals: 24,
        rings: 5,
        bins: 9,
        max_ring_difference: 3,
        ..CylindricalScanner::mmr()
    };
    let mut writer = ListModeWriter::create(header, &scanner, Announcement::default())?;
    for ms in 0..60 {
        writer.time(ms)?;
        for i in 0..9 {
            writer.event(i != 4, (ms as usize * 7) % 23, i, 8 - i)?;
        }
    }
    writer.finish()
}

/// Every reader there is; returns whether the one meant for the file took it.
fn read_all(path: &Path, meant: &dyn Fn(&Path) -> Result<(), String>) -> Result<(), String> {
    fn told<T, E: std::fmt::Display>(result: Result<T, E>) {
        if let Err(e) = result {
            let text = e.to_string();
            assert!(
                !text.contains('\n') && !text.is_empty() && text.len() < 800,
                "{text}"
            );
        }
    }
    told(detect(path));
    told(read_npy(path));
    told(read_npy_header(path));
    told(read_npz_all(path));
    told(read_npz_headers(path));
    told(read_array(path));
    told(read_sinogram(path));
    told(read_dataset(path));
    told(read_tensors(path));
    told(read_metadata(path));
    told(InterfileHeader::read(path));
    told(ListMode::open(path, None));
    meant(path)
}

#[test]
fn files_cut_or_damaged_at_every_97th_byte_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let values = random(&[20, 30]);
    write_npy(&at("a.npy"), values.view()).unwrap();
    write_npz(
        &at("stored.npz"),
        &[("sinograms", values.view()), ("radial_mm", random(&[30]).view())],
        false,
    )
    .unwrap();
    write_npz(
        &at("deflated.npz"),
        &[("prompts", values.view()), ("delayeds", values.view())],
        true,
    )
    .unwrap();
    write_dataset(&at("d.safetensors"), &dataset()).unwrap();
    let tensors = BTreeMap::from([("w".to_owned(), (vec![20, 30], values.iter().copied().collect()))]);
    write_tensors(&at("m.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    acquisition(&at("l.l.hdr")).unwrap();

    type Reader = Box<dyn Fn(&Path) -> Result<(), String>>;
    fn reader<T>(read: impl Fn(&Path) -> allpet_io::Result<T> + 'static) -> Reader {
        Box::new(move |path| read(path).map(|_| ()).map_err(|e| e.to_string()))
    }
    fn count(path: &Path) -> allpet_io::Result<()> {
        ListMode::open(path, None)?
            .histogram(&HistogramOptions::default())
            .map(|_| ())
    }
    // Whether any cut must be noticed: list-mode may end at any whole word, a header at any line.
    let cases: [(&str, Reader, bool); 7] = [
        ("a.npy", reader(read_npy), true),
        ("stored.npz", reader(read_npz_all), true),
        ("deflated.npz", reader(read_npz_all), true),
        ("d.safetensors", reader(read_dataset), true),
        ("m.safetensors", reader(read_tensors), true),
        ("l.l", reader(count), false),
        ("l.l.hdr", reader(count), false),
    ];
    for (name, meant, always) in &cases {
        let path = at(name);
        let good = std::fs::read(&path).unwrap();
        assert_eq!(
            read_all(&path, meant),
            Ok(()),
            "the control: {name} as it was written"
        );
        for cut in (0..good.len())
            .step_by(97)
            .chain(0..good.len().min(16))
            .chain([good.len() - 1])
        {
            std::fs::write(&path, &good[..cut]).unwrap();
            let outcome = read_all(&path, meant);
            assert!(!always || outcome.is_err(), "{name} cut at {cut} was read");
            if *name == "l.l" {
                assert_eq!(outcome.is_err(), cut % 4 != 0, "{name} cut at {cut}");
            }
        }
        for (i, damage) in (0..good.len())
            .step_by(97)
            .flat_map(|i| [(i, 0xff), (i, 0x01), (i, 0x80)])
        {
            let mut bytes = good.clone();
            bytes[i] ^= damage;
            std::fs::write(&path, &bytes).unwrap();
            let _ = read_all(&path, meant);
        }
        // Something more at the end is as wrong as something less.
        let mut longer = good.clone();
        longer.extend_from_slice(&[0; 3]);
        std::fs::write(&path, &longer).unwrap();
        let outcome = read_all(&path, meant);
        if [".npy", "tensors", "l.l"].iter().any(|end| name.ends_with(end)) {
            assert!(outcome.is_err(), "{name} with three bytes too many was read");
        }
        std::fs::write(&path, &good).unwrap();
    }
}

/// Every writer there is, to one path.
fn write_all(path: &Path) -> Vec<(&'static str, Result<(), String>)> {
    let values = random(&[300, 400]);
    let flat: Array2<f32> = values.clone().into_dimensionality().unwrap();
    let tensors = BTreeMap::from([("w".to_owned(), (vec![300, 400], values.iter().copied().collect()))]);
    let plot = CurvePlot {
        curves: vec![Curve {
            name: "a".into(),
            points: vec![(0.0, 1.0)],
        }],
        ..CurvePlot::default()
    };
    let streamed = NpyStream::create(path, &[300, 400])
        .and_then(|mut s| s.append(values.view()).and_then(|()| s.finish()));
    let mut outcomes = vec![("npy stream", streamed)];
    outcomes.push(("npy", write_npy(path, values.view())));
    outcomes.push((
        "npz",
        write_npz(path, &[("a", values.view()), ("b", values.view())], true),
    ));
    outcomes.push((
        "stored npz",
        write_npz(path, &[("a", values.view()), ("b", values.view())], false),
    ));
    outcomes.push(("dataset", write_dataset(path, &dataset())));
    outcomes.push(("tensors", write_tensors(path, &tensors, &BTreeMap::new())));
    outcomes.push(("png", write_png16(path, flat.view(), Window::Full, 1).map(|_| ())));
    outcomes.push(("curve", plot.write(path)));
    outcomes
        .into_iter()
        .map(|(name, r)| (name, r.map_err(|e| e.to_string())))
        .collect()
}

fn all_fail(path: &Path) {
    for (name, outcome) in write_all(path) {
        let text = outcome.expect_err(name);
        assert!(
            text.starts_with("cannot write") && !text.contains('\n'),
            "{name}: {text}"
        );
        assert!(text.contains(&path.display().to_string()), "{name}: {text}");
    }
}

#[test]
fn a_failed_write_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    all_fail(&folder.path().join("absent/x.npy"));
    let taken = folder.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    all_fail(&taken);
    assert!(acquisition(&folder.path().join("absent/a.l.hdr")).is_err());
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["taken"]);
    // The control: the same writers where there is room.
    for (name, outcome) in write_all(&folder.path().join("x")) {
        outcome.expect(name);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_one_error_and_a_device_stays_a_device() {
    use std::os::unix::fs::FileTypeExt;
    let full = Path::new("/dev/full");
    all_fail(full);
    assert!(std::fs::metadata(full).unwrap().file_type().is_char_device());
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("link.npy");
    std::os::unix::fs::symlink(full, &link).unwrap();
    all_fail(&link);
    assert!(link.is_symlink());
    write_npy(Path::new("/dev/null"), random(&[4]).view()).unwrap();
    assert!(
        std::fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
}

#[test]
fn an_abandoned_file_keeps_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.bin");
    std::fs::write(&path, b"before").unwrap();
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(&[0; 1 << 20]).unwrap();
    drop(file);
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let mut file = AtomicFile::create(&path).unwrap();
    file.write_all(b"after").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"before");
    file.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"after");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}
