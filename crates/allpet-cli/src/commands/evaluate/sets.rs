//! Metrics of sets: all candidates against all references, through features of the images.

use super::figures::{Figures, digits, figures_of, interval, shown, summary};
use super::input::stack;
use super::metric::Metric;
use crate::fault::Result;
use allpet::metrics::distribution::{
    Inception, InceptionFeatures, InceptionScoreSettings, KernelSettings, RandomFeatures,
    frechet_distance_of, inception_score, kernel_distance, nearest_neighbours, precision_recall,
};
use ndarray::{Array2, ArrayViewD};
use serde_json::json;

/// Neighbours that set the radius of a ball in precision and recall, as published.
const NEIGHBOURS: usize = 3;
/// Most samples in a subset of the kernel distance, as published.
const KID_SUBSET: usize = 1000;
/// A share of clipped pixels above this is said.
const CLIPPED: f64 = 0.01;

/// Features `[image, feature]` of both sets, and what to say of figures that stand on them.
#[derive(Debug)]
pub(super) struct Features {
    pub(super) candidate: Array2<f64>,
    pub(super) reference: Array2<f64>,
    /// What the figures compare with, or that they compare with none.
    pub(super) label: String,
    /// How many there are and where they come from.
    pub(super) origin: String,
    /// What the seed draws.
    pub(super) drawn: &'static str,
    /// Seed of the subsets of the kernel distance, of the splits of the inception score and of the bootstrap.
    pub(super) seed: u64,
    /// Where the features are those of an Inception network.
    pub(super) inception: Option<OfInception>,
}

/// What an Inception network says besides its features.
#[derive(Debug)]
pub(super) struct OfInception {
    /// Logits `[image, class]`.
    candidate_logits: Array2<f32>,
    reference_logits: Array2<f32>,
    /// Shares of the pixels outside the data range.
    pub(super) candidate_clipped: f64,
    pub(super) reference_clipped: f64,
}

impl Features {
    /// Seeded random features of images `[.., row, col]`.
    pub(super) fn random(
        candidate: ArrayViewD<'_, f32>,
        reference: ArrayViewD<'_, f32>,
        range: f64,
        seed: u64,
    ) -> Result<Self> {
        let bank = RandomFeatures::new(seed);
        let features = |images: ArrayViewD<'_, f32>| -> Result<Array2<f64>> {
            Ok(bank.extract(stack(images)?.view(), range)?)
        };
        Ok(Self {
            candidate: features(candidate)?,
            reference: features(reference)?,
            label: RandomFeatures::LABEL.to_owned(),
            origin: format!("{} features, seed {seed}", RandomFeatures::COUNT),
            drawn: "features and subsets",
            seed,
            inception: None,
        })
    }

    /// Those of an Inception network, with the label that names it.
    pub(super) fn inception(
        candidate: InceptionFeatures,
        reference: InceptionFeatures,
        label: String,
        seed: u64,
    ) -> Self {
        Self {
            candidate: candidate.features.mapv(f64::from),
            reference: reference.features.mapv(f64::from),
            label,
            origin: format!("{} features", Inception::FEATURES),
            drawn: "subsets and splits",
            seed,
            inception: Some(OfInception {
                candidate_logits: candidate.logits,
                reference_logits: reference.logits,
                candidate_clipped: candidate.clipped,
                reference_clipped: reference.clipped,
            }),
        }
    }

    /// What to say of pixels outside the data range, which the network never sees, where there are many.
    pub(super) fn clipped(&self) -> Option<String> {
        let of = self.inception.as_ref()?;
        let (x, y) = (of.candidate_clipped, of.reference_clipped);
        (x.max(y) > CLIPPED).then(|| {
            format!(
                "clipped to 0..=R: {} % of the candidates' pixels, {} % of the references'; expected a data range that \
                 holds nearly all",
                digits(100.0 * x, 3),
                digits(100.0 * y, 3)
            )
        })
    }

    /// Measures one metric of sets; nothing where the metric is one of pairs.
    pub(super) fn measure(&self, metric: Metric, figures: &mut Figures) -> Result<()> {
        match metric {
            Metric::Fid => self.fid(figures),
            Metric::Kid => self.kid(figures),
            Metric::Is => self.inception_score(figures),
            Metric::PrecisionRecall => self.precision_recall(figures),
            Metric::Nearest => self.nearest(figures),
            _ => Ok(()),
        }
    }

    fn fid(&self, figures: &mut Figures) -> Result<()> {
        let frechet = frechet_distance_of(self.candidate.view(), self.reference.view())?;
        figures.add_labelled(
            "fid",
            &self.label,
            json!({
                "value": frechet.distance,
                "mean_term": frechet.mean_term,
                "covariance_term": frechet.covariance_term,
                "samples": frechet.samples,
                "features": frechet.features,
                "singular_covariance": frechet.is_singular(),
            }),
        );
        let convention = match frechet.is_singular() {
            true => "Fréchet; fewer images than features, biased upwards: see kid",
            false => "Fréchet",
        };
        figures.row("fid", digits(frechet.distance, 6), String::new(), convention);
        Ok(())
    }

    fn kid(&self, figures: &mut Figures) -> Result<()> {
        let (x, y) = (self.candidate.view(), self.reference.view());
        // Half of the smaller set: subsets nearly as large would share most samples, and their spread would say
        // little.
        let settings = KernelSettings {
            subset_size: (x.nrows().min(y.nrows()) / 2).clamp(2, KID_SUBSET),
            seed: self.seed,
            ..KernelSettings::default()
        };
        let kernel = kernel_distance(x, y, &settings)?;
        figures.add_labelled(
            "kid",
            &self.label,
            json!({
                "mean": kernel.mean,
                "sd": kernel.sd,
                "subsets": kernel.subsets,
                "subset_size": kernel.subset_size,
            }),
        );
        figures.row(
            "kid",
            format!("{} ± {}", digits(kernel.mean, 6), digits(kernel.sd, 3)),
            String::new(),
            &format!(
                "(x·y/d + 1)³, unbiased; ± over {} subsets of {}",
                kernel.subsets, kernel.subset_size
            ),
        );
        Ok(())
    }

    /// Of the candidates, and of the references where there are enough, which tells what true images reach.
    fn inception_score(&self, figures: &mut Figures) -> Result<()> {
        let Some(of) = &self.inception else {
            return Ok(());
        };
        let settings = InceptionScoreSettings {
            shuffle: Some(self.seed),
            ..InceptionScoreSettings::default()
        };
        let candidate = inception_score(of.candidate_logits.view(), &settings)?;
        let reference = match of.reference_logits.nrows() < settings.splits {
            true => None,
            false => Some(inception_score(of.reference_logits.view(), &settings)?),
        };
        figures.add_labelled(
            "is",
            &self.label,
            json!({
                "mean": candidate.mean,
                "sd": candidate.sd,
                "splits": candidate.splits,
                "reference": reference.map(|r| json!({ "mean": r.mean, "sd": r.sd })),
            }),
        );
        let rows = [
            ("is", Some(candidate), of.candidate_logits.nrows()),
            ("is of reference", reference, of.reference_logits.nrows()),
        ];
        for (name, score, images) in rows {
            let Some(score) = score else { continue };
            figures.row(
                name,
                format!("{} ± {}", digits(score.mean, 6), digits(score.sd, 3)),
                String::new(),
                &format!(
                    "exp E KL(p(y|x)‖p(y)); ± over {} splits of up to {} images, which bounds it",
                    score.splits,
                    images.div_ceil(score.splits)
                ),
            );
        }
        Ok(())
    }

    fn precision_recall(&self, figures: &mut Figures) -> Result<()> {
        let shares = precision_recall(self.candidate.view(), self.reference.view(), NEIGHBOURS)?;
        figures.add_labelled(
            "precision-recall",
            &self.label,
            json!({
                "precision": shares.precision,
                "recall": shares.recall,
                "density": shares.density,
                "coverage": shares.coverage,
                "neighbours": shares.neighbours,
            }),
        );
        let balls = format!("balls reach to neighbour {NEIGHBOURS} of each image");
        for (name, value) in [
            ("precision", shares.precision),
            ("recall", shares.recall),
            ("density", shares.density),
            ("coverage", shares.coverage),
        ] {
            figures.row(name, digits(value, 4), String::new(), &balls);
        }
        Ok(())
    }

    fn nearest(&self, figures: &mut Figures) -> Result<()> {
        let neighbours = nearest_neighbours(self.candidate.view(), self.reference.view())?;
        let copies = neighbours.iter().filter(|n| n.distance == 0.0).count();
        let summary = summary(neighbours.iter().map(|n| n.relative), self.seed)?;
        let mut json = figures_of(&summary);
        json["convention"] = "distance over the norm of the reference".into();
        json["copies"] = copies.into();
        figures.add_labelled("nearest", &self.label, json);
        figures.row(
            "nearest",
            shown(&summary),
            interval(&summary),
            &format!(
                "distance over the norm of the reference; least {}, {}",
                digits(summary.min.unwrap_or_default(), 3),
                match copies {
                    1 => "1 copy".to_owned(),
                    many => format!("{many} copies"),
                }
            ),
        );
        figures.neighbours = Some(neighbours);
        Ok(())
    }
}
