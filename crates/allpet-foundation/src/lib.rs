//! The prompted latent diffusion model of sinograms: presets, autoencoder, denoiser, training source, synthesis.
