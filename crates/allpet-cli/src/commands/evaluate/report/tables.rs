//! The figures as tables of the page.

use super::super::figures::{Row, digits, interval, shown};
use super::super::metric::Metric;
use super::super::pairs::PairFigures;
use super::Content;
use allpet::metrics::image::SsimConvention;
use maud::{Markup, html};

/// Most images whose values are listed.
const LISTED: usize = 1000;

/// A table that can be moved sideways, by keys too, and a line under it.
fn wide(told: &str, table: &Markup, said: &str) -> Markup {
    html! {
        div .wide tabindex="0" role="region" aria-label=(told) { (table) }
        p .small { (said) }
    }
}

fn shown_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |v| digits(v, 6))
}

/// Mean, interval, median, extremes and convention of every metric of pairs.
pub(super) fn of_pairs(content: &Content<'_>) -> Markup {
    let level = format!("{:.0} % interval", 100.0 * content.bootstrap.level);
    wide(
        "Figures of pairs",
        &html! {
            table {
                thead {
                    tr {
                        @for head in ["metric", "mean ± sd", &level, "median", "min", "max"] { th scope="col" { (head) } }
                        th .words scope="col" { "convention" }
                    }
                }
                tbody {
                    @for figures in content.pairs {
                        @let summary = &figures.summary;
                        tr {
                            th scope="row" { (figures.metric.name()) }
                            td { (shown(summary)) }
                            td { @let text = interval(summary); @if text.is_empty() { "-" } @else { (text) } }
                            @for value in [summary.median, summary.min, summary.max] { td { (shown_or_none(value)) } }
                            td .words { (figures.convention) @if figures.metric == Metric::Ssim { (explained(content.ssim)) } }
                        }
                    }
                }
            }
        },
        "± standard deviation (n-1) over images; the interval is that of the mean.",
    )
}

/// What the name of a convention stands for.
fn explained(convention: SsimConvention) -> &'static str {
    match convention {
        SsimConvention::Wang => ": Gaussian window σ 1.5, 11 taps, population covariance, interior",
        SsimConvention::SkimageDefault => ": uniform window 7 x 7, sample covariance, interior",
        SsimConvention::Torchmetrics => ": Gaussian window σ 1.5, population covariance, mirrored edges",
        _ => "",
    }
}

/// The values of every image, folded away.
pub(super) fn every_image(pairs: &[PairFigures]) -> Markup {
    let count = pairs.first().map_or(0, |p| p.values.len());
    let table = html! {
        table {
            thead { tr { th scope="col" { "image" } @for figures in pairs { th scope="col" { (figures.metric.name()) } } } }
            tbody {
                @for image in 0..count.min(LISTED) {
                    tr {
                        th scope="row" { (image) }
                        @for figures in pairs {
                            @let value = figures.values[image];
                            td { @if value.is_finite() { (digits(value, 6)) } @else { "infinite" } }
                        }
                    }
                }
            }
        }
    };
    let said = match count > LISTED {
        true => format!("The first {LISTED} of {count} images."),
        false => format!("{count} images."),
    };
    html! { details { summary { "Values of every image" } (wide("Values of every image", &table, &said)) } }
}

/// Figures of sets with what they mean.
pub(super) fn of_sets(rows: &[Row], candidates: usize, references: usize) -> Markup {
    let intervals = rows.iter().any(|r| !r.interval.is_empty());
    wide(
        "Figures of sets",
        &html! {
            table {
                thead {
                    tr {
                        th scope="col" { "metric" }
                        th scope="col" { "value" }
                        @if intervals { th scope="col" { "95 % interval" } }
                        th .words scope="col" { "convention" }
                    }
                }
                tbody {
                    @for row in rows {
                        tr {
                            th scope="row" { (row.metric) }
                            td { (row.value) }
                            @if intervals { td { @if row.interval.is_empty() { "-" } @else { (row.interval) } } }
                            td .words { (row.convention) }
                        }
                    }
                }
            }
        },
        &format!("Candidate images: {candidates}. Reference images: {references}."),
    )
}
