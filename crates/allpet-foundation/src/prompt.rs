//! From prompts to what the denoiser is conditioned on.

use crate::error::Result;
use allpet_core::{Modality, Prompt, Region, Task, Tracer, stream};
use allpet_diffusion::Conditioning;
use allpet_nn::{Init, Params};
use candle_core::Tensor;
use rand::Rng;

/// Turns prompts into conditioning; a learned table here, a text model elsewhere.
pub trait PromptEncoder {
    /// One embedding a prompt, `[B, E]` inside the conditioning.
    ///
    /// # Errors
    /// Whatever the encoder cannot do.
    fn encode(&self, prompts: &[Prompt]) -> Result<Conditioning>;
}

/// A learned vector for every word of the vocabulary, and one for a choice left open; a prompt is their sum.
#[derive(Debug, Clone)]
pub struct PromptTable {
    table: Tensor,
}

impl PromptTable {
    /// Rows: tracers and `open`, regions and `open`, modalities, tasks.
    const ROWS: usize = Tracer::ALL.len() + 1 + Region::ALL.len() + 1 + Modality::ALL.len() + Task::ALL.len();

    /// Vectors of `width`.
    pub fn new(params: &Params, width: usize) -> Result<Self> {
        Ok(Self {
            table: params.get((Self::ROWS, width), "table", Init::Normal(0.5))?,
        })
    }

    fn rows(prompt: &Prompt) -> [u32; 4] {
        let tracer = prompt.tracer.map_or(Tracer::ALL.len(), Tracer::index);
        let region = prompt.region.map_or(Region::ALL.len(), Region::index);
        let regions = Tracer::ALL.len() + 1;
        let modalities = regions + Region::ALL.len() + 1;
        let tasks = modalities + Modality::ALL.len();
        [
            tracer,
            regions + region,
            modalities + prompt.modality.index(),
            tasks + prompt.task.index(),
        ]
        .map(|i| i as u32)
    }
}

impl PromptEncoder for PromptTable {
    fn encode(&self, prompts: &[Prompt]) -> Result<Conditioning> {
        let rows: Vec<u32> = prompts.iter().flat_map(Self::rows).collect();
        let index = Tensor::from_vec(rows, prompts.len() * 4, self.table.device())?;
        let vectors = self
            .table
            .index_select(&index, 0)?
            .reshape((prompts.len(), 4, ()))?;
        Ok(Conditioning {
            embedding: Some(vectors.sum(1)?),
            ..Conditioning::default()
        })
    }
}

/// A training prompt with choices left open now and then, so that the model also answers vaguer prompts:
/// the tracer, the region, or both, each with `dropout`; a chest or abdomen becomes `trunk` with `trunk`.
pub(crate) fn loosen(prompt: &Prompt, dropout: f64, trunk: f64, seed: u64, sample: u64) -> Prompt {
    let mut random = stream(seed, "prompt dropout", sample);
    let [tracer, region, both, general] = std::array::from_fn(|_| random.random::<f64>());
    let mut prompt = *prompt;
    if matches!(prompt.region, Some(Region::Chest | Region::Abdomen)) && general < trunk {
        prompt.region = Some(Region::Trunk);
    }
    if tracer < dropout || both < dropout {
        prompt.tracer = None;
    }
    if region < dropout || both < dropout {
        prompt.region = None;
    }
    prompt
}
