//! Model files: what comes back, and what damage is found.

#![allow(clippy::unwrap_used)]

use allpet_core::{fill_normal, stream};
use allpet_train::{Checksum, load_model, save_model};
use candle_core::{DType, Device, Tensor};
use std::collections::BTreeMap;

fn tensors() -> BTreeMap<String, Tensor> {
    let mut values = vec![0f32; 15];
    fill_normal(&mut stream(5, "values", 0), &mut values);
    let all = Tensor::from_vec(values, (3, 5), &Device::Cpu).unwrap();
    BTreeMap::from([
        ("b.weight".into(), all.clone()),
        ("a.weight".into(), all.t().unwrap()),
        ("a.bias".into(), all.sum_all().unwrap()),
    ])
}

fn metadata() -> BTreeMap<String, String> {
    ["one", "two", "three", "four"]
        .map(|k| (k.to_owned(), format!("{{\"{k}\":1}}")))
        .into()
}

fn rows(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn what_is_saved_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_model(&path, &tensors(), &metadata(), false).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (loaded, words) = load_model(&path, &Device::Cpu).unwrap();
    assert_eq!(words, metadata());
    assert_eq!(
        loaded.keys().collect::<Vec<_>>(),
        ["a.bias", "a.weight", "b.weight"]
    );
    for (name, tensor) in tensors() {
        assert_eq!(loaded[&name].dims(), tensor.dims());
        assert_eq!(rows(&loaded[&name]), rows(&tensor));
    }
    for _ in 0..5 {
        save_model(&path, &tensors(), &metadata(), false).unwrap();
        assert!(
            std::fs::read(&path).unwrap() == bytes,
            "the bytes depend on more than the content"
        );
    }
    // candle's own reader takes the file too.
    let theirs = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
    assert_eq!(rows(&theirs["a.weight"]), rows(&loaded["a.weight"]));
}

#[test]
fn half_precision_rounds_to_nearest_and_refuses_what_it_cannot_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_model(&path, &tensors(), &metadata(), true).unwrap();
    let (loaded, _) = load_model(&path, &Device::Cpu).unwrap();
    for (name, tensor) in tensors() {
        assert_eq!(loaded[&name].dtype(), DType::F32);
        for (a, b) in rows(&loaded[&name]).iter().zip(rows(&tensor)) {
            assert!((a - b).abs() <= b.abs() * 2f32.powi(-11) + 1e-7, "{a} {b}");
        }
    }
    let wide = BTreeMap::from([("w".to_owned(), Tensor::new(&[1f32, -7e4], &Device::Cpu).unwrap())]);
    let error = save_model(&path, &wide, &metadata(), true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`w`") && error.contains("-70000"), "{error}");
    assert_eq!(load_model(&path, &Device::Cpu).unwrap().0.len(), 3);
}

#[test]
fn every_cut_and_every_changed_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save_model(&path, &tensors(), &metadata(), false).unwrap();
    let whole = std::fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.safetensors");
    let refused = |bytes: &[u8]| {
        std::fs::write(&damaged, bytes).unwrap();
        let result = load_model(&damaged, &Device::Cpu);
        result.err().map(|e| e.to_string())
    };
    for length in 0..whole.len() {
        let error = refused(&whole[..length]).unwrap_or_else(|| panic!("a cut to {length} bytes passed"));
        assert!(
            error.contains("damaged.safetensors is damaged") && error.lines().count() == 1,
            "{error}"
        );
    }
    // Padding spaces at the header's end carry nothing.
    let end = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let padding = whole[..end].iter().rev().take_while(|&&b| b == b' ').count();
    // A file whose checksum has another name passes for one from elsewhere, which has none.
    let key = whole.windows(8).position(|w| w == b"checksum").unwrap();
    for i in (0..end - padding)
        .chain(end..whole.len())
        .filter(|i| !(key..key + 8).contains(i))
    {
        let mut bytes = whole.clone();
        bytes[i] ^= 1;
        assert!(refused(&bytes).is_some(), "a changed byte at {i} passed");
    }
    assert_eq!(refused(&whole), None, "the control, the file itself, must pass");
}

#[test]
fn a_full_disk_is_one_clear_error() {
    let error = save_model(std::path::Path::new("/dev/full"), &tensors(), &metadata(), false)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot write /dev/full: No space left on device"),
        "{error}"
    );
    let error = load_model(std::path::Path::new("/nowhere/model.safetensors"), &Device::Cpu)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot read /nowhere/model.safetensors"),
        "{error}"
    );
}

#[test]
fn values_and_their_bytes_have_one_checksum_and_order_counts() {
    for n in [0, 1, 6, 7] {
        let values: Vec<f32> = (0..n).map(|i| 0.3 * i as f32 - 1.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let [mut a, mut b, mut c] = [Checksum::new(); 3];
        a.add_f32(&values);
        b.add(&bytes);
        assert_eq!(a.hex(), b.hex());
        c.add_f32(&values.iter().rev().copied().collect::<Vec<_>>());
        assert_eq!(a.hex() != c.hex(), n > 1);
    }
}
