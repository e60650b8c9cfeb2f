//! Line profiles: reference and candidate along the row of the reference's maximum.

use super::super::figures::digits;
use super::plot::Frame;
use allpet::io::Axis;
use maud::{Markup, html};
use ndarray::{ArrayView1, ArrayView2};

/// Most points of a line; beyond, neighbouring columns are averaged.
const POINTS: usize = 512;

/// Row and column of the largest value; the first of equal ones.
pub(super) fn peak(values: ArrayView2<'_, f32>) -> (usize, usize) {
    let start = ((0, 0), f32::NEG_INFINITY);
    let (place, _) = values.indexed_iter().fold(
        start,
        |(place, most), (at, &v)| {
            if v > most { (at, v) } else { (place, most) }
        },
    );
    place
}

/// The plot of one image with its caption.
pub(super) fn profile(reference: ArrayView2<'_, f32>, candidate: ArrayView2<'_, f32>) -> Markup {
    let (row, col) = peak(reference);
    let together = reference.ncols().div_ceil(POINTS);
    let (of_reference, of_candidate) = (
        line(reference.row(row), together),
        line(candidate.row(row), together),
    );
    let values = || of_reference.iter().chain(&of_candidate).map(|p| p.1);
    let frame = Frame {
        x: Axis::around([0.0, reference.ncols().saturating_sub(1) as f64], 6),
        y: Some(Axis::around(values(), 5).with_room(0.04)),
        height: 240.0,
    };
    let dots = of_reference.len() == 1;
    let drawn = html! {
        polyline .line.of-reference points=(frame.points(of_reference.iter().copied())) {}
        polyline .line.of-candidate points=(frame.points(of_candidate.iter().copied())) {}
        @if dots {
            @for (class, line) in [("of-reference", &of_reference), ("of-candidate", &of_candidate)] {
                @for &(x, y) in line { circle class=(class) cx=(frame.at_x(x)) cy=(frame.at_y(y)) r="4" {} }
            }
        }
    };
    let told = format!(
        "row {row}: the reference reaches {} at column {col}, where the candidate is {}",
        digits(f64::from(reference[[row, col]]), 4),
        digits(f64::from(candidate[[row, col]]), 4),
    );
    html! {
        div .profile {
            (frame.draw(("column", "value"), &told, &drawn))
            p .small {
                span .key.of-reference {} " reference " span .key.of-candidate {} " candidate, row " (row)
                ": through the reference's maximum at column " (col) "."
                @if together > 1 { " Means of " (together) " columns." }
            }
        }
    }
}

/// Columns and values, `together` columns as one point at their middle.
fn line(values: ArrayView1<'_, f32>, together: usize) -> Vec<(f64, f64)> {
    values
        .axis_chunks_iter(ndarray::Axis(0), together)
        .enumerate()
        .map(|(i, chunk)| {
            let sum: f64 = chunk.iter().map(|&v| f64::from(v)).sum();
            let count = chunk.len() as f64;
            ((i * together) as f64 + 0.5 * (count - 1.0), sum / count)
        })
        .collect()
}
