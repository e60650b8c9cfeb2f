//! Encoder and decoder of `C_all = [C_pos, S_full, C_neg]` (ALL-PET eqs. 13-14), convolutional, with residual blocks.

use crate::config::{AutoencoderConfig, Bottleneck};
use crate::error::{Error, Result};
use crate::shortcut;
use allpet_nn::{
    Conv2d, GroupNorm, Init, Params, ResidualBlock, Window, add, depth_to_space, space_to_depth,
    upsample_nearest,
};
use candle_core::{D, DType, Tensor};

/// Channels of `C_all`.
pub const CHANNELS: usize = 3;

/// Added to the encoder's log-variances, so that training begins nearly without latent noise.
const QUIET: f64 = -8.0;

/// Log-variances beyond this are clipped: `exp` of them would overflow or vanish.
const LOG_VARIANCE: (f32, f32) = (-30.0, 20.0);

/// What the encoder says of a batch.
#[derive(Debug, Clone)]
pub struct Latent {
    /// `[B, latent, V/f, R/f]`; with a table of codes, the vector before the look-up.
    pub mean: Tensor,
    /// Log-variance of the same shape; `None` with a table of codes.
    pub log_variance: Option<Tensor>,
}

/// The sinogram autoencoder.
#[derive(Debug, Clone)]
pub struct Autoencoder {
    config: AutoencoderConfig,
    encoder_shortcut: Conv2d,
    decoder_shortcut: Conv2d,
    enter: Conv2d,
    down: Vec<Level>,
    to_latent: (GroupNorm, Conv2d),
    codes: Option<Tensor>,
    from_latent: Conv2d,
    up: Vec<Level>,
    leave: (GroupNorm, Conv2d),
    recompute: bool,
    /// Of what passes through, ends and shortcuts excepted.
    activations: DType,
}

/// The residual blocks of a level, and the convolution that follows on the way to the next.
#[derive(Debug, Clone)]
struct Level {
    blocks: Vec<ResidualBlock>,
    next: Option<Conv2d>,
}

impl Level {
    fn new(
        params: &Params,
        config: &AutoencoderConfig,
        width: usize,
        next: Option<(usize, Window)>,
    ) -> Result<Self> {
        let blocks = (0..config.blocks)
            .map(|i| ResidualBlock::new(&params.sub(format!("block{i}")), width, width, config.groups, 0))
            .collect::<allpet_nn::Result<_>>()?;
        let next = match next {
            Some((to, window)) => Some(Conv2d::new(&params.sub("next"), width, to, 3, window)?),
            None => None,
        };
        Ok(Self { blocks, next })
    }

    fn blocks(&self, x: Tensor, recompute: bool) -> Result<Tensor> {
        self.blocks
            .iter()
            .try_fold(x, |x, block| Ok(block.run(&x, None, recompute)?))
    }
}

impl Autoencoder {
    /// Builds the layers from `params` (names `encoder.*`, `decoder.*`, `codes`).
    ///
    /// # Errors
    /// A configuration that cannot work; all faults at once.
    pub fn new(params: &Params, config: &AutoencoderConfig) -> Result<Self> {
        config.validate()?;
        let (encoder, decoder) = (params.sub("encoder"), params.sub("decoder"));
        let inputs = CHANNELS * config.patch * config.patch;
        let (first, last) = match (config.widths.first(), config.widths.last()) {
            (Some(first), Some(last)) => (*first, *last),
            _ => {
                return Err(Error::Invalid {
                    what: "autoencoder",
                    faults: vec!["no widths".into()],
                });
            }
        };
        let halve = Window {
            stride: 2,
            padding: 1,
        };
        let levels = config.widths.len();
        let mut down = Vec::with_capacity(levels);
        let mut up = Vec::with_capacity(levels);
        for (i, &width) in config.widths.iter().enumerate() {
            let next = config.widths.get(i + 1).map(|to| (*to, halve));
            down.push(Level::new(
                &encoder.sub(format!("level{i}")),
                config,
                width,
                next,
            )?);
        }
        for (i, &width) in config.widths.iter().enumerate().rev() {
            let next = i
                .checked_sub(1)
                .and_then(|i| config.widths.get(i))
                .map(|to| (*to, Window::same(3)));
            up.push(Level::new(
                &decoder.sub(format!("level{i}")),
                config,
                width,
                next,
            )?);
        }
        let (code_channels, codes) = match config.bottleneck {
            Bottleneck::Kl { .. } => (2 * config.latent, None),
            Bottleneck::Vq { codes, .. } => (
                config.latent,
                Some(params.get((codes, config.latent), "codes", Init::Normal(0.5))?),
            ),
        };
        let same = Window::same(3);
        Ok(Self {
            encoder_shortcut: shortcut::encoder(&encoder.sub("shortcut"), config.latent, config.factor())?,
            decoder_shortcut: shortcut::decoder(&decoder.sub("shortcut"), config.latent, config.factor())?,
            enter: Conv2d::new(&encoder.sub("enter"), inputs, first, 3, same)?,
            down,
            to_latent: (
                GroupNorm::new(&encoder.sub("norm"), last, config.groups, true)?,
                Conv2d::zeroed(&encoder.sub("leave"), last, code_channels, 3, same)?,
            ),
            codes,
            from_latent: Conv2d::new(&decoder.sub("enter"), config.latent, last, 3, same)?,
            up,
            leave: (
                GroupNorm::new(&decoder.sub("norm"), first, config.groups, true)?,
                Conv2d::zeroed(&decoder.sub("leave"), first, inputs, 3, same)?,
            ),
            config: config.clone(),
            recompute: false,
            activations: params.activations(),
        })
    }

    /// The same network, whose residual blocks keep their inputs only while gradients are recorded and are computed again on the
    /// way back: less memory, a third more time, the same bytes.
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.recompute = recompute;
        self
    }

    /// The shape it was built with.
    pub fn config(&self) -> &AutoencoderConfig {
        &self.config
    }

    /// `[B, 3, V, R]` (coded intensities) → the latent `[B, latent, V/f, R/f]` (eq. 14).
    ///
    /// # Errors
    /// Sides that the factor does not divide, or another number of channels.
    pub fn encode(&self, c_all: &Tensor) -> Result<Latent> {
        let (_, channels, views, bins) = c_all.dims4()?;
        let factor = self.config.factor();
        if channels != CHANNELS || views % factor != 0 || bins % factor != 0 {
            return Err(Error::Mismatch {
                what: "C_all".into(),
                expected: format!("{CHANNELS} channels and sides that {factor} divides"),
                got: format!("{channels} channels of {views} views x {bins} bins"),
            });
        }
        let blocks = space_to_depth(c_all, self.config.patch)?.to_dtype(self.activations)?;
        let mut x = self.enter.forward(&blocks)?;
        for level in &self.down {
            x = level.blocks(x, self.recompute)?;
            if let Some(next) = &level.next {
                x = next.forward(&x)?;
            }
        }
        let x = self.to_latent.1.forward(&self.to_latent.0.forward(&x)?)?;
        let x = x.to_dtype(c_all.dtype())?;
        let linear = self
            .encoder_shortcut
            .forward(&space_to_depth(c_all, self.config.factor())?)?;
        if self.codes.is_some() {
            return Ok(Latent {
                mean: (x + linear)?,
                log_variance: None,
            });
        }
        let mean = (x.narrow(1, 0, self.config.latent)? + linear)?.contiguous()?;
        let log_variance = (x
            .narrow(1, self.config.latent, self.config.latent)?
            .contiguous()?
            + QUIET)?;
        Ok(Latent {
            mean,
            log_variance: Some(log_variance.clamp(LOG_VARIANCE.0, LOG_VARIANCE.1)?),
        })
    }

    /// The nearest code of every latent pixel, gradients passed straight through; the latent itself without a table.
    pub fn quantise(&self, latent: &Tensor) -> Result<Tensor> {
        let Some(codes) = &self.codes else {
            return Ok(latent.clone());
        };
        let nearest = nearest_codes(latent, codes)?;
        Ok((latent + (nearest - latent)?.detach())?)
    }

    pub(crate) fn codes(&self) -> Option<&Tensor> {
        self.codes.as_ref()
    }

    /// The linear way through the decoder: the latent → S alone, `[B, 1, V, R]` (coded intensities).
    ///
    /// # Errors
    /// A latent of another number of channels.
    pub fn decode_linear(&self, latent: &Tensor) -> Result<Tensor> {
        let blocks = self.config.factor() * self.config.factor();
        let linear = self.decoder_shortcut.forward(latent)?;
        let full = linear.narrow(1, blocks, blocks)?.contiguous()?;
        Ok(depth_to_space(&full, self.config.factor())?)
    }

    /// The latent → `[B, 3, V, R]` (coded intensities); with a table of codes the latent is looked up first.
    pub fn decode(&self, latent: &Tensor) -> Result<Tensor> {
        let channels = latent.dim(1)?;
        if channels != self.config.latent {
            return Err(Error::Mismatch {
                what: "latent".into(),
                expected: format!("{} channels", self.config.latent),
                got: format!("{channels}"),
            });
        }
        let code = self.quantise(latent)?;
        let linear = depth_to_space(&self.decoder_shortcut.forward(&code)?, self.config.factor())?;
        let mut x = self.from_latent.forward(&code.to_dtype(self.activations)?)?;
        for level in &self.up {
            x = level.blocks(x, self.recompute)?;
            if let Some(next) = &level.next {
                x = next.forward(&upsample_nearest(&x)?)?;
            }
        }
        let x = self.leave.1.forward(&self.leave.0.forward(&x)?)?;
        let x = x.to_dtype(linear.dtype())?;
        Ok(add(&depth_to_space(&x, self.config.patch)?, &linear)?)
    }
}

/// The rows of `codes [K, C]` nearest to every pixel of `latent [B, C, H, W]`, with gradients to the table.
pub(crate) fn nearest_codes(latent: &Tensor, codes: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = latent.dims4()?;
    let flat = latent.permute((0, 2, 3, 1))?.reshape((b * h * w, c))?;
    let table = codes.detach();
    let norms = table.sqr()?.sum(D::Minus1)?;
    let distance = (flat.detach().matmul(&table.t()?)? * -2.0)?.broadcast_add(&norms)?;
    let index = distance.argmin(D::Minus1)?;
    Ok(codes
        .index_select(&index, 0)?
        .reshape((b, h, w, c))?
        .permute((0, 3, 1, 2))?
        .contiguous()?)
}
