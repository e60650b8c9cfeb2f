//! The linear way through the autoencoder, which starts as a truncated block cosine transform.
//!
//! Three quarters of the latent channels start as the lowest cosine coefficients of the `f × f` blocks of S, the rest as
//! those of `C_pos`; the decoder starts as the transpose, with `C_neg = S - C_pos` (to first order in coded intensities).
//! Training begins at a round trip that is already faithful, and the convolutions beside it learn what is missing.

use crate::error::Result;
use crate::model::CHANNELS;
use allpet_nn::{Conv2d, Params, Window};
use std::f64::consts::PI;

/// Latent channels that start as coefficients of S.
fn of_full(latent: usize) -> usize {
    latent - latent / 4
}

/// Orthonormal cosines of an `f × f` block, lowest first (DCT-II), divided by `f` so that the first is the mean.
fn cosines(f: usize) -> Vec<Vec<f64>> {
    let mut orders: Vec<(usize, usize)> = (0..f * f).map(|k| (k / f, k % f)).collect();
    // Traces run along the views, so that detail lies across the bins: of equal sums the bin's frequency comes first.
    orders.sort_by_key(|(u, v)| (u + v, *u));
    let wave = |k: usize, i: usize| {
        let norm = if k == 0 { 1.0 / f as f64 } else { 2.0 / f as f64 };
        norm.sqrt() * (PI * k as f64 * (i as f64 + 0.5) / f as f64).cos()
    };
    orders
        .into_iter()
        .map(|(u, v)| {
            (0..f * f)
                .map(|p| wave(u, p / f) * wave(v, p % f) / f as f64)
                .collect()
        })
        .collect()
}

/// Channel of `C_all` and cosine of every latent channel; more channels than cosines start at nothing.
fn plan(latent: usize, f: usize) -> Vec<Option<(usize, Vec<f64>)>> {
    let cosines = cosines(f);
    let full = of_full(latent);
    (0..latent)
        .map(|z| if z < full { (1, z) } else { (0, z - full) })
        .map(|(channel, order)| cosines.get(order).map(|c| (channel, c.clone())))
        .collect()
}

/// Blocks of `C_all` moved into channels `[3·f²]` → latent.
pub(crate) fn encoder(params: &Params, latent: usize, f: usize) -> Result<Conv2d> {
    let (inputs, block) = (CHANNELS * f * f, f * f);
    let mut weight = vec![0f32; latent * inputs];
    for (row, start) in weight.chunks_exact_mut(inputs).zip(plan(latent, f)) {
        if let Some((channel, cosine)) = start {
            for (w, c) in row[channel * block..].iter_mut().zip(cosine) {
                *w = c as f32;
            }
        }
    }
    Ok(Conv2d::from_values(
        params,
        (inputs, latent, 1),
        Window::same(1),
        weight,
        vec![0.0; latent],
    )?)
}

/// Latent → blocks in channels `[3·f²]`.
pub(crate) fn decoder(params: &Params, latent: usize, f: usize) -> Result<Conv2d> {
    let (outputs, block) = (CHANNELS * f * f, f * f);
    let mut weight = vec![0f32; outputs * latent];
    for (z, start) in plan(latent, f).into_iter().enumerate() {
        let Some((channel, cosine)) = start else { continue };
        for (pixel, c) in cosine.into_iter().enumerate() {
            let back = (c * block as f64) as f32;
            weight[(channel * block + pixel) * latent + z] = back;
            weight[(2 * block + pixel) * latent + z] = if channel == 1 { back } else { -back };
        }
    }
    // Coded nothing is -1: C_neg + 1 = (S + 1) - (C_pos + 1).
    let mut bias = vec![0f32; outputs];
    bias[2 * block..].fill(-1.0);
    Ok(Conv2d::from_values(
        params,
        (latent, outputs, 1),
        Window::same(1),
        weight,
        bias,
    )?)
}
