//! A denoiser of two domains (ours): it draws images, and the projector turns them into sinograms.
//!
//! What makes an array a sinogram is one global rule: every point of the object traces `s = x·cos θ + y·sin θ`. A
//! network of the sinogram alone has to learn the rule from examples. Here it is built in, by two fixed linear maps:
//!
//! 1. the noisy latent, by the linear way through the decoder, as a sinogram; filtered back-projection makes an image;
//! 2. a U-Net works on the image, where anatomy is local, and draws `images` images;
//! 3. the projector `P` turns these into sinograms, exactly consistent ones; gradients come back by `Pᵀ`;
//! 4. a few convolutions on the sinogram's own grid join them with the noisy latent and the mask, and predict. They
//!    see to all that is no line integral: noise, masks, the coding of intensities.

use crate::config::ModelConfig;
use crate::error::Result;
use crate::statistics::Statistics;
use crate::unet::{POSITION, UNet, mask_of, position};
use allpet_autoencoder::Autoencoder;
use allpet_core::{ImageGrid, fill_normal, stream};
use allpet_diffusion::Conditioning;
use allpet_nn::{
    Conv2d, GroupNorm, Params, ResidualBlock, Window, concat_channels, depth_to_space, space_to_depth,
};
use allpet_radon::{Fbp, Filter, Projector, tensor};
use candle_core::Tensor;
use ndarray::IxDyn;
use std::sync::Arc;

/// Residual blocks on the sinogram's grid.
const BLOCKS: usize = 2;

/// The denoiser of two domains; its U-Net works on images of `bins × bins` pixels as large as a bin.
#[derive(Debug, Clone)]
pub struct DualDomain {
    fbp: Arc<Fbp>,
    /// 1 / standard deviation of the reconstruction of white noise.
    fbp_scale: f64,
    projector: Arc<Projector>,
    /// 1 / standard deviation of the projection of white noise through the middle.
    projection_scale: f64,
    factor: usize,
    body: UNet,
    enter: Conv2d,
    blocks: Vec<ResidualBlock>,
    leave: (GroupNorm, Conv2d),
    recompute: bool,
}

impl DualDomain {
    /// For a configuration whose denoiser draws at least one image.
    ///
    /// # Errors
    /// A configuration that cannot work; an arc of less than 180°, from which nothing can be reconstructed.
    pub fn new(params: &Params, config: &ModelConfig) -> Result<Self> {
        let (geometry, denoiser) = (config.geometry, &config.denoiser);
        let (factor, latent) = (config.autoencoder.factor(), config.autoencoder.latent);
        let block = factor * factor;
        let grid = ImageGrid::square(geometry.bins, geometry.bin_mm)?;
        let fbp = Fbp::new(grid, geometry, Filter::Hann, 1.0)?;
        let mut noise = ndarray::ArrayD::zeros(IxDyn(&geometry.shape()));
        if let Some(values) = noise.as_slice_mut() {
            fill_normal(&mut stream(0, "scale of reconstructed noise", 0), values);
        }
        let image = fbp.reconstruct(noise.view())?;
        let power = image.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / image.len() as f64;
        let (width, same) = (denoiser.widths.first().copied().unwrap_or(1), Window::same(3));
        let inputs = latent + 1 + POSITION + denoiser.images * block;
        let sinogram = params.sub("sinogram");
        Ok(Self {
            fbp: Arc::new(fbp),
            fbp_scale: 1.0 / power.sqrt().max(f64::MIN_POSITIVE),
            projector: Arc::new(Projector::new(grid, geometry)?),
            projection_scale: 1.0 / ((geometry.bins as f64).sqrt() * geometry.bin_mm),
            factor,
            body: UNet::between(
                &params.sub("image"),
                denoiser,
                block + POSITION,
                denoiser.images * block,
            )?,
            enter: Conv2d::new(&sinogram.sub("enter"), inputs, width, 3, same)?,
            blocks: (0..BLOCKS)
                .map(|i| {
                    ResidualBlock::new(
                        &sinogram.sub(format!("block{i}")),
                        width,
                        width,
                        denoiser.groups,
                        denoiser.embedding,
                    )
                })
                .collect::<allpet_nn::Result<_>>()?,
            leave: (
                GroupNorm::new(&sinogram.sub("norm"), width, denoiser.groups, true)?,
                Conv2d::zeroed(&sinogram.sub("leave"), width, latent, 3, same)?,
            ),
            recompute: false,
        })
    }

    /// The same network, whose blocks are computed again on the way back, as in [`UNet::recomputing`].
    #[must_use]
    pub fn recomputing(mut self, recompute: bool) -> Self {
        self.body = self.body.recomputing(recompute);
        self.recompute = recompute;
        self
    }

    /// `x [B, C, H, W]` at times `t [B]` → the prediction, same shape.
    ///
    /// # Errors
    /// A conditioning without embedding or mask; shapes that do not fit.
    pub fn forward(
        &self,
        x: &Tensor,
        t: &Tensor,
        conditioning: &Conditioning,
        autoencoder: &Autoencoder,
        statistics: &Statistics,
    ) -> Result<Tensor> {
        let embedding = self.body.embedding(t, conditioning)?;
        // Coded nothing is -1; the object stands on zero.
        let sinogram = (autoencoder.decode_linear(&statistics.restore(x)?)? + 1.0)?;
        let image = space_to_depth(&self.reconstruct(&sinogram)?, self.factor)?;
        let drawn = self
            .body
            .body(&concat_channels(&image, &position(&image)?)?, &embedding, None)?;
        let projected = self.project(&depth_to_space(&drawn, self.factor)?)?;
        let inputs = concat_channels(x, mask_of(conditioning)?)?;
        let inputs = concat_channels(&inputs, &position(x)?)?;
        let inputs = concat_channels(&inputs, &space_to_depth(&projected, self.factor)?)?;
        let mut y = self.enter.forward(&inputs)?;
        for block in &self.blocks {
            y = block.run(&y, Some(&embedding), self.recompute)?;
        }
        Ok(self.leave.1.forward(&self.leave.0.forward(&y)?)?)
    }

    /// `[B, 1, views, bins]` → `[B, 1, bins, bins]`; a fixed map of data, without gradient.
    fn reconstruct(&self, sinogram: &Tensor) -> Result<Tensor> {
        Ok((tensor::reconstruct(&self.fbp, sinogram)? * self.fbp_scale)?)
    }

    /// `[B, images, bins, bins]` → `[B, images, views, bins]`, differentiable.
    fn project(&self, images: &Tensor) -> Result<Tensor> {
        Ok((tensor::project(&self.projector, images)? * self.projection_scale)?)
    }
}
