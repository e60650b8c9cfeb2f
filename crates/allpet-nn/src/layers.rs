//! Layers with parameters: thin holders around the operators, built from [`Params`].

use crate::{Error, Init, Params, Result, Window, add, attention, conv2d, group_norm, linear, recomputed};
use candle_core::Tensor;

/// A convolution with bias.
#[derive(Debug, Clone)]
pub struct Conv2d {
    weight: Tensor,
    bias: Tensor,
    window: Window,
}

impl Conv2d {
    /// `k × k` weights from `inputs` to `outputs` channels, started for a following SiLU.
    pub fn new(
        params: &Params,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        window: Window,
    ) -> Result<Self> {
        Self::with_init(
            params,
            inputs,
            outputs,
            kernel,
            window,
            Init::LeCun {
                fan_in: inputs * kernel * kernel,
            },
        )
    }

    /// The same, starting at zero: the last layer of a residual branch or of a network.
    pub fn zeroed(
        params: &Params,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        window: Window,
    ) -> Result<Self> {
        Self::with_init(params, inputs, outputs, kernel, window, Init::Zeros)
    }

    /// The same with starting values of the caller's: `weight [C_out, C_in, k, k]` and `bias [C_out]`, row-major.
    pub fn from_values(
        params: &Params,
        shape: (usize, usize, usize),
        window: Window,
        weight: Vec<f32>,
        bias: Vec<f32>,
    ) -> Result<Self> {
        let (inputs, outputs, kernel) = shape;
        let weight = params.get_from((outputs, inputs, kernel, kernel), "weight", || weight)?;
        Ok(Self {
            weight,
            bias: params.get_from(outputs, "bias", || bias)?,
            window,
        })
    }

    fn with_init(
        p: &Params,
        inputs: usize,
        outputs: usize,
        kernel: usize,
        window: Window,
        init: Init,
    ) -> Result<Self> {
        if inputs == 0 || outputs == 0 || kernel == 0 {
            return Err(Error::Setting {
                what: "convolution".into(),
                expected: "at least one channel and tap".into(),
                got: format!("{inputs} to {outputs} channels, kernel {kernel}"),
            });
        }
        let weight = p.get((outputs, inputs, kernel, kernel), "weight", init)?;
        Ok(Self {
            weight,
            bias: p.get(outputs, "bias", Init::Zeros)?,
            window,
        })
    }

    /// `[B, C_in, H, W]` → `[B, C_out, H', W']`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(conv2d(x, &self.weight, &self.bias, self.window)?)
    }
}

/// A linear layer with bias.
#[derive(Debug, Clone)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// From `inputs` to `outputs` features.
    pub fn new(params: &Params, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = params.get((outputs, inputs), "weight", Init::LeCun { fan_in: inputs })?;
        Ok(Self {
            weight,
            bias: params.get(outputs, "bias", Init::Zeros)?,
        })
    }

    /// The same, starting at zero.
    pub fn zeroed(params: &Params, inputs: usize, outputs: usize) -> Result<Self> {
        let weight = params.get((outputs, inputs), "weight", Init::Zeros)?;
        Ok(Self {
            weight,
            bias: params.get(outputs, "bias", Init::Zeros)?,
        })
    }

    /// `[B, in]` → `[B, out]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(linear(x, &self.weight, &self.bias)?)
    }
}

/// GroupNorm with learned scale and shift, optional SiLU, optional conditioning per sample.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    scale: Tensor,
    shift: Tensor,
    groups: usize,
    silu: bool,
}

impl GroupNorm {
    /// Over `channels` in `groups`.
    ///
    /// # Errors
    /// Groups that do not divide the channels.
    pub fn new(params: &Params, channels: usize, groups: usize, silu: bool) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(Error::Setting {
                what: "group norm".into(),
                expected: format!("a divisor of {channels} channels"),
                got: format!("{groups} groups"),
            });
        }
        let scale = params.get(channels, "scale", Init::Ones)?;
        Ok(Self {
            scale,
            shift: params.get(channels, "shift", Init::Zeros)?,
            groups,
            silu,
        })
    }

    /// `[B, C, H, W]` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(group_norm(x, &self.scale, &self.shift, self.groups, self.silu)?)
    }

    /// With feature-wise modulation `film [B, 2C]` (Perez et al. 2018): scale·(1 + first half), shift + second half.
    pub fn modulated(&self, x: &Tensor, film: &Tensor) -> Result<Tensor> {
        let channels = self.scale.dim(0)?;
        let film = film.to_dtype(self.scale.dtype())?;
        let (gain, offset) = (film.narrow(1, 0, channels)?, film.narrow(1, channels, channels)?);
        let scale = (gain + 1.0)?.broadcast_mul(&self.scale)?;
        let shift = offset.broadcast_add(&self.shift)?;
        Ok(group_norm(x, &scale, &shift, self.groups, self.silu)?)
    }
}

/// Self-attention over pixels with a residual connection: `x + out(attention(qkv(norm(x))))`.
#[derive(Debug, Clone)]
pub struct AttentionBlock {
    norm: GroupNorm,
    qkv: Conv2d,
    out: Conv2d,
    heads: usize,
}

impl AttentionBlock {
    /// Over `channels`, which `heads` and `groups` must divide.
    pub fn new(params: &Params, channels: usize, groups: usize, heads: usize) -> Result<Self> {
        if heads == 0 || !channels.is_multiple_of(heads) {
            return Err(Error::Setting {
                what: "attention".into(),
                expected: format!("a divisor of {channels} channels"),
                got: format!("{heads} heads"),
            });
        }
        Ok(Self {
            norm: GroupNorm::new(&params.sub("norm"), channels, groups, false)?,
            qkv: Conv2d::new(&params.sub("qkv"), channels, 3 * channels, 1, Window::same(1))?,
            out: Conv2d::zeroed(&params.sub("out"), channels, channels, 1, Window::same(1))?,
            heads,
        })
    }

    /// `[B, C, H, W]` → the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mixed = attention(&self.qkv.forward(&self.norm.forward(x)?)?, self.heads)?;
        Ok(add(x, &self.out.forward(&mixed)?)?)
    }
}

/// Residual block: `x + conv(GN·SiLU(conv(GN·SiLU(x))))`, the second norm modulated by an embedding if there is one.
#[derive(Debug, Clone)]
pub struct ResidualBlock {
    norm_in: GroupNorm,
    conv_in: Conv2d,
    film: Option<Linear>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
    skip: Option<Conv2d>,
}

impl ResidualBlock {
    /// From `inputs` to `outputs` channels; `embedding` is the width of the conditioning vector, 0 for none.
    pub fn new(
        params: &Params,
        inputs: usize,
        outputs: usize,
        groups: usize,
        embedding: usize,
    ) -> Result<Self> {
        let film = match embedding {
            0 => None,
            width => Some(Linear::zeroed(&params.sub("film"), width, 2 * outputs)?),
        };
        let skip = match inputs == outputs {
            true => None,
            false => Some(Conv2d::new(
                &params.sub("skip"),
                inputs,
                outputs,
                1,
                Window::same(1),
            )?),
        };
        Ok(Self {
            norm_in: GroupNorm::new(&params.sub("norm_in"), inputs, groups, true)?,
            conv_in: Conv2d::new(&params.sub("conv_in"), inputs, outputs, 3, Window::same(3))?,
            film,
            norm_out: GroupNorm::new(&params.sub("norm_out"), outputs, groups, true)?,
            conv_out: Conv2d::zeroed(&params.sub("conv_out"), outputs, outputs, 3, Window::same(3))?,
            skip,
        })
    }

    /// [`ResidualBlock::forward`], computed again on the way back ([`recomputed`]) where that is asked for.
    ///
    /// # Errors
    /// As [`ResidualBlock::forward`].
    pub fn run(&self, x: &Tensor, embedding: Option<&Tensor>, recompute: bool) -> Result<Tensor> {
        if !recompute {
            return self.forward(x, embedding);
        }
        let block = self.clone();
        let inputs: Vec<&Tensor> = [x].into_iter().chain(embedding).collect();
        let part = move |t: &[Tensor]| {
            let result = block.forward(&t[0], t.get(1));
            result.map_err(candle_core::Error::wrap)
        };
        Ok(recomputed(&inputs, part)?)
    }

    /// `x [B, C_in, H, W]` and the embedding `[B, E]` → `[B, C_out, H, W]`.
    ///
    /// # Errors
    /// An embedding where the block has none, or the reverse.
    pub fn forward(&self, x: &Tensor, embedding: Option<&Tensor>) -> Result<Tensor> {
        let hidden = self.conv_in.forward(&self.norm_in.forward(x)?)?;
        let hidden = match (&self.film, embedding) {
            (Some(film), Some(embedding)) => self.norm_out.modulated(&hidden, &film.forward(embedding)?)?,
            (None, None) => self.norm_out.forward(&hidden)?,
            (built, _) => {
                return Err(Error::Setting {
                    what: "residual block".into(),
                    expected: if built.is_some() {
                        "an embedding".into()
                    } else {
                        "no embedding".into()
                    },
                    got: if built.is_some() {
                        "none".into()
                    } else {
                        "one".into()
                    },
                });
            }
        };
        let branch = self.conv_out.forward(&hidden)?;
        match &self.skip {
            Some(skip) => Ok(add(&skip.forward(x)?, &branch)?),
            None => Ok(add(x, &branch)?),
        }
    }
}
