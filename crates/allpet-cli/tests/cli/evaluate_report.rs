//! The page of `evaluate --report`.

use crate::runner::{Folder, npy, text};
use base64::Engine;
use ndarray::{Array2, Array3, Axis, s};
use serde_json::Value;

/// A decoded picture of a page.
struct Image {
    told: String,
    width: usize,
    height: usize,
    /// Red, green and blue of each pixel, row by row.
    pixels: Vec<[u8; 3]>,
}

/// Everything between two marks, as often as they occur.
fn between<'a>(page: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    page.split(start)
        .skip(1)
        .map(|rest| rest.split(end).next().unwrap())
        .collect()
}

fn pictures(page: &str) -> Vec<Image> {
    between(page, "<img ", ">")
        .into_iter()
        .map(|tag| {
            let data = between(tag, "src=\"data:image/png;base64,", "\"")[0];
            let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
            let mut decoder = png::Decoder::new(std::io::Cursor::new(bytes));
            decoder.set_transformations(png::Transformations::EXPAND);
            let mut reader = decoder.read_info().unwrap();
            let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut pixels).unwrap();
            assert_eq!(info.color_type, png::ColorType::Rgb);
            Image {
                told: between(tag, "alt=\"", "\"")[0].to_owned(),
                width: info.width as usize,
                height: info.height as usize,
                pixels: pixels.as_chunks::<3>().0.to_vec(),
            }
        })
        .collect()
}

/// What a page would fetch from elsewhere.
fn fetched(page: &str) -> Vec<String> {
    let mut found: Vec<String> = [
        "http:", "https:", "<script", "<link", "<iframe", "@import", "url(", "srcset",
    ]
    .iter()
    .filter(|word| page.contains(*word))
    .map(|word| (*word).to_owned())
    .collect();
    for (start, allowed) in [("src=\"", "data:image/png;base64,"), ("href=\"", "#")] {
        let strange = between(page, start, "\"")
            .into_iter()
            .filter(|v| !v.starts_with(allowed));
        found.extend(strange.map(str::to_owned));
    }
    found
}

/// Smooth images of `rows x cols`, each of another height.
fn blobs(count: usize, rows: usize, cols: usize) -> Array3<f32> {
    Array3::from_shape_fn((count, rows, cols), |(n, i, j)| {
        let (y, x) = (i as f32 / rows as f32 - 0.4, j as f32 / cols as f32 - 0.6);
        (1.0 + 0.1 * n as f32) * (-20.0 * (x * x + y * y)).exp()
    })
}

/// Candidates whose mean absolute errors are 0.01, 0.02, .. in a mixed order.
fn with_errors(reference: &Array3<f32>) -> Array3<f32> {
    let count = reference.len_of(Axis(0));
    let mut candidate = reference.clone();
    for (n, mut image) in candidate.axis_iter_mut(Axis(0)).enumerate() {
        image += 0.01 * (1 + (5 * n) % count) as f32;
    }
    candidate
}

fn page(folder: &Folder, name: &str) -> String {
    text(&folder.bytes(name))
}

/// Colours but for the rounding of the interpolation between them.
fn near(got: [u8; 3], expected: [u8; 3]) {
    let far = got.iter().zip(expected).any(|(g, e)| g.abs_diff(e) > 2);
    assert!(!far, "{got:?} beside {expected:?}");
}

const LINE: &str = "evaluate --reference y.npy --candidate x.npy --data-range 1 --report out.html";

#[test]
fn a_page_stands_alone_and_names_every_convention() {
    let folder = Folder::new();
    let reference = blobs(8, 176, 180);
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &with_errors(&reference));
    let metrics = "psnr,ssim,ms-ssim,nmse,nrmse,rmse,mae,fid,kid,precision-recall,nearest";
    let line = format!("{LINE} --metrics {metrics}");
    let json = folder.json(&line);
    assert_eq!(json["report"], "out.html");
    let made = page(&folder, "out.html");
    assert_eq!(fetched(&made), Vec::<String>::new());
    // The control: what does fetch is found.
    let spoilt = made.replacen("data:image/png;base64,", "pictures/", 1);
    assert_eq!(fetched(&spoilt).len(), 1);
    assert_eq!(
        fetched(&made.replacen("<style>", "<style>@import url(a.css);", 1)).len(),
        2
    );
    for (metric, figures) in json["metrics"].as_object().unwrap() {
        let name = if metric == "precision-recall" {
            "precision"
        } else {
            metric
        };
        assert!(
            made.contains(&format!("<th scope=\"row\">{name}</th>")),
            "{metric}"
        );
        if let Some(convention) = figures["convention"].as_str() {
            assert!(made.contains(convention), "{metric}: {convention}");
        }
    }
    for words in [
        "random features, not comparable with published FID",
        "8 x 176 x 180",
        "y.npy",
        "x.npy",
        "2000 resamples",
        "best by psnr",
        "median by psnr",
        "worst by psnr",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(made.contains(words), "{words}");
    }
    assert!(pictures(&made).iter().all(|p| !p.told.is_empty()));
    let svgs = between(&made, "<svg ", ">");
    // Seven box plots, six profiles, the histogram, the bias line, the distances.
    assert_eq!(svgs.len(), 7 + 6 + 2 + 1);
    assert!(svgs.iter().all(|tag| tag.contains("aria-label=\"")));
    // Every fragment that is linked is there.
    for target in between(&made, "href=\"#", "\"") {
        assert!(made.contains(&format!("id=\"{target}\"")), "{target}");
    }
    // The same inputs give the same bytes, another seed another page; without --json the lines name the file.
    let words = folder.ok(&line);
    assert!(words.contains("out.html"), "{words}");
    assert!(page(&folder, "out.html") == made);
    folder.ok(&format!("{line} --seed 1"));
    assert!(page(&folder, "out.html") != made);
    assert_eq!(folder.names("."), ["out.html", "x.npy", "y.npy"]);
}

#[test]
fn error_maps_show_sign_and_size() {
    let folder = Folder::new();
    let reference = blobs(1, 30, 40).remove_axis(Axis(0));
    let mut candidate = reference.clone();
    candidate.slice_mut(s![.., ..20]).map_inplace(|v| *v -= 0.25);
    candidate
        .slice_mut(s![..10, ..])
        .assign(&reference.slice(s![..10, ..]));
    candidate.slice_mut(s![10.., 20..]).map_inplace(|v| *v += 0.25);
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &candidate);
    folder.ok(&format!("{LINE} --metrics mae"));
    let made = page(&folder, "out.html");
    let found = pictures(&made);
    // Three pictures and two colour bars for the only image.
    assert_eq!(found.len(), 5);
    let map = found.iter().find(|p| p.told.starts_with("signed error")).unwrap();
    assert_eq!((map.width, map.height), (40, 30));
    let at = |row: usize, col: usize| map.pixels[row * 40 + col];
    // The ends of RdBu as published by ColorBrewer: 67001f and 053061; near white at zero.
    near(at(20, 30), [0x67, 0x00, 0x1f]);
    near(at(20, 10), [0x05, 0x30, 0x61]);
    assert!(
        at(5, 10).iter().all(|&c| c > 225) && at(5, 10) == at(5, 30),
        "{:?}",
        at(5, 10)
    );
    assert!(made.contains("<span>-0.2500</span><span>0</span><span>0.2500</span>"));
    // PET in inverted greys: the reference's maximum is black.
    let grey = found.iter().find(|p| p.told == "reference, image 0").unwrap();
    assert_eq!((grey.width, grey.height), (40, 30));
    assert_eq!(grey.pixels[12 * 40 + 24], [0, 0, 0]);
    assert!(grey.pixels[0][0] > 250);
    // The control: no error, no red and no blue.
    folder.ok(&format!("{LINE} --metrics mae").replace("x.npy", "y.npy"));
    let made = page(&folder, "out.html");
    let found = pictures(&made);
    let map = found.iter().find(|p| p.told.starts_with("signed error")).unwrap();
    assert!(
        map.pixels
            .iter()
            .all(|p| *p == map.pixels[0] && p.iter().all(|&c| c > 225))
    );
    assert!(made.contains("identical in every pixel"));
}

#[test]
fn large_images_are_averaged_by_area() {
    let folder = Folder::new();
    // Squares of one pixel: averaged they are even, where picking pixels would leave a pattern.
    let squares = Array2::from_shape_fn((512, 300), |(i, j)| ((i + j) % 2 * 2) as f32);
    let error = Array2::from_shape_fn((512, 300), |(i, _)| if i < 256 { 1.0 } else { -1.0 });
    npy(&folder.path("y.npy"), &squares);
    npy(&folder.path("x.npy"), &(&squares + &error));
    folder.ok(&format!("{LINE} --metrics mae"));
    let made = page(&folder, "out.html");
    let found = pictures(&made);
    for one in found.iter().filter(|p| p.told.ends_with("image 0")) {
        assert_eq!((one.width, one.height), (150, 256), "{}", one.told);
        if one.told.starts_with("reference") {
            assert!(one.pixels.iter().all(|p| *p == one.pixels[0]));
        }
    }
    let map = found.iter().find(|p| p.told.starts_with("signed error")).unwrap();
    near(map.pixels[100 * 150 + 70], [0x67, 0x00, 0x1f]);
    near(map.pixels[200 * 150 + 70], [0x05, 0x30, 0x61]);
    assert!(made.contains("256 x 150 pixels, averaged by area from 512 x 300"));
    // Small ones are shown as they are, and nothing is said.
    npy(&folder.path("y.npy"), &squares.slice(s![..40, ..40]).to_owned());
    npy(&folder.path("x.npy"), &squares.slice(s![..40, 1..41]).to_owned());
    folder.ok(&format!("{LINE} --metrics mae"));
    assert!(!page(&folder, "out.html").contains("averaged by area"));
}

#[test]
fn tables_and_box_plots_hold_the_figures_of_json() {
    let folder = Folder::new();
    let reference = blobs(9, 32, 32);
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &with_errors(&reference));
    let json = folder.json(&format!("{LINE} --metrics mae,psnr"));
    let made = page(&folder, "out.html");
    let figures = &json["metrics"]["mae"];
    let number = |value: &Value| value.as_f64().unwrap();
    let close = |got: &str, expected: f64| {
        let got: f64 = got.parse().unwrap();
        assert!(
            (got - expected).abs() <= 1e-5 * expected.abs(),
            "{got} beside {expected}"
        );
    };
    let table: Vec<&str> = between(&made, "<th scope=\"row\">mae</th>", "</tr>");
    let cells = between(table[0], "<td>", "</td>");
    close(cells[0].split(" ± ").next().unwrap(), number(&figures["mean"]));
    let ends: Vec<&str> = cells[1].split(" .. ").collect();
    for (cell, end) in ends.iter().zip(figures["interval"].as_array().unwrap()) {
        close(cell, number(end));
    }
    for (cell, name) in cells[2..].iter().zip(["median", "min", "max"]) {
        close(cell, number(&figures[name]));
    }
    // Errors of 0.01, 0.02, .. 0.09: every quartile is one of them, and none lies apart.
    let told = between(&made, "aria-label=\"mae of 9 images: ", "\"")[0];
    let words: Vec<f64> = told
        .split([' ', ','])
        .filter_map(|word| word.parse().ok())
        .collect();
    for (got, expected) in words.iter().zip([0.05, 0.03, 0.07, 0.01, 0.09]) {
        assert!((got - expected).abs() < 1e-6, "{told}");
    }
    assert_eq!(words.len(), 5);
    assert!((words[0] - number(&figures["median"])).abs() < 1e-6);
    // A dot for each image and metric, with the image's number.
    assert_eq!(made.matches("<circle class=\"dot\"").count(), 18);
    assert_eq!(made.matches("<title>image 8: ").count(), 2);
    // Image n is off by 0.01 (1 + 5n mod 9).
    assert!(made.contains("<strong>Image 0</strong>, best by mae"));
    assert!(made.contains("<strong>Image 8</strong>, median by mae"));
    assert!(made.contains("<strong>Image 7</strong>, worst by mae"));
    // By PSNR, where more is better, the same images.
    folder.ok(&format!("{LINE} --metrics psnr,mae"));
    let made = page(&folder, "out.html");
    assert!(made.contains("<strong>Image 0</strong>, best by psnr"));
    assert!(made.contains("<strong>Image 7</strong>, worst by psnr"));
}

#[test]
fn stacks_of_any_depth_and_single_images_have_a_page() {
    let folder = Folder::new();
    let reference = blobs(4, 20, 24);
    let candidate = with_errors(&reference);
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &candidate);
    folder.ok(LINE);
    let flat = page(&folder, "out.html");
    let nested = |a: &Array3<f32>| a.clone().into_shape_with_order((2, 2, 20, 24)).unwrap();
    npy(&folder.path("y.npy"), &nested(&reference));
    npy(&folder.path("x.npy"), &nested(&candidate));
    folder.ok(LINE);
    // Only the shape differs.
    assert!(page(&folder, "out.html").replace("2 x 2 x 20 x 24", "4 x 20 x 24") == flat);
    // One image has no box plot; one row, one column and constant ones draw as well.
    for shape in [(20, 24), (1, 24), (24, 1), (1, 1), (3, 700)] {
        npy(&folder.path("y.npy"), &Array2::<f32>::ones(shape));
        npy(&folder.path("x.npy"), &(Array2::<f32>::ones(shape) * 1.5));
        folder.ok(&format!("{LINE} --metrics mae"));
        let made = page(&folder, "out.html");
        assert!(
            made.contains("the only image") && !made.contains("NaN"),
            "{shape:?}"
        );
        assert!(
            !made.contains("Over images") && !made.contains(" inf"),
            "{shape:?}"
        );
    }
    // Identical pairs: infinite PSNR.
    npy(&folder.path("y.npy"), &reference);
    npy(&folder.path("x.npy"), &reference);
    folder.ok(&format!("{LINE} --metrics psnr,mae"));
    let made = page(&folder, "out.html");
    assert!(made.contains("Infinite for every image") && !made.contains("NaN"));
}

#[test]
fn a_page_of_sets_leaves_pairs_out() {
    let folder = Folder::new();
    npy(&folder.path("y.npy"), &blobs(8, 20, 24));
    let mut candidate = blobs(11, 20, 24) * 0.73;
    candidate
        .index_axis_mut(Axis(0), 5)
        .assign(&blobs(8, 20, 24).index_axis(Axis(0), 3));
    npy(&folder.path("x.npy"), &candidate);
    folder.ok(&format!("{LINE} --metrics fid,nearest"));
    let made = page(&folder, "out.html");
    for word in [
        "not comparable with published FID",
        "Candidate images: 11. Reference images: 8.",
        "1 copy",
        "candidate 5",
        "reference 3",
        "not paired",
    ] {
        assert!(made.contains(word), "{word}");
    }
    for word in ["id=\"pairs\"", "id=\"images\"", "id=\"errors\"", "signed error"] {
        assert!(!made.contains(word), "{word}");
    }
    assert_eq!(fetched(&made), Vec::<String>::new());
    // The control: with a metric of pairs they are there.
    npy(&folder.path("x.npy"), &blobs(8, 20, 24));
    folder.ok(&format!("{LINE} --metrics mae,fid"));
    assert!(page(&folder, "out.html").contains("id=\"pairs\""));
}

#[test]
fn names_of_files_are_escaped() {
    let folder = Folder::new();
    npy(&folder.path("a<b>&c.npy"), &blobs(2, 16, 16));
    npy(&folder.path("x.npy"), &blobs(2, 16, 16));
    folder.ok("evaluate --reference a<b>&c.npy --candidate x.npy --metrics mae --report out.html");
    let made = page(&folder, "out.html");
    assert_eq!(made.matches("a&lt;b&gt;&amp;c.npy").count(), 3);
    assert!(!made.contains("a<b>") && !made.contains("&c.npy"));
}

#[test]
fn a_page_that_cannot_be_written_is_said_in_one_line() {
    let folder = Folder::new();
    npy(&folder.path("y.npy"), &blobs(2, 16, 16));
    std::fs::create_dir(folder.path("there.html")).unwrap();
    let line = "evaluate --reference y.npy --candidate y.npy --metrics mae --report";
    for (name, words) in [
        (
            "absent/out.html",
            ["--report absent/out.html", "absent does not exist"],
        ),
        ("there.html", ["--report there.html", "is a folder"]),
        ("out.pdf", ["--report out.pdf", "ending in .html"]),
        ("y.npy", ["--report y.npy", "ending in .html"]),
    ] {
        folder.fails(2, &format!("{line} {name}"), &words);
    }
    // Said before anything is read.
    folder.fails(
        2,
        "evaluate --reference absent.npy --candidate y.npy --metrics mae --report absent/out.html",
        &["--report absent/out.html"],
    );
    // A folder that takes no files: not the user's fault, and nothing is printed.
    if cfg!(target_os = "linux") {
        folder.fails(1, &format!("{line} /proc/out.html"), &["/proc/out.html", "write"]);
    }
    // Nothing appears when the figures cannot be computed.
    folder.fails(
        2,
        &format!("{line} out.html --metrics ms-ssim --data-range 2"),
        &["176"],
    );
    assert_eq!(folder.names("."), ["there.html", "y.npy"]);
}
