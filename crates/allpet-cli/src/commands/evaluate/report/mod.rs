//! The figures as a page: one HTML file that needs nothing else, with tables, box plots, pictures and line profiles.
//!
//! The same inputs give the same bytes: no time stamp, nothing drawn at random.

mod agreement;
mod box_plot;
mod choice;
mod images;
mod picture;
mod plot;
mod profile;
mod sets;
mod tables;

use super::figures::{Row, digits};
use super::input::stack;
use super::pairs::PairFigures;
use super::sets::Features;
use crate::fault::Result;
use crate::output::by;
use allpet::metrics::Bootstrap;
use allpet::metrics::distribution::Neighbour;
use allpet::metrics::image::SsimConvention;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use ndarray::{ArrayView3, ArrayViewD};
use std::path::Path;

/// A page may load pictures that it holds itself, and nothing else.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// One of the two files.
#[derive(Debug)]
pub(super) struct Side<'a> {
    pub(super) path: &'a Path,
    pub(super) array: ArrayViewD<'a, f32>,
}

/// What a page tells.
#[derive(Debug)]
pub(super) struct Content<'a> {
    pub(super) reference: Side<'a>,
    pub(super) candidate: Side<'a>,
    pub(super) data_range: Option<f64>,
    pub(super) ssim: SsimConvention,
    pub(super) bootstrap: Bootstrap,
    pub(super) pairs: &'a [PairFigures],
    /// Features, rows of the table and nearest references, where sets were compared.
    pub(super) sets: Option<(&'a Features, &'a [Row])>,
    pub(super) neighbours: Option<&'a [Neighbour]>,
}

/// Whether the file can be written where it is asked for.
pub(super) fn check(path: &Path) -> Result<()> {
    crate::output::named("--report", path, &[".html", ".htm"])
}

/// Writes the page, whole or not at all.
pub(super) fn write(path: &Path, content: &Content<'_>) -> Result<()> {
    let page = page(content)?.into_string();
    Ok(allpet::core::write_bytes_atomically(path, page.as_bytes())?)
}

fn page(content: &Content<'_>) -> Result<Markup> {
    let (references, candidates) = (
        stack(content.reference.array.view())?,
        stack(content.candidate.array.view())?,
    );
    let (references, candidates) = (references.view(), candidates.view());
    let name = |side: &Side<'_>| {
        let name = side.path.file_name().unwrap_or(side.path.as_os_str());
        name.to_string_lossy().into_owned()
    };
    let title = format!(
        "{} against {}",
        name(&content.candidate),
        name(&content.reference)
    );
    let (pairs, sets) = (!content.pairs.is_empty(), content.sets.is_some());
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    h1 { (title) }
                    nav aria-label="Parts of this page" {
                        a href="#compared" { "What was compared" }
                        @if pairs {
                            a href="#pairs" { "Pairs" }
                            a href="#images" { "Images" }
                            a href="#errors" { "Errors" }
                        }
                        @if sets { a href="#sets" { "Sets" } }
                    }
                }
                main {
                    (compared(content))
                    @if pairs { (of_pairs(content, references, candidates)?) }
                    @if let Some((features, rows)) = content.sets {
                        (of_sets(content, features, rows, references, candidates)?)
                    }
                }
                footer {
                    "allpet " (env!("CARGO_PKG_VERSION")) ", seed " (content.bootstrap.seed)
                    ". Images are numbered from 0 in the order of the file."
                }
            }
        }
    })
}

fn compared(content: &Content<'_>) -> Markup {
    let Content {
        reference,
        candidate,
        bootstrap,
        ..
    } = content;
    html! {
        section id="compared" {
            h2 { "What was compared" }
            dl {
                @for (word, side) in [("reference", reference), ("candidate", candidate)] {
                    dt { (word) }
                    dd { (side.path.display()) ": " (by(side.array.shape())) ", " (spread(side.array.view())) }
                }
                dt { "data range" }
                dd { @match content.data_range { Some(range) => (range), None => "not given; no metric here needs it" } }
                dt { "seed" }
                dd { (bootstrap.seed) " (bootstrap" @if let Some((features, _)) = content.sets { ", " (features.drawn) } ")" }
                dt { "intervals" }
                dd {
                    (100.0 * bootstrap.level) " % of the mean, bootstrap over images, " (bootstrap.resamples)
                    " resamples"
                }
                dt { "version" }
                dd { "allpet " (env!("CARGO_PKG_VERSION")) }
            }
        }
    }
}

/// Smallest, mean and largest value.
fn spread(array: ArrayViewD<'_, f32>) -> String {
    let start = (f64::INFINITY, 0.0, f64::NEG_INFINITY);
    let (low, sum, high) = array.iter().fold(start, |(low, sum, high), &v| {
        let v = f64::from(v);
        (low.min(v), sum + v, high.max(v))
    });
    let mean = sum / array.len().max(1) as f64;
    format!(
        "values from {} to {}, mean {}",
        digits(low, 5),
        digits(high, 5),
        digits(mean, 5)
    )
}

fn of_pairs(
    content: &Content<'_>,
    references: ArrayView3<'_, f32>,
    candidates: ArrayView3<'_, f32>,
) -> Result<Markup> {
    let shown = content.pairs.first().map(choice::by_metric).unwrap_or_default();
    let mut images = Vec::new();
    for one in &shown {
        images.push(images::pair(one, references, candidates, content.pairs)?);
    }
    let (_, rows, cols) = references.dim();
    Ok(html! {
        section id="pairs" {
            h2 { "Pairs" }
            (tables::of_pairs(content))
            @if references.dim().0 > 1 {
                h3 { "Over images" }
                p .small {
                    "Box: quartiles and median. Whiskers: the farthest images within 1.5 box widths. Each dot is an \
                     image; point at one for its number."
                }
                div .cards { @for figures in content.pairs { (box_plot::box_plot(figures)) } }
            }
            (tables::every_image(content.pairs))
        }
        section id="images" {
            h2 { "Images" }
            p .small {
                "Reference and candidate share one scale: 0 to the 99.5th percentile of the reference (its least value \
                 where that percentile is not above 0). The signed error is candidate minus reference; its scale is \
                 symmetric about 0 and ends at the 99.5th percentile of its size. Each image has scales of its own; \
                 values beyond take the colour of the end."
            }
            @if let Some(said) = images::said_of_size((rows, cols)) { p .small { (said) } }
            @for image in images { (image) }
        }
        section id="errors" {
            h2 { "Errors" }
            (agreement::agreement(references, candidates))
        }
    })
}

fn of_sets(
    content: &Content<'_>,
    features: &Features,
    rows: &[Row],
    references: ArrayView3<'_, f32>,
    candidates: ArrayView3<'_, f32>,
) -> Result<Markup> {
    let (_, height, width) = references.dim();
    Ok(html! {
        section id="sets" {
            h2 { "Sets" }
            p .label-of-features {
                strong { (features.label) } " (" (features.origin) ")"
                @if let Some(said) = features.clipped() { br; (said) }
            }
            (tables::of_sets(rows, candidates.dim().0, references.dim().0))
            @if let Some(neighbours) = content.neighbours {
                div .cards { (sets::distances(neighbours)) }
                (sets::closest(neighbours, references, candidates)?)
            }
            @if content.pairs.is_empty() { (sets::samples(references, candidates)?) }
            @if let Some(said) = images::said_of_size((height, width)) { p .small { (said) } }
        }
    })
}
