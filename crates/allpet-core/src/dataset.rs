//! A dataset in memory: named arrays, one subject and one prompt per sample, the geometry of its sinograms.

use crate::error::{Error, Result, all_faults};
use crate::{ParallelGeometry, Prompt, check_finite};
use ndarray::{ArrayD, Axis};
use std::collections::BTreeMap;

/// Named arrays with a common leading sample axis.
///
/// Names in use: `input`, `target` (sinograms `[n, view, radial]`), `image` (`[n, row, col]`), `attenuation`
/// (images in cm⁻¹). `allpet-io` reads and writes it as safetensors.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dataset {
    /// The arrays, sorted by name; axis 0 is the sample.
    pub arrays: BTreeMap<String, ArrayD<f32>>,
    /// The subject each sample comes from; splits go by subject, never by sample.
    pub subjects: Vec<u32>,
    /// What each sample shows.
    pub prompts: Vec<Prompt>,
    /// The geometry of the sinograms.
    pub geometry: Option<ParallelGeometry>,
    /// Anything else worth keeping: seed, command, units.
    pub metadata: BTreeMap<String, String>,
}

impl Dataset {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.subjects.len()
    }

    /// True when there is no sample.
    pub fn is_empty(&self) -> bool {
        self.subjects.is_empty()
    }

    /// An array by name.
    ///
    /// # Errors
    /// [`Error::UnknownWord`] listing the names there are.
    pub fn array(&self, name: &str) -> Result<&ArrayD<f32>> {
        self.arrays.get(name).ok_or_else(|| Error::UnknownWord {
            what: "array",
            word: name.to_owned(),
            known: self.arrays.keys().cloned().collect::<Vec<_>>().join(", "),
        })
    }

    /// Lengths agree, sinograms fit the geometry, every value is finite.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        let n = self.subjects.len();
        if !self.prompts.is_empty() && self.prompts.len() != n {
            faults.push(format!(
                "{} prompts for {n} subjects; expected one each",
                self.prompts.len()
            ));
        }
        for (name, array) in &self.arrays {
            if array.shape().first() != Some(&n) {
                faults.push(format!(
                    "`{name}` has shape {:?}; expected {n} samples on axis 0",
                    array.shape()
                ));
            }
            if let (true, Some(g)) = (name == "input" || name == "target", &self.geometry)
                && !array.shape().ends_with(&g.shape())
            {
                faults.push(format!(
                    "`{name}` has shape {:?}; its geometry says {} views x {} bins",
                    array.shape(),
                    g.views,
                    g.bins
                ));
            }
        }
        if let Some(Err(Error::Invalid { faults: inner, .. })) = self.geometry.as_ref().map(|g| g.validate())
        {
            faults.extend(inner);
        }
        all_faults("dataset", faults)?;
        for (name, array) in &self.arrays {
            check_finite(name, array.view())?;
        }
        Ok(())
    }

    /// The samples at `places`, in that order, as a dataset of their own.
    ///
    /// # Errors
    /// Places beyond the last sample; what [`Dataset::validate`] says of lengths.
    pub fn select(&self, places: &[usize]) -> Result<Self> {
        self.validate()?;
        let n = self.len();
        let beyond = places.iter().find(|place| **place >= n);
        let fault = beyond.map(|place| format!("sample {place} of {n}; expected one below {n}"));
        all_faults("selection", fault.into_iter().collect())?;
        let select = |array: &ArrayD<f32>| array.select(Axis(0), places);
        Ok(Self {
            arrays: self
                .arrays
                .iter()
                .map(|(name, array)| (name.clone(), select(array)))
                .collect(),
            subjects: places.iter().map(|place| self.subjects[*place]).collect(),
            prompts: match self.prompts.is_empty() {
                true => Vec::new(),
                false => places.iter().map(|place| self.prompts[*place]).collect(),
            },
            geometry: self.geometry,
            metadata: self.metadata.clone(),
        })
    }

    /// The distinct subjects, sorted.
    pub fn distinct_subjects(&self) -> Vec<u32> {
        let mut all = self.subjects.clone();
        all.sort_unstable();
        all.dedup();
        all
    }
}
