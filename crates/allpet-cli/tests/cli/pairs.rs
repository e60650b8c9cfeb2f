//! Pairs of a task: a model is trained to draw them, asked, and what it draws is trained on.

use crate::runner::{Folder, entry, text};
use ndarray::{Array4, ArrayD};
use serde_json::json;

const TINY: &str = "preset = \"tiny\"\n[train]\nsteps = 4\nbatch = 2\nwarmup = 1\n";

/// A model of pairs of low dose, on 32 x 32 bins.
fn model(folder: &Folder) {
    let size = "--views 32 --bins 32 --bin-mm 16";
    folder.ok(&format!(
        "simulate --task synthesis --region brain --count 4 --subjects 2 --seed 3 {size} --out d.safetensors"
    ));
    folder.ok(&format!(
        "simulate --task low-dose --count 4 --subjects 2 --seed 3 {size} --out a.safetensors"
    ));
    folder.write("ae.toml", TINY.as_bytes());
    let foundation = TINY.replace("[train]", "autoencoder = \"ae/model.safetensors\"\n[train]");
    folder.write("f.toml", foundation.as_bytes());
    let pairs = TINY.replace("preset = \"tiny\"", "foundation = \"f/model.safetensors\"");
    folder.write("p.toml", pairs.as_bytes());
    folder.ok("train autoencoder --config ae.toml --data d.safetensors --out ae");
    folder.ok("train foundation --config f.toml --data d.safetensors --out f");
    let done = folder.json("train pairs --config p.toml --data a.safetensors --out p");
    assert_eq!((&done["what"], &done["steps"]), (&"pairs".into(), &4.into()));
}

#[test]
fn pairs_are_drawn_looked_at_and_trained_on() {
    let folder = Folder::new();
    model(&folder);
    let said = folder.json("info p/model.safetensors");
    assert_eq!(
        (&said["kind"], &said["tasks"]),
        (&"pairs".into(), &json!(["low-dose"]))
    );

    let line =
        "synthesize --model p/model.safetensors --task low-dose --region brain --count 3 --steps 4 --seed 7";
    let said = folder.json(&format!("{line} --out o"));
    assert_eq!(said["sinograms"], json!([3, 2, 32, 32]));
    assert_eq!(
        folder.names("o"),
        [
            "grid.png",
            "pairs.safetensors",
            "provenance.json",
            "reconstructions.npz",
            "sinograms.npz"
        ]
    );
    let provenance: serde_json::Value = serde_json::from_slice(&folder.bytes("o/provenance.json")).unwrap();
    assert_eq!(provenance["task"]["dose"], 0.25);
    assert!(text(&folder.bytes("o/provenance.json")).contains("not a measurement"));

    // The dataset holds the same sinograms as the archive, inputs and targets apart.
    let drawn: Array4<f32> = entry(&folder.path("o/sinograms.npz"), "sinograms");
    let data = allpet::io::read_dataset(&folder.path("o/pairs.safetensors")).unwrap();
    for (member, name) in ["input", "target"].into_iter().enumerate() {
        let kept: &ArrayD<f32> = data.array(name).unwrap();
        let of_archive = drawn.index_axis(ndarray::Axis(1), member);
        assert_eq!(kept.view(), of_archive.into_dyn(), "{name}");
    }
    assert_ne!(data.array("input").unwrap(), data.array("target").unwrap());

    // The same again to the byte, one at a time as well; another seed is another.
    folder.ok(&format!("{line} --batch 1 --out again"));
    assert_eq!(
        folder.bytes("o/sinograms.npz"),
        folder.bytes("again/sinograms.npz")
    );
    folder.ok(&format!("{} --out other", line.replace("--seed 7", "--seed 8")));
    assert_ne!(
        folder.bytes("o/sinograms.npz"),
        folder.bytes("other/sinograms.npz")
    );

    // Another size, resampled; the pairs to train on keep the model's own.
    let said = folder.json(&format!("{line} --views 24 --bins 40 --bin-mm 12 --out size"));
    assert_eq!(said["sinograms"], json!([3, 2, 24, 40]));

    // Drawn pairs are training data beside simulated ones.
    let task = TINY.replace("preset = \"tiny\"", "foundation = \"f/model.safetensors\"");
    folder.write("t.toml", task.as_bytes());
    folder.ok("train task --config t.toml --data a.safetensors,o/pairs.safetensors --out t");
}

#[test]
fn what_cannot_be_drawn_is_one_line() {
    let folder = Folder::new();
    model(&folder);
    for (line, words) in [
        (
            "synthesize --model p/model.safetensors --task attenuation --out o",
            &["attenuation", "low-dose"][..],
        ),
        (
            "synthesize --model f/model.safetensors --task attenuation --out o",
            &["model of pairs", "foundation"],
        ),
        (
            "synthesize --model p/model.safetensors --task low-dose --dose 0.5 --out o",
            &["no pairs of low-dose (0.5)", "low-dose (0.25)"],
        ),
        ("synthesize --task attenuation --masks --out o", &["--masks"]),
        (
            "synthesize --task attenuation --guidance 2 --out o",
            &["--guidance"],
        ),
        (
            "synthesize --task attenuation --dose 0.5 --out o",
            &["--dose", "low-dose"],
        ),
        (
            "synthesize --prompt brain --dose 0.5 --out o",
            &["--dose", "--task"],
        ),
        (
            "synthesize --task attenuation --modality ct --out o",
            &["CT", "PET"],
        ),
        (
            "train pairs --config p.toml --data d.safetensors --out q",
            &["synthesis"],
        ),
    ] {
        folder.fails(2, line, words);
        assert!(!folder.path("o").exists(), "{line}");
    }
}
