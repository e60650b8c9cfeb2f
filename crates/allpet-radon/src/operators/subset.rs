//! Every S-th view of a projector, at the cost of those views only.

use super::shaped;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, batch_of, exchange_tail};
use crate::pool::Pool;
use crate::projector::Projector;
use allpet_core::{ImageGrid, ParallelGeometry};
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Slice};
use std::f64::consts::PI;

/// Subset `m` of `S`: views `m, m+S, m+2S, …` of a parallel-beam geometry; sizes of subsets may differ by one.
///
/// The views of a subset are equally spaced again, so this is a [`Projector`] of its own: angles are those of the
/// whole to rounding. (A view at exactly 45°, where Joseph's method may walk either axis, can walk the other one.)
#[derive(Debug, Clone)]
pub struct Subset {
    whole: ParallelGeometry,
    index: usize,
    subsets: usize,
    domain: [usize; 2],
    range: [usize; 2],
    projector: Projector,
    /// The last view, where one arc over all of them would run beyond 360°.
    last: Option<Projector>,
    pool: Pool,
}

impl Subset {
    /// Subset `index` of `subsets` of the projector from `grid` to `geometry`.
    ///
    /// # Errors
    /// As [`Projector::new`]; `subsets` 0 or more than there are views; `index` not below `subsets`.
    pub fn new(grid: ImageGrid, geometry: ParallelGeometry, index: usize, subsets: usize) -> Result<Self> {
        geometry.validate()?;
        if subsets == 0 || subsets > geometry.views {
            return Err(Error::Setting {
                what: "number of subsets",
                expected: "at least 1 and at most the number of views",
                got: subsets as f64,
            });
        }
        if index >= subsets {
            return Err(Error::Setting {
                what: "index of a subset",
                expected: "less than the number of subsets",
                got: index as f64,
            });
        }
        let views = (geometry.views - index).div_ceil(subsets);
        let part = |first: usize, views: usize| {
            let span = (views * subsets) as f64 / geometry.views as f64;
            ParallelGeometry {
                views,
                arc_rad: geometry.arc_rad * span,
                start_rad: geometry.angle(first),
                ..geometry
            }
        };
        let all = part(index, views);
        // A single view's arc is never more than the whole one.
        let (main, last) = if views > 1 && all.arc_rad > 2.0 * PI * (1.0 + 1e-12) {
            let last = part(index + (views - 1) * subsets, 1);
            (part(index, views - 1), Some(Projector::new(grid, last)?))
        } else {
            (all, None)
        };
        Ok(Self {
            whole: geometry,
            index,
            subsets,
            domain: grid.shape(),
            range: [views, geometry.bins],
            projector: Projector::new(grid, main)?,
            last,
            pool: Pool::default(),
        })
    }

    /// The numbers of its views in the whole sinogram.
    pub fn views(&self) -> impl Iterator<Item = usize> + use<> {
        (self.index..self.whole.views).step_by(self.subsets)
    }

    /// The rows of a whole sinogram `[.., view, radial]` that belong to the subset, without a copy.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is not a sinogram of the whole geometry.
    pub fn select<'a>(&self, mut sinogram: ArrayViewD<'a, f32>) -> Result<ArrayViewD<'a, f32>> {
        exchange_tail("sinogram", sinogram.shape(), &self.whole.shape(), &self.range)?;
        let axis = Axis(sinogram.ndim() - 2);
        let rows = Slice::new(self.index as isize, None, self.subsets as isize);
        sinogram.slice_axis_inplace(axis, rows);
        Ok(sinogram)
    }
}

impl LinearOperator for Subset {
    fn domain_shape(&self) -> &[usize] {
        &self.domain
    }

    fn range_shape(&self) -> &[usize] {
        &self.range
    }

    fn forward(&self, x: ArrayViewD<'_, f32>, out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(x.shape(), &self.domain, out.shape(), &self.range)?;
        let Some(last) = &self.last else {
            return self.projector.forward(x, out);
        };
        let views = Axis(out.ndim() - 2);
        let (main, end) = out.split_at(views, self.range[0] - 1);
        self.projector.forward(x.view(), main)?;
        last.forward(x, end)
    }

    fn adjoint(&self, y: ArrayViewD<'_, f32>, mut out: ArrayViewMutD<'_, f32>) -> Result<()> {
        batch_of(y.shape(), &self.range, out.shape(), &self.domain)?;
        let Some(last) = &self.last else {
            return self.projector.adjoint(y, out);
        };
        let views = Axis(y.ndim() - 2);
        let (main, end) = y.split_at(views, self.range[0] - 1);
        self.projector.adjoint(main, out.view_mut())?;
        let mut buffer = self.pool.take(out.len());
        let mut image = shaped("last view", out.shape(), &mut buffer)?;
        last.adjoint(end, image.view_mut())?;
        out += &image;
        Ok(())
    }
}
