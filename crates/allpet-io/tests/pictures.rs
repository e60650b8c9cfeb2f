//! Pictures, decoded again by the `png` crate: grey levels turn back into values, layouts lie where they should.

#![allow(clippy::unwrap_used)]

use allpet_io::{
    Canvas, Curve, CurvePlot, Grid, Palette, Tile, Window, encode_png_mapped, write_png_mapped, write_png16,
};
use ndarray::{Array2, array};
use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;

struct Decoded {
    size: (u32, u32),
    depth: png::BitDepth,
    bytes: Vec<u8>,
    notes: Vec<(String, String)>,
}

fn decode(path: &Path) -> Decoded {
    decoded(&std::fs::read(path).unwrap())
}

fn decoded(file: &[u8]) -> Decoded {
    let mut decoder = png::Decoder::new(Cursor::new(file));
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let frame = reader.next_frame(&mut bytes).unwrap();
    let notes = &reader.info().utf8_text;
    let notes = notes
        .iter()
        .map(|t| (t.keyword.clone(), t.get_text().unwrap()))
        .collect();
    Decoded {
        size: (frame.width, frame.height),
        depth: frame.bit_depth,
        bytes,
        notes,
    }
}

#[test]
fn sixteen_bits_turn_back_into_values() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let values = Array2::from_shape_fn((5, 7), |(r, c)| (r as f32 * 1.7 - c as f32).sin() * 40.0);
    let (low, high) = write_png16(&path, values.view(), Window::Full, 3).unwrap();
    let picture = decode(&path);
    assert_eq!((picture.size, picture.depth), ((21, 15), png::BitDepth::Sixteen));
    let note = &picture.notes.iter().find(|(key, _)| key == "window").unwrap().1;
    let noted: Vec<f32> = note.split(' ').map(|n| n.parse().unwrap()).collect();
    assert_eq!(noted, [low, high]);
    assert_eq!(
        (low, high),
        values
            .iter()
            .fold((f32::MAX, f32::MIN), |(a, b), &v| (a.min(v), b.max(v)))
    );
    let half_a_level = (high - low) / 65535.0 * 0.501;
    for y in 0..15 {
        for x in 0..21 {
            let at = (y * 21 + x) * 2;
            let level = u16::from_be_bytes([picture.bytes[at], picture.bytes[at + 1]]);
            let back = low + (high - low) * f32::from(level) / 65535.0;
            assert!(
                (back - values[[y / 3, x / 3]]).abs() <= half_a_level + 1e-5,
                "{back}"
            );
        }
    }
}

#[test]
fn windows_clip_and_never_collapse() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let values = array![[-1.0f32, 0.0], [1.0, 9.0]];
    assert_eq!(
        write_png16(&path, values.view(), Window::Fixed(0.0, 2.0), 0).unwrap(),
        (0.0, 2.0)
    );
    let levels: Vec<u16> = decode(&path)
        .bytes
        .chunks_exact(2)
        .map(|b| u16::from_be_bytes([b[0], b[1]]))
        .collect();
    assert_eq!(levels, [0, 0, 32768, 65535]);
    for constant in [0.0f32, 3.0, -2.0, 1e30, f32::MAX] {
        let (low, high) = Window::Full
            .resolve(Array2::from_elem((2, 2), constant).view())
            .unwrap();
        assert!(high > low && low == constant, "{low} {high}");
    }
    let mut hot = Array2::<f32>::from_elem((100, 100), 2.0);
    hot[[3, 3]] = 1e6;
    assert_eq!(Window::Robust.resolve(hot.view()).unwrap(), (0.0, 2.0));
    assert_eq!(Window::Full.resolve(hot.view()).unwrap(), (2.0, 1e6));
    hot[[5, 5]] = -7.0;
    assert_eq!(Window::Robust.resolve(hot.view()).unwrap(), (0.0, 2.0));
    let below = array![[-3.0f32, -1.0]];
    assert_eq!(Window::Robust.resolve(below.view()).unwrap(), (-3.0, -2.0));
    hot[[4, 5]] = f32::NAN;
    assert!(
        write_png16(&path, hot.view(), Window::Full, 1)
            .unwrap_err()
            .to_string()
            .contains("NaN at index [4, 5]")
    );
    assert!(Window::Fixed(f32::NAN, 1.0).resolve(values.view()).is_err());
    // Signed values: as far below 0 as above.
    let mut signed = Array2::from_elem((100, 100), -0.5f32);
    signed[[3, 3]] = 40.0;
    assert_eq!(Window::Symmetric.resolve(signed.view()).unwrap(), (-0.5, 0.5));
    signed.map_inplace(|v| *v = if *v < 0.0 { 0.0 } else { *v });
    assert_eq!(Window::Symmetric.resolve(signed.view()).unwrap(), (-40.0, 40.0));
    signed.fill(0.0);
    assert_eq!(Window::Symmetric.resolve(signed.view()).unwrap(), (-1.0, 1.0));
    assert!(write_png16(&path, Array2::zeros((0, 3)).view(), Window::Full, 1).is_err());
    assert!(write_png16(&path, values.view(), Window::Full, usize::MAX).is_err());
}

#[test]
fn palettes_run_from_end_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let ramp = Array2::from_shape_fn((1, 256), |(_, c)| c as f32);
    for &palette in Palette::ALL {
        assert_eq!(palette.id().parse::<Palette>().unwrap(), palette);
        write_png_mapped(&path, ramp.view(), Window::Full, palette, 1).unwrap();
        let picture = decode(&path);
        let colours: Vec<&[u8]> = picture.bytes.chunks_exact(3).collect();
        assert_eq!((picture.size, picture.depth), ((256, 1), png::BitDepth::Eight));
        let bright =
            |c: &[u8]| 0.2126 * f64::from(c[0]) + 0.7152 * f64::from(c[1]) + 0.0722 * f64::from(c[2]);
        let sign = if palette == Palette::InvertedGrey {
            -1.0
        } else {
            1.0
        };
        if palette == Palette::BlueRed {
            // Its ends as ColorBrewer published them, 053061 and 67001f, and near white between.
            assert!(apart(colours[0], &[0x05, 0x30, 0x61]) <= 2);
            assert!(apart(colours[255], &[0x67, 0x00, 0x1f]) <= 2);
            assert!(bright(colours[127]) > 235.0);
            continue;
        }
        for pair in colours.windows(2) {
            assert!(
                sign * (bright(pair[1]) - bright(pair[0])) > -1.0,
                "{palette:?} turns back"
            );
        }
        assert!(sign * (bright(colours[255]) - bright(colours[0])) > 150.0);
    }
    assert_eq!(Palette::InvertedGrey.colour(0.0), [255; 3]);
    let text = "rainbow".parse::<Palette>().unwrap_err().to_string();
    assert!(text.contains("viridis"), "{text}");
}

/// Largest difference of two colours.
fn apart(a: &[u8], b: &[u8]) -> u8 {
    a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn a_picture_in_memory_is_the_one_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    let values = Array2::from_shape_fn((9, 17), |(r, c)| (r as f32 * 1.7 - c as f32).sin() * 3.0);
    for &palette in Palette::ALL {
        for window in [Window::Full, Window::Symmetric, Window::Fixed(-1.0, 2.0)] {
            write_png_mapped(&path, values.view(), window, palette, 1).unwrap();
            let file = decode(&path);
            let memory = decoded(&encode_png_mapped(values.view(), window, palette).unwrap());
            assert_eq!(memory.size, (17, 9));
            // 255 colours instead of all: less than two levels of 256 away, where maps are steepest.
            assert!(apart(&memory.bytes, &file.bytes) <= 4, "{palette:?}");
        }
    }
    // Zero of a symmetric window is a colour, not the edge of two.
    let steps = array![[-2.0f32, -1e-6, 0.0, 1e-6, 2.0]];
    let shown = decoded(&encode_png_mapped(steps.view(), Window::Symmetric, Palette::BlueRed).unwrap());
    let colours: Vec<&[u8]> = shown.bytes.chunks_exact(3).collect();
    assert!(colours[1] == colours[2] && colours[2] == colours[3]);
    assert_eq!(colours[2], Palette::BlueRed.colour(0.5));
    // Control: with an even number of levels the two sides would differ.
    assert_ne!(
        Palette::BlueRed.colour(127.0 / 255.0),
        Palette::BlueRed.colour(128.0 / 255.0)
    );
    let refused = |values: Array2<f32>| {
        let made = encode_png_mapped(values.view(), Window::Fixed(0.0, 1.0), Palette::Grey);
        made.unwrap_err().to_string()
    };
    assert!(refused(Array2::zeros((0, 3))).contains("3 x 0 pixels"));
    assert!(refused(array![[0.0, f32::NAN]]).contains("NaN at index [0, 1]"));
}

#[test]
fn a_grid_puts_its_tiles_where_they_belong() {
    let (black, white) = (Array2::<f32>::zeros((4, 6)), Array2::<f32>::ones((2, 2)));
    let grid = Grid {
        columns: 2,
        gap: 5,
        upscale: 2,
        caption_scale: 0,
    };
    let tiles: Vec<Tile<'_>> = [&black, &white, &black].into_iter().map(tile_of).collect();
    let canvas = grid.render(&tiles).unwrap();
    assert_eq!((canvas.width(), canvas.height()), (2 * 12 + 3 * 5, 2 * 8 + 3 * 5));
    let (dark, bright, paper) = (Palette::Magma.colour(0.0), Palette::Magma.colour(1.0), [255; 3]);
    for (x, y, colour) in [
        (4, 4, paper),
        (5, 5, dark),
        (16, 12, dark),
        (17, 12, paper),
        (22, 9, paper),
        // The small tile stands in the middle of its cell.
        (26, 7, bright),
        (29, 10, bright),
        (30, 10, paper),
        (5, 18, dark),
        (22, 18, paper),
    ] {
        assert_eq!(canvas.get(x, y), Some(colour), "{x} {y}");
    }
    assert!(grid.render(&[]).is_err());
    assert!(Grid { columns: 0, ..grid }.render(&tiles).is_err());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("grid.png");
    let captioned = Grid {
        caption_scale: 2,
        ..grid
    };
    captioned.write(&path, &tiles).unwrap();
    let with = captioned.render(&tiles).unwrap();
    assert!(with.height() > canvas.height());
    let inked = (0..with.width()).flat_map(|x| (0..with.height()).map(move |y| (x, y)));
    assert!(
        inked
            .filter(|&(x, y)| with.get(x, y) == Some([40, 40, 40]))
            .count()
            > 20,
        "no caption"
    );
    assert_eq!(decode(&path).size, (with.width() as u32, with.height() as u32));
}

fn tile_of(values: &Array2<f32>) -> Tile<'_> {
    Tile::new(values.view(), "ab")
        .palette(Palette::Magma)
        .window(Window::Fixed(0.0, 1.0))
}

#[test]
fn drawing_stays_inside_and_letters_differ() {
    let mut canvas = Canvas::new(10, 10, [9; 3]);
    canvas.fill(8, 8, usize::MAX, 50, [1; 3]);
    canvas.line((0, 0), (30, 15), [2; 3]);
    canvas.text(7, 7, "W∞w", 3, [3; 3]);
    assert_eq!(canvas.get(0, 0), Some([2; 3]));
    assert_eq!(canvas.get(10, 0), None);
    let known = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;-+=/()[]%_*#<>!'\"^|°²µσ× ";
    let drawn: BTreeSet<Vec<bool>> = known
        .chars()
        .map(|c| {
            let mut one = Canvas::new(3, 5, [0; 3]);
            one.text(0, 0, &c.to_string(), 1, [1; 3]);
            (0..15).map(|i| one.get(i % 3, i / 3) == Some([1; 3])).collect()
        })
        .collect();
    assert_eq!(drawn.len(), known.chars().count(), "two characters look the same");
}

#[test]
fn curves_show_their_series() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("loss.png");
    let series = |name: &str, f: &dyn Fn(f64) -> f64| Curve {
        name: name.to_owned(),
        points: (0..200).map(|i| (f64::from(i), f(f64::from(i)))).collect(),
    };
    let mut plot = CurvePlot {
        title: "loss".to_owned(),
        x_label: "step".to_owned(),
        curves: vec![
            series("train", &|x| (-x / 40.0).exp() + 0.01),
            series("test", &|x| (-x / 60.0).exp() + 0.1),
        ],
        log_y: false,
    };
    let (blue, red) = ([0, 114, 178], [213, 94, 0]);
    for log_y in [false, true] {
        plot.log_y = log_y;
        plot.write(&path).unwrap();
        let canvas = plot.render();
        // Of a falling curve the first pixel of a column further right lies lower.
        let height_at = |x: usize, colour| (40..424).find(|&y| canvas.get(x, y) == Some(colour)).unwrap();
        for colour in [blue, red] {
            assert!(
                height_at(120, colour) < height_at(400, colour)
                    && height_at(400, colour) < height_at(800, colour)
            );
        }
        assert!(height_at(600, red) < height_at(600, blue));
        assert_eq!(
            decode(&path).size,
            (canvas.width() as u32, canvas.height() as u32)
        );
    }
    // Nothing, one point, a constant, and what is not a number: drawn without it.
    for points in [
        vec![],
        vec![(0.0, 1.0)],
        vec![(0.0, 1e-30), (1.0, 1e-30)],
        vec![(f64::NAN, 1.0), (1.0, f64::INFINITY), (2.0, -3.0), (3.0, 0.0)],
        vec![(0.0, f64::MAX), (1.0, f64::MIN)],
        vec![(1e308, 5e-324), (-1e308, 1e308)],
        vec![(1e15, 1.0), (1e15 + 1.0, 1.0 + 1e-15)],
    ] {
        for log_y in [false, true] {
            let curves = vec![Curve {
                name: "x".to_owned(),
                points: points.clone(),
            }];
            CurvePlot {
                curves,
                log_y,
                ..CurvePlot::default()
            }
            .write(&path)
            .unwrap();
        }
    }
}
