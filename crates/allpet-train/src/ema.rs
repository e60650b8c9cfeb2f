//! Exponential moving average of the parameters: `ē ← d·ē + (1 - d)·w` after every step.

/// The decay of update `n` (from 0): `min(decay, (1 + n)/(10 + n))`, so that the start of training is forgotten quickly.
///
/// The warm-up is that of TensorFlow's `ExponentialMovingAverage` and of the DDPM code; the average starts at the
/// initial parameters.
pub fn ema_decay(decay: f64, n: u64) -> f64 {
    decay.min((1.0 + n as f64) / (10.0 + n as f64))
}
