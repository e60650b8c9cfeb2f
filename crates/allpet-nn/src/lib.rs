//! Layers and fused operators for candle whose gradients are right and whose CPU kernels are fast.
