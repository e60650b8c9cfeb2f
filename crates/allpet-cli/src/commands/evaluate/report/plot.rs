//! Axes of the page's plots, drawn as SVG in the page's own colours.
//!
//! Tick distances are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).

use super::super::figures::digits;
use maud::{Markup, html};

/// Width of every plot in its own units; text of 12 units is read on a phone without zooming.
pub(super) const WIDTH: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 36.0;

/// A range of values and its ticks.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    step: f64,
}

impl Axis {
    /// From the smallest to the largest value, with about so many ticks; a constant gets some room around it.
    pub(super) fn around(values: impl IntoIterator<Item = f64>, about: usize) -> Self {
        let (low, high) = values
            .into_iter()
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                (a.min(v), b.max(v))
            });
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        // Differences in the last digits are rounding, not a range.
        let (low, high) = if high - low > 1e-9 * low.abs().max(high.abs()) {
            (low, high)
        } else {
            let room = if low == 0.0 { 0.5 } else { 0.1 * low.abs() };
            (low - room, high + room)
        };
        let rough = (high - low) / about.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .find(|m| m * power >= rough * 0.7)
            .unwrap_or(10.0);
        let step = nice * power;
        let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
        let count = (last - first).clamp(0.0, 50.0) as usize;
        Self {
            low,
            high,
            ticks: (0..=count).map(|i| (first + i as f64) * step).collect(),
            step,
        }
    }

    /// With a share of the range added at both ends, so that nothing sits on the edge.
    pub(super) fn with_room(values: impl IntoIterator<Item = f64>, about: usize, share: f64) -> Self {
        let tight = Self::around(values, about);
        let room = share * (tight.high - tight.low);
        Self::around([tight.low - room, tight.high + room], about)
    }

    fn fraction(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    fn label(&self, tick: f64) -> String {
        if tick.abs() < self.step * 1e-6 {
            return "0".to_owned();
        }
        // As many digits as tell neighbours apart.
        let significant = (tick.abs() / self.step).log10().floor().clamp(0.0, 8.0) as usize + 2;
        let text = digits(tick, significant);
        match text.split_once('e') {
            Some((digits, power)) => format!("{}e{power}", trimmed(digits)),
            None => trimmed(&text).to_owned(),
        }
    }
}

fn trimmed(digits: &str) -> &str {
    match digits.contains('.') {
        true => digits.trim_end_matches('0').trim_end_matches('.'),
        false => digits,
    }
}

/// A plot's place on the page.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) x: Axis,
    /// `None` where the vertical place means nothing.
    pub(super) y: Option<Axis>,
    pub(super) height: f64,
}

impl Frame {
    pub(super) fn left(&self) -> f64 {
        if self.y.is_some() { LEFT } else { RIGHT }
    }

    pub(super) fn top(&self) -> f64 {
        if self.y.is_some() { 26.0 } else { 8.0 }
    }

    pub(super) fn bottom(&self) -> f64 {
        self.height - BOTTOM
    }

    pub(super) fn at_x(&self, value: f64) -> f64 {
        self.left() + self.x.fraction(value) * (WIDTH - RIGHT - self.left())
    }

    pub(super) fn at_y(&self, value: f64) -> f64 {
        let fraction = self.y.as_ref().map_or(0.5, |y| y.fraction(value));
        self.bottom() - fraction * (self.bottom() - self.top())
    }

    /// Points as the words of `points=".."`.
    pub(super) fn points(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let words: Vec<String> = points
            .into_iter()
            .map(|(x, y)| format!("{},{}", at(self.at_x(x)), at(self.at_y(y))))
            .collect();
        words.join(" ")
    }

    /// The plot with its axes under what is drawn; `told` says in words what it shows.
    pub(super) fn draw(&self, (x_label, y_label): (&str, &str), told: &str, drawn: &Markup) -> Markup {
        let (left, right, bottom) = (at(self.left()), at(WIDTH - RIGHT), at(self.bottom()));
        html! {
            svg viewBox=(format!("0 0 {WIDTH} {}", self.height)) role="img" aria-label=(told) {
                @for &tick in &self.x.ticks {
                    @let x = at(self.at_x(tick));
                    line .rule x1=(x) x2=(x) y1=(at(self.top())) y2=(bottom) {}
                    text x=(x) y=(at(self.bottom() + 15.0)) text-anchor="middle" { (self.x.label(tick)) }
                }
                @if let Some(axis) = &self.y {
                    @for &tick in &axis.ticks {
                        @let y = self.at_y(tick);
                        line .rule x1=(left) x2=(right) y1=(at(y)) y2=(at(y)) {}
                        text x=(at(self.left() - 6.0)) y=(at(y + 4.0)) text-anchor="end" { (axis.label(tick)) }
                    }
                    line .axis x1=(left) x2=(left) y1=(at(self.top())) y2=(bottom) {}
                    text .label x="4" y="12" { (y_label) }
                }
                line .axis x1=(left) x2=(right) y1=(bottom) y2=(bottom) {}
                text .label x=(right) y=(at(self.height - 5.0)) text-anchor="end" { (x_label) }
                (drawn)
            }
        }
    }
}

/// A length of the drawing, to a tenth of its unit.
pub(super) fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}
