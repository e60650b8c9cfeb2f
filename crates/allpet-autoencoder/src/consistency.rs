//! Eq. 9 on coded channels in one pass each way: the intensities are decoded on the fly.
//!
//! With decoded channels `p, f, n = decode(Ĉ_pos, Ŝ, Ĉ_neg)` and the mask `m`:
//! `L = mean[(p - m·f)² + (n - (1 - m)·f)²]`, as `allpet_mask::tensor::loss_pn` on tensors decoded before.

use crate::intensity::Intensity;
use crate::model::CHANNELS;
use allpet_nn::{apply2, floats};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

/// The positive/negative loss of coded channels `[B, 3, V, R]` under masks `[B, 1, V, R]`, a scalar.
///
/// # Errors
/// Shapes other than these; the message names both.
pub(crate) fn consistency(coded: &Tensor, mask: &Tensor, intensity: Intensity) -> crate::Result<Tensor> {
    if coded.device().is_cpu() && coded.dtype() == DType::F32 {
        return Ok(apply2(
            &coded.contiguous()?,
            &mask.contiguous()?,
            Consistency(intensity),
        )?);
    }
    Ok(allpet_mask::tensor::loss_pn(
        &intensity.decode_tensor(coded)?,
        mask,
        0.0,
    )?)
}

struct Consistency(Intensity);

/// Coded channels and mask of every sample.
struct Samples<'a> {
    coded: &'a [f32],
    mask: &'a [f32],
    size: usize,
}

fn samples<'a>(coded: &'a CpuStorage, lc: &Layout, mask: &'a CpuStorage, lm: &Layout) -> Result<Samples<'a>> {
    let &[batch, channels, views, bins] = lc.dims() else {
        bail!(
            "consistency: channels {:?}; expected [B, {CHANNELS}, V, R]",
            lc.dims()
        );
    };
    if channels != CHANNELS || lm.dims() != [batch, 1, views, bins] || batch * views * bins == 0 {
        bail!(
            "consistency: channels {:?} and mask {:?}; expected [B, {CHANNELS}, V, R] and [B, 1, V, R]",
            lc.dims(),
            lm.dims()
        );
    }
    Ok(Samples {
        coded: floats("consistency", coded, lc)?,
        mask: floats("consistency", mask, lm)?,
        size: views * bins,
    })
}

/// Intensities of one pixel and how they grow with their codes.
fn decoded(intensity: Intensity, codes: [f32; CHANNELS]) -> [(f32, f32); CHANNELS] {
    codes.map(|code| {
        let ratio = (0.5 * (code + 1.0)).max(0.0);
        if intensity.exponent == 0.5 {
            (ratio * ratio, ratio)
        } else {
            let power = 1.0 / intensity.exponent as f32;
            let slope = 0.5 * power * ratio.powf(power - 1.0);
            (ratio.powf(power), if ratio > 0.0 { slope } else { 0.0 })
        }
    })
}

impl CustomOp2 for Consistency {
    fn name(&self) -> &'static str {
        "allpet-consistency"
    }

    fn cpu_fwd(
        &self,
        coded: &CpuStorage,
        lc: &Layout,
        mask: &CpuStorage,
        lm: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = samples(coded, lc, mask, lm)?;
        let sums: Vec<f64> = s
            .coded
            .par_chunks(CHANNELS * s.size)
            .zip(s.mask.par_chunks(s.size))
            .map(|(coded, mask)| {
                let (positive, rest) = coded.split_at(s.size);
                let (full, negative) = rest.split_at(s.size);
                let mut sum = 0f64;
                // Rows of partial sums keep single precision harmless.
                for (((p, f), n), m) in positive
                    .chunks(128)
                    .zip(full.chunks(128))
                    .zip(negative.chunks(128))
                    .zip(mask.chunks(128))
                {
                    let mut part = 0f32;
                    for (((p, f), n), m) in p.iter().zip(f).zip(n).zip(m) {
                        let [(p, _), (f, _), (n, _)] = decoded(self.0, [*p, *f, *n]);
                        let (a, b) = (p - m * f, n - (1.0 - m) * f);
                        part += a * a + b * b;
                    }
                    sum += f64::from(part);
                }
                sum
            })
            .collect();
        let mean = sums.iter().sum::<f64>() / s.mask.len() as f64;
        Ok((CpuStorage::F32(vec![mean as f32]), Shape::from(())))
    }

    fn bwd(
        &self,
        coded: &Tensor,
        mask: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let op = Gradient(self.0, grad.to_scalar::<f32>()?);
        Ok((Some(coded.apply_op2_no_bwd(mask, &op)?), None))
    }
}

/// The gradient with respect to the codes, times a factor.
struct Gradient(Intensity, f32);

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "allpet-consistency-gradient"
    }

    fn cpu_fwd(
        &self,
        coded: &CpuStorage,
        lc: &Layout,
        mask: &CpuStorage,
        lm: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = samples(coded, lc, mask, lm)?;
        let factor = 2.0 * self.1 / s.mask.len() as f32;
        let mut out = vec![0f32; s.coded.len()];
        out.par_chunks_mut(CHANNELS * s.size)
            .zip(
                s.coded
                    .par_chunks(CHANNELS * s.size)
                    .zip(s.mask.par_chunks(s.size)),
            )
            .for_each(|(out, (coded, mask))| {
                let (dp, rest) = out.split_at_mut(s.size);
                let (df, dn) = rest.split_at_mut(s.size);
                let (positive, rest) = coded.split_at(s.size);
                let (full, negative) = rest.split_at(s.size);
                let codes = positive.iter().zip(full).zip(negative).zip(mask);
                let slopes = dp.iter_mut().zip(df).zip(dn);
                for ((((p, f), n), m), ((dp, df), dn)) in codes.zip(slopes) {
                    let [(p, gp), (f, gf), (n, gn)] = decoded(self.0, [*p, *f, *n]);
                    let (a, b) = (factor * (p - m * f), factor * (n - (1.0 - m) * f));
                    *dp = a * gp;
                    *dn = b * gn;
                    *df = -(m * a + (1.0 - m) * b) * gf;
                }
            });
        Ok((CpuStorage::F32(out), lc.shape().clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use allpet_core::{fill_normal, stream};
    use candle_core::{Device, Var};

    /// Against the composition of tensor operators that `allpet_mask` tests for itself: value and gradient.
    #[test]
    fn one_pass_is_the_composition() {
        let draw = |name, shape: (usize, usize, usize, usize)| {
            let mut values = vec![0f32; shape.0 * shape.1 * shape.2 * shape.3];
            fill_normal(&mut stream(3, name, 0), &mut values);
            Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
        };
        for exponent in [0.5, 0.7] {
            let intensity = Intensity {
                exponent,
                ..Intensity::default()
            };
            let coded = Var::from_tensor(&draw("coded", (2, 3, 6, 50))).unwrap();
            let mask = (draw("mask", (2, 1, 6, 50)).tanh().unwrap().affine(0.5, 0.5)).unwrap();
            let ours = consistency(coded.as_tensor(), &mask, intensity).unwrap();
            let linear = intensity.decode_tensor(coded.as_tensor()).unwrap();
            let theirs = allpet_mask::tensor::loss_pn(&linear, &mask, 0.0).unwrap();
            let value = |t: &Tensor| t.to_scalar::<f32>().unwrap();
            assert!((value(&ours) / value(&theirs) - 1.0).abs() < 1e-6);
            let gradient = |loss: &Tensor| loss.backward().unwrap().remove(&coded).unwrap();
            let (a, b) = (gradient(&ours), gradient(&theirs));
            let largest = |t: &Tensor| t.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(largest(&b) > 1e-4, "something to compare");
            assert!(
                largest(&(a - &b).unwrap()) < 2e-6 * largest(&b),
                "exponent {exponent}"
            );
        }
    }

    #[test]
    fn misfits_are_named() {
        let zeros =
            |shape: (usize, usize, usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let error = consistency(&zeros((2, 3, 4, 4)), &zeros((2, 1, 4, 5)), Intensity::default())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("[2, 3, 4, 4]") && error.contains("[2, 1, 4, 5]"),
            "{error}"
        );
    }
}
