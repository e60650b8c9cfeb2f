//! Restoration with the shipped weights, from files to files.

use crate::runner::{Folder, npy, read3};
use ndarray::{Array2, Array3, Axis, s};

/// Three low-dose sinograms of test subjects, as the program simulates them.
fn low_dose(folder: &Folder) -> Array3<f32> {
    folder.ok("simulate --task low-dose --split test --count 3 --subjects 3 --seed 5 --out d.safetensors");
    let data = allpet::io::read_dataset(&folder.path("d.safetensors")).unwrap();
    let input: Array3<f32> = data
        .array("input")
        .unwrap()
        .clone()
        .into_dimensionality()
        .unwrap();
    npy(&folder.path("in.npy"), &input);
    input
}

fn sum(array: &ndarray::ArrayD<f32>) -> f64 {
    array.iter().map(|v| f64::from(*v)).sum()
}

#[test]
fn a_stack_is_restored_and_keeps_its_counts() {
    let folder = Folder::new();
    let input = low_dose(&folder);
    let line = "task low-dose --in in.npy --steps 3 --samples 2 --seed 9";
    let said = folder.json(&format!("{line} --out a.npy --uncertainty u.npy"));
    assert_eq!(said["shape"], serde_json::json!([3, 128, 128]));
    let (a, u) = (read3(&folder.path("a.npy")), read3(&folder.path("u.npy")));
    assert!(a.iter().all(|v| *v >= 0.0) && u.iter().all(|v| *v >= 0.0));
    for (before, after) in input.outer_iter().zip(a.outer_iter()) {
        let ratio = sum(&after.to_owned().into_dyn()) / sum(&before.to_owned().into_dyn());
        assert!((ratio - 4.0).abs() < 1e-4, "{ratio}");
    }
    // Two samples differ somewhere, and one has no spread.
    assert!(u.iter().any(|v| *v > 0.0));

    // The same again to the byte, one at a time as well; the last alone is another sample of the seed.
    folder.ok(&format!("{line} --out b.npy"));
    folder.ok(&format!("{line} --batch 1 --out c.npy"));
    assert_eq!(folder.bytes("a.npy"), folder.bytes("b.npy"));
    assert_eq!(folder.bytes("a.npy"), folder.bytes("c.npy"));
    folder.ok(&format!("{} --out d.npy", line.replace("--seed 9", "--seed 10")));
    assert_ne!(folder.bytes("a.npy"), folder.bytes("d.npy"));

    // A single sinogram stays one, and a region given is another condition than none.
    npy(&folder.path("one.npy"), &input.index_axis(Axis(0), 0).to_owned());
    let mut roi = Array2::<f32>::zeros((64, 64));
    roi.slice_mut(s![20..40, 20..40]).fill(1.0);
    npy(&folder.path("roi.npy"), &roi);
    let one = "task low-dose --in one.npy --steps 1 --samples 1";
    assert_eq!(
        folder.json(&format!("{one} --roi roi.npy --out r.npy"))["shape"],
        serde_json::json!([128, 128])
    );
    folder.ok(&format!("{one} --no-attention --out n.npy"));
    assert_ne!(folder.bytes("r.npy"), folder.bytes("n.npy"));
}

#[test]
fn a_stack_is_restored_without_pairs_and_keeps_its_counts() {
    let folder = Folder::new();
    let input = low_dose(&folder);
    let line = "task low-dose --without-pairs --in in.npy --steps 2 --samples 2 --seed 9";
    let said = folder.json(&format!("{line} --out a.npy --uncertainty u.npy"));
    assert_eq!(
        (&said["shape"], &said["sampler"], &said["without_pairs"]),
        (
            &serde_json::json!([3, 128, 128]),
            &serde_json::json!("ddim"),
            &serde_json::json!(true)
        )
    );
    for (before, after) in input.outer_iter().zip(read3(&folder.path("a.npy")).outer_iter()) {
        let ratio = sum(&after.to_owned().into_dyn()) / sum(&before.to_owned().into_dyn());
        assert!((ratio - 4.0).abs() < 1e-4, "{ratio}");
    }
    assert!(read3(&folder.path("u.npy")).iter().any(|v| *v > 0.0));
    folder.ok(&format!("{line} --batch 1 --out b.npy"));
    assert_eq!(folder.bytes("a.npy"), folder.bytes("b.npy"));
    for (line, words) in [
        (
            "task attenuation --without-pairs --region brain --in in.npy --out o.npy",
            &["--without-pairs", "attenuation", "low-dose"][..],
        ),
        (
            "task low-dose --without-pairs --roi r.npy --in in.npy --out o.npy",
            &["--without-pairs", "--roi"],
        ),
        (
            "task low-dose --without-pairs --sampler dbim2 --in in.npy --out o.npy",
            &["dbim2"],
        ),
    ] {
        folder.fails(2, line, words);
        assert!(!folder.path("o.npy").exists(), "{line}");
    }
}

#[test]
fn separation_gives_two_that_add_up_and_other_sizes_are_resampled_when_asked() {
    let folder = Folder::new();
    folder.ok("simulate --task separation --split test --count 2 --subjects 2 --seed 5 --out d.safetensors");
    let data = allpet::io::read_dataset(&folder.path("d.safetensors")).unwrap();
    let input: Array3<f32> = data
        .array("input")
        .unwrap()
        .clone()
        .into_dimensionality()
        .unwrap();
    npy(&folder.path("in.npy"), &input);
    let said = folder.json("task separation --in in.npy --steps 1 --samples 1 --out s.npy");
    assert_eq!(said["shape"], serde_json::json!([2, 2, 128, 128]));
    let both = allpet::io::read_npy(&folder.path("s.npy")).unwrap();
    assert!((sum(&both) / sum(&input.into_dyn()) - 1.0).abs() < 1e-4);

    folder.ok(
        "simulate --task attenuation --split test --count 1 --subjects 1 --seed 5 --bins 160 --bin-mm 3.2 --out e.safetensors",
    );
    let data = allpet::io::read_dataset(&folder.path("e.safetensors")).unwrap();
    npy(
        &folder.path("fine.npy"),
        &data
            .array("input")
            .unwrap()
            .clone()
            .into_dimensionality::<ndarray::Ix3>()
            .unwrap(),
    );
    let line = "task attenuation --region brain --in fine.npy --steps 1 --samples 1 --out f.npy";
    folder.fails(2, line, &["fine.npy", "128 views x 160 bins", "--resample"]);
    let said = folder.json(&format!("{line} --resample --bin-mm 3.2"));
    assert_eq!(
        (&said["shape"], &said["resampled"]),
        (&serde_json::json!([1, 128, 160]), &true.into())
    );
}

#[test]
fn what_cannot_be_restored_is_one_line() {
    let folder = Folder::new();
    let good = Array2::<f32>::ones((128, 128));
    npy(&folder.path("good.npy"), &good);
    npy(&folder.path("zero.npy"), &Array2::<f32>::zeros((128, 128)));
    npy(&folder.path("flat.npy"), &Array2::<f32>::zeros((16, 16)));
    let mut negative = good.clone();
    negative[[3, 7]] = -2.0;
    npy(&folder.path("negative.npy"), &negative);
    let mut broken = good;
    broken[[5, 9]] = f32::NAN;
    npy(&folder.path("nan.npy"), &broken);
    let before = folder.names(".");
    for (line, words) in [
        ("task synthesis --in good.npy", ["synthesis", "low-dose"]),
        ("task sharpen --in good.npy", ["sharpen", "low-dose"]),
        ("task low-dose --in absent.npy", ["absent.npy", "No such file"]),
        (
            "task low-dose --in flat.npy",
            ["16 views x 16 bins", "--resample"],
        ),
        ("task low-dose --in zero.npy", ["sinogram 0", "counts"]),
        ("task low-dose --in negative.npy", ["view 3, bin 7", "-2"]),
        ("task low-dose --in nan.npy", ["NaN", "[5, 9]"]),
        ("task low-dose --in good.npy --dose 2", ["dose of 2", "at most 1"]),
        (
            "task attenuation --in good.npy --dose 0.5",
            ["--dose", "low-dose"],
        ),
        (
            "task delayed --in good.npy --minutes 30,90",
            ["30 to 90", "60 to 120"],
        ),
        ("task attenuation --in good.npy", ["no region", "brain or trunk"]),
        (
            "task conversion --in good.npy --region brain",
            ["brain", "not trained"],
        ),
        (
            "task conversion --in good.npy --from dopa",
            ["dopa to psma", "fdg to psma"],
        ),
        (
            "task conversion --in good.npy --from psma",
            ["two tracers", "68Ga-PSMA"],
        ),
        ("task low-dose --in good.npy --sampler ddim", ["ddim", "dbim2"]),
        ("task low-dose --in good.npy --sampler magic", ["magic", "dbim2"]),
        ("task low-dose --in good.npy --steps 0", ["0 steps", "at least 1"]),
        ("task low-dose --in good.npy --samples 0", ["0 samples", "1 to"]),
        (
            "task low-dose --in good.npy --samples 1 --uncertainty u.npy",
            ["--samples", "2 or more"],
        ),
        (
            "task low-dose --in good.npy --roi flat.npy",
            ["flat.npy", "empty"],
        ),
        (
            "task low-dose --in good.npy --roi absent.npy",
            ["absent.npy", "No such file"],
        ),
        (
            "task low-dose --in good.npy --model good.npy",
            ["good.npy", "damaged"],
        ),
    ] {
        folder.fails(2, &format!("{line} --out o.npy"), &words);
    }
    assert_eq!(folder.names("."), before);
}
