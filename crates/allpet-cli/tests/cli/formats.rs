//! Exchange formats: list-mode with a generated twin of a scanner's file, arrays, datasets.

use crate::runner::{Folder, entry, npy, read2, read3, text};
use allpet::core::CylindricalScanner;
use allpet::io::{Announcement, ListModeWriter};
use ndarray::{Array1, Array2, Array3, s};

/// 3 prompts at 0 and 1 ms and 1 delayed at 1,500 ms.
fn acquisition(folder: &Folder, name: &str) {
    let announcement = Announcement {
        words: Some(900),
        ..Announcement::default()
    };
    let mut file =
        ListModeWriter::create(&folder.path(name), &CylindricalScanner::mmr(), announcement).unwrap();
    file.time(0).unwrap();
    file.event(true, 0, 10, 172).unwrap();
    file.event(true, 63, 10, 172).unwrap();
    file.time(1).unwrap();
    file.event(true, 64, 251, 343).unwrap();
    file.time(1_500).unwrap();
    file.event(false, 5, 100, 0).unwrap();
    file.finish().unwrap();
}

#[test]
fn list_mode_becomes_prompts_and_delayeds() {
    let folder = Folder::new();
    acquisition(&folder, "scan.l.hdr");
    let counted = folder.json("convert --in scan.l.hdr --out sino.npz");
    for (name, expected) in [
        ("prompts", 3),
        ("delayeds", 1),
        ("time_tags", 3),
        ("largest_plane", 64),
    ] {
        assert_eq!(counted[name], expected, "{name}");
    }
    // The shorter file is a warning, and it is also said aloud.
    assert!(
        counted["warnings"][0]
            .as_str()
            .unwrap()
            .contains("shorter than announced"),
        "{counted}"
    );
    let output = folder.run("convert --in scan.l.hdr --out sino.npz");
    assert!(
        text(&output.stderr).starts_with("note: "),
        "{}",
        text(&output.stderr)
    );
    let prompts: Array2<f32> = entry(&folder.path("sino.npz"), "prompts");
    assert_eq!(
        (prompts.dim(), prompts[[10, 172]], prompts[[251, 343]]),
        ((252, 344), 2.0, 1.0)
    );

    let window = folder.json("convert --in scan.l.hdr --out part.npz --seconds 0.001..0.5 --planes");
    assert_eq!((&window["prompts"], &window["delayeds"]), (&1.into(), &0.into()));
    assert_eq!(window["shape"], serde_json::json!([127, 252, 344]));

    let info = folder.json("info scan.l.hdr");
    assert_eq!(
        (&info["views"], &info["bins"], &info["planes"]),
        (&252.into(), &344.into(), &4084.into())
    );
    assert_eq!(
        (&info["words"], &info["announced_words"]),
        (&7.into(), &900.into())
    );

    // Arc-corrected on the way: from the header and from what was made of it alike.
    let json = folder.json("reconstruct --in scan.l.hdr --out a.npy --size 64");
    assert_eq!(
        (&json["bin_mm"], &json["pixel_mm"]),
        (&2.0445.into(), &2.0445.into())
    );
    folder.json("reconstruct --in sino.npz --out b.npy --size 64");
    assert_eq!(folder.bytes("a.npy"), folder.bytes("b.npy"));
    // Delayeds as the background, from both alike.
    folder.json("reconstruct --in scan.l.hdr --out c.npy --size 64 --method osem --iterations 2");
    folder.json("reconstruct --in sino.npz --out d.npy --size 64 --method osem --iterations 2");
    assert_eq!(folder.bytes("c.npy"), folder.bytes("d.npy"));
    // Efficiencies estimated on the way are those that can be written, in the bins of the counts.
    folder.json("convert --in scan.l.hdr --out sino.npz --normalisation n.npy");
    let n = read2(&folder.path("n.npy"));
    assert_eq!(
        (n.dim(), n[[0, 172]], n[[10, 172]] > 0.0),
        ((252, 344), 0.0, true)
    );
    let given = "--method osem --iterations 2 --normalisation n.npy";
    let json = folder.json(&format!(
        "reconstruct --in sino.npz --out e.npy --size 64 {given}"
    ));
    assert_eq!(json["efficiencies"], "given");
    assert_eq!(folder.bytes("c.npy"), folder.bytes("e.npy"));
    // A prompt in a gap: not this scanner's blocks, and no efficiencies of theirs.
    let prompts: Array2<f32> = entry(&folder.path("sino.npz"), "prompts");
    let delayeds: Array2<f32> = entry(&folder.path("sino.npz"), "delayeds");
    let radial: Array1<f32> = entry(&folder.path("sino.npz"), "radial_mm");
    let mut moved = prompts;
    moved[[0, 172]] = 1.0;
    let arrays = [
        ("prompts", moved.view().into_dyn()),
        ("delayeds", delayeds.view().into_dyn()),
        ("radial_mm", radial.view().into_dyn()),
    ];
    allpet::io::write_npz(&folder.path("moved.npz"), &arrays, true).unwrap();
    let json = folder.json("reconstruct --in moved.npz --out f.npy --size 64 --method osem --iterations 2");
    assert_eq!(json["efficiencies"], "uniform");

    // A partial word.
    let whole = folder.bytes("scan.l");
    folder.write("scan.l", &whole[..whole.len() - 2]);
    folder.fails(
        2,
        "convert --in scan.l.hdr --out cut.npz",
        &["scan.l", "cut short"],
    );
    // An offset outside the sinogram.
    let mut beyond = whole;
    beyond.extend_from_slice(&0x7fff_ffff_u32.to_le_bytes());
    folder.write("scan.l", &beyond);
    folder.fails(
        2,
        "convert --in scan.l.hdr --out beyond.npz",
        &["word 7", "expected less than"],
    );
    assert!(!folder.path("cut.npz").exists() && !folder.path("beyond.npz").exists());
}

#[test]
fn list_mode_is_thinned_and_corrected() {
    let folder = Folder::new();
    let mut file = ListModeWriter::create(
        &folder.path("scan.l.hdr"),
        &CylindricalScanner::mmr(),
        Announcement::default(),
    )
    .unwrap();
    file.time(0).unwrap();
    for event in 0..400 {
        // View 10, where bins 160 to 166 lie in no gap.
        file.event(event % 5 != 0, 0, 10, 160 + event % 7).unwrap();
    }
    file.finish().unwrap();
    let whole = folder.json("convert --in scan.l.hdr --out all.npz");
    let part = folder.json("convert --in scan.l.hdr --out part.npz --thin 0.25 --seed 3");
    let rest = folder.json("convert --in scan.l.hdr --out rest.npz --thin 0.25 --seed 3 --rest");
    for kind in ["prompts", "delayeds"] {
        let counted = |of: &serde_json::Value| of[kind].as_u64().unwrap();
        assert_eq!(counted(&part) + counted(&rest), counted(&whole));
        let array = |name: &str| -> Array2<f32> { entry(&folder.path(name), kind) };
        assert_eq!(array("part.npz") + array("rest.npz"), array("all.npz"));
    }
    // 320 prompts: 80 expected, with a standard deviation of 8.
    assert!((48..112).contains(&part["prompts"].as_u64().unwrap()), "{part}");
    folder.json("convert --in scan.l.hdr --out again.npz --thin 0.25 --seed 3");
    assert_eq!(folder.bytes("again.npz"), folder.bytes("part.npz"));
    folder.json("convert --in scan.l.hdr --out other.npz --thin 0.25 --seed 4");
    assert_ne!(folder.bytes("other.npz"), folder.bytes("part.npz"));

    let json = folder
        .json("convert --in scan.l.hdr --out all.npz --corrected c.npy --views 64 --bins 60 --bin-mm 8");
    let corrected = read2(&folder.path("c.npy"));
    assert_eq!(
        (corrected.dim(), &json["corrected"]["bin_mm"]),
        ((64, 60), &8.0.into())
    );
    assert!(corrected.iter().all(|&v| v >= 0.0 && v.is_finite()));
    let total = json["corrected"]["total"].as_f64().unwrap();
    assert!((f64::from(corrected.sum()) / total - 1.0).abs() < 1e-5 && total > 0.0);
    let json = folder.json("convert --in scan.l.hdr --out all.npz --corrected c.npz");
    assert_eq!(json["corrected"]["shape"], serde_json::json!([252, 287]));

    let convert = "convert --in scan.l.hdr --out no.npz";
    for (options, words) in [
        ("--thin 0", ["fraction of the events", "expected more than 0"]),
        ("--thin -1", ["fraction of the events", "expected more than 0"]),
        ("--thin 1.5", ["1.5", "at most 1"]),
        ("--rest", ["--rest", "expected --thin"]),
        ("--seed 1", ["--seed", "expected --thin"]),
        ("--bin-mm 4", ["--bin-mm", "expected --corrected"]),
        ("--corrected c.txt", ["--corrected", "c.txt"]),
        ("--corrected c.npy --bin-mm 0", ["bin", "0"]),
        ("--corrected c.npy --views 0", ["views", "0"]),
    ] {
        folder.fails(2, &format!("{convert} {options}"), &words);
    }
    assert!(!folder.path("no.npz").exists());
}

#[test]
fn arrays_and_datasets_change_format() {
    let folder = Folder::new();
    let array = Array3::from_shape_fn((2, 3, 4), |(i, r, c)| (i * 12 + r * 4 + c) as f32 * 0.5);
    npy(&folder.path("a.npy"), &array);
    folder.ok("convert --in a.npy --out a.npz");
    folder.ok("convert --in a.npz --out b.npy");
    assert_eq!(read3(&folder.path("b.npy")), array);

    folder.ok(
        "simulate --tracer fdg --region brain --count 2 --views 16 --bins 16 --bin-mm 32 --out d.safetensors",
    );
    folder.ok("convert --in d.safetensors --out d.npz");
    let mut names = allpet::io::npz_names(&folder.path("d.npz")).unwrap();
    names.sort();
    assert_eq!(names, ["attenuation", "image", "subject", "target"]);
    let target: Array3<f32> = entry(&folder.path("d.npz"), "target");
    assert_eq!(target.dim(), (2, 16, 16));
    assert!(target.slice(s![0, .., 7..9]).sum() > 0.0);
    let info = folder.json("info d.safetensors");
    assert_eq!((&info["kind"], &info["samples"]), (&"dataset".into(), &2.into()));
    assert_eq!(info["geometry"]["arc_deg"], 180.0);

    folder.fails(
        2,
        "convert --in a.npy --out a.safetensors",
        &["NumPy .npy", "safetensors"],
    );
    folder.fails(
        2,
        "convert --in a.npy --out c.npz --planes",
        &["NumPy .npy", "list-mode"],
    );
    folder.fails(
        2,
        "convert --in a.npy --out c.npz --normalisation n.npy",
        &["NumPy .npy", "list-mode"],
    );
    folder.fails(
        2,
        "convert --in d.npz --out d.npy",
        &["holds 4 arrays", "expected one"],
    );
}
