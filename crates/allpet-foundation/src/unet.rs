//! The denoiser: a U-Net (Ronneberger et al. 2015) of residual blocks, every one modulated by time and prompt.

use crate::error::{Error, Result};
use allpet_diffusion::Conditioning;
use allpet_mask::attention::Gate;
use allpet_mask::tensor::gate;
use allpet_nn::{
    AttentionBlock, Conv2d, GroupNorm, Linear, Params, ResidualBlock, Window, concat_channels, recomputed,
    upsample_nearest,
};
use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// The shape of the denoiser.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenoiserConfig {
    /// Channels of each level, finest first; resolution halves from level to level.
    pub widths: Vec<usize>,
    /// Residual blocks a level on the way down (one more on the way up).
    pub blocks: usize,
    /// Levels (0 the finest) whose blocks are followed by self-attention.
    pub attention: Vec<usize>,
    /// Heads of the attention.
    pub heads: usize,
    /// Groups of the normalisations.
    pub groups: usize,
    /// Width of the time and prompt embedding.
    pub embedding: usize,
    /// Images that the network draws and projects (see `DualDomain`); 0 works on the sinogram alone.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub images: usize,
}

fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl DenoiserConfig {
    /// For tests: seconds.
    pub fn tiny() -> Self {
        Self {
            widths: vec![16, 32],
            blocks: 1,
            attention: vec![1],
            heads: 2,
            groups: 4,
            embedding: 32,
            images: 0,
        }
    }

    /// For 32 × 32 latents on a laptop.
    pub fn small() -> Self {
        Self {
            widths: vec![48, 96, 160],
            blocks: 1,
            attention: vec![1, 2],
            heads: 4,
            groups: 8,
            embedding: 256,
            images: 0,
        }
    }

    /// For 64 × 64 latents.
    pub fn base() -> Self {
        Self {
            widths: vec![128, 256, 384],
            blocks: 2,
            attention: vec![1, 2],
            heads: 8,
            groups: 32,
            embedding: 512,
            images: 0,
        }
    }

    /// The paper's reading: 224 channels, multipliers 1 to 4, attention below the finest level.
    pub fn paper() -> Self {
        Self {
            widths: vec![224, 448, 672, 896],
            blocks: 2,
            attention: vec![1, 2, 3],
            heads: 8,
            groups: 32,
            embedding: 896,
            images: 0,
        }
    }

    /// By how much the coarsest level is shorter than the latent.
    pub fn factor(&self) -> usize {
        1 << (self.widths.len().max(1) - 1)
    }

    /// Reports every fault at once.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Vec::new();
        for (name, value) in [
            ("widths", self.widths.len()),
            ("blocks", self.blocks),
            ("heads", self.heads),
            ("groups", self.groups),
            ("embedding", self.embedding),
        ] {
            if value == 0 {
                faults.push(format!("{name} is 0 or empty; expected at least 1"));
            }
        }
        if !self.embedding.is_multiple_of(2) {
            faults.push(format!("embedding of {}; expected an even width", self.embedding));
        }
        for (level, width) in self.widths.iter().enumerate() {
            if self.groups > 0 && (*width == 0 || width % self.groups != 0) {
                faults.push(format!("{} groups do not divide a width of {width}", self.groups));
            }
            if self.attention.contains(&level) && self.heads > 0 && width % self.heads != 0 {
                faults.push(format!("{} heads do not divide a width of {width}", self.heads));
            }
        }
        if let Some(level) = self.attention.iter().find(|level| **level >= self.widths.len()) {
            faults.push(format!(
                "attention at level {level}; there are {} levels",
                self.widths.len()
            ));
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(Error::Invalid {
                what: "denoiser".into(),
                faults,
            })
        }
    }
}

fn absent(what: &str) -> Error {
    Error::Invalid {
        what: "conditioning".into(),
        faults: vec![format!(
            "it holds no {what}; expected a prompt embedding and a mask"
        )],
    }
}

/// The mask of a conditioning, `[B, 1, H, W]`.
pub(crate) fn mask_of(conditioning: &Conditioning) -> Result<&Tensor> {
    conditioning.spatial.as_ref().ok_or_else(|| absent("mask"))
}

/// Channels of [`position`].
pub const POSITION: usize = 3;

/// Where each pixel lies, `[B, 3, H, W]`: cosine and sine of its share of a half turn, and its bin from -1 to 1.
///
/// A point traces `s = x·cos θ + y·sin θ` through a sinogram: what a pixel means depends on where it is, which a
/// convolution cannot know.
///
/// # Errors
/// A tensor of other than four axes.
pub fn position(x: &Tensor) -> Result<Tensor> {
    let (batch, _, views, bins) = x.dims4()?;
    let mut values = Vec::with_capacity(POSITION * views * bins);
    let angle = |view: usize| std::f64::consts::PI * (view as f64 + 0.5) / views as f64;
    values.extend((0..views * bins).map(|i| angle(i / bins).cos() as f32));
    values.extend((0..views * bins).map(|i| angle(i / bins).sin() as f32));
    values.extend((0..views * bins).map(|i| ((2 * (i % bins) + 1) as f32) / bins as f32 - 1.0));
    let one = Tensor::from_vec(values, (1, POSITION, views, bins), x.device())?;
    Ok(one.broadcast_as((batch, POSITION, views, bins))?.contiguous()?)
}

/// Features weighted by attention, if there is any.
fn gated(x: Tensor, attention: Option<&Tensor>) -> Result<Tensor> {
    Ok(match attention {
        Some(attention) => gate(&x, attention, Gate::default())?,
        None => x,
    })
}

/// A residual block and the attention that may follow it.
#[derive(Debug, Clone)]
struct Stage {
    residual: ResidualBlock,
    attention: Option<AttentionBlock>,
}

impl Stage {
    fn new(params: &Params, c: &DenoiserConfig, inputs: usize, level: usize) -> Result<Self> {
        let width = c.widths[level];
        let attention = match c.attention.contains(&level) {
            true => Some(AttentionBlock::new(
                &params.sub("attention"),
                width,
                c.groups,
                c.heads,
            )?),
            false => None,
        };
        Ok(Self {
            residual: ResidualBlock::new(&params.sub("residual"), inputs, width, c.groups, c.embedding)?,
            attention,
        })
    }

    fn forward(&self, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        let x = self.residual.forward(x, Some(embedding))?;
        Ok(match &self.attention {
            Some(attention) => attention.forward(&x)?,
            None => x,
        })
    }
}

/// The U-Net of latents `[B, C, H, W]` and a spatial condition `[B, 1, H, W]` (the Radon mask at latent resolution).
#[derive(Debug, Clone)]
pub struct UNet {
    time: (Linear, Linear),
    prompt: Linear,
    enter: Conv2d,
    down: Vec<(Vec<Stage>, Option<Conv2d>)>,
    middle: [Stage; 2],
    up: Vec<(Vec<Stage>, Option<Conv2d>)>,
    leave: (GroupNorm, Conv2d),
    frequencies: usize,
    recompute: bool,
    /// Of what passes through, ends excepted.
    activations: DType,
}

impl UNet {
    /// From and to `channels`, told the mask and where pixels lie.
    ///
    /// # Errors
    /// A configuration that cannot work; all faults at once.
    pub fn new(params: &Params, config: &DenoiserConfig, channels: usize) -> Result<Self> {
        Self::between(params, config, channels + 1 + POSITION, channels)
    }

    /// From `inputs` to `outputs` channels, for [`UNet::body`]: a network that makes its own inputs.
    ///
    /// # Errors
    /// A configuration that cannot work; all faults at once.
    pub fn between(params: &Params, config: &DenoiserConfig, inputs: usize, outputs: usize) -> Result<Self> {
        config.validate()?;
        let same = Window::same(3);
        let (levels, first) = (config.widths.len(), config.widths[0]);
        let mut skips = vec![first];
        let mut width = first;
        let mut down = Vec::with_capacity(levels);
        for level in 0..levels {
            let params = params.sub(format!("down{level}"));
            let mut stages = Vec::with_capacity(config.blocks);
            for i in 0..config.blocks {
                stages.push(Stage::new(
                    &params.sub(format!("stage{i}")),
                    config,
                    width,
                    level,
                )?);
                width = config.widths[level];
                skips.push(width);
            }
            let halve = match level + 1 < levels {
                true => {
                    skips.push(width);
                    Some(Conv2d::new(
                        &params.sub("halve"),
                        width,
                        width,
                        3,
                        Window {
                            stride: 2,
                            padding: 1,
                        },
                    )?)
                }
                false => None,
            };
            down.push((stages, halve));
        }
        let middle = [
            Stage::new(&params.sub("middle0"), config, width, levels - 1)?,
            Stage::new(&params.sub("middle1"), config, width, levels - 1)?,
        ];
        let mut up = Vec::with_capacity(levels);
        for level in (0..levels).rev() {
            let params = params.sub(format!("up{level}"));
            let mut stages = Vec::with_capacity(config.blocks + 1);
            for i in 0..=config.blocks {
                let skip = skips.pop().unwrap_or(first);
                stages.push(Stage::new(
                    &params.sub(format!("stage{i}")),
                    config,
                    width + skip,
                    level,
                )?);
                width = config.widths[level];
            }
            let double = match level > 0 {
                // Convolved before it is enlarged: a quarter of the work.
                true => {
                    let finer = config.widths[level - 1];
                    Some(Conv2d::new(
                        &params.sub("double"),
                        std::mem::replace(&mut width, finer),
                        finer,
                        3,
                        same,
                    )?)
                }
                false => None,
            };
            up.push((stages, double));
        }
        let e = config.embedding;
        Ok(Self {
            time: (
                Linear::new(&params.sub("time0"), e, e)?,
                Linear::new(&params.sub("time1"), e, e)?,
            ),
            prompt: Linear::new(&params.sub("prompt"), e, e)?,
            enter: Conv2d::new(&params.sub("enter"), inputs, first, 3, same)?,
            down,
            middle,
            up,
            leave: (
                GroupNorm::new(&params.sub("norm"), first, config.groups, true)?,
                Conv2d::zeroed(&params.sub("leave"), first, outputs, 3, same)?,
            ),
            frequencies: e / 2,
            recompute: false,
            activations: params.activations(),
        })
    }

    /// `x [B, C, H, W]` at times `t [B]` → the prediction, same shape.
    ///
    /// # Errors
    /// A conditioning without embedding or mask; shapes that do not fit.
    pub fn forward(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let inputs = concat_channels(&concat_channels(x, mask_of(conditioning)?)?, &position(x)?)?;
        self.body(&inputs, &self.embedding(t, conditioning)?, None)
    }

    /// The same network, whose stages (residual block and attention) keep their inputs only while gradients are recorded and
    /// are computed again on the way back: less memory, a third more time, the same bytes.
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    fn run(&self, stage: &Stage, x: &Tensor, embedding: &Tensor) -> Result<Tensor> {
        if !self.recompute {
            return stage.forward(x, embedding);
        }
        let stage = stage.clone();
        let part = move |t: &[Tensor]| stage.forward(&t[0], &t[1]).map_err(candle_core::Error::wrap);
        Ok(recomputed(&[x, embedding], part)?)
    }

    /// Time and prompt as one vector for each sample, `[B, E]`.
    ///
    /// # Errors
    /// A conditioning without embedding; shapes that do not fit.
    pub fn embedding(&self, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let prompt = conditioning
            .embedding
            .as_ref()
            .ok_or_else(|| absent("prompt embedding"))?;
        let time = self
            .time
            .1
            .forward(&self.time.0.forward(&self.waves(t)?)?.silu()?)?;
        Ok((time + self.prompt.forward(prompt)?)?.silu()?)
    }

    /// The network without its own inputs: `[B, inputs, H, W]` → `[B, outputs, H, W]`.
    ///
    /// Transparent medical attention `[B, 1, H, W]`, 0 to 1, weighs the features that enter every level on the way down by
    /// the residual gate `F·(1 + M)` (ALL-PET eq. 12, [`allpet_mask::attention::Gate`]), averaged over each coarser cell.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn body(&self, inputs: &Tensor, embedding: &Tensor, attention: Option<&Tensor>) -> Result<Tensor> {
        let mut attention = attention.map(|m| m.to_dtype(self.activations)).transpose()?;
        let entering = self.enter.forward(&inputs.to_dtype(self.activations)?)?;
        let mut x = gated(entering, attention.as_ref())?;
        let mut skips = vec![x.clone()];
        for (stages, halve) in &self.down {
            for stage in stages {
                x = self.run(stage, &x, embedding)?;
                skips.push(x.clone());
            }
            if let Some(halve) = halve {
                attention = attention.map(|m| m.avg_pool2d(2)).transpose()?;
                x = gated(halve.forward(&x)?, attention.as_ref())?;
                skips.push(x.clone());
            }
        }
        for stage in &self.middle {
            x = self.run(stage, &x, embedding)?;
        }
        for (stages, double) in &self.up {
            for stage in stages {
                if let Some(skip) = skips.pop() {
                    x = concat_channels(&x, &skip)?;
                }
                x = self.run(stage, &x, embedding)?;
            }
            if let Some(double) = double {
                x = upsample_nearest(&double.forward(&x)?)?;
            }
        }
        let left = self.leave.1.forward(&self.leave.0.forward(&x)?)?;
        Ok(left.to_dtype(inputs.dtype())?)
    }

    /// Sines and cosines of the time at geometric frequencies from 1 to 1/10,000 (Vaswani et al. 2017).
    fn waves(&self, t: &Tensor) -> Result<Tensor> {
        let n = self.frequencies;
        let times = t.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        let mut values = Vec::with_capacity(times.len() * 2 * n);
        for time in &times {
            let angle = |i: usize| f64::from(*time) * (-(10_000f64.ln()) * i as f64 / n as f64).exp();
            values.extend((0..n).map(|i| angle(i).cos() as f32));
            values.extend((0..n).map(|i| angle(i).sin() as f32));
        }
        Ok(Tensor::from_vec(values, (times.len(), 2 * n), t.device())?)
    }
}
