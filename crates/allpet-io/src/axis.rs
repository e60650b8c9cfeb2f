//! A range of values and its ticks, for plots.
//!
//! Tick distances are 1, 2 or 5 times a power of ten (Heckbert, "Nice numbers for graph labels", Graphics Gems, 1990).

/// A range of values with evenly spaced ticks.
///
/// ```
/// let axis = allpet_io::Axis::around([0.13, 0.58], 5);
/// let labels: Vec<String> = axis.ticks().map(|tick| axis.label(tick)).collect();
/// assert_eq!(labels, ["0.2", "0.3", "0.4", "0.5"]);
/// assert_eq!(axis.fraction(0.58), 1.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Axis {
    low: f64,
    high: f64,
    step: f64,
}

impl Axis {
    /// From the smallest to the largest value with about so many steps between ticks. Values that are not finite are
    /// left out; a constant gets some room around it, and without any value the axis runs from 0 to 1.
    pub fn around(values: impl IntoIterator<Item = f64>, about: usize) -> Self {
        let (low, high) = values
            .into_iter()
            .filter(|v| v.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
                (a.min(v), b.max(v))
            });
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        // A range beyond f64 has no room left to give.
        let (low, high) = (low.max(-1e300), high.min(1e300));
        // Differences in the last digits are rounding, not a range; nor is there a tenth of the smallest numbers.
        let size = low.abs().max(high.abs());
        let room = match high - low > 1e-9 * size.max(1e-280) {
            true => 0.0,
            false if size < 1e-280 => 0.5,
            false => 0.1 * size,
        };
        let (low, high) = (low - room, high + room);
        let rough = ((high - low) / about.max(1) as f64).max(f64::MIN_POSITIVE * 1e16);
        let power = 10f64.powf(rough.log10().floor());
        let nice = match rough / power {
            leading if leading < 1.5 => 1.0,
            leading if leading < 3.0 => 2.0,
            leading if leading < 7.0 => 5.0,
            _ => 10.0,
        };
        Self {
            low,
            high,
            step: nice * power,
        }
    }

    /// With a share of the range added at both ends, so that nothing sits on the edge.
    pub fn with_room(self, share: f64) -> Self {
        let room = share * (self.high - self.low);
        Self {
            low: self.low - room,
            high: self.high + room,
            ..self
        }
    }

    /// Widened until it begins and ends on a tick.
    pub fn to_ticks(self) -> Self {
        Self {
            low: (self.low / self.step + NEAR).floor() * self.step,
            high: (self.high / self.step - NEAR).ceil() * self.step,
            ..self
        }
    }

    /// With ticks at whole numbers only, as exponents need them.
    pub(crate) fn whole_steps(self) -> Self {
        Self {
            step: self.step.max(1.0),
            ..self
        }
    }

    /// Where a value lies: 0 at the low end, 1 at the high end, and values outside at the nearer of them.
    pub fn fraction(&self, value: f64) -> f64 {
        ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0)
    }

    /// The ticks inside the range, upwards.
    pub fn ticks(&self) -> impl Iterator<Item = f64> + use<> {
        let Self { low, high, step } = *self;
        let (first, last) = ((low / step - NEAR).ceil(), (high / step + NEAR).floor());
        // Not more than fit, whatever the numbers.
        let count = (last - first + 1.0).clamp(0.0, 50.0) as usize;
        (0..count).map(move |i| (first + i as f64) * step)
    }

    /// A tick in as many digits as tell neighbours apart.
    pub fn label(&self, tick: f64) -> String {
        if tick.abs() < self.step * NEAR {
            return "0".to_owned();
        }
        let digit = |value: f64| (value.abs().log10() + 1e-9).floor() as i32;
        let (first, last) = (digit(tick), digit(self.step));
        if (-4..6).contains(&first) {
            return format!("{tick:.*}", (-last).max(0) as usize);
        }
        format!("{tick:.*e}", (first - last).clamp(0, 12) as usize)
    }
}

/// A share of a step that rounding may move an end by.
const NEAR: f64 = 1e-6;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks().map(|tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_range() {
        for (ends, about, expected) in [
            ([0.0, 10.0], 5, "0 2 4 6 8 10"),
            // The example of the book.
            ([105.0, 543.0], 5, "200 300 400 500"),
            ([-0.3, 0.3], 6, "-0.3 -0.2 -0.1 0 0.1 0.2 0.3"),
            ([0.95, 1.0], 5, "0.95 0.96 0.97 0.98 0.99 1.00"),
            ([20.0, 22.5], 5, "20.0 20.5 21.0 21.5 22.0 22.5"),
            ([0.0, 3e-7], 3, "0 1e-7 2e-7 3e-7"),
            ([1.9e7, 2.4e7], 5, "1.9e7 2.0e7 2.1e7 2.2e7 2.3e7 2.4e7"),
            (
                [999_998.0, 1_000_002.0],
                4,
                "999998 999999 1.000000e6 1.000001e6 1.000002e6",
            ),
        ] {
            assert_eq!(labels(&Axis::around(ends, about)).join(" "), expected);
        }
        // The loose axis of the book: 105 to 543 becomes 100 to 600.
        let loose = Axis::around([105.0, 543.0], 5).to_ticks();
        assert_eq!(labels(&loose).join(" "), "100 200 300 400 500 600");
        assert_eq!(loose.fraction(350.0), 0.5);
        let decades = Axis::around([-2.2, -1.3], 6).whole_steps().to_ticks();
        assert_eq!(decades.ticks().collect::<Vec<_>>(), [-3.0, -2.0, -1.0]);
    }

    #[test]
    fn every_range_has_a_place_for_its_values() {
        for values in [
            vec![],
            vec![f64::NAN, f64::INFINITY],
            vec![0.0],
            vec![3.0, 3.0],
            vec![-1e-30],
            vec![1.0, 1.0 + 1e-15],
            vec![0.0, 5e-324],
            vec![f64::MIN, f64::MAX],
            vec![-7.0, 1e12],
        ] {
            for about in [0, 1, 5, 60] {
                let tight = Axis::around(values.iter().copied(), about);
                for axis in [
                    tight,
                    tight.with_room(0.05),
                    tight.to_ticks(),
                    tight.whole_steps().to_ticks(),
                ] {
                    let ticks: Vec<f64> = axis.ticks().collect();
                    assert!(ticks.len() <= 50, "{values:?}: {}", ticks.len());
                    assert!(ticks.iter().all(|t| t.is_finite()), "{values:?}: {ticks:?}");
                    for &value in values.iter().filter(|v| v.is_finite()) {
                        assert!(
                            (0.0..=1.0).contains(&axis.fraction(value)),
                            "{values:?}, {axis:?}"
                        );
                    }
                }
            }
        }
        // Constants lie in the middle, with room on both sides.
        for constant in [0.0, 3.0, -1e-30, 1e30] {
            let axis = Axis::around([constant], 5);
            assert!((axis.fraction(constant) - 0.5).abs() < 1e-9);
        }
        let axis = Axis::around([0.0, 1.0], 5).with_room(0.5);
        assert_eq!(
            (axis.fraction(-0.5), axis.fraction(0.5), axis.fraction(9.0)),
            (0.0, 0.5, 1.0)
        );
    }
}
