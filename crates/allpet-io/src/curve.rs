//! Line plots of named series over an axis, such as a training loss over steps.

use crate::axis::Axis;
use crate::canvas::{Canvas, Rgb};
use crate::error::Result;
use std::path::Path;

const BACKGROUND: Rgb = [252, 252, 250];
const FRAME: Rgb = [90, 90, 90];
const RULE: Rgb = [226, 226, 222];
const INK: Rgb = [40, 40, 40];
// Told apart also by the colour-blind (Okabe & Ito, 2008).
const SERIES: [Rgb; 6] = [
    [0, 114, 178],
    [213, 94, 0],
    [0, 158, 115],
    [204, 121, 167],
    [86, 180, 233],
    [230, 159, 0],
];
const SCALE: usize = 2;
const WIDTH: usize = 900;
const HEIGHT: usize = 480;
const LEFT: usize = 96;
const RIGHT: usize = 24;
const TOP: usize = 40;
const BOTTOM: usize = 56;

/// A named series of points; those that are not finite are left out and break the line.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve {
    /// Its name in the legend.
    pub name: String,
    /// `(x, y)` in drawing order.
    pub points: Vec<(f64, f64)>,
}

/// A line plot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CurvePlot {
    /// Written above.
    pub title: String,
    /// Written under the axis.
    pub x_label: String,
    /// The series.
    pub curves: Vec<Curve>,
    /// Decades on the vertical axis; points at or below 0 are left out.
    pub log_y: bool,
}

impl CurvePlot {
    /// Draws the plot; without a point to show, the axes run from 0 to 1.
    pub fn render(&self) -> Canvas {
        let mut canvas = Canvas::new(WIDTH, HEIGHT, BACKGROUND);
        let shown = |&(x, y): &(f64, f64)| {
            let y = if self.log_y { y.log10() } else { y };
            (x.is_finite() && y.is_finite()).then_some((x, y))
        };
        let points = || self.curves.iter().flat_map(|c| &c.points).filter_map(shown);
        let x_axis = Axis::around(points().map(|p| p.0), 8).to_ticks();
        let y_axis = Axis::around(points().map(|p| p.1), 6);
        let y_axis = if self.log_y { y_axis.whole_steps() } else { y_axis }.to_ticks();
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let at_x = |x: f64| LEFT + (x_axis.fraction(x) * (right - LEFT) as f64).round() as usize;
        let at_y = |y: f64| bottom - (y_axis.fraction(y) * (bottom - TOP) as f64).round() as usize;

        let text_height = Canvas::text_height(SCALE);
        for tick in x_axis.ticks() {
            let x = at_x(tick);
            canvas.line((x, TOP), (x, bottom), RULE);
            let label = x_axis.label(tick);
            canvas.text(
                x.saturating_sub(Canvas::text_width(&label, SCALE) / 2),
                bottom + 8,
                &label,
                SCALE,
                INK,
            );
        }
        for tick in y_axis.ticks() {
            let y = at_y(tick);
            canvas.line((LEFT, y), (right, y), RULE);
            let label = if self.log_y {
                decade(tick)
            } else {
                y_axis.label(tick)
            };
            let left = (LEFT - 8).saturating_sub(Canvas::text_width(&label, SCALE));
            canvas.text(left, y.saturating_sub(text_height / 2), &label, SCALE, INK);
        }
        for (a, b) in [((LEFT, TOP), (LEFT, bottom)), ((LEFT, bottom), (right, bottom))] {
            canvas.line(a, b, FRAME);
        }

        for (i, curve) in self.curves.iter().enumerate() {
            let colour = SERIES[i % SERIES.len()];
            let mut last = None;
            for point in &curve.points {
                let pixel = shown(point).map(|(x, y)| (at_x(x), at_y(y)));
                if let Some((x, y)) = pixel {
                    let (from_x, from_y) = last.unwrap_or((x, y));
                    // Two pixels thick.
                    canvas.line((from_x, from_y), (x, y), colour);
                    canvas.line(
                        (from_x, from_y.saturating_sub(1)),
                        (x, y.saturating_sub(1)),
                        colour,
                    );
                }
                last = pixel;
            }
        }

        canvas.text(LEFT, 14, &self.title, SCALE, INK);
        let centred = (LEFT + right).saturating_sub(Canvas::text_width(&self.x_label, SCALE)) / 2;
        canvas.text(centred, HEIGHT - 20, &self.x_label, SCALE, INK);
        let mut from_right = right;
        for (i, curve) in self.curves.iter().enumerate().rev() {
            from_right = from_right.saturating_sub(Canvas::text_width(&curve.name, SCALE));
            canvas.text(from_right, 14, &curve.name, SCALE, INK);
            from_right = from_right.saturating_sub(24);
            canvas.fill(
                from_right,
                14 + text_height / 2 - 1,
                18,
                3,
                SERIES[i % SERIES.len()],
            );
            from_right = from_right.saturating_sub(16);
        }
        canvas
    }

    /// [`CurvePlot::render`] into a PNG file, whole or not at all.
    ///
    /// # Errors
    /// The file system's.
    pub fn write(&self, path: &Path) -> Result<()> {
        self.render().write(path, &[])
    }
}

/// A power of ten in few characters.
fn decade(exponent: f64) -> String {
    match (-3.0..6.0).contains(&exponent) {
        true => format!("{}", 10f64.powi(exponent as i32)),
        false => format!("1e{exponent}"),
    }
}
