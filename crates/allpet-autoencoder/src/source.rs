//! Batches of `C_all` with masks drawn anew for every sample and step (RMAS and DMM), a function of the step alone.

use crate::error::{Error, Result, all_faults};
use crate::intensity::Intensity;
use crate::sample::{Epochs, draw_turn, split, turn};
use allpet_core::{Dataset, ParallelGeometry, Prompt, stream};
use allpet_mask::{MaskConfig, MaskGenerator};
use allpet_train::{BoxError, Source};
use candle_core::{Device, Tensor};
use ndarray::{ArrayView3, Ix3};
use rand::Rng;
use serde::{Deserialize, Serialize};

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
        let mut epochs = Epochs::new(n, self.seed);
        let mut turned = vec![0f32; size];
        let slots = c_all
            .chunks_exact_mut(3 * size)
            .zip(masks.chunks_exact_mut(size))
            .enumerate();
        for (slot, (channels, mask)) in slots {
            let drawn = step * self.batch as u64 + slot as u64;
            let index = epochs.index(drawn);
            let mut random = stream(self.seed, "augmentation", drawn);
            if random.random::<f64>() >= self.augmentation.empty {
                self.generator.mask_into(self.seed, drawn, mask)?;
            }
            let shift = draw_turn(&self.geometry, self.augmentation.rotate_deg, &mut random);
            turn(
                &self.sinograms[index * size..][..size],
                &self.geometry,
                shift,
                &mut turned,
            );
            split(&turned, mask, self.scales[index], self.intensity, channels);
            prompts.push(self.prompts[index]);
        }
        Ok(CAllBatch {
            c_all: Tensor::from_vec(c_all, (self.batch, 3, views, bins), &self.device)?,
            mask: Tensor::from_vec(masks, (self.batch, 1, views, bins), &self.device)?,
            prompts,
        })
    }
}

impl Source for SinogramSource {
    type Batch = CAllBatch;

    fn batch(&self, step: u64) -> std::result::Result<CAllBatch, BoxError> {
        Ok(self.draw(step)?)
    }
}
