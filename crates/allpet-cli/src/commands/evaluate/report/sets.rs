//! What a page shows of two sets: distances to the nearest reference, the closest pairs, samples of both.

use super::super::figures::digits;
use super::choice::evenly;
use super::images::{colour_bar, tile};
use super::picture::{INTENSITY, averaged, picture, window_of};
use super::plot::{Frame, at};
use crate::fault::Result;
use allpet::io::Axis;
use allpet::metrics::distribution::Neighbour;
use maud::{Markup, html};
use ndarray::{Array2, ArrayView3};

const BINS: usize = 30;
/// Closest pairs shown.
const CLOSEST: usize = 4;
/// Samples shown of each set.
const SAMPLES: usize = 6;

/// Histogram of the distances from candidates to their nearest reference.
pub(super) fn distances(neighbours: &[Neighbour]) -> Markup {
    let values = || neighbours.iter().map(|n| n.relative);
    let most = values().fold(0.0, f64::max);
    if most == 0.0 {
        return html! { p { "Every candidate is a copy of a reference." } };
    }
    let mut counts = vec![0usize; BINS];
    for value in values() {
        counts[((value / most * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let frame = Frame {
        x: Axis::around([0.0, most], 6),
        y: Some(Axis::around(counts.iter().map(|&c| c as f64).chain([0.0]), 4)),
        height: 220.0,
    };
    let width = most / BINS as f64;
    let drawn = html! {
        @for (i, &count) in counts.iter().enumerate().filter(|(_, c)| **c > 0) {
            @let (left, right) = (frame.at_x(i as f64 * width), frame.at_x((i + 1) as f64 * width));
            @let top = frame.at_y(count as f64);
            rect .bar x=(at(left)) y=(at(top)) width=(at(right - left - 0.8)) height=(at(frame.bottom() - top)) {
                title { (digits(i as f64 * width, 3)) " to " (digits((i + 1) as f64 * width, 3)) ": " (count) }
            }
        }
    };
    let told = format!(
        "histogram of {} distances to the nearest reference, up to {}",
        neighbours.len(),
        digits(most, 3)
    );
    html! {
        figure .card {
            figcaption { strong { "nearest" } ": distance of each candidate to its nearest reference" }
            (frame.draw(("distance over the norm of the reference", "candidates"), &told, &drawn))
            p .small { "Copies of references stand at 0; held-out images show how near unseen ones lie." }
        }
    }
}

/// The candidates that lie nearest to a reference, beside it.
pub(super) fn closest(
    neighbours: &[Neighbour],
    references: ArrayView3<'_, f32>,
    candidates: ArrayView3<'_, f32>,
) -> Result<Markup> {
    let mut order: Vec<usize> = (0..neighbours.len()).collect();
    order.sort_by(|&a, &b| neighbours[a].relative.total_cmp(&neighbours[b].relative));
    order.truncate(CLOSEST);
    let mut figures = Vec::new();
    for candidate in order {
        let Neighbour { index, relative, .. } = neighbours[candidate];
        let (y, x) = (image(references, index), image(candidates, candidate));
        let window = window_of(y.view())?;
        let grey = |values: &Array2<f32>| picture(values.view(), window, INTENSITY);
        figures.push(html! {
            figure .card {
                div .tiles.two {
                    (tile(&grey(&y)?, &format!("reference {index}"), &format!("reference, image {index}")))
                    (tile(&grey(&x)?, &format!("candidate {candidate}"), &format!("candidate, image {candidate}")))
                    div .across { (colour_bar(INTENSITY, window.0, window.1, "both")?) }
                }
                p .small { "distance " (digits(relative, 4)) }
            }
        });
    }
    Ok(html! {
        h3 { "Candidates nearest to a reference" }
        p .small { "Each pair shares one scale: 0 to the 99.5th percentile of the reference." }
        div .cards { @for figure in figures { (figure) } }
    })
}

/// Some images of both sets, all in one window.
pub(super) fn samples(references: ArrayView3<'_, f32>, candidates: ArrayView3<'_, f32>) -> Result<Markup> {
    let some = |all: ArrayView3<'_, f32>| -> Vec<(usize, Array2<f32>)> {
        evenly(all.len_of(ndarray::Axis(0)), SAMPLES)
            .into_iter()
            .map(|i| (i, image(all, i)))
            .collect()
    };
    let (shown_references, shown_candidates) = (some(references), some(candidates));
    let mut window = (f32::INFINITY, f32::NEG_INFINITY);
    for (_, image) in &shown_references {
        let (low, high) = window_of(image.view())?;
        window = (window.0.min(low), window.1.max(high));
    }
    let mut strips = Vec::new();
    for (name, shown) in [("reference", shown_references), ("candidate", shown_candidates)] {
        let mut tiles = Vec::new();
        for (index, values) in shown {
            let grey = picture(values.view(), window, INTENSITY)?;
            tiles.push(tile(
                &grey,
                &format!("{name} {index}"),
                &format!("{name}, image {index}"),
            ));
        }
        strips.push(html! { div .strip { @for tile in tiles { (tile) } } });
    }
    Ok(html! {
        h3 { "Images of both sets, evenly spaced, not paired" }
        figure .card {
            @for strip in strips { (strip) }
            div .narrow { (colour_bar(INTENSITY, window.0, window.1, "images")?) }
            p .small { "One scale for all: up to the largest 99.5th percentile of the references shown." }
        }
    })
}

fn image(all: ArrayView3<'_, f32>, index: usize) -> Array2<f32> {
    averaged(all.index_axis(ndarray::Axis(0), index))
}
