//! Projection, its transpose, reconstruction and masks.

use crate::runner::{Folder, npy, read2, read3};
use ndarray::{Array2, Array3, Axis, s};

/// A disc of value 1 at (8, -5) mm with a radius of 30 mm, each pixel by the part of it inside (8 x 8 samples).
fn disc(size: usize, pixel_mm: f64) -> Array2<f32> {
    let at = |i: usize, sub: usize| (i as f64 + (sub as f64 + 0.5) / 8.0 - size as f64 / 2.0) * pixel_mm;
    Array2::from_shape_fn((size, size), |(row, col)| {
        let inside = (0..64).filter(|n| (at(col, n % 8) - 8.0).hypot(-at(row, n / 8) + 5.0) < 30.0);
        inside.count() as f32 / 64.0
    })
}

fn mean_inside(image: ndarray::ArrayView2<'_, f32>, pixel_mm: f64, radius_mm: f64) -> f64 {
    let half = (image.nrows() as f64 - 1.0) / 2.0;
    let inside = image.indexed_iter().filter(|((row, col), _)| {
        let (x, y) = ((*col as f64 - half) * pixel_mm, (half - *row as f64) * pixel_mm);
        (x - 8.0).hypot(y + 5.0) < radius_mm
    });
    let (sum, count) = inside.fold((0.0, 0), |(sum, count), (_, v)| (sum + f64::from(*v), count + 1));
    sum / f64::from(count)
}

#[test]
fn a_disc_comes_back_with_its_value() {
    let folder = Folder::new();
    npy(&folder.path("disc.npy"), &disc(96, 1.25));
    for (name, geometry) in [
        ("half", "--pixel-mm 1.25 --bin-mm 1.1"),
        (
            "full",
            "--pixel-mm 1.25 --bin-mm 0.9 --arc 360 --start 13 --offset-bins 3.25",
        ),
        (
            "behind",
            "--pixel-mm 1.25 --bin-mm 1.1 --start -20 --offset-bins -2.5",
        ),
    ] {
        folder.ok(&format!(
            "project --in disc.npy --out {name}.npy --views 120 --bins 141 {geometry}"
        ));
        folder.ok(&format!(
            "reconstruct --in {name}.npy --out {name}-image.npy --size 96 --filter hann {geometry}"
        ));
        let image = read2(&folder.path(&format!("{name}-image.npy")));
        let mean = mean_inside(image.view(), 1.25, 24.0);
        assert!((mean - 1.0).abs() < 0.005, "{name}: {mean}");
    }
    // The control: with a geometry that is not the sinogram's the value is another.
    folder.ok("reconstruct --in half.npy --out wrong.npy --size 96 --pixel-mm 1.25 --bin-mm 1.3");
    let wrong = read2(&folder.path("wrong.npy"));
    assert!((mean_inside(wrong.view(), 1.25, 24.0) - 1.0).abs() > 0.005);
}

#[test]
fn osem_undoes_attenuation_efficiency_and_background() {
    let folder = Folder::new();
    let (disc, geometry) = (disc(64, 1.875), "--pixel-mm 1.875 --bin-mm 1.9");
    npy(&folder.path("disc.npy"), &(&disc * 50.0));
    npy(&folder.path("mu.npy"), &(&disc * 0.2));
    npy(&folder.path("mu-mm.npy"), &(&disc * 0.02));
    for name in ["disc", "mu-mm"] {
        folder.ok(&format!(
            "project --in {name}.npy --out {name}-p.npy --views 72 --bins 71 {geometry}"
        ));
    }
    let efficiency = Array2::from_shape_fn((72, 71), |(view, bin)| {
        if (view + bin) % 18 == 0 {
            0.0
        } else {
            1.0 + 0.2 * (view as f32 * 0.3).sin()
        }
    });
    let survive = read2(&folder.path("mu-mm-p.npy")).mapv(|integral| (-integral).exp());
    let background = &efficiency * 40.0;
    let counts = read2(&folder.path("disc-p.npy")) * &survive * &efficiency + &background;
    for (name, array) in [("n", &efficiency), ("b", &background), ("y", &counts)] {
        npy(&folder.path(&format!("{name}.npy")), array);
    }
    let model = "--attenuation mu.npy --normalisation n.npy --background b.npy";
    let common = format!("reconstruct --in y.npy --size 64 {geometry}");
    let mean = |name: &str| mean_inside(read2(&folder.path(name)).view(), 1.875, 24.0) / 50.0;
    let json = folder.json(&format!("{common} --method osem --out osem.npy {model}"));
    let rising = |json: &serde_json::Value, length: usize| {
        let values: Vec<f64> = serde_json::from_value(json["log_likelihood"].clone()).unwrap();
        assert_eq!(values.len(), length);
        assert!(values.windows(2).all(|pair| pair[1] > pair[0]), "{values:?}");
    };
    rising(&json, 4);
    assert_eq!((&json["iterations"], &json["subsets"]), (&4.into(), &12.into()));
    assert!((mean("osem.npy") - 1.0).abs() < 0.01, "{}", mean("osem.npy"));
    rising(
        &folder.json(&format!(
            "{common} --method mlem --iterations 9 --psf-mm 4 --out mlem.npy {model}"
        )),
        9,
    );
    // The control: without a part of the model the value is another.
    folder.ok(&format!(
        "{common} --method osem --out wrong.npy --normalisation n.npy --background b.npy"
    ));
    assert!((mean("wrong.npy") - 1.0).abs() > 0.1);
}

#[test]
fn the_transpose_is_exact_and_keeps_leading_axes() {
    let folder = Folder::new();
    let x = Array3::from_shape_fn((3, 20, 31), |(b, r, c)| {
        ((b * 7 + r * 31 + c * 13) % 17) as f32 - 8.0
    });
    let y = Array3::from_shape_fn((3, 24, 33), |(b, v, k)| {
        ((b * 5 + v * 11 + k * 7) % 19) as f32 - 9.0
    });
    npy(&folder.path("x.npy"), &x);
    npy(&folder.path("y.npy"), &y);
    let geometry = "--pixel-mm 2.5 --bin-mm 1.7 --arc 360 --start 13 --offset-bins 3.25";
    folder.ok(&format!(
        "project --in x.npy --out ax.npy --views 24 --bins 33 {geometry}"
    ));
    folder.ok(&format!(
        "adjoint --in y.npy --out aty.npy --size 20x31 {geometry}"
    ));
    let (ax, aty) = (read3(&folder.path("ax.npy")), read3(&folder.path("aty.npy")));
    assert_eq!((ax.dim(), aty.dim()), (y.dim(), x.dim()));
    let dot = |a: &Array3<f32>, b: &Array3<f32>| {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum::<f64>()
    };
    let norm = |a: &Array3<f32>| dot(a, a).sqrt();
    let mismatch = (dot(&ax, &y) - dot(&x, &aty)).abs() / (norm(&ax) * norm(&y));
    assert!(mismatch < 1e-6, "{mismatch}");
    // An element of a batch is the same as alone.
    npy(&folder.path("x1.npy"), &x.index_axis(Axis(0), 1).to_owned());
    folder.ok(&format!(
        "project --in x1.npy --out ax1.npy --views 24 --bins 33 {geometry}"
    ));
    let alone = read2(&folder.path("ax1.npy"));
    assert_eq!(alone, ax.index_axis(Axis(0), 1));
}

#[test]
fn a_mask_does_not_depend_on_count_first_or_threads() {
    let folder = Folder::new();
    let settings = "--size 64 --views 40 --bins 50 --block 4..12 --blocks 1..3 --seed 7";
    folder.ok(&format!("mask --count 70 {settings} --out all.npy"));
    folder.ok(&format!("mask --count 2 --first 66 {settings} --out two.npy"));
    let (all, two) = (read3(&folder.path("all.npy")), read3(&folder.path("two.npy")));
    assert_eq!((all.dim(), two.dim()), ((70, 40, 50), (2, 40, 50)));
    assert_eq!(all.slice(s![66..68, .., ..]), two);
    assert!(all.iter().all(|v| (0.0..=1.0).contains(v)) && all.iter().any(|v| *v == 1.0));
    let mut one_thread = folder.command(&format!("mask --count 70 {settings} --out one.npy"));
    assert!(
        one_thread
            .env("RAYON_NUM_THREADS", "1")
            .output()
            .unwrap()
            .status
            .success()
    );
    assert_eq!(folder.bytes("one.npy"), folder.bytes("all.npy"));
    folder.ok("mask --count 2 --first 66 --size 64 --views 40 --bins 50 --block 4..12 --blocks 1..3 --seed 8 --out other.npy");
    assert_ne!(read3(&folder.path("other.npy")), two);
}

#[test]
fn json_is_one_object_and_nothing_else() {
    let folder = Folder::new();
    npy(&folder.path("disc.npy"), &disc(32, 1.0));
    let done = folder.json("project --in disc.npy --out s.npy --views 30 --bins 40");
    assert_eq!(done["shape"], serde_json::json!([30, 40]));
    folder.json("adjoint --in s.npy --out a.npy --size 32");
    folder.json("reconstruct --in s.npy --out r.npz --size 32");
    folder.json("mask --count 1 --size 32 --block 4 --views 8 --bins 8 --out m.npy");
    folder.json("plot --in s.npy --out s.png");
    let info = folder.json("info r.npz");
    assert_eq!(info["arrays"][0]["name"], "reconstructions");
    let timing = folder.json("bench projector --size 16 --views 8 --bins 16 --batch 1");
    for part in ["forward", "adjoint", "fbp"] {
        assert!(
            timing[part]["median_ms"].as_f64().unwrap() > 0.0 && timing[part]["runs"].as_u64().unwrap() >= 3
        );
    }
    assert_eq!((&timing["size"], &timing["device"]), (&16.into(), &"cpu".into()));
}

#[test]
fn pictures_are_drawn_of_single_arrays_and_of_batches() {
    let folder = Folder::new();
    npy(&folder.path("disc.npy"), &disc(32, 1.0));
    npy(
        &folder.path("batch.npy"),
        &Array3::from_shape_fn((20, 8, 9), |(i, r, c)| (i + r * c) as f32),
    );
    for line in [
        "plot --in disc.npy --out colour.png",
        "plot --in disc.npy --out grey.png --grey16 --window 0..1",
        "plot --in batch.npy --out batch.png --palette inverted",
    ] {
        folder.ok(line);
    }
    let head = |name: &str| {
        let bytes = folder.bytes(name);
        assert_eq!(&bytes[..8], b"\x89PNG\r\n\x1a\n");
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        (word(16), word(20), bytes[24])
    };
    assert_eq!(head("colour.png"), (512, 512, 8));
    assert_eq!(head("grey.png"), (512, 512, 16));
    let (width, height, _) = head("batch.png");
    assert!(width > 4 * 200 && height > 4 * 200, "{width} x {height}");
}
