//! What the task networks minimise.

use crate::error::Result;
use crate::network::{Method, TaskNetwork};
use crate::pairs::PairBatch;
use allpet_autoencoder::Autoencoder;
use allpet_core::stream;
use allpet_diffusion::{
    BatchMoments, BridgeProcess, Conditioning, EndMoments, ForwardProcess, MomentSums, training,
};
use allpet_foundation::Statistics;
use allpet_nn::{mean_squared_error, without_gradients};
use allpet_train::{BoxError, Loss, Objective};
use candle_core::Tensor;
use rand::Rng;

/// Latents of a batch's first estimates and targets, `[B, C, V/f, R/f]`, brought to the spread of the foundation's.
pub(crate) fn latents(
    batch: &PairBatch,
    autoencoder: &Autoencoder,
    statistics: &Statistics,
) -> Result<(Tensor, Tensor)> {
    without_gradients(|| {
        let latent = |c_all: &Tensor| -> Result<Tensor> {
            Ok(statistics
                .normalise(&autoencoder.encode(c_all)?.mean.detach())?
                .detach())
        };
        Ok((latent(&batch.first)?, latent(&batch.target)?))
    })
}

/// Moments of both ends of the bridge for every kind of pair, over batches of a source.
pub(crate) fn measure_moments(
    kinds: usize,
    batches: impl Iterator<Item = Result<PairBatch>>,
    autoencoder: &Autoencoder,
    statistics: &Statistics,
) -> Result<Vec<EndMoments>> {
    let mut sums = vec![MomentSums::default(); kinds];
    for batch in batches {
        let batch = batch?;
        let (first, target) = latents(&batch, autoencoder, statistics)?;
        for (i, kind) in batch.kinds.iter().enumerate() {
            sums[*kind].add(&target.narrow(0, i, 1)?, &first.narrow(0, i, 1)?)?;
        }
    }
    sums.iter().map(|sums| Ok(sums.finish()?)).collect()
}

/// Mean squared error of the bridge's network against its preconditioned target (`c_out^-2·‖D - x_0‖²` in every channel).
#[derive(Debug)]
pub struct BridgeObjective {
    /// What is trained.
    pub network: TaskNetwork,
    /// The autoencoder, frozen.
    pub autoencoder: Autoencoder,
    /// Spread of the latents.
    pub statistics: Statistics,
    /// The bridge.
    pub process: BridgeProcess,
    /// Moments of its ends, for every kind of pair.
    pub moments: Vec<EndMoments>,
    /// Fraction of the samples at `T` itself, where the network sees the input alone: the first evaluation of every walk,
    /// and the only one of a walk of one step. The others have `√t` uniform, as the sampler's grid has.
    pub terminal_fraction: f64,
    /// Seed of times and noise.
    pub seed: u64,
}

impl BridgeObjective {
    fn evaluate(&self, batch: &PairBatch, step: u64) -> Result<Loss> {
        let (terminal, clean) = latents(batch, &self.autoencoder, &self.statistics)?;
        let count = batch.prompts.len() as u64;
        let indices: Vec<u64> = (step * count..(step + 1) * count).collect();
        let (first, last) = (self.process.time_min(), self.process.terminal());
        let times: Vec<f64> = indices
            .iter()
            .map(|&index| {
                let mut random = stream(self.seed, "bridge time", index);
                let [at_terminal, unit]: [f64; 2] = std::array::from_fn(|_| random.random());
                let t = if at_terminal < self.terminal_fraction {
                    last
                } else {
                    (first.sqrt() + unit * (last.sqrt() - first.sqrt())).powi(2)
                };
                f64::from(t as f32).min(last)
            })
            .collect();
        let noise = training::draw_noise(self.seed, 0, &indices, &clean.dims()[1..], clean.device())?;
        let x = training::add_noise(&self.process, &clean, Some(&terminal), &times, &noise)?;
        let moments = BatchMoments::new(
            batch
                .kinds
                .iter()
                .map(|kind| self.moments[*kind].clone())
                .collect(),
        )?;
        let input = moments.input(&self.process, &x, &times)?;
        let level = moments.levels(&self.process, &times, x.device())?;
        let conditioning = Conditioning {
            terminal: Some(moments.terminal(&terminal)?),
            ..self
                .network
                .condition(&batch.prompts, &batch.mask, &batch.attention, &batch.input)?
        };
        let output = self.network.bridge(&input, &level, &conditioning)?;
        let target = moments.target(&self.process, &clean, &x, &terminal, &times)?;
        Ok(mean_squared_error(&output, &target)?.into())
    }
}

impl Objective for BridgeObjective {
    type Batch = PairBatch;

    fn loss(&self, batch: &PairBatch, step: u64) -> std::result::Result<Loss, BoxError> {
        Ok(self.evaluate(batch, step)?)
    }
}

/// Mean absolute error of the regression on coded sinograms.
#[derive(Debug)]
pub struct RegressionObjective {
    /// What is trained; of [`Method::Regression`].
    pub network: TaskNetwork,
}

impl RegressionObjective {
    fn evaluate(&self, batch: &PairBatch) -> Result<Loss> {
        debug_assert_eq!(self.network.method(), Method::Regression);
        let full = |c_all: &Tensor| -> Result<Tensor> { Ok(c_all.narrow(1, 1, 1)?.contiguous()?) };
        let restored = self
            .network
            .regress(&full(&batch.first)?, &batch.input, &batch.prompts)?;
        Ok((restored - full(&batch.target)?)?.abs()?.mean_all()?.into())
    }
}

impl Objective for RegressionObjective {
    type Batch = PairBatch;

    fn loss(&self, batch: &PairBatch, _: u64) -> std::result::Result<Loss, BoxError> {
        Ok(self.evaluate(batch)?)
    }
}
