//! Crystal efficiencies and mean randoms of a ring scanner, estimated from its delayed coincidences.
//!
//! Randoms need no image: crystals `a` and `b` meet by chance in proportion to their rates of singles, so delayeds are
//! Poisson with mean `s_a s_b`, and `s` follows from the fan sums `T_a = Σ_b y_ab` by maximum likelihood: R. D. Badawi,
//! P. K. Marsden, "Developments in component-based normalization for 3D PET", Phys. Med. Biol. 44 (1999) 571-594;
//! R. D. Badawi et al., "Randoms variance reduction in 3D PET", Phys. Med. Biol. 44 (1999) 941-954; D. Hogg et al.,
//! "Maximum-likelihood estimation of normalisation factors for PET", IEEE NSS-MIC (2001) 2065-2069.
//!
//! Few counts do not determine every crystal, so with blocks `s_i = c(position in the block)·f(block)·u_i`: `c` and `u`
//! have gamma priors of mean 1, whose weight in counts is how many it takes to believe a deviation; `f`, the flux of
//! singles into a block, is free. The efficiency of a crystal is `c·u`: `f` depends on where the activity was, so
//! efficiencies that whole blocks share are not seen, except none at all.
//!
//! The update of one group of factors, all others held, is a majorise-minimise step (K. Lange, D. R. Hunter, I. Yang,
//! "Optimization transfer using surrogate objective functions", J. Comput. Graph. Stat. 9 (2000) 1-20): by
//! `s_a s_b ≤ (s_b° s_a²/s_a° + s_a° s_b²/s_b°)/2` it is `c ← c·√((T_c + κ)/(M_c + κc))` with
//! `M_c = Σ_{i in c} s_i Σ_j s_j`, which never lowers the posterior.

use crate::entry::non_negative;
use crate::error::{Error, Result};
use allpet_core::CylindricalScanner;
use ndarray::{Array2, ArrayView2};

/// Weight of the prior of a position in the block: positions differ by about 7 % (1/0.07²).
const POSITION_PRIOR: f64 = 200.0;
/// Weight of the prior of a crystal: summed over rings, crystals of one position differ by about 2 % (1/0.02²).
const CRYSTAL_PRIOR: f64 = 2500.0;
/// A block without counts is dead where the others have as many as this on average.
const DEAD_BLOCK: f64 = 20.0;
/// Largest relative change of any `s` at which the fit ends.
const TOLERANCE: f64 = 1e-7;
/// Steps after which it ends in any case.
const STEPS: usize = 2000;

/// How crystals are grouped around the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocks {
    /// Crystal positions from one block to the next, the gap included.
    pub period: usize,
    /// The position `crystal mod period` without a crystal, if there is one.
    pub gap: Option<usize>,
}

impl Blocks {
    /// The Siemens Biograph mMR: blocks of 8 crystals and one empty position, which is position 0 in the numbering of
    /// [`CrystalPairs`].
    pub fn mmr() -> Self {
        Self {
            period: 9,
            gap: Some(0),
        }
    }

    /// The blocks of a scanner where they are known: the mMR by its crystals and rings, else nothing.
    pub fn of(scanner: &CylindricalScanner) -> Option<Self> {
        let mmr = CylindricalScanner::mmr();
        (scanner.crystals == mmr.crystals && scanner.rings == mmr.rings).then(Self::mmr)
    }

    /// Whether there is no crystal at this place.
    pub fn is_gap(&self, crystal: usize) -> bool {
        self.gap.is_some_and(|gap| crystal % self.period.max(1) == gap)
    }

    fn validate(&self, crystals: usize) -> Result<()> {
        let fault = |what, expected, got: usize| {
            Err(Error::Setting {
                what,
                expected,
                got: got as f64,
            })
        };
        if self.period == 0 || !crystals.is_multiple_of(self.period) {
            return fault("period of the blocks", "a divisor of the crystals", self.period);
        }
        match self.gap {
            Some(gap) if gap >= self.period => fault("gap", "less than the period of the blocks", gap),
            Some(_) if self.period == 1 => {
                fault("period of the blocks", "at least 2 with a gap", self.period)
            }
            _ => Ok(()),
        }
    }
}

/// Which two crystals each bin of an interleaved sinogram `[crystals/2, bins]` joins.
///
/// With `m = bin - bins/2`, bin `(v, m)` joins `v + ⌊m/2⌋` and `v + crystals/2 - ⌈m/2⌉`, modulo `crystals`: the chord at
/// `s = R·sin(mπ/crystals)` of view `v`, or half a view before it for odd `m`. Crystal `i` stands at the angle
/// `2πi/crystals - π/2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrystalPairs {
    crystals: usize,
    bins: usize,
}

impl CrystalPairs {
    /// The pairs of a ring of `crystals` positions, gaps included, in sinograms of `crystals/2` views and `bins` bins.
    ///
    /// # Errors
    /// Crystals that are not an even number of at least 4; no bins, or as many as crystals.
    pub fn new(crystals: usize, bins: usize) -> Result<Self> {
        let fault = |what, expected, got: usize| {
            Err(Error::Setting {
                what,
                expected,
                got: got as f64,
            })
        };
        if crystals < 4 || !crystals.is_multiple_of(2) {
            return fault("number of crystals", "an even number of at least 4", crystals);
        }
        if bins == 0 || bins >= crystals {
            return fault(
                "number of radial bins",
                "at least 1 and less than the crystals",
                bins,
            );
        }
        Ok(Self { crystals, bins })
    }

    /// The pairs of a scanner's sinogram; errors as [`CrystalPairs::new`].
    pub fn of(scanner: &CylindricalScanner) -> Result<Self> {
        Self::new(scanner.crystals, scanner.bins)
    }

    /// Crystal positions in the ring.
    pub fn crystals(&self) -> usize {
        self.crystals
    }

    /// `[views, bins]` of the sinogram, before arc correction.
    pub fn shape(&self) -> [usize; 2] {
        [self.crystals / 2, self.bins]
    }

    /// The two crystals of a bin; views beyond the last go on around the ring.
    pub fn pair(&self, view: usize, bin: usize) -> (usize, usize) {
        let crystals = self.crystals as i64;
        let (v, m) = ((view % self.crystals) as i64, bin as i64 - (self.bins / 2) as i64);
        let half = m.div_euclid(2);
        let a = (v + half).rem_euclid(crystals);
        // ⌈m/2⌉ = m - ⌊m/2⌋
        let b = (v + crystals / 2 - (m - half)).rem_euclid(crystals);
        (a as usize, b as usize)
    }

    /// Refuses counts where a gap says that there can be none: the blocks lie elsewhere, or are none of this scanner's.
    ///
    /// # Errors
    /// [`Error::GapCounts`], naming the first such bin; another shape; blocks that do not divide the ring.
    pub fn check_gaps(&self, counts: ArrayView2<'_, f32>, blocks: Blocks) -> Result<()> {
        blocks.validate(self.crystals)?;
        self.fits(counts)?;
        let of_gap = |view, bin| {
            let (a, b) = self.pair(view, bin);
            blocks.is_gap(a) || blocks.is_gap(b)
        };
        let mut wrong = counts
            .indexed_iter()
            .filter(|&((view, bin), &n)| n != 0.0 && of_gap(view, bin));
        match wrong.next() {
            None => Ok(()),
            Some(((view, bin), &value)) => Err(Error::GapCounts {
                view,
                bin,
                value: f64::from(value),
            }),
        }
    }

    fn fits(&self, counts: ArrayView2<'_, f32>) -> Result<()> {
        if counts.shape() == self.shape() {
            return Ok(());
        }
        Err(Error::Shape {
            what: "counts",
            expected: format!("{:?}", self.shape()),
            got: counts.shape().to_vec(),
        })
    }
}

/// What delayeds tell of a ring's crystals; see [`estimate_efficiencies`].
#[derive(Debug, Clone, PartialEq)]
pub struct Efficiencies {
    pairs: CrystalPairs,
    crystals: Vec<f64>,
    singles: Vec<f64>,
}

impl Efficiencies {
    /// The efficiency of every crystal position, of mean 1 where there is one; 0 for gaps and what is dead.
    pub fn crystals(&self) -> &[f64] {
        &self.crystals
    }

    /// Efficiencies of the bins `[view, bin]`, the products of their crystals': of mean 1 over bins that have one, 0 for
    /// gaps. Not arc-corrected; see [`crate::arc_correct_efficiencies`].
    pub fn sinogram(&self) -> Array2<f32> {
        let products = self.products(&self.crystals);
        let live = products.iter().filter(|&&n| n > 0.0).count();
        let mean = products.sum() / live.max(1) as f64;
        products.mapv(|n| if mean > 0.0 { (n / mean) as f32 } else { 0.0 })
    }

    /// Mean delayeds `s_a s_b` of the bins `[view, bin]`: a background with far less noise than the delayeds themselves,
    /// of the same sum. In counts, as they were given; not arc-corrected.
    pub fn randoms(&self) -> Array2<f32> {
        self.products(&self.singles).mapv(|r| r as f32)
    }

    fn products(&self, of: &[f64]) -> Array2<f64> {
        Array2::from_shape_fn(self.pairs.shape(), |(view, bin)| {
            let (a, b) = self.pairs.pair(view, bin);
            of[a] * of[b]
        })
    }
}

/// Crystal efficiencies from the delayeds `[view, bin]` of a scan, summed over planes and not arc-corrected.
///
/// With `blocks` any number of counts will do: where there are few, crystals of one position, then all positions are
/// taken as alike, and gaps remain gaps. Without, every crystal stands for itself, one without counts is dead, and
/// efficiencies contain the flux of singles.
///
/// ```
/// use allpet_radon::{Blocks, CrystalPairs, estimate_efficiencies};
///
/// let pairs = CrystalPairs::new(36, 19)?;
/// let blocks = Blocks { period: 9, gap: Some(4) };
/// let delayeds = ndarray::Array2::from_shape_fn(pairs.shape(), |(view, bin)| {
///     let (a, b) = pairs.pair(view, bin);
///     if blocks.is_gap(a) || blocks.is_gap(b) { 0.0 } else { 25.0 }
/// });
/// let found = estimate_efficiencies(delayeds.view(), &pairs, Some(blocks))?;
/// assert!(found.crystals()[4] == 0.0 && (found.crystals()[5] - 1.0).abs() < 1e-6);
/// assert!((found.randoms()[[0, 9]] - delayeds[[0, 9]]).abs() < 1e-3);
/// # Ok::<(), allpet_radon::Error>(())
/// ```
///
/// # Errors
/// Another shape than the pairs'; negative or not finite counts; blocks that do not divide the ring; counts in a gap
/// ([`Error::GapCounts`]); no counts at all without blocks.
pub fn estimate_efficiencies(
    delayeds: ArrayView2<'_, f32>,
    pairs: &CrystalPairs,
    blocks: Option<Blocks>,
) -> Result<Efficiencies> {
    pairs.fits(delayeds)?;
    non_negative("delayeds", delayeds.into_dyn())?;
    if let Some(blocks) = blocks {
        pairs.check_gaps(delayeds, blocks)?;
    }
    let is_gap = |crystal: usize| blocks.is_some_and(|b| b.is_gap(crystal));
    let mut fans = Fans {
        pairs: Vec::with_capacity(delayeds.len()),
        counts: vec![0.0; pairs.crystals],
    };
    for ((view, bin), &n) in delayeds.indexed_iter() {
        let (a, b) = pairs.pair(view, bin);
        if is_gap(a) || is_gap(b) {
            continue;
        }
        fans.pairs.push((a, b));
        fans.counts[a] += f64::from(n);
        fans.counts[b] += f64::from(n);
    }
    let total: f64 = fans.counts.iter().sum::<f64>() / 2.0;
    if blocks.is_none() && total == 0.0 {
        return Err(Error::Setting {
            what: "number of delayeds",
            expected: "at least 1 without blocks",
            got: 0.0,
        });
    }
    // √(counts per pair): the rate of every crystal if all were alike.
    let rate = (total / fans.pairs.len().max(1) as f64).sqrt();
    let (period, crystals) = (blocks.map_or(1, |b| b.period), pairs.crystals);
    let live: Vec<f64> = (0..crystals).map(|i| f64::from(u8::from(!is_gap(i)))).collect();
    let group = |of: &dyn Fn(usize) -> usize, groups: usize, prior: f64, start: f64| Factors {
        group: (0..crystals).map(of).collect(),
        values: vec![start; groups],
        prior,
    };
    let mut flux = group(&|i| i / period, crystals / period, 0.0, rate);
    if blocks.is_none() {
        fit(&fans, &live, &mut flux, &mut []);
        let efficiencies = of_mean_1(&flux.values);
        return Ok(Efficiencies {
            pairs: *pairs,
            crystals: efficiencies,
            singles: flux.values,
        });
    }
    let mut own = [
        group(&|i| i % period, period, POSITION_PRIOR, 1.0),
        group(&|i| i, crystals, CRYSTAL_PRIOR, 1.0),
    ];
    let singles = fit(&fans, &live, &mut flux, &mut own);
    let busy = 2.0 * total >= DEAD_BLOCK * flux.values.len() as f64;
    let efficiencies: Vec<f64> = (0..crystals)
        .map(|i| {
            let dead = busy && flux.of(i) == 0.0;
            let own: f64 = own.iter().map(|factors| factors.of(i)).product();
            if dead { 0.0 } else { live[i] * own }
        })
        .collect();
    Ok(Efficiencies {
        pairs: *pairs,
        crystals: of_mean_1(&efficiencies),
        singles,
    })
}

/// The pairs of live crystals, and the counts of all pairs of each crystal.
struct Fans {
    pairs: Vec<(usize, usize)>,
    counts: Vec<f64>,
}

impl Fans {
    /// `Σ_j s_j` over the partners `j` of every crystal.
    fn partners(&self, singles: &[f64]) -> Vec<f64> {
        let mut sums = vec![0.0; singles.len()];
        for &(a, b) in &self.pairs {
            sums[a] += singles[b];
            sums[b] += singles[a];
        }
        sums
    }
}

/// Factors that groups of crystals share.
struct Factors {
    group: Vec<usize>,
    values: Vec<f64>,
    prior: f64,
}

impl Factors {
    fn of(&self, crystal: usize) -> f64 {
        self.values[self.group[crystal]]
    }

    /// `c ← c·√((T_c + κ)/(M_c + κc))`.
    fn update(&mut self, fans: &Fans, singles: &[f64]) {
        let mut counted = vec![self.prior; self.values.len()];
        let mut expected: Vec<f64> = self.values.iter().map(|c| self.prior * c).collect();
        for (i, partners) in fans.partners(singles).into_iter().enumerate() {
            counted[self.group[i]] += fans.counts[i];
            expected[self.group[i]] += singles[i] * partners;
        }
        for (c, (counted, expected)) in self.values.iter_mut().zip(counted.iter().zip(&expected)) {
            if *expected > 0.0 {
                *c *= (counted / expected).sqrt();
            }
        }
    }

    /// Their mean over the live crystals of each block becomes 1 and the flux takes it: the counts do not feel the
    /// exchange, and the prior is highest there. For groups whose first member is the crystal of the group's number:
    /// positions, which have one mean for all blocks, and single crystals.
    fn give_mean(&mut self, flux: &mut Factors, live: &[f64]) {
        let mut sums = vec![(0.0, 0.0); flux.values.len()];
        for (i, weight) in live.iter().enumerate() {
            let (sum, members) = &mut sums[flux.group[i]];
            *sum += weight * self.of(i);
            *members += weight;
        }
        let mean = |block: usize| match sums[block] {
            (sum, members) if sum > 0.0 => sum / members,
            _ => 1.0,
        };
        for (block, value) in flux.values.iter_mut().enumerate() {
            *value *= mean(block);
        }
        for (number, value) in self.values.iter_mut().enumerate() {
            *value /= mean(flux.group[number]);
        }
    }
}

/// Maximises over all factors and returns `s`.
fn fit(fans: &Fans, live: &[f64], flux: &mut Factors, own: &mut [Factors]) -> Vec<f64> {
    let product = |flux: &Factors, own: &[Factors]| -> Vec<f64> {
        let of = |i: usize| live[i] * flux.of(i) * own.iter().map(|f| f.of(i)).product::<f64>();
        (0..live.len()).map(of).collect()
    };
    let mut singles = product(flux, own);
    for _ in 0..STEPS {
        let before = singles.clone();
        flux.update(fans, &singles);
        for index in 0..own.len() {
            singles = product(flux, own);
            own[index].update(fans, &singles);
            own[index].give_mean(flux, live);
        }
        singles = product(flux, own);
        let settled = |(new, old): (&f64, &f64)| (new - old).abs() <= TOLERANCE * old.abs();
        if singles.iter().zip(&before).all(settled) {
            break;
        }
    }
    singles
}

/// Divided by their mean over those that are not 0.
fn of_mean_1(values: &[f64]) -> Vec<f64> {
    let live = values.iter().filter(|&&v| v > 0.0).count();
    let mean = values.iter().sum::<f64>() / live.max(1) as f64;
    let scale = if mean > 0.0 { 1.0 / mean } else { 0.0 };
    values.iter().map(|v| v * scale).collect()
}
