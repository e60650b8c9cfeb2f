//! Differences of all pixels: their histogram, and their mean along the mean of both values with limits of agreement
//! (Bland and Altman, Lancet 327:307, 1986).

use super::super::figures::digits;
use super::plot::{Frame, at};
use allpet::io::Axis;
use maud::{Markup, html};
use ndarray::ArrayView3;

/// Odd, so that one bin has zero in its middle.
const ERROR_BINS: usize = 61;
const VALUE_BINS: usize = 40;
/// The histogram ends at this many root mean squared differences.
const REACH: f64 = 4.0;

/// Pixels whose mean of both values lies in one bin.
#[derive(Debug, Clone, Copy, Default)]
struct Bin {
    count: u64,
    sum: f64,
    squares: f64,
}

#[derive(Debug)]
struct Agreement {
    pixels: u64,
    bias: f64,
    sd: f64,
    /// Half the width of the histogram.
    reach: f64,
    errors: Vec<u64>,
    beyond: u64,
    low: f64,
    high: f64,
    bins: Vec<Bin>,
}

impl Agreement {
    fn of(reference: ArrayView3<'_, f32>, candidate: ArrayView3<'_, f32>) -> Self {
        let both = || {
            reference.iter().zip(&candidate).map(|(&y, &x)| {
                let (y, x) = (f64::from(y), f64::from(x));
                (x - y, 0.5 * (x + y))
            })
        };
        let (mut sum, mut squares) = (0.0, 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (error, mean) in both() {
            sum += error;
            squares += error * error;
            (low, high) = (low.min(mean), high.max(mean));
        }
        let pixels = reference.len() as u64;
        let count = (pixels as f64).max(1.0);
        let bias = sum / count;
        let reach = REACH * (squares / count).sqrt();
        let (mut errors, mut beyond) = (vec![0; ERROR_BINS], 0);
        let mut bins = vec![Bin::default(); VALUE_BINS];
        let mut deviations = 0.0;
        for (error, mean) in both() {
            deviations += (error - bias) * (error - bias);
            if reach > 0.0 {
                let place = (0.5 * (error / reach + 1.0) * ERROR_BINS as f64).floor();
                match errors.get_mut(place as usize) {
                    Some(bin) if place >= 0.0 => *bin += 1,
                    _ => beyond += 1,
                }
            }
            if high > low {
                let place = (mean - low) / (high - low) * VALUE_BINS as f64;
                let bin = &mut bins[(place as usize).min(VALUE_BINS - 1)];
                bin.count += 1;
                bin.sum += error;
                bin.squares += error * error;
            }
        }
        Self {
            pixels,
            bias,
            sd: (deviations / (count - 1.0).max(1.0)).sqrt(),
            reach,
            errors,
            beyond,
            low,
            high,
            bins,
        }
    }

    fn histogram(&self) -> Markup {
        let share = |count: u64| 100.0 * count as f64 / self.pixels as f64;
        let width = 2.0 * self.reach / ERROR_BINS as f64;
        let frame = Frame {
            x: Axis::around([-self.reach, self.reach], 6),
            y: Some(Axis::around(
                self.errors.iter().map(|&c| share(c)).chain([0.0]),
                5,
            )),
            height: 240.0,
        };
        let drawn = html! {
            @for (i, &count) in self.errors.iter().enumerate().filter(|(_, c)| **c > 0) {
                @let from = -self.reach + i as f64 * width;
                @let (left, right) = (frame.at_x(from), frame.at_x(from + width));
                @let top = frame.at_y(share(count));
                rect .bar x=(at(left)) y=(at(top)) width=(at((right - left - 0.6).max(0.4)))
                    height=(at(frame.bottom() - top)) {
                    title { (digits(from, 3)) " to " (digits(from + width, 3)) ": " (digits(share(count), 3)) " %" }
                }
            }
            line .zero x1=(at(frame.at_x(0.0))) x2=(at(frame.at_x(0.0))) y1=(at(frame.top())) y2=(at(frame.bottom())) {}
        };
        let told = format!(
            "histogram of candidate minus reference: mean {}, standard deviation {}",
            digits(self.bias, 3),
            digits(self.sd, 3)
        );
        html! {
            figure .card {
                figcaption { strong { "Error histogram" } " of all " (self.pixels) " pixels" }
                (frame.draw(("candidate - reference", "% of pixels"), &told, &drawn))
                p .small {
                    "Mean " (digits(self.bias, 4)) ", standard deviation " (digits(self.sd, 4))
                    ". The axis ends at 4 root mean squared errors; " (digits(share(self.beyond), 3))
                    " % of the pixels lie beyond."
                }
            }
        }
    }

    fn bias_line(&self) -> Markup {
        let width = (self.high - self.low) / VALUE_BINS as f64;
        let filled: Vec<(f64, f64, f64)> = self
            .bins
            .iter()
            .enumerate()
            .filter(|(_, bin)| bin.count >= 2)
            .map(|(i, bin)| {
                let count = bin.count as f64;
                let mean = bin.sum / count;
                let variance = (bin.squares / count - mean * mean).max(0.0);
                (self.low + (i as f64 + 0.5) * width, mean, variance.sqrt())
            })
            .collect();
        let limits = [self.bias - 1.96 * self.sd, self.bias + 1.96 * self.sd];
        let ends = filled.iter().flat_map(|&(_, mean, sd)| [mean - sd, mean + sd]);
        let frame = Frame {
            x: Axis::around([self.low, self.high], 6),
            y: Some(Axis::around(ends.chain(limits).chain([0.0]), 5).with_room(0.04)),
            height: 240.0,
        };
        let band = filled
            .iter()
            .map(|&(x, mean, sd)| (x, mean + sd))
            .chain(filled.iter().rev().map(|&(x, mean, sd)| (x, mean - sd)));
        let (left, right) = (at(frame.at_x(self.low)), at(frame.at_x(self.high)));
        let level = |value: f64| at(frame.at_y(value));
        let drawn = html! {
            polygon .band points=(frame.points(band)) {}
            line .zero x1=(left) x2=(right) y1=(level(0.0)) y2=(level(0.0)) {}
            @for limit in limits { line .limit x1=(left) x2=(right) y1=(level(limit)) y2=(level(limit)) {} }
            polyline .line.of-candidate points=(frame.points(filled.iter().map(|&(x, mean, _)| (x, mean)))) {}
            @for &(x, mean, sd) in &filled {
                circle .of-candidate cx=(at(frame.at_x(x))) cy=(level(mean)) r="2.5" {
                    title { "at " (digits(x, 3)) ": " (digits(mean, 3)) " ± " (digits(sd, 3)) }
                }
            }
        };
        let told = format!(
            "mean difference along the mean of both values; bias {}, limits of agreement {} and {}",
            digits(self.bias, 3),
            digits(limits[0], 3),
            digits(limits[1], 3)
        );
        html! {
            figure .card {
                figcaption { strong { "Mean difference" } " along the mean of both values (Bland and Altman)" }
                (frame.draw(("(candidate + reference) / 2", "candidate - reference"), &told, &drawn))
                p .small {
                    "Line: mean of the pixels in each of " (VALUE_BINS) " steps, shaded ± 1 standard deviation. "
                    "Dashed: limits of agreement over all pixels, " (digits(self.bias, 4)) " ± 1.96 · "
                    (digits(self.sd, 4)) "."
                }
            }
        }
    }
}

/// Both plots, or the sentence that there is nothing to plot.
pub(super) fn agreement(reference: ArrayView3<'_, f32>, candidate: ArrayView3<'_, f32>) -> Markup {
    let found = Agreement::of(reference, candidate);
    if found.reach == 0.0 {
        return html! { p { "Reference and candidate are identical in every pixel." } };
    }
    html! {
        div .cards {
            (found.histogram())
            @if found.high > found.low { (found.bias_line()) }
        }
    }
}
