//! Layers and fused operators for candle whose gradients are right and whose CPU kernels are fast.
//!
//! Stock candle's convolutions, normalisations and upsampling are too slow on the CPU to train with, and some of
//! their gradients are silently wrong. Here every operator is a candle custom operator with its own backward,
//! checked against finite differences in f64; on the CPU it runs on one register kernel (AVX-512, AVX2 or portable,
//! chosen at run time) and gives the same bytes for any batch size (inference) and thread count.
//! With the feature `cuda` the operators have kernels for CUDA devices as well, for `f32`, `f16` and `bf16` activations beside
//! `f32` parameters, deterministic and with the same gradients; [`Params::with_activations`] chooses. On other devices they
//! are compositions of candle's own that have right gradients.

mod attention;
mod channel_attention;
mod conv;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod elementwise;
mod error;
mod gate;
mod lanes;
mod layer_norm;
mod layers;
mod linear;
mod norm;
mod params;
mod resize;
mod tape;

pub use attention::attention;
pub use channel_attention::channel_attention;
pub use conv::{Window, conv2d, grouped_conv2d};
pub use cpu::floats;
pub use elementwise::{add, mean_squared_error};
pub use error::{Error, Result};
pub use gate::gelu_gate;
pub use layer_norm::layer_norm;
pub use layers::{AttentionBlock, Conv2d, GroupNorm, Linear, ResidualBlock};
pub use linear::linear;
pub use norm::group_norm;
pub use params::{Init, Params};
pub use resize::{concat_channels, depth_to_space, space_to_depth, upsample_nearest};
pub use tape::{Tape, TapeSize, apply1, apply2, apply3, recomputed, record, without_gradients};
