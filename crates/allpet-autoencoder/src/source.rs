//! Batches of `C_all` with masks drawn anew for every sample and step (RMAS and DMM), a function of the step alone.

use crate::error::{Error, Result, all_faults};
use crate::intensity::Intensity;
use allpet_core::{Dataset, ParallelGeometry, Prompt, stream};
use allpet_mask::{MaskConfig, MaskGenerator};
use allpet_train::{BoxError, Source};
use candle_core::{Device, Tensor};
use ndarray::{ArrayView3, Ix3};
use rand::Rng;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How samples are varied on the way into a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Augmentation {
    /// The masks; the mask image covers the sinogram's field of view.
    pub masks: MaskConfig,
    /// Fraction of samples with an empty mask: `C_pos = 0`, `C_neg = S`.
    pub empty: f64,
    /// Largest rotation of the object in degrees, exact in whole views; arcs of 180° and 360° only.
    pub rotate_deg: f64,
}

impl Augmentation {
    /// For sinograms of `geometry`: 1 to 4 blocks with sides of a sixteenth to a quarter of the field.
    pub fn for_geometry(geometry: &ParallelGeometry) -> Self {
        let size = geometry.bins;
        let masks = MaskConfig {
            size,
            pixel_mm: geometry.bin_mm,
            block: ((size / 16).max(1), (size / 4).max(1)),
            blocks: (1, 4),
            square: false,
            ..MaskConfig::default()
        };
        Self {
            masks,
            empty: 0.25,
            rotate_deg: 5.0,
        }
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        if !(0.0..=1.0).contains(&self.empty) {
            faults.push(format!("fraction of empty masks {}; expected 0 to 1", self.empty));
        }
        if !(self.rotate_deg >= 0.0 && self.rotate_deg <= 180.0) {
            faults.push(format!("rotation of {}°; expected 0 to 180", self.rotate_deg));
        }
        all_faults("augmentation", faults)?;
        Ok(self.masks.validate()?)
    }
}

/// One batch.
#[derive(Debug, Clone)]
pub struct CAllBatch {
    /// `[B, 3, V, R]`, intensities coded.
    pub c_all: Tensor,
    /// Normalised masks `[B, 1, V, R]`.
    pub mask: Tensor,
    /// What each sample shows.
    pub prompts: Vec<Prompt>,
}

/// Sinograms in memory, given out in batches.
#[derive(Debug)]
pub struct SinogramSource {
    sinograms: Vec<f32>,
    scales: Vec<f32>,
    prompts: Vec<Prompt>,
    geometry: ParallelGeometry,
    generator: MaskGenerator,
    augmentation: Augmentation,
    intensity: Intensity,
    batch: usize,
    seed: u64,
    device: Device,
}

impl SinogramSource {
    /// From the `target` sinograms of datasets that share `geometry`.
    ///
    /// # Errors
    /// No data, another geometry, a sinogram that is empty; settings outside their range.
    pub fn new(
        data: &[Dataset],
        geometry: &ParallelGeometry,
        augmentation: &Augmentation,
        intensity: Intensity,
        batch: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self> {
        augmentation.validate()?;
        intensity.validate()?;
        let generator = MaskGenerator::new(augmentation.masks.clone(), *geometry)?;
        let mut source = Self {
            sinograms: Vec::new(),
            scales: Vec::new(),
            prompts: Vec::new(),
            geometry: *geometry,
            generator,
            augmentation: augmentation.clone(),
            intensity,
            batch: batch.max(1),
            seed,
            device: device.clone(),
        };
        for set in data {
            source.extend(set)?;
        }
        if source.scales.is_empty() {
            return Err(Error::Invalid {
                what: "training data",
                faults: vec!["no sinograms".into()],
            });
        }
        Ok(source)
    }

    fn extend(&mut self, set: &Dataset) -> Result<()> {
        set.validate()?;
        let describe = |g: &ParallelGeometry| {
            format!(
                "{} views x {} bins of {} mm over {}°",
                g.views,
                g.bins,
                g.bin_mm,
                g.arc_rad.to_degrees()
            )
        };
        if let Some(found) = set.geometry.filter(|g| *g != self.geometry) {
            return Err(Error::Mismatch {
                what: "geometry of the data".into(),
                expected: describe(&self.geometry),
                got: describe(&found),
            });
        }
        let target: ArrayView3<'_, f32> =
            set.array("target")?
                .view()
                .into_dimensionality::<Ix3>()
                .map_err(|_| Error::Mismatch {
                    what: "array `target`".into(),
                    expected: "[samples, views, bins]".into(),
                    got: format!("{:?}", set.arrays["target"].shape()),
                })?;
        let (n, views, bins) = target.dim();
        if (views, bins) != (self.geometry.views, self.geometry.bins) {
            return Err(Error::Mismatch {
                what: "sinograms".into(),
                expected: describe(&self.geometry),
                got: format!("{views} views x {bins} bins"),
            });
        }
        for (i, sinogram) in target.outer_iter().enumerate() {
            let first = self.sinograms.len();
            self.sinograms.extend(sinogram.iter().map(|v| v.max(0.0)));
            let scale = self
                .intensity
                .scale(&self.sinograms[first..])
                .map_err(|e| Error::Mismatch {
                    what: format!("sample {i} of {n}"),
                    expected: "a sinogram with counts".into(),
                    got: e.to_string(),
                })?;
            self.scales.push(scale);
        }
        match set.prompts.is_empty() {
            true => self.prompts.resize(self.scales.len(), Prompt::default()),
            false => self.prompts.extend(&set.prompts),
        }
        Ok(())
    }

    /// Number of sinograms.
    pub fn len(&self) -> usize {
        self.scales.len()
    }

    /// Never true: an empty source is an error.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// What each sinogram shows.
    pub fn prompts(&self) -> &[Prompt] {
        &self.prompts
    }

    /// The scale of each sinogram (see [`Intensity`]).
    pub fn scales(&self) -> &[f32] {
        &self.scales
    }

    /// The device batches are put on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Batch `step`: samples in shuffled epochs, each with its own mask and rotation.
    pub fn draw(&self, step: u64) -> Result<CAllBatch> {
        let n = self.len();
        let [views, bins] = self.geometry.shape();
        let size = views * bins;
        let mut c_all = vec![0f32; self.batch * 3 * size];
        let mut masks = vec![0f32; self.batch * size];
        let mut prompts = Vec::with_capacity(self.batch);
        let mut order = (u64::MAX, Vec::new());
        let slots = c_all
            .chunks_exact_mut(3 * size)
            .zip(masks.chunks_exact_mut(size))
            .enumerate();
        for (slot, (channels, mask)) in slots {
            let drawn = step * self.batch as u64 + slot as u64;
            let epoch = drawn / n as u64;
            if order.0 != epoch {
                let mut shuffled: Vec<usize> = (0..n).collect();
                shuffled.shuffle(&mut stream(self.seed, "epoch", epoch));
                order = (epoch, shuffled);
            }
            let index = order.1[(drawn % n as u64) as usize];
            let mut random = stream(self.seed, "augmentation", drawn);
            if random.random::<f64>() >= self.augmentation.empty {
                self.generator.mask_into(self.seed, drawn, mask)?;
            }
            let most = (self.augmentation.rotate_deg.to_radians() / self.view_step()).round() as i64;
            let shift = if most > 0 && self.turns() {
                random.random_range(-most..=most)
            } else {
                0
            };
            self.place(index, shift, mask, channels);
            prompts.push(self.prompts[index]);
        }
        Ok(CAllBatch {
            c_all: Tensor::from_vec(c_all, (self.batch, 3, views, bins), &self.device)?,
            mask: Tensor::from_vec(masks, (self.batch, 1, views, bins), &self.device)?,
            prompts,
        })
    }

    fn view_step(&self) -> f64 {
        self.geometry.arc_rad / self.geometry.views as f64
    }

    /// Views wrap round: half a turn onto mirrored bins, a whole turn onto themselves.
    fn turns(&self) -> bool {
        let half = (self.geometry.arc_rad - PI).abs() < 1e-9 && self.geometry.offset_bins == 0.0;
        half || (self.geometry.arc_rad - 2.0 * PI).abs() < 1e-9
    }

    /// Writes the coded channels of sinogram `index`, its object turned by `shift` views:
    /// `p(θ + π, s) = p(θ, -s)` closes the half turn.
    fn place(&self, index: usize, shift: i64, mask: &[f32], channels: &mut [f32]) {
        let [views, bins] = self.geometry.shape();
        let size = views * bins;
        let sinogram = &self.sinograms[index * size..][..size];
        let scale = self.scales[index];
        let half_turn = self.geometry.arc_rad < 1.5 * PI;
        let (positive, rest) = channels.split_at_mut(size);
        let (full, negative) = rest.split_at_mut(size);
        for view in 0..views {
            let turned = view as i64 - shift;
            let mirrored = half_turn && turned.div_euclid(views as i64) % 2 != 0;
            let from = &sinogram[turned.rem_euclid(views as i64) as usize * bins..][..bins];
            for bin in 0..bins {
                let at = view * bins + bin;
                let value = from[if mirrored { bins - 1 - bin } else { bin }];
                let m = mask[at];
                positive[at] = self.intensity.encode(m * value, scale);
                full[at] = self.intensity.encode(value, scale);
                negative[at] = self.intensity.encode((1.0 - m) * value, scale);
            }
        }
    }
}

impl Source for SinogramSource {
    type Batch = CAllBatch;

    fn batch(&self, step: u64) -> std::result::Result<CAllBatch, BoxError> {
        Ok(self.draw(step)?)
    }
}
