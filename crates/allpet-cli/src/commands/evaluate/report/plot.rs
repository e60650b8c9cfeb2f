//! Axes of the page's plots, drawn as SVG in the page's own colours.

use allpet::io::Axis;
use maud::{Markup, html};

/// Width of every plot in its own units; text of 12 units is read on a phone without zooming.
pub(super) const WIDTH: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const BOTTOM: f64 = 36.0;

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
                @for tick in self.x.ticks() {
                    @let x = at(self.at_x(tick));
                    line .rule x1=(x) x2=(x) y1=(at(self.top())) y2=(bottom) {}
                    text x=(x) y=(at(self.bottom() + 15.0)) text-anchor="middle" { (self.x.label(tick)) }
                }
                @if let Some(axis) = &self.y {
                    @for tick in axis.ticks() {
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
