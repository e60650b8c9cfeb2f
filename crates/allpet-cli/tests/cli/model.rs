//! From a simulated set to a trained model to sinograms.

use crate::runner::{Folder, entry, text};
use ndarray::{Array3, Axis};
use std::time::{Duration, Instant};

const AUTOENCODER: &str = "preset = \"tiny\"\n[train]\nsteps = 30\nbatch = 2\nwarmup = 2\nlog_every = 1\n";
const FOUNDATION: &str = "preset = \"tiny\"\nautoencoder = \"ae/model.safetensors\"\n[train]\nsteps = 6\nbatch = 2\nwarmup = 1\nlog_every = 1\n";

fn stack(folder: &Folder, file: &str, name: &str) -> Array3<f32> {
    entry(&folder.path(file), name)
}

#[test]
fn a_run_that_stops_early_ends_in_a_model() {
    let folder = Folder::new();
    folder.ok(
        "simulate --task synthesis --region brain --count 2 --subjects 1 --seed 3 --views 32 --bins 32 --bin-mm 16 --out d.safetensors",
    );
    // No loss falls by 100: the first mean of two steps stays the best.
    let rule = "early_stop = { patience = 5, window = 2, improvement = 100 }";
    folder.write("ae.toml", format!("{AUTOENCODER}{rule}\n").as_bytes());
    let line = "train autoencoder --config ae.toml --data d.safetensors --out ae";
    let done = folder.json(line);
    assert_eq!(
        (&done["steps"], &done["stopped_early"]),
        (&7.into(), &true.into())
    );
    assert_eq!(text(&folder.bytes("ae/metrics.jsonl")).lines().count(), 7);
    assert_eq!(folder.json("info ae/model.safetensors")["training"]["steps"], "7");
    // It is over, also for --resume; --patience sets the steps alone.
    let model = folder.bytes("ae/model.safetensors");
    assert_eq!(folder.json(&format!("{line} --resume"))["steps"], 7);
    assert_eq!(folder.bytes("ae/model.safetensors"), model);
    let done = folder.json(&line.replace("--out ae", "--out short --patience 3"));
    assert_eq!(
        (&done["steps"], &done["stopped_early"]),
        (&5.into(), &true.into())
    );
    // The control: an amount that the loss beats at every step.
    folder.write("ae.toml", AUTOENCODER.as_bytes());
    let done = folder.json(&line.replace("--out ae", "--out whole --patience 3"));
    assert_eq!(
        (&done["steps"], &done["stopped_early"]),
        (&30.into(), &false.into())
    );
    folder.fails(
        2,
        &line.replace("--out ae", "--out none --patience 0"),
        &["patience is 0", "at least 1"],
    );
}

#[test]
fn a_model_is_trained_and_asked() {
    let folder = Folder::new();
    folder.ok(
        "simulate --task synthesis --tracer fdg,psma --region brain --count 4 --subjects 2 --seed 3 --views 32 --bins 32 \
         --bin-mm 16 --out d.safetensors",
    );
    folder.write("ae.toml", AUTOENCODER.as_bytes());
    folder.write("f.toml", FOUNDATION.as_bytes());
    let done = folder.json("train autoencoder --config ae.toml --data d.safetensors --out ae");
    assert_eq!(
        (&done["steps"], &done["what"]),
        (&30.into(), &"autoencoder".into())
    );
    assert_eq!(
        folder.names("ae"),
        [
            "checkpoint.previous.safetensors",
            "checkpoint.safetensors",
            "loss.png",
            "metrics.jsonl",
            "model.safetensors"
        ]
    );
    assert_eq!(text(&folder.bytes("ae/metrics.jsonl")).lines().count(), 30);

    // Killed and resumed: the same model, to the byte.
    killed_and_resumed(&folder);

    // A folder with a checkpoint is not trained over, and an autoencoder is no foundation.
    folder.fails(
        2,
        "train autoencoder --config ae.toml --data d.safetensors --out ae",
        &["exists", "resume"],
    );
    folder.fails(
        2,
        "synthesize --model ae/model.safetensors --prompt brain --out o",
        &["foundation", "autoencoder"],
    );
    // Data of another size than each other's, and than the model can halve.
    folder.ok("simulate --count 2 --region brain --views 30 --bins 32 --bin-mm 16 --out odd.safetensors");
    folder.fails(
        2,
        "train autoencoder --config ae.toml --data odd.safetensors --out o",
        &["30 views", "multiples"],
    );
    folder.fails(
        2,
        "train autoencoder --config ae.toml --data d.safetensors,odd.safetensors --out o",
        &["30 views", "expects 32 views"],
    );

    folder.json("train foundation --config f.toml --data d.safetensors --out f");
    let info = folder.json("info f/model.safetensors");
    assert_eq!(
        (&info["kind"], &info["preset"]),
        (&"foundation".into(), &"tiny".into())
    );
    assert_eq!(info["tasks"], serde_json::json!(["synthesis"]));
    assert_eq!(info["training"]["sinograms"], "4");
    asked(&folder);
}

fn killed_and_resumed(folder: &Folder) {
    let config = format!("{AUTOENCODER}checkpoint_every_steps = 1\n");
    folder.write("killed.toml", config.as_bytes());
    let line = "train autoencoder --config killed.toml --data d.safetensors --out killed";
    let mut child = folder.start(line);
    let metrics = folder.path("killed/metrics.jsonl");
    let began = Instant::now();
    let steps = || std::fs::read_to_string(&metrics).map_or(0, |m| m.lines().count());
    while steps() < 4 && began.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !folder.path("killed/model.safetensors").exists(),
        "it ended before it was killed"
    );
    // Computing blocks again on the way back changes the memory, not the run.
    folder.write("killed.toml", format!("{config}recompute = true\n").as_bytes());
    folder.ok(&format!("{line} --resume"));
    assert_eq!(
        folder.bytes("killed/model.safetensors"),
        folder.bytes("ae/model.safetensors")
    );
    assert_eq!(text(&folder.bytes("killed/metrics.jsonl")).lines().count(), 30);
}

fn asked(folder: &Folder) {
    let line = "synthesize --model f/model.safetensors --steps 4 --seed 5";
    let done = folder.json(&format!(
        "{line} --prompt \"brain with 18F-FDG or 68Ga-PSMA\" --count 3 --out a"
    ));
    assert_eq!(done["sinograms"], serde_json::json!([3, 32, 32]));
    let files = [
        "grid.png",
        "provenance.json",
        "reconstructions.npz",
        "sinograms.npz",
    ];
    assert_eq!(folder.names("a"), files);
    let (sinograms, images) = (
        stack(folder, "a/sinograms.npz", "sinograms"),
        stack(folder, "a/reconstructions.npz", "reconstructions"),
    );
    assert_eq!((sinograms.dim(), images.dim()), ((3, 32, 32), (3, 32, 32)));
    assert!(sinograms.iter().all(|v| v.is_finite() && *v >= 0.0) && sinograms.sum() > 0.0);
    let provenance: serde_json::Value = serde_json::from_slice(&folder.bytes("a/provenance.json")).unwrap();
    assert_eq!(provenance["samples"][1]["prompt"], "brain with 68Ga-PSMA");
    assert_eq!(
        (&provenance["seed"], &provenance["sampler"]),
        (&5.into(), &"ddpm".into())
    );

    // The same seed: the same bytes, on one thread, in batches of one, and through the words of the other options.
    let mut again = folder.command(&format!(
        "{line} --tracer fdg,psma --region brain --count 3 --batch 1 --out b"
    ));
    assert!(
        again
            .env("RAYON_NUM_THREADS", "1")
            .output()
            .unwrap()
            .status
            .success()
    );
    for file in &files[..1] {
        assert_eq!(
            folder.bytes(&format!("a/{file}")),
            folder.bytes(&format!("b/{file}")),
            "{file}"
        );
    }
    for file in &files[2..] {
        assert_eq!(
            folder.bytes(&format!("a/{file}")),
            folder.bytes(&format!("b/{file}")),
            "{file}"
        );
    }
    folder.ok(&format!(
        "{line} --prompt \"brain with 18F-FDG or 68Ga-PSMA\" --count 3 --out a2"
    ));
    assert_eq!(
        folder.bytes("a/provenance.json"),
        folder.bytes("a2/provenance.json")
    );
    // Another seed: others.
    folder.ok("synthesize --model f/model.safetensors --steps 4 --seed 6 --prompt \"brain with 18F-FDG\" --count 1 --out c");
    assert_ne!(
        stack(folder, "c/sinograms.npz", "sinograms").index_axis(Axis(0), 0),
        sinograms.index_axis(Axis(0), 0)
    );

    // Another geometry.
    let json = folder.json(&format!(
        "{line} --prompt brain --count 1 --views 45 --bins 50 --bin-mm 10 --out d"
    ));
    assert_eq!(json["sinograms"], serde_json::json!([1, 45, 50]));
    let provenance: serde_json::Value = serde_json::from_slice(&folder.bytes("d/provenance.json")).unwrap();
    assert_eq!(
        (&provenance["resampled"], &provenance["geometry"]["bins"]),
        (&true.into(), &50.into())
    );

    for (rest, words) in [
        (
            "--prompt chest --out e",
            ["chest", "it knows: brain with 18F-FDG"],
        ),
        ("--prompt brain --sampler euler --out e", ["euler", "ddpm, ddim"]),
        ("--prompt brain --eta 2 --out e", ["eta", "expected"]),
        ("--prompt brain --count 0 --out e", ["count is 0", "at least 1"]),
        ("--prompt brain --views 0 --out e", ["0 views", "expected"]),
        ("--prompt brain --out f.toml", ["is a file", "expected a folder"]),
    ] {
        folder.fails(2, &format!("{line} {rest}"), &words);
    }
    folder.fails(
        2,
        "synthesize --model f/model.safetensors --prompt brain --steps 0 --out e",
        &["steps", "expected"],
    );
    assert!(!folder.path("e").exists());
}
