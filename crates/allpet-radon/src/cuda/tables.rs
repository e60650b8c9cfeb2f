//! Geometry as the kernels read it: words of 64 bits, positions in fixed point with 32 binary places.

use crate::error::{Error, Result};
use crate::joseph::View;
use crate::tent::Ray;
use allpet_core::{ImageGrid, ParallelGeometry};

/// Views that one thread projects (`VIEWS` of the kernels).
pub(super) const GROUP: usize = 4;

/// Words of a `Walk`.
const WALK: usize = 5;

/// Numbers beyond this leave no room for a whole image of positions.
const FARTHEST: f64 = (1u64 << 29) as f64;

fn fixed(value: f64) -> i64 {
    (value * (1u64 << 32) as f64).round() as i64
}

fn pair(low: u32, high: u32) -> i64 {
    (u64::from(low) | u64::from(high) << 32) as i64
}

/// Two `f32` in a word, for tables of `f32`.
pub(super) fn floats(values: &[f32]) -> Vec<i64> {
    let word = |two: &[f32]| pair(two[0].to_bits(), two.get(1).map_or(0, |v| v.to_bits()));
    values.chunks(2).map(word).collect()
}

/// A view's walk in natural order of bins: first position, per line, per bin.
fn walk(view: &View, bins: usize) -> [i64; 3] {
    let (first, line, bin) = (fixed(view.base(0)), fixed(view.per_line), fixed(view.per_bin));
    if view.reversed {
        [first + (bins as i64 - 1) * bin, line, -bin]
    } else {
        [first, line, bin]
    }
}

fn in_range(what: &'static str, value: f64) -> Result<()> {
    if value.abs() < FARTHEST {
        return Ok(());
    }
    Err(Error::Setting {
        what,
        expected: "less than 536,870,912 either way",
        got: value,
    })
}

/// Tables of a projector.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(super) grid: ImageGrid,
    pub(super) geometry: ParallelGeometry,
    /// `Walk` of the kernels, views of one orientation together, each kind in whole groups.
    pub(super) walks: Vec<i64>,
    pub(super) walk_count: usize,
    /// Whether some views walk columns.
    pub(super) turned: bool,
    /// `Ray` of the kernels, view by view.
    pub(super) rays: Vec<i64>,
    pub(super) taps: usize,
}

impl Tables {
    pub(crate) fn new(grid: ImageGrid, geometry: ParallelGeometry, views: &[View]) -> Result<Self> {
        let bins = geometry.bins;
        let mut walks = Vec::new();
        for turned in [false, true] {
            let kind: Vec<_> = views
                .iter()
                .enumerate()
                .filter(|(_, v)| v.transposed == turned)
                .collect();
            for i in 0..kind.len().next_multiple_of(GROUP) {
                // A group that is not full repeats its last view, and keeps none of it.
                let (row, view) = kind
                    .get(i)
                    .map_or((-1, kind[kind.len() - 1].1), |(k, v)| (*k as i32, v));
                for end in [0, bins] {
                    in_range(
                        "position of a bin in pixels",
                        view.base(0) + end as f64 * view.per_bin,
                    )?;
                }
                walks.extend(walk(view, bins));
                walks.push(pair(
                    view.length_mm.to_bits(),
                    (view.inverse_slope as f32).to_bits(),
                ));
                walks.push(pair(u32::from(turned), row as u32));
            }
        }
        let mut rays = Vec::new();
        for view in views {
            // Bins in natural order: `ray` counts them from the walk's first.
            let mut ray = view.ray(0);
            if view.reversed {
                ray.first = bins as f64 - 1.0 - ray.first;
                (ray.per_line, ray.step) = (-ray.per_line, -ray.step);
            }
            let peak = view.length_mm;
            let fall = (f64::from(view.length_mm) * view.per_bin) as f32;
            push_ray(&mut rays, &ray, view.transposed, walk(view, bins), peak, fall)?;
        }
        let gentlest = views.iter().map(|v| v.per_bin).fold(1.0, f64::min);
        Ok(Self {
            grid,
            geometry,
            walk_count: walks.len() / WALK,
            walks,
            turned: views.iter().any(|v| v.transposed),
            rays,
            taps: (1.0 / gentlest).ceil().max(1.0) as usize,
        })
    }
}

fn push_ray(
    rays: &mut Vec<i64>,
    ray: &Ray,
    turned: bool,
    walk: [i64; 3],
    peak: f32,
    fall: f32,
) -> Result<()> {
    in_range("position of a pixel in bins", ray.first)?;
    let (per_col, per_row) = if turned {
        (ray.per_line, ray.step)
    } else {
        (ray.step, ray.per_line)
    };
    rays.extend([fixed(ray.first), fixed(per_col), fixed(per_row)]);
    rays.extend(walk);
    rays.push(pair(peak.to_bits(), fall.to_bits()));
    rays.push(pair((ray.inverse_slope as f32).to_bits(), u32::from(turned)));
    Ok(())
}

/// Tables of a filtered back-projection.
#[derive(Debug)]
pub(crate) struct FbpTables {
    pub(super) grid: ImageGrid,
    pub(super) geometry: ParallelGeometry,
    /// Bins added on each side of a filtered view.
    pub(super) beyond: usize,
    /// The filter in space, of lag `-reach` to `reach`; pairs of `f32`.
    pub(super) filter: Vec<i64>,
    pub(super) reach: usize,
    /// Of the views; pairs of `f32`.
    pub(super) weights: Vec<i64>,
    pub(super) rays: Vec<i64>,
}

impl FbpTables {
    /// `filter` holds the lags `-reach` to `reach`, `rays` see bins of views widened by `beyond`.
    pub(crate) fn new(
        (grid, geometry): (ImageGrid, ParallelGeometry),
        beyond: usize,
        filter: &[f64],
        weights: &[f64],
        rays: &[Ray],
    ) -> Result<Self> {
        let mut words = Vec::new();
        for ray in rays {
            push_ray(&mut words, ray, false, [0; 3], 1.0, 1.0)?;
        }
        let single = |values: &[f64]| floats(&values.iter().map(|v| *v as f32).collect::<Vec<_>>());
        Ok(Self {
            grid,
            geometry,
            beyond,
            filter: single(filter),
            reach: filter.len() / 2,
            weights: single(weights),
            rays: words,
        })
    }
}
