//! `.npy` and `.npz` against an independent implementation (ndarray-npy), NumPy's own bytes, and strangers' lies.

#![allow(clippy::unwrap_used)]

use allpet_core::stream;
use allpet_io::{
    Format, NpyStream, detect, npz_names, read_array, read_npy, read_npy_header, read_npz, read_npz_all,
    read_npz_headers, read_sinogram, write_array, write_npy, write_npz,
};
use ndarray::{Array1, Array2, Array3, ArrayD, IxDyn, ShapeBuilder, arr0, array, s};
use ndarray_npy::{NpzReader, NpzWriter};
use rand::Rng;
use std::fs::File;
use std::path::{Path, PathBuf};

fn random(shape: &[usize], index: u64) -> ArrayD<f32> {
    let mut draws = stream(11, "io arrays", index);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || draws.random_range(-3.0..3.0))
}

fn file(folder: &tempfile::TempDir, name: &str) -> PathBuf {
    folder.path().join(name)
}

/// An `.npy` whose dictionary and data are given as they are.
fn forged(path: &Path, dictionary: &str, data: &[u8]) {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let text = format!("{dictionary}\n");
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(data);
    std::fs::write(path, bytes).unwrap();
}

fn one_line(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn npy_has_the_bytes_numpy_writes() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.npy");
    write_npy(&path, array![1.0f32, -2.5].view()).unwrap();
    // numpy 1.26: np.save("a.npy", np.array([1, -2.5], np.float32))
    let mut expected =
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }".to_vec();
    expected.resize(127, b' ');
    expected.push(b'\n');
    expected.extend_from_slice(&[0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x20, 0xc0]);
    assert_eq!(std::fs::read(&path).unwrap(), expected);
}

#[test]
fn npy_agrees_with_an_independent_implementation() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.npy");
    for (i, shape) in [
        vec![],
        vec![7],
        vec![3, 5],
        vec![2, 3, 4, 5],
        vec![0, 4],
        vec![300, 200],
    ]
    .iter()
    .enumerate()
    {
        let ours = random(shape, i as u64);
        write_npy(&path, ours.view()).unwrap();
        assert_eq!(ndarray_npy::read_npy::<_, ArrayD<f32>>(&path).unwrap(), ours);
        assert_eq!(read_npy(&path).unwrap(), ours);
        assert_eq!(read_npy_header(&path).unwrap().shape, *shape);
        ndarray_npy::write_npy(&path, &ours).unwrap();
        assert_eq!(read_npy(&path).unwrap(), ours);
        ndarray_npy::write_npy(&path, &ours.mapv(f64::from)).unwrap();
        assert_eq!(read_npy(&path).unwrap(), ours);
    }
    // Views that are not contiguous are written in C order.
    let whole = random(&[6, 8], 9);
    let part = whole.slice(s![1..;2, ..;-3]);
    write_npy(&path, part.view()).unwrap();
    assert_eq!(read_npy(&path).unwrap(), part.into_dyn());
    assert_eq!(read_npy(&path).unwrap()[[0, 0]], whole[[1, 7]]);
}

#[test]
fn fortran_order_is_rearranged() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "f.npy");
    let fortran = Array3::from_shape_fn((2, 3, 4).f(), |(i, j, k)| (100 * i + 10 * j + k) as f32);
    ndarray_npy::write_npy(&path, &fortran).unwrap();
    assert!(read_npy_header(&path).unwrap().fortran_order);
    let read = read_npy(&path).unwrap();
    assert_eq!(read, fortran.into_dyn());
    assert!(read.is_standard_layout());
}

#[test]
fn a_header_that_lies_about_its_size_names_both_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "lie.npy");
    let header = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    for (shape, expected) in [
        ("(3, 4)", 48u64),
        ("(1, 2)", 8),
        ("(1000000, 1000000)", 4_000_000_000_000),
    ] {
        forged(&path, &header(shape), &[0; 40]);
        let message = one_line(read_npy(&path).unwrap_err());
        assert!(
            message.contains(&format!("expected {expected} bytes")),
            "{message}"
        );
        assert!(
            message.contains("found 40") && message.contains("lie.npy"),
            "{message}"
        );
    }
    // The control: the same bytes under an honest header.
    forged(&path, &header("(2, 5)"), &[0; 40]);
    assert_eq!(read_npy(&path).unwrap().shape(), [2, 5]);
    for shape in [
        "(4294967296, 4294967296, 4294967296)",
        "(9223372036854775807,)",
        "(99999999999999999999,)",
        "(-1,)",
    ] {
        forged(&path, &header(shape), &[0; 40]);
        one_line(read_npy(&path).unwrap_err());
    }
    // As deep a nest as fits a header: a recursive parser would run out of stack.
    forged(&path, &header(&"(".repeat(60_000)), &[0; 40]);
    one_line(read_npy(&path).unwrap_err());
}

#[test]
fn an_npz_entry_that_lies_does_not_take_the_memory_it_claims() {
    use std::io::Write;
    let folder = tempfile::tempdir().unwrap();
    let (inner, path) = (file(&folder, "inner.npy"), file(&folder, "lie.npz"));
    for shape in ["(1000000000000000,)", "(5,)", "(3, 4)"] {
        forged(
            &inner,
            &format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"),
            &[0; 40],
        );
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        zip.start_file("sinograms.npy", zip::write::SimpleFileOptions::default())
            .unwrap();
        zip.write_all(&std::fs::read(&inner).unwrap()).unwrap();
        zip.finish().unwrap();
        let message = one_line(read_array(&path).unwrap_err());
        assert!(
            message.contains("`sinograms`") && message.contains("found 40"),
            "{message}"
        );
    }
}

#[test]
fn other_element_types_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "t.npy");
    for dtype in [
        "'<i4'",
        "'<i8'",
        "'|u1'",
        "'|b1'",
        "'>f4'",
        "'<f2'",
        "'<c8'",
        "[('a', '<f4')]",
    ] {
        forged(
            &path,
            &format!("{{'descr': {dtype}, 'fortran_order': False, 'shape': (2,), }}"),
            &[0; 8],
        );
        let message = one_line(read_npy(&path).unwrap_err());
        let named = message.contains(dtype.trim_matches('\'')) || message.contains("structured");
        assert!(named && message.contains("<f4 or <f8"), "{message}");
    }
}

#[test]
fn nan_is_refused_where_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "n.npy");
    let mut values = Array2::<f32>::zeros((4, 5));
    values[[2, 3]] = f32::NAN;
    write_npy(&path, values.view()).unwrap();
    let message = one_line(read_npy(&path).unwrap_err());
    assert!(message.contains("n.npy holds NaN at index [2, 3]"), "{message}");
    ndarray_npy::write_npy(&path, &array![0.0f64, 1e300]).unwrap();
    assert!(one_line(read_npy(&path).unwrap_err()).contains("inf at index [1]"));
    let missing = one_line(read_npy(&file(&folder, "absent.npy")).unwrap_err());
    assert!(
        missing.contains("cannot read") && missing.contains("absent.npy"),
        "{missing}"
    );
}

#[test]
fn a_stream_writes_the_same_file_without_holding_it() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, streamed) = (file(&folder, "whole.npy"), file(&folder, "streamed.npy"));
    let values = random(&[50, 6, 7], 1);
    write_npy(&whole, values.view()).unwrap();
    let mut stream = NpyStream::create(&streamed, &[50, 6, 7]).unwrap();
    for part in values.axis_chunks_iter(ndarray::Axis(0), 8) {
        assert!(!streamed.exists());
        stream.append(part).unwrap();
    }
    stream.finish().unwrap();
    assert_eq!(std::fs::read(&whole).unwrap(), std::fs::read(&streamed).unwrap());

    let other = file(&folder, "other.npy");
    let mut short = NpyStream::create(&other, &[3, 2]).unwrap();
    short.append(Array2::<f32>::zeros((2, 2)).view()).unwrap();
    assert!(one_line(short.finish().unwrap_err()).contains("4 elements"));
    let mut long = NpyStream::create(&other, &[3, 2]).unwrap();
    one_line(long.append(Array2::<f32>::zeros((4, 2)).view()).unwrap_err());
    drop(long);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "a leftover");
}

#[test]
fn npz_agrees_with_an_independent_implementation() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.npz");
    let (a, b) = (random(&[20, 30], 2), random(&[5], 3));
    for compress in [false, true] {
        write_npz(
            &path,
            &[("sinograms", a.view()), ("radial_mm", b.view())],
            compress,
        )
        .unwrap();
        let first = std::fs::read(&path).unwrap();
        let mut reader = NpzReader::new(File::open(&path).unwrap()).unwrap();
        let theirs: ArrayD<f32> = reader.by_name("sinograms").unwrap();
        assert_eq!(theirs, a);
        let theirs: ArrayD<f32> = reader.by_name("radial_mm").unwrap();
        assert_eq!(theirs, b);
        assert_eq!(
            read_npz(&path, &["radial_mm", "sinograms"]).unwrap(),
            [b.clone(), a.clone()]
        );
        assert_eq!(npz_names(&path).unwrap(), ["sinograms", "radial_mm"]);
        write_npz(
            &path,
            &[("sinograms", a.view()), ("radial_mm", b.view())],
            compress,
        )
        .unwrap();
        assert_eq!(
            std::fs::read(&path).unwrap(),
            first,
            "the same arrays, other bytes"
        );

        let file = File::create(&path).unwrap();
        let mut writer = if compress {
            NpzWriter::new_compressed(file)
        } else {
            NpzWriter::new(file)
        };
        writer.add_array("x", &a).unwrap();
        writer.add_array("y", &b.mapv(f64::from)).unwrap();
        writer.finish().unwrap();
        assert_eq!(
            read_npz_all(&path).unwrap(),
            [("x".to_owned(), a.clone()), ("y".to_owned(), b.clone())]
        );
        assert_eq!(read_npz_headers(&path).unwrap()[1].1.dtype, "<f8");
    }
    let zeros = Array1::<f32>::zeros(100_000).into_dyn();
    write_npz(&path, &[("x", zeros.view())], true).unwrap();
    assert!(
        std::fs::metadata(&path).unwrap().len() < 5_000,
        "deflate did nothing"
    );
    let message = one_line(read_npz(&path, &["z"]).unwrap_err());
    assert!(message.contains("holds no array `z`; it holds x"), "{message}");
    one_line(write_npz(&path, &[("x", zeros.view()), ("x", zeros.view())], true).unwrap_err());
    assert_eq!(npz_names(&path).unwrap(), ["x"], "a failed write left its mark");
}

#[test]
fn the_array_meant_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(&folder, "a.npz");
    let (p, d) = (random(&[4, 6], 4), random(&[4, 6], 5));
    let radial = Array1::linspace(-3.0f32, 3.0, 6).into_dyn();
    write_npz(
        &path,
        &[
            ("prompts", p.view()),
            ("delayeds", d.view()),
            ("radial_mm", radial.view()),
        ],
        true,
    )
    .unwrap();
    let (net, positions, notes) = read_sinogram(&path).unwrap();
    assert_eq!(net, &p - &d);
    assert_eq!(positions.unwrap().into_dyn(), radial);
    assert_eq!(notes, ["prompts minus delayeds"]);
    write_npz(&path, &[("prompts", p.view()), ("sinograms", d.view())], true).unwrap();
    assert_eq!(read_array(&path).unwrap(), d);
    write_npz(&path, &[("prompts", p.view()), ("other", d.view())], true).unwrap();
    assert_eq!(read_array(&path).unwrap(), p);
    write_array(&path, "anything", p.view()).unwrap();
    assert_eq!(read_array(&path).unwrap(), p);
    write_npz(&path, &[("a", p.view()), ("b", d.view())], true).unwrap();
    let message = one_line(read_array(&path).unwrap_err());
    assert!(message.contains("it holds a, b"), "{message}");
    write_npz(&path, &[("sinograms", p.view()), ("radial_mm", d.view())], true).unwrap();
    assert!(one_line(read_sinogram(&path).unwrap_err()).contains("`radial_mm` of [6]"));

    let npy = file(&folder, "s.npy");
    write_array(&npy, "sinograms", p.view()).unwrap();
    let (read, positions, notes) = read_sinogram(&npy).unwrap();
    assert_eq!((read, positions, notes), (p.clone(), None, vec![]));
    for wrong in [
        arr0(1.0f32).into_dyn(),
        Array1::zeros(3).into_dyn(),
        Array2::zeros((0, 5)).into_dyn(),
    ] {
        write_npy(&npy, wrong.view()).unwrap();
        assert!(one_line(read_sinogram(&npy).unwrap_err()).contains("expected a sinogram"));
    }
    one_line(write_array(&file(&folder, "s.txt"), "x", p.view()).unwrap_err());
}

#[test]
fn content_decides_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let values = random(&[3, 3], 6);
    let disguised = file(&folder, "array.png");
    write_npy(&disguised, values.view()).unwrap();
    assert_eq!(detect(&disguised).unwrap(), Format::Npy);
    assert_eq!(read_array(&disguised).unwrap(), values);
    for (name, content, expected) in [
        ("a", &b"PK\x03\x04rest"[..], Some(Format::Npz)),
        ("b", b"!INTERFILE  :=\n", Some(Format::Interfile)),
        ("c", b"\x02\0\0\0\0\0\0\0{}", Some(Format::Safetensors)),
        ("d", b"\x89PNG\r\n\x1a\n", Some(Format::Png)),
        ("e.l", b"\x01\x02\x03\x04", Some(Format::ListMode)),
        ("f.txt", b"hello", None),
        ("g.dat", b"", None),
    ] {
        let path = file(&folder, name);
        std::fs::write(&path, content).unwrap();
        assert_eq!(detect(&path).ok(), expected, "{name}");
    }
    let message = one_line(detect(&file(&folder, "f.txt")).unwrap_err());
    assert!(
        message.contains("hello") && message.contains(".safetensors") && message.contains("list-mode"),
        "{message}"
    );
    let message = one_line(read_array(&file(&folder, "c")).unwrap_err());
    assert!(message.contains("is safetensors; expected an array"), "{message}");
}
