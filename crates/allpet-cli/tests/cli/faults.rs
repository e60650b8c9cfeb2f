//! Bad input: one line that says what, where and what was expected, exit 2, and no file left behind.

use crate::runner::{Folder, npy};
use ndarray::{Array1, Array2};

#[test]
fn arrays_that_are_not_what_they_should_be() {
    let folder = Folder::new();
    npy(&folder.path("good.npy"), &Array2::<f32>::ones((8, 8)));
    npy(&folder.path("line.npy"), &Array1::<f32>::ones(8));
    let mut nan = Array2::<f32>::ones((8, 8));
    nan[[3, 5]] = f32::NAN;
    npy(&folder.path("nan.npy"), &nan);
    let good = folder.bytes("good.npy");
    folder.write("short.npy", &good[..good.len() - 16]);
    folder.write("lying.npy", &changed(&good, b"(8, 8)", b"(9, 9)"));
    folder.write("ints.npy", &changed(&good, b"<f4", b"<i4"));
    folder.write("words.npy", b"these are words, not numbers");
    let before = folder.names(".");
    for (name, words) in [
        ("absent.npy", ["absent.npy", "No such file"]),
        ("line.npy", ["line.npy", "expected"]),
        ("nan.npy", ["nan.npy", "[3, 5]"]),
        ("ints.npy", ["<i4", "expected <f4 or <f8"]),
        ("short.npy", ["expected 256 bytes", "found 240"]),
        ("lying.npy", ["expected 324 bytes", "found 256"]),
        ("words.npy", ["words.npy", "x93NUMPY"]),
    ] {
        folder.fails(
            2,
            &format!("project --in {name} --out out.npy --views 4 --bins 8"),
            &words,
        );
        folder.fails(
            2,
            &format!("reconstruct --in {name} --out out.npy --size 8"),
            &words,
        );
        folder.fails(
            2,
            &format!("adjoint --in {name} --out out.npy --size 8 --json"),
            &words,
        );
    }
    assert_eq!(folder.names("."), before);
}

/// The bytes with the first `from` replaced.
fn changed(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|w| w == from).unwrap();
    let mut bytes = bytes.to_vec();
    bytes.splice(at..at + from.len(), to.iter().copied());
    bytes
}

#[test]
fn options_outside_their_range() {
    let folder = Folder::new();
    npy(&folder.path("good.npy"), &Array2::<f32>::ones((8, 8)));
    let mut below = Array2::<f32>::ones((8, 8));
    below[[2, 6]] = -1.0;
    npy(&folder.path("below.npy"), &below);
    let before = folder.names(".");
    for (line, words) in [
        (
            "project --in good.npy --out o.npy --views 0 --bins 8",
            ["0 views", "expected at least 1"],
        ),
        (
            "project --in good.npy --out o.npy --views 4 --bins 8 --bin-mm -1",
            ["bins of -1 mm", "expected"],
        ),
        (
            "project --in good.npy --out o.npy --views 4 --bins 8 --arc 400",
            ["arc of 400", "at most 360"],
        ),
        (
            "project --in good.npy --out o.npy --views four --bins 8",
            ["four", "--views"],
        ),
        (
            "project --in good.npy --out o.npy --bins 8",
            ["--views", "required"],
        ),
        (
            "project --in good.npy --out o.txt --views 4 --bins 8",
            ["o.txt", ".npy or .npz"],
        ),
        (
            "project --in good.npy --out no/such/o.npy --views 4 --bins 8",
            ["no/such", "does not exist"],
        ),
        (
            "project --in good.npy --out . --views 4 --bins 8",
            ["is a folder", "expected the name of a file"],
        ),
        (
            "project --in good.npy --out o.npy --views 4 --bins 8 --device cuda:0",
            ["cuda:0", "no CUDA"],
        ),
        (
            "project --in good.npy --out o.npy --views 4 --bins 8 --device gpu",
            ["gpu", "expected cpu"],
        ),
        (
            "project --in good.npy --out o.npy --views 4000000000 --bins 4000000000",
            ["memory", "expected"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 0",
            ["--size", "ROWSxCOLS"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --filter sharp",
            ["sharp", "shepp-logan"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --cutoff 2",
            ["cut-off", "at most 1"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --arc 90",
            ["arc", "180 to 360"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --method art",
            ["art", "fbp"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --psf-mm 4",
            ["--psf-mm", "expected --method mlem or osem"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --method osem --filter hann",
            ["--filter", "expected --method fbp"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --method mlem --subsets 4",
            ["--subsets", "expected --method osem"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --method osem --subsets 9",
            ["number of subsets is 9", "at most the number of views"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 8 --method mlem --iterations 0",
            ["number of iterations is 0", "at least 1"],
        ),
        (
            "reconstruct --in good.npy --out o.npy --size 9 --method mlem --attenuation good.npy",
            ["good.npy", "attenuation image has shape [8, 8]; expected [9, 9]"],
        ),
        (
            "reconstruct --in below.npy --out o.npy --size 8 --method mlem",
            ["below.npy", "counts holds -1 at index [2, 6]"],
        ),
        (
            "mask --count 3 --size 64 --block 12..4 --out o.npy",
            ["--block", "a not above b"],
        ),
        (
            "mask --count 3 --size 64 --block 80 --out o.npy",
            ["80 pixels", "at most the 64"],
        ),
        ("mask --count 0 --out o.npy", ["--count", "at least 1"]),
        (
            "mask --count 3 --normalise maybe --out o.npy",
            ["maybe", "linear, clip"],
        ),
        (
            "simulate --count 2 --tracer water --out d.safetensors",
            ["water", "fdg, dopa, psma"],
        ),
        (
            "simulate --count 2 --modality ct --tracer fdg --out d.safetensors",
            ["--tracer", "ct"],
        ),
        (
            "simulate --count 0 --out d.safetensors",
            ["0 samples", "at least 1"],
        ),
        (
            "simulate --task low-dose --dose 1.5 --count 2 --out d.safetensors",
            ["dose of 1.5", "at most 1"],
        ),
        (
            "simulate --task delayed --minutes 120,60 --count 2 --out d.safetensors",
            ["120 and 60 min", "the earlier first"],
        ),
        (
            "simulate --task delayed --tracer psma --count 2 --out d.safetensors",
            ["psma", "expected fdg"],
        ),
        (
            "simulate --task conversion --from dopa --to dopa --count 2 --out d.safetensors",
            ["18F-DOPA", "two tracers"],
        ),
        (
            "simulate --task attenuation --dose 0.25 --count 2 --out d.safetensors",
            ["--dose with --task attenuation", "--task low-dose"],
        ),
        (
            "simulate --task separation --tracer fdg --count 2 --out d.safetensors",
            ["--tracer", "fdg,psma"],
        ),
        (
            "synthesize --prompt \"brain with 18F-FDG and sugar\" --out o",
            ["sugar", "fdg, dopa, psma"],
        ),
        ("synthesize --out o", ["--prompt", "--tracer"]),
        ("plot --in good.npy --out o.png --palette jet", ["jet", "magma"]),
        ("info absent.npz", ["absent.npz", "No such file"]),
        (
            "reproduce ablation --quick --model shipped --out o",
            ["--model", "--help"],
        ),
        (
            "reproduce synthesis --quick --baseline shipped --out o",
            ["--baseline", "--help"],
        ),
    ] {
        folder.fails(2, line, &words);
    }
    assert_eq!(folder.names("."), before);
}

#[test]
fn what_is_not_built_says_so_and_is_not_listed() {
    let folder = Folder::new();
    for line in [
        "simulate --task fusion --count 2 --out d.safetensors",
        "train fusion --config c.toml",
        "bench sampler --json",
    ] {
        folder.fails(2, line, &["is not built yet"]);
    }
    let help = folder.ok("--help");
    for built in [
        "project",
        "reconstruct",
        "synthesize",
        "task",
        "reproduce",
        "convert",
        "bench",
    ] {
        assert!(help.contains(&format!("\n  {built} ")), "{help}");
    }
    assert!(!folder.ok("bench --help").contains("sampler"));
}

#[test]
fn an_output_that_cannot_be_written_is_no_fault_of_the_input() {
    let folder = Folder::new();
    npy(&folder.path("good.npy"), &Array2::<f32>::ones((8, 8)));
    // The device that is always full.
    if std::path::Path::new("/dev/full").exists() {
        folder.write("before.npy", b"what was there");
        std::os::unix::fs::symlink("/dev/full", folder.path("full.npy")).unwrap();
        folder.fails(
            1,
            "project --in good.npy --out full.npy --views 400 --bins 800",
            &["full.npy", "No space left"],
        );
    }
    let before = folder.names(".");
    assert!(before.iter().all(|name| !name.ends_with(".tmp")), "{before:?}");
}

#[test]
fn files_with_other_content_than_asked_for() {
    let folder = Folder::new();
    npy(&folder.path("good.npy"), &Array2::<f32>::ones((8, 8)));
    let header = br#"{"weight":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}     "#;
    let mut foreign = (header.len() as u64).to_le_bytes().to_vec();
    foreign.extend_from_slice(header);
    foreign.extend_from_slice(&[0; 8]);
    folder.write("foreign.safetensors", &foreign);
    folder.write("c.toml", b"preset = \"tiny\"\n");
    folder.write("bad.toml", b"preset = \"tiny\"\n[train]\nsteps = 4\nspeed = 3\n");
    folder.write("word.toml", b"preset = \"enormous\"\n");
    let before = folder.names(".");
    for (line, words) in [
        (
            "train autoencoder --config c.toml --data foreign.safetensors --out run",
            ["foreign.safetensors", "subject"],
        ),
        (
            "train autoencoder --config c.toml --data absent.safetensors --out run",
            ["absent.safetensors", "No such file"],
        ),
        (
            "train autoencoder --config absent.toml --data foreign.safetensors --out run",
            ["absent.toml", "TOML"],
        ),
        (
            "train autoencoder --config bad.toml --data foreign.safetensors --out run",
            ["bad.toml, line 4", "speed"],
        ),
        (
            "train foundation --config c.toml --data foreign.safetensors --out run",
            ["c.toml", "autoencoder"],
        ),
        (
            "synthesize --model foreign.safetensors --prompt brain --out o",
            ["foreign.safetensors", "expected a model"],
        ),
        (
            "synthesize --model absent.safetensors --prompt brain --out o",
            ["absent.safetensors", "No such file"],
        ),
        (
            "synthesize --model good.npy --prompt brain --out o",
            ["good.npy", "damaged"],
        ),
        (
            "convert --in foreign.safetensors --out o.npz",
            ["foreign.safetensors", "subject"],
        ),
        ("plot --in c.toml --out o.png", ["c.toml", "expected one of"]),
    ] {
        folder.fails(2, line, &words);
    }
    assert_eq!(folder.names("."), before);
    folder.ok(
        "simulate --count 2 --tracer fdg --region brain --views 16 --bins 16 --bin-mm 32 --out a.safetensors",
    );
    folder.fails(
        2,
        "train autoencoder --config word.toml --data a.safetensors --out run",
        &["enormous", "tiny, small"],
    );
}
