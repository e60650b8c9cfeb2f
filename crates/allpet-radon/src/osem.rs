//! Maximum likelihood from Poisson counts: MLEM and its ordered subsets.
//!
//! Model: `ȳ = c·P(G x) + b` with `c = n·a` (efficiency times attenuation), `G` the resolution and `b` the
//! background. L. A. Shepp, Y. Vardi, "Maximum likelihood reconstruction for emission tomography", IEEE Trans. Med.
//! Imaging 1 (1982) 113-122: `x ← x / (Aᵀ1) · Aᵀ(y / ȳ)`, `A = c·P·G`, raises the likelihood at every step and keeps
//! `x ≥ 0`. H. M. Hudson, R. S. Larkin, "Accelerated image reconstruction using ordered subsets of projection data",
//! IEEE Trans. Med. Imaging 13 (1994) 601-609: the same with one subset of views after another.

mod iterate;

use crate::entry::non_negative;
use crate::error::{Error, Result};
use crate::operator::{LinearOperator, exchange_tail};
use crate::operators::{Attenuation, GaussianPsf, Subset};
use crate::projector::Projector;
use allpet_core::{ImageGrid, ParallelGeometry, check_finite};
use ndarray::{Array2, ArrayD, ArrayViewD, Ix2, IxDyn};
use std::ops::ControlFlow;
use std::sync::OnceLock;

/// Pixels whose sensitivity is this small a part of the largest one count as not seen.
const UNSEEN: f32 = 1e-12;

/// How long and in how many subsets; MLEM has one subset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OsemConfig {
    /// Passes over all views.
    pub iterations: usize,
    /// Subsets of the views, taken in order; subset `m` holds views `m, m+S, m+2S, …`.
    pub subsets: usize,
}

impl Default for OsemConfig {
    fn default() -> Self {
        Self {
            iterations: 4,
            subsets: 12,
        }
    }
}

impl OsemConfig {
    /// Maximum-likelihood expectation maximisation: one subset.
    pub fn mlem(iterations: usize) -> Self {
        Self {
            iterations,
            subsets: 1,
        }
    }
}

/// What an observer sees after every iteration.
#[derive(Debug)]
#[non_exhaustive]
pub struct OsemStep<'a> {
    /// Iterations done: 1 after the first.
    pub iteration: usize,
    /// The image so far, `[.., row, col]`.
    pub image: ArrayViewD<'a, f32>,
    /// `Σ y ln ȳ - ȳ` of that image for each element of the batch, over bins with efficiency that the model can
    /// reach; the constant `ln y!` is left out.
    pub log_likelihood: &'a [f64],
}

/// Sees the iterates; [`ControlFlow::Break`] ends the reconstruction with the image as it is.
pub type OsemObserver<'a> = dyn FnMut(&OsemStep<'_>) -> ControlFlow<()> + 'a;

/// MLEM and OSEM with attenuation, efficiencies, background and resolution.
///
/// Counts `y` are `[.., view, radial]`, not negative; the image is in counts per mm of ray. Leading axes are a batch
/// that shares the model; element `i` gives the same bytes alone, for any number of threads.
///
/// - A bin without efficiency (or attenuated to nothing) is dead: whatever it counted is ignored.
/// - A bin that the model cannot reach (`ȳ = 0`) is ignored too; it has nothing to say about any pixel.
/// - A pixel that no bin sees is 0; one that a subset does not see is left as it is by that subset.
///
/// ```
/// use allpet_core::{ImageGrid, ParallelGeometry};
/// use allpet_radon::analytic::{Ellipse, project_bin_means};
/// use allpet_radon::{Osem, OsemConfig};
///
/// let grid = ImageGrid::square(48, 2.0)?;
/// let geometry = ParallelGeometry::new(60, 71, 2.0)?;
/// let disc = Ellipse { value: 3.0, x_mm: 4.0, y_mm: 0.0, a_mm: 30.0, b_mm: 25.0, tilt_rad: 0.0 };
/// let counts = project_bin_means(&[disc], &geometry).into_dyn();
/// let osem = Osem::new(grid, geometry, OsemConfig { iterations: 4, subsets: 6 })?;
/// let image = osem.reconstruct(counts.view())?;
/// assert!((image[[24, 26]] - 3.0).abs() < 0.1);
/// # Ok::<(), allpet_radon::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Osem {
    grid: ImageGrid,
    geometry: ParallelGeometry,
    config: OsemConfig,
    subsets: Vec<Subset>,
    attenuation: Option<Array2<f32>>,
    normalisation: Option<Array2<f32>>,
    background: Option<ArrayD<f32>>,
    psf: Option<GaussianPsf>,
    start: Option<ArrayD<f32>>,
    plan: OnceLock<Plan>,
}

/// What follows from the model alone, subset by subset.
#[derive(Debug, Clone)]
struct Plan {
    /// `c = n·a`, `[views of the subset, bins]`.
    factors: Vec<Vec<f32>>,
    /// `Gᵀ Pᵀ c`; 0 where a pixel counts as not seen.
    sensitivity: Vec<Vec<f32>>,
    /// Whether any subset sees the pixel.
    seen: Vec<bool>,
    /// Sum of all sensitivities: the counts of an image of ones.
    counts_of_ones: f64,
}

impl Osem {
    /// A reconstruction on `grid` of sinograms of `geometry`, without corrections.
    ///
    /// # Errors
    /// An invalid grid or geometry; no iterations; no subsets, or more of them than views.
    pub fn new(grid: ImageGrid, geometry: ParallelGeometry, config: OsemConfig) -> Result<Self> {
        if config.iterations == 0 {
            return Err(Error::Setting {
                what: "number of iterations",
                expected: "at least 1",
                got: 0.0,
            });
        }
        geometry.validate()?;
        if config.subsets == 0 || config.subsets > geometry.views {
            return Err(Error::Setting {
                what: "number of subsets",
                expected: "at least 1 and at most the number of views",
                got: config.subsets as f64,
            });
        }
        let subsets = (0..config.subsets)
            .map(|m| Subset::new(grid, geometry, m, config.subsets))
            .collect::<Result<_>>()?;
        Ok(Self {
            grid,
            geometry,
            config,
            subsets,
            attenuation: None,
            normalisation: None,
            background: None,
            psf: None,
            start: None,
            plan: OnceLock::new(),
        })
    }

    /// With attenuation `exp(-P μ)` of an image in mm⁻¹ on the same grid.
    ///
    /// # Errors
    /// As [`Attenuation::from_image`].
    pub fn with_attenuation(self, mu_per_mm: ArrayViewD<'_, f32>) -> Result<Self> {
        let projector = Projector::new(self.grid, self.geometry)?;
        let attenuation = Attenuation::from_image(&projector, mu_per_mm)?;
        let factors = ArrayViewD::from_shape(IxDyn(&self.geometry.shape()), attenuation.factors());
        match factors {
            Ok(factors) => self.with_attenuation_factors(factors),
            Err(_) => Err(misshapen("attenuation factors", &[], &self.geometry)),
        }
    }

    /// With attenuation by factors that are known, `[view, radial]`; 1 is none. Replaces
    /// [`Osem::with_attenuation`].
    ///
    /// # Errors
    /// Another shape; a factor that is negative or not finite.
    pub fn with_attenuation_factors(mut self, factors: ArrayViewD<'_, f32>) -> Result<Self> {
        self.attenuation = Some(weights("attenuation factors", factors, &self.geometry)?);
        self.plan = OnceLock::new();
        Ok(self)
    }

    /// With efficiencies `[view, radial]` that multiply; 0 is a dead bin.
    ///
    /// # Errors
    /// Another shape; an efficiency that is negative or not finite.
    pub fn with_normalisation(mut self, efficiencies: ArrayViewD<'_, f32>) -> Result<Self> {
        self.normalisation = Some(weights("normalisation", efficiencies, &self.geometry)?);
        self.plan = OnceLock::new();
        Ok(self)
    }

    /// With a background (randoms and scatter) in counts per bin, `[view, radial]` for all elements of a batch or
    /// of the shape of the counts; it is added after every factor.
    ///
    /// # Errors
    /// An array that does not end in `[view, radial]`; a value that is negative or not finite.
    pub fn with_background(mut self, counts: ArrayViewD<'_, f32>) -> Result<Self> {
        let shape = self.geometry.shape();
        exchange_tail("background", counts.shape(), &shape, &shape)?;
        non_negative("background", counts.view())?;
        self.background = Some(counts.to_owned());
        Ok(self)
    }

    /// With a Gaussian resolution of `fwhm_mm` in the image; 0 is none.
    ///
    /// # Errors
    /// As [`GaussianPsf::new`].
    pub fn with_psf_mm(mut self, fwhm_mm: f64) -> Result<Self> {
        let psf = GaussianPsf::new(self.grid, fwhm_mm)?;
        self.psf = (fwhm_mm > 0.0).then_some(psf);
        self.plan = OnceLock::new();
        Ok(self)
    }

    /// From a start image, `[row, col]` for all elements of a batch or one for each; otherwise from a uniform image
    /// with as many counts as were measured. Pixels that are 0 stay 0.
    ///
    /// # Errors
    /// An array that does not end in `[row, col]`; a value that is negative or not finite.
    pub fn with_start(mut self, image: ArrayViewD<'_, f32>) -> Result<Self> {
        let shape = self.grid.shape();
        exchange_tail("start image", image.shape(), &shape, &shape)?;
        non_negative("start image", image.view())?;
        self.start = Some(image.to_owned());
        Ok(self)
    }

    /// The image grid.
    pub fn grid(&self) -> &ImageGrid {
        &self.grid
    }

    /// The sinogram geometry.
    pub fn geometry(&self) -> &ParallelGeometry {
        &self.geometry
    }

    /// Iterations and subsets.
    pub fn config(&self) -> OsemConfig {
        self.config
    }

    /// Reconstructs counts `[.., view, radial]` to `[.., row, col]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when counts, background or start image do not fit together; [`Error::Negative`] for counts
    /// that are negative or not finite; factors so large that a sensitivity overflows.
    pub fn reconstruct(&self, counts: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        iterate::run(self, counts, None)
    }

    /// The same with an observer, for which the likelihood is computed: with more than one subset that costs
    /// another projection of (almost) all views per iteration.
    ///
    /// # Errors
    /// As [`Osem::reconstruct`].
    pub fn reconstruct_observed(
        &self,
        counts: ArrayViewD<'_, f32>,
        observer: &mut OsemObserver<'_>,
    ) -> Result<ArrayD<f32>> {
        iterate::run(self, counts, Some(observer))
    }

    fn plan(&self) -> Result<&Plan> {
        if let Some(plan) = self.plan.get() {
            return Ok(plan);
        }
        let plan = self.make_plan()?;
        Ok(self.plan.get_or_init(|| plan))
    }

    fn make_plan(&self) -> Result<Plan> {
        let mut whole = match &self.normalisation {
            Some(efficiencies) => efficiencies.clone(),
            None => Array2::ones(self.geometry.shape()),
        };
        if let Some(attenuation) = &self.attenuation {
            whole *= attenuation;
        }
        let whole = whole.into_dyn();
        check_finite("product of normalisation and attenuation", whole.view())?;
        let mut plan = Plan {
            factors: Vec::new(),
            sensitivity: Vec::new(),
            seen: vec![false; self.grid.rows * self.grid.cols],
            counts_of_ones: 0.0,
        };
        for subset in &self.subsets {
            let factors = subset.select(whole.view())?;
            let mut sensitivity = subset.apply_adjoint(factors.view())?;
            if let Some(psf) = &self.psf {
                sensitivity = psf.apply_adjoint(sensitivity.view())?;
            }
            check_finite("sensitivity of the pixels", sensitivity.view())?;
            let least = UNSEEN * sensitivity.iter().fold(0.0f32, |a, &b| a.max(b));
            for (seen, value) in plan.seen.iter_mut().zip(sensitivity.iter_mut()) {
                if *value <= least {
                    *value = 0.0;
                } else {
                    *seen = true;
                    plan.counts_of_ones += f64::from(*value);
                }
            }
            plan.factors.push(factors.iter().copied().collect());
            plan.sensitivity.push(sensitivity.iter().copied().collect());
        }
        Ok(plan)
    }
}

fn weights(
    what: &'static str,
    values: ArrayViewD<'_, f32>,
    geometry: &ParallelGeometry,
) -> Result<Array2<f32>> {
    if values.shape() != geometry.shape() {
        return Err(misshapen(what, values.shape(), geometry));
    }
    non_negative(what, values.view())?;
    let owned = values.into_owned().into_dimensionality::<Ix2>();
    owned.map_err(|_| misshapen(what, &[], geometry))
}

fn misshapen(what: &'static str, got: &[usize], geometry: &ParallelGeometry) -> Error {
    Error::Shape {
        what,
        expected: format!("{:?}", geometry.shape()),
        got: got.to_vec(),
    }
}
