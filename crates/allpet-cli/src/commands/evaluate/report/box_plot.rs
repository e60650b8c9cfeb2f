//! Box plots: quartiles, whiskers to the farthest value within 1.5 times their distance, every image a dot
//! (Tukey, *Exploratory Data Analysis*, 1977).

use super::super::figures::digits;
use super::super::pairs::PairFigures;
use super::plot::{Frame, at};
use allpet::io::Axis;
use allpet::metrics::quantile;
use maud::{Markup, html};

/// Most dots of a plot: more of them only make the page large.
const DOTS: usize = 2000;

/// What a box is drawn from.
#[derive(Debug, PartialEq)]
struct Quartiles {
    whiskers: (f64, f64),
    low: f64,
    median: f64,
    high: f64,
}

impl Quartiles {
    fn of(sorted: &[f64]) -> Option<Self> {
        let (low, median, high) = (
            quantile(sorted, 0.25)?,
            quantile(sorted, 0.5)?,
            quantile(sorted, 0.75)?,
        );
        let reach = 1.5 * (high - low);
        let within = || {
            sorted
                .iter()
                .copied()
                .filter(|v| (low - reach..=high + reach).contains(v))
        };
        Some(Self {
            whiskers: (
                within().next().unwrap_or(low),
                within().next_back().unwrap_or(high),
            ),
            low,
            median,
            high,
        })
    }
}

/// The plot of one metric with its caption.
pub(super) fn box_plot(figures: &PairFigures) -> Markup {
    let name = figures.metric.name();
    let better = match figures.metric.rises_with_quality() {
        true => "higher is better",
        false => "lower is better",
    };
    let mut sorted: Vec<f64> = figures.values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let title = html! { figcaption { strong { (name) } " (" (figures.convention) "), " (better) } };
    let Some(quartiles) = Quartiles::of(&sorted) else {
        return html! { figure .card { (title) p { "Infinite for every image: all pairs are identical." } } };
    };
    let frame = Frame {
        x: Axis::around(sorted.iter().copied(), 5).with_room(0.04),
        y: None,
        height: 112.0,
    };
    let every = figures.values.len().div_ceil(DOTS);
    let dots = figures
        .values
        .iter()
        .enumerate()
        .filter(|(i, v)| v.is_finite() && i % every == 0);
    let x = |value: f64| at(frame.at_x(value));
    let (start, end) = quartiles.whiskers;
    let drawn = html! {
        line .whisker x1=(x(start)) x2=(x(quartiles.low)) y1="24" y2="24" {}
        line .whisker x1=(x(quartiles.high)) x2=(x(end)) y1="24" y2="24" {}
        @for end in [start, end] { line .whisker x1=(x(end)) x2=(x(end)) y1="18" y2="30" {} }
        rect .box x=(x(quartiles.low)) y="12" height="24"
            width=(at(frame.at_x(quartiles.high) - frame.at_x(quartiles.low))) {}
        line .median x1=(x(quartiles.median)) x2=(x(quartiles.median)) y1="12" y2="36" {}
        @for (i, &value) in dots {
            // The golden ratio spreads neighbours without a pattern.
            @let y = 46.0 + 24.0 * (i as f64 * 0.618_033_988_749_895).fract();
            circle .dot cx=(x(value)) cy=(at(y)) r="3" { title { "image " (i) ": " (digits(value, 6)) } }
        }
    };
    let told = format!(
        "{name} of {} images: median {}, quartiles {} and {}, whiskers {} and {}",
        sorted.len(),
        digits(quartiles.median, 6),
        digits(quartiles.low, 6),
        digits(quartiles.high, 6),
        digits(start, 6),
        digits(end, 6),
    );
    let infinite = figures.summary.infinite;
    html! {
        figure .card {
            (title)
            (frame.draw((figures.metric.unit(), ""), &told, &drawn))
            p .small {
                "Median " (digits(quartiles.median, 6)) ", quartiles " (digits(quartiles.low, 6)) " and "
                (digits(quartiles.high, 6)) ", whiskers " (digits(start, 6)) " and " (digits(end, 6)) "."
                @if infinite > 0 { " Left out: " (infinite) " identical, infinite." }
                @if every > 1 { " Dots: every " (every) "th image." }
            }
        }
    }
}
