//! Non-negative values after subtraction of a background, with the local mean kept.
//!
//! Subtracting expected randoms and scatter leaves negative bins where counts are few. Cutting them off at 0 raises the
//! mean; here what is cut is taken from the positive neighbours: `x = v₊ · (G∗v)₊ / (G∗v₊)`, scaled to the total of
//! `v`. Where no neighbour is negative, `x = v` up to rounding.

use crate::acquisition::blur_rows;
use ndarray::{Array2, Zip};

/// Width of the neighbourhood (full width at half maximum of a Gaussian) in views and in bins: some 60 of them.
const NEIGHBOURHOOD: f64 = 5.0;

/// The values `[views, bins]` without negative ones; total and local means stay. All zero where the total is negative.
///
/// Values that are all non-negative come back as they are.
pub fn non_negative(values: Array2<f32>) -> Array2<f32> {
    if values.iter().all(|&v| v >= 0.0) {
        return values;
    }
    let positive = values.mapv(|v| v.max(0.0));
    let (kept, all) = (blurred(&values), blurred(&positive));
    let mut out = positive;
    Zip::from(&mut out)
        .and(&kept)
        .and(&all)
        .for_each(|value, &kept, &all| {
            *value *= if all > 0.0 {
                (kept / all).clamp(0.0, 1.0)
            } else {
                0.0
            };
        });
    let sum = |a: &Array2<f32>| a.iter().map(|&v| f64::from(v)).sum::<f64>();
    let (wanted, got) = (sum(&values), sum(&out));
    out * if got > 0.0 {
        (wanted / got).max(0.0) as f32
    } else {
        0.0
    }
}

fn blurred(values: &Array2<f32>) -> Array2<f32> {
    let mut rows = values.clone();
    blur_rows(&mut rows, NEIGHBOURHOOD);
    let mut columns = rows.t().as_standard_layout().into_owned();
    blur_rows(&mut columns, NEIGHBOURHOOD);
    columns.reversed_axes()
}
