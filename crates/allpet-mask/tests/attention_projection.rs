//! Step 2 of TMA against closed forms: ellipses, rectangles, areas, unions, cells of feature maps.

#![allow(clippy::unwrap_used)]

use allpet_core::{ImageGrid, ParallelGeometry, stream};
use allpet_mask::attention::{AttentionConfig, Roi, RoiShape, RoiShapes, feature_geometry};
use allpet_mask::{Block, Normalisation, Projection, mask_image, project_blocks};
use allpet_radon::analytic::{Rectangle, project};
use allpet_radon::{LinearOperator, Projector};
use ndarray::{Array2, Axis, s};
use rand::Rng;

fn ellipse(x_mm: f64, y_mm: f64, a_mm: f64, b_mm: f64, tilt_deg: f64) -> RoiShape {
    RoiShape::Ellipse {
        x_mm,
        y_mm,
        a_mm,
        b_mm,
        tilt_deg,
    }
}

fn polygon(corners_mm: &[[f64; 2]]) -> RoiShape {
    RoiShape::Polygon {
        corners_mm: corners_mm.to_vec(),
    }
}

fn grid() -> ImageGrid {
    ImageGrid::square(64, 4.0).unwrap()
}

fn rays() -> AttentionConfig {
    AttentionConfig::default()
}

fn chords(shapes: &[RoiShape], geometry: &ParallelGeometry) -> Array2<f32> {
    Roi::from_shapes(shapes.to_vec(), grid())
        .unwrap()
        .chords_mm(geometry, &rays())
        .unwrap()
}

fn worst(a: &Array2<f32>, b: &Array2<f32>) -> f64 {
    // A maximum would pass over NaN.
    assert!(a.iter().chain(b).all(|v| v.is_finite()));
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max)
}

/// Odd in every respect: arc, start, centre, spacing.
fn odd() -> ParallelGeometry {
    ParallelGeometry {
        start_rad: 0.3,
        offset_bins: 1.7,
        ..ParallelGeometry::new(37, 71, 3.1).unwrap().with_arc_deg(250.0)
    }
}

#[test]
fn an_ellipse_gives_its_closed_form_chord() {
    let (x0, y0, a, b, tilt) = (21.0, -13.0, 34.0, 15.0, 25.0_f64);
    for geometry in [ParallelGeometry::new(90, 101, 2.0).unwrap(), odd()] {
        let found = chords(&[ellipse(x0, y0, a, b, tilt)], &geometry);
        // The conic's matrix Q and the ray's own foot: chord 2 sqrt(b² - a c)/a of the quadratic, in plain terms.
        let (sin, cos) = tilt.to_radians().sin_cos();
        let q = [
            (cos / a).powi(2) + (sin / b).powi(2),
            sin * cos * (1.0 / (a * a) - 1.0 / (b * b)),
            (sin / a).powi(2) + (cos / b).powi(2),
        ];
        let form = |u: [f64; 2], v: [f64; 2]| {
            q[0] * u[0] * v[0] + q[1] * (u[0] * v[1] + u[1] * v[0]) + q[2] * u[1] * v[1]
        };
        let (mut error, mut moved) = (0.0_f64, 0.0_f64);
        for ((view, bin), &value) in found.indexed_iter() {
            let (st, ct) = geometry.angle(view).sin_cos();
            let chord = |s: f64| {
                let (d, p) = ([-st, ct], [s * ct - x0, s * st - y0]);
                let disc = form(p, d).powi(2) - form(d, d) * (form(p, p) - 1.0);
                2.0 * disc.max(0.0).sqrt() / form(d, d)
            };
            let s = geometry.s_mm(bin as f64);
            error = error.max((chord(s) - f64::from(value)).abs());
            moved = moved.max((chord(s + geometry.bin_mm / 2.0) - f64::from(value)).abs());
        }
        assert!(error < 4e-6, "{error}");
        // Control: half a bin aside is another chord.
        assert!(moved > 5.0, "{moved}");
    }
}

#[test]
fn a_polygon_gives_the_trapezoid_of_a_rectangle_also_along_its_edges() {
    let rectangle = Rectangle {
        value: 1.0,
        x_mm: 12.0,
        y_mm: -8.0,
        width_mm: 40.0,
        height_mm: 24.0,
    };
    let corners = [[-8.0, -20.0], [32.0, -20.0], [32.0, 4.0], [-8.0, 4.0]];
    // Bins of 4 mm on multiples of 4: rays run on the edges at 0 and 90 degrees, where half the chord counts.
    let geometry = ParallelGeometry::new(180, 65, 4.0).unwrap();
    let found = chords(&[polygon(&corners)], &geometry);
    let expected = project(&[rectangle], &geometry);
    assert!(worst(&found, &expected) < 1e-4, "{}", worst(&found, &expected));
    let on_edge = found[[0, 32 + 8]];
    assert!((on_edge - 12.0).abs() < 1e-3, "{on_edge}");
    // Either sense of rotation; control: a corner moved by 1 mm.
    let mut turned = corners;
    turned.reverse();
    assert!(worst(&chords(&[polygon(&turned)], &geometry), &expected) < 1e-4);
    turned[2][0] += 1.0;
    assert!(worst(&chords(&[polygon(&turned)], &geometry), &expected) > 0.5);
}

#[test]
fn a_polygon_of_many_corners_tends_to_the_ellipse_and_keeps_its_area_in_every_view() {
    let geometry = odd();
    let round = ellipse(10.0, 5.0, 30.0, 18.0, 0.0);
    let regular = |n: usize| -> Vec<[f64; 2]> {
        (0..n)
            .map(|i| {
                let (sin, cos) = (std::f64::consts::TAU * i as f64 / n as f64).sin_cos();
                [10.0 + 30.0 * cos, 5.0 + 18.0 * sin]
            })
            .collect()
    };
    // The edge of the shadow is a square root and converges slower: the mean error says the order.
    let exact = chords(&[round], &geometry);
    let mean = |n: usize| {
        let found = chords(&[polygon(&regular(n))], &geometry);
        found
            .iter()
            .zip(&exact)
            .map(|(a, b)| f64::from((a - b).abs()))
            .sum::<f64>()
            / found.len() as f64
    };
    let (coarse, fine) = (mean(40), mean(80));
    assert!((1.8..2.3).contains(&(coarse / fine).log2()), "{coarse} {fine}");

    // A star that is not convex: bin means sum to its area in every view.
    let star: Vec<[f64; 2]> = (0..10)
        .map(|i| {
            let radius = if i % 2 == 0 { 40.0 } else { 15.0 };
            let (sin, cos) = (std::f64::consts::TAU * i as f64 / 10.0 + 0.2).sin_cos();
            [radius * cos - 6.0, radius * sin + 9.0]
        })
        .collect();
    let area: f64 = (0..10)
        .map(|i| {
            let (p, q) = (star[i], star[(i + 1) % 10]);
            (p[0] * q[1] - q[0] * p[1]) / 2.0
        })
        .sum();
    let config = AttentionConfig { rays: 64, ..rays() };
    let roi = Roi::from_shapes(vec![polygon(&star)], grid()).unwrap();
    for view in roi.chords_mm(&geometry, &config).unwrap().rows() {
        let sum = view.iter().map(|v| f64::from(*v)).sum::<f64>() * geometry.bin_mm;
        assert!((sum / area - 1.0).abs() < 1e-4, "{sum} {area}");
    }
}

#[test]
fn pixels_are_projected_as_the_squares_they_are() {
    let mut random = stream(3, "test", 0);
    let pixels = Array2::from_shape_simple_fn((24, 24), || random.random_range(0..3) == 0);
    let grid = ImageGrid::square(24, 5.0).unwrap();
    let squares: Vec<Rectangle> = pixels
        .indexed_iter()
        .filter(|(_, v)| **v)
        .map(|((row, col), _)| Rectangle {
            value: 1.0,
            x_mm: grid.x_mm(col as f64),
            y_mm: grid.y_mm(row as f64),
            width_mm: 5.0,
            height_mm: 5.0,
        })
        .collect();
    // Odd angles, and 0 and 90 degrees with rays on the borders between pixels.
    for geometry in [odd(), ParallelGeometry::new(4, 29, 5.0).unwrap()] {
        let roi = Roi::from_pixels(pixels.clone(), grid).unwrap();
        let found = roi.chords_mm(&geometry, &rays()).unwrap();
        let expected = project(&squares, &geometry);
        assert!(worst(&found, &expected) < 1e-5, "{}", worst(&found, &expected));
        // Control: the same pixels, upside down.
        let turned = Roi::from_pixels(pixels.slice(s![..;-1, ..]).to_owned(), grid).unwrap();
        assert!(worst(&turned.chords_mm(&geometry, &rays()).unwrap(), &expected) > 5.0);
    }
}

#[test]
fn a_block_gives_the_masks_own_projection_and_nearly_josephs() {
    let grid = ImageGrid::square(64, 4.0).unwrap();
    let blocks = [
        Block {
            row: 8,
            col: 30,
            height: 12,
            width: 17,
        },
        Block {
            row: 40,
            col: 5,
            height: 9,
            width: 9,
        },
    ];
    let geometry = odd();
    let mask = mask_image(&blocks, &grid).unwrap();
    let found = Roi::from_mask(mask.view(), grid)
        .unwrap()
        .chords_mm(&geometry, &rays())
        .unwrap();
    let pixels = project_blocks(&blocks, &grid, &geometry, Projection::Analytic).unwrap();
    assert!(worst(&found, &(pixels * 4.0)) < 1e-4);
    let joseph = Projector::new(grid, geometry)
        .unwrap()
        .apply(mask.view().into_dyn())
        .unwrap()
        .into_dimensionality()
        .unwrap();
    let norm = |a: &Array2<f32>| a.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let relative = norm(&(&found - &joseph)) / norm(&joseph);
    assert!(relative < 0.03, "{relative}");
}

#[test]
fn overlapping_parts_count_once_and_excluded_ones_not_at_all() {
    let geometry = odd();
    let disc = ellipse(5.0, 5.0, 30.0, 30.0, 0.0);
    let small = ellipse(8.0, 0.0, 10.0, 6.0, 40.0);
    let alone = chords(std::slice::from_ref(&disc), &geometry);
    let inner = chords(std::slice::from_ref(&small), &geometry);
    let both = chords(&[disc.clone(), disc.clone(), small.clone()], &geometry);
    assert!(worst(&both, &alone) < 1e-5);
    // Control: the sum of the parts is not the region's projection.
    assert!(worst(&(&alone + &inner), &alone) > 10.0);

    // A ring, and a physician who takes back half of what a threshold found.
    let ring = Roi::from_shapes(vec![disc.clone()], grid())
        .unwrap()
        .with_shapes(&RoiShapes {
            include: vec![],
            exclude: vec![small.clone()],
        })
        .unwrap();
    let found = ring.chords_mm(&geometry, &rays()).unwrap();
    assert!(worst(&found, &(&alone - &inner)) < 1e-5);
    let pixels = Roi::from_pixels(ring.mask(), grid()).unwrap();
    let rough = pixels.chords_mm(&geometry, &rays()).unwrap();
    let sums = |a: &Array2<f32>| a.sum_axis(Axis(1)).mapv(f64::from);
    assert!(
        (sums(&found) / sums(&rough))
            .iter()
            .all(|r| (r - 1.0).abs() < 0.03)
    );
    let nothing = Roi::from_pixels(ring.mask(), grid())
        .unwrap()
        .with_shapes(&RoiShapes {
            include: vec![],
            exclude: vec![ellipse(0.0, 0.0, 120.0, 120.0, 0.0)],
        })
        .unwrap();
    assert!(
        nothing
            .chords_mm(&geometry, &rays())
            .unwrap()
            .iter()
            .all(|v| *v < 1e-4)
    );
    assert!(!nothing.mask().iter().any(|v| *v));

    // A shape on top of the pixels that hold it already changes nothing.
    let full = Roi::from_pixels(Roi::from_shapes(vec![disc], grid()).unwrap().mask(), grid()).unwrap();
    let before = full.chords_mm(&geometry, &rays()).unwrap();
    let added = RoiShapes {
        include: vec![small],
        exclude: vec![],
    };
    let after = full
        .with_shapes(&added)
        .unwrap()
        .chords_mm(&geometry, &rays())
        .unwrap();
    assert!(worst(&before, &after) < 1e-5);
}

#[test]
fn cells_of_features_are_the_means_of_the_fine_chords() {
    let fine = ParallelGeometry {
        start_rad: 0.2,
        offset_bins: -1.25,
        ..ParallelGeometry::new(48, 60, 3.0).unwrap()
    };
    let mut random = stream(5, "test", 1);
    let pixels = Array2::from_shape_simple_fn((64, 64), || random.random_range(0..40) == 0);
    let roi = Roi::from_pixels(pixels, ImageGrid::square(64, 2.2).unwrap())
        .unwrap()
        .with_shapes(&RoiShapes {
            include: vec![ellipse(20.0, -40.0, 4.0, 3.0, 10.0)],
            exclude: vec![],
        })
        .unwrap();
    let chords = roi.chords_mm(&fine, &rays()).unwrap();
    for (views, bins) in [(4, 3), (8, 1), (1, 6), (3, 20)] {
        let features = feature_geometry(&fine, 48 / views, 60 / bins).unwrap();
        let found = roi
            .chords_mm(&features, &AttentionConfig::for_cells(views, bins))
            .unwrap();
        let means = Array2::from_shape_fn(found.dim(), |(v, b)| {
            chords
                .slice(s![v * views..(v + 1) * views, b * bins..(b + 1) * bins])
                .mean()
                .unwrap()
        });
        assert!(worst(&found, &means) < 5e-6, "{}", worst(&found, &means));
        // Control: the start angle of the sinogram, not that of the cells.
        if views > 1 {
            let same_start = ParallelGeometry {
                start_rad: fine.start_rad,
                ..features
            };
            let wrong = roi
                .chords_mm(&same_start, &AttentionConfig::for_cells(views, bins))
                .unwrap();
            assert!(worst(&wrong, &means) > 0.3);
        }
    }
    // A lesion smaller than a bin: one ray for each cell misses it, the mean over the cell does not.
    let speck = Roi::from_shapes(vec![ellipse(3.0, 70.0, 4.0, 4.0, 0.0)], grid()).unwrap();
    let coarse = feature_geometry(&ParallelGeometry::new(128, 128, 4.0).unwrap(), 32, 16).unwrap();
    let line = speck.chords_mm(&coarse, &rays()).unwrap();
    let cell = speck
        .chords_mm(&coarse, &AttentionConfig::for_cells(4, 8))
        .unwrap();
    let missed = |a: &Array2<f32>| {
        a.rows()
            .into_iter()
            .filter(|r| r.iter().all(|v| *v == 0.0))
            .count()
    };
    assert!(
        missed(&line) > 8 && missed(&cell) == 0,
        "{} {}",
        missed(&line),
        missed(&cell)
    );
    // Odd ratios share the field.
    let odd = feature_geometry(&fine, 7, 11).unwrap();
    assert!((odd.bin_mm * 11.0 - 180.0).abs() < 1e-12 && odd.arc_rad == fine.arc_rad);
}

#[test]
fn attention_lies_in_0_to_1_and_is_the_chord_in_its_unit() {
    let geometry = ParallelGeometry::new(30, 129, 1.0).unwrap();
    let roi = Roi::from_shapes(vec![ellipse(0.0, 0.0, 20.0, 20.0, 0.0)], grid()).unwrap();
    let linear = roi.attention(&geometry, &rays()).unwrap();
    let clip = AttentionConfig {
        normalise: Normalisation::Clip,
        ..rays()
    };
    let clipped = roi.attention(&geometry, &clip).unwrap();
    for ((view, bin), &m) in linear.indexed_iter() {
        // Eqs. 11, 4 and 12 of a disc of radius r: sqrt(1 - s²/r²) at every angle.
        let s = geometry.s_mm(bin as f64);
        let half = (1.0 - (s / 20.0).powi(2)).max(0.0).sqrt();
        assert!((f64::from(m) - half).abs() < 1e-6);
        // Eq. 5 in pixels of 4 mm.
        let expected = (2.0 * 20.0 * half / 4.0).min(1.0);
        assert!((f64::from(clipped[[view, bin]]) - expected).abs() < 1e-6);
    }
    let empty = Roi::empty(grid()).unwrap();
    assert!(empty.is_empty() && empty.clone().non_empty().is_err());
    assert!(
        empty
            .attention(&geometry, &rays())
            .unwrap()
            .iter()
            .all(|v| *v == 0.0)
    );
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let roi = Roi::from_shapes(vec![ellipse(20.0, 7.0, 20.0, 9.0, 70.0)], grid()).unwrap();
    let run = |threads| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap()
            .install(|| roi.attention(&odd(), &AttentionConfig::for_cells(3, 2)).unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn raster_and_faults() {
    let grid = ImageGrid::new(5, 4, 2.0).unwrap();
    // Pixel centres at x = -3, -1, 1, 3 and y = 4, 2, 0, -2, -4.
    let triangle = [[-2.0, -1.0], [2.0, -1.0], [2.0, 3.5]];
    let roi = Roi::from_shapes(vec![polygon(&triangle)], grid).unwrap();
    let found: Vec<(usize, usize)> = roi
        .mask()
        .indexed_iter()
        .filter(|(_, v)| **v)
        .map(|(at, _)| at)
        .collect();
    // The long side passes above (-1, 0) and (1, 2).
    assert_eq!(found, [(1, 2), (2, 1), (2, 2)]);

    let error = |r: allpet_mask::Result<Roi>| r.unwrap_err().to_string();
    let line = error(Roi::from_shapes(
        vec![
            polygon(&[[0.0, 0.0], [1.0, 0.0]]),
            ellipse(0.0, 0.0, 0.0, 2.0, 0.0),
            ellipse(f64::NAN, 0.0, 1.0, 2.0, 0.0),
        ],
        grid,
    ));
    assert!(
        line.contains("shape 0: polygon of 2 corners; expected 3")
            && line.contains("shape 1")
            && line.contains("shape 2")
            && !line.contains('\n'),
        "{line}"
    );
    let nan = error(Roi::from_shapes(
        vec![polygon(&[[0.0, 0.0], [1.0, f64::NAN], [1.0, 1.0]])],
        grid,
    ));
    assert!(nan.contains("corner 1"), "{nan}");
    let flat = error(Roi::from_shapes(
        vec![polygon(&[[0.0, 0.0], [1.0, 2.0], [3.0, 6.0]])],
        grid,
    ));
    assert!(flat.contains("on one line"), "{flat}");
    let shape = error(Roi::from_pixels(Array2::from_elem((4, 5), true), grid));
    assert_eq!(shape, "region of interest has shape [4, 5]; expected [5, 4]");
    let shape = error(
        Roi::empty(grid)
            .unwrap()
            .with_pixels(Array2::from_elem((5, 5), true).view()),
    );
    assert!(shape.contains("[5, 5]"), "{shape}");
    let mut mask = Array2::<f32>::zeros((5, 4));
    mask[[3, 1]] = 0.5;
    assert_eq!(
        error(Roi::from_mask(mask.view(), grid)),
        "region of interest holds 0.5 at index [3, 1]; expected 0 or 1"
    );
    mask[[3, 1]] = f32::NAN;
    assert!(error(Roi::from_mask(mask.view(), grid)).contains("NaN"));
    assert_eq!(
        error(Roi::empty(grid).unwrap().non_empty()),
        "region of interest is empty; expected at least one pixel or shape"
    );
    let geometry = ParallelGeometry::new(4, 5, 1.0).unwrap();
    let none = AttentionConfig { rays: 0, ..rays() };
    let line = Roi::empty(grid).unwrap().attention(&geometry, &none);
    assert!(line.unwrap_err().to_string().contains("0 rays"));
    assert!(feature_geometry(&geometry, 0, 3).is_err() && feature_geometry(&geometry, 3, 0).is_err());
}

#[test]
fn shapes_survive_toml_and_json() {
    let text = r#"
        [[include]]
        kind = "ellipse"
        x_mm = 10.0
        y_mm = -5.0
        a_mm = 8.0
        b_mm = 6.0

        [[include]]
        kind = "polygon"
        corners_mm = [[0.0, 0.0], [10.0, 0.0], [5.0, 9.0]]

        [[exclude]]
        kind = "ellipse"
        x_mm = 10.0
        y_mm = -5.0
        a_mm = 2.0
        b_mm = 2.0
        tilt_deg = 30.0
    "#;
    let shapes: RoiShapes = toml::from_str(text).unwrap();
    shapes.validate().unwrap();
    assert_eq!((shapes.include.len(), shapes.exclude.len()), (2, 1));
    assert_eq!(shapes.include[0], ellipse(10.0, -5.0, 8.0, 6.0, 0.0));
    let again: RoiShapes = toml::from_str(&toml::to_string(&shapes).unwrap()).unwrap();
    assert_eq!(again, shapes);
    let json: RoiShapes = serde_json::from_str(&serde_json::to_string(&shapes).unwrap()).unwrap();
    assert_eq!(json, shapes);
    assert!(toml::from_str::<RoiShapes>(&text.replace("b_mm = 6.0", "b_mm = 6.0\n radius = 2.0")).is_err());
    assert!(toml::from_str::<RoiShapes>(&text.replace("exclude", "without")).is_err());
}
