//! Conformance of a [`Sampler`], for those built in and for one's own.

use crate::{
    Conditioning, Denoiser, Error, ForwardProcess, Marginal, Result, Run, SampleNoise, Sampler,
    built_in_samplers, sample,
};
use candle_core::{DType, Device, Tensor};
use std::ops::ControlFlow;

/// The exact denoiser of data `N(0, sd²)`: `E[x_0 | x_t] = b·sd²/(b²·sd² + c²)·(x_t - a·x_T)`, the last term for
/// bridges, whose `x_T` says nothing of `x_0` here. At `t = T` of a bridge it is 0.
#[derive(Debug, Clone, Copy)]
pub struct GaussianDenoiser<P> {
    /// The process.
    pub process: P,
    /// Standard deviation of the data.
    pub sd: f64,
}

impl<P: ForwardProcess> Denoiser for GaussianDenoiser<P> {
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let variance = self.sd * self.sd;
        let times = t.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let marginals = crate::prediction::marginals(&self.process, &times);
        let gain = |m: &Marginal| {
            let total = m.b * m.b * variance + m.c * m.c;
            if total > 0.0 { m.b * variance / total } else { 0.0 }
        };
        let gains: Vec<f64> = marginals.iter().map(gain).collect();
        let noisy = crate::prediction::without_terminal(x, &marginals, conditioning.terminal.as_ref())?;
        crate::coefficients::scale_samples(&noisy, &gains)
    }
}

/// A denoiser that is not linear, so that a mixed-up state cannot cancel: `tanh(x)·(1 - t/2T)`, plus a tenth of `x_T`.
struct Curved {
    terminal: f64,
}

impl Denoiser for Curved {
    fn predict_x0(&self, x: &Tensor, t: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let times = t.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let gains: Vec<f64> = times.iter().map(|t| 1.0 - 0.5 * t / self.terminal).collect();
        let x0 = crate::coefficients::scale_samples(&x.tanh()?, &gains)?;
        Ok(match &conditioning.terminal {
            Some(terminal) => (x0 + terminal.affine(0.1, 0.0)?)?,
            None => x0,
        })
    }
}

const SAMPLE_DIMS: [usize; 3] = [2, 3, 5];

/// Checks the contract of a sampler on a process and a grid (descending):
/// - the same run twice gives the same bytes;
/// - a sample has the same bytes alone, in a batch of five, and in that batch reordered;
/// - two runs stepped in turns give what each gives alone;
/// - the result is finite and has the shape of the start;
/// - the denoiser is called as often as [`Sampler::evaluations_on`] says.
///
/// # Errors
/// [`Error::Conformance`] names the property broken; errors of the sampler come through.
pub fn check_sampler(sampler: &dyn Sampler, process: &dyn ForwardProcess, times: &[f64]) -> Result<()> {
    let denoiser = Curved {
        terminal: process.terminal(),
    };
    let broken = |property: &'static str, detail: String| {
        Err(Error::Conformance {
            sampler: sampler.name(),
            property,
            detail,
        })
    };
    let begin = |indices: &[u64]| -> Result<(Run<'_>, Tensor)> {
        let noise = SampleNoise::new(11, indices.to_vec());
        let terminal = noise.normal("check terminal", 0, &SAMPLE_DIMS, DType::F32, &Device::Cpu)?;
        let conditioning = Conditioning {
            terminal: Some(terminal),
            ..Conditioning::default()
        };
        let mut run = Run::new(process, &denoiser, conditioning, noise);
        run.begin(times)?;
        let x = run.start(times[0], &SAMPLE_DIMS, DType::F32, &Device::Cpu)?;
        Ok((run, x))
    };
    let alone = |indices: &[u64]| -> Result<(Vec<Vec<f32>>, usize)> {
        let (mut run, x) = begin(indices)?;
        let x = sample(sampler, &mut run, times, x, &mut |_, _| ControlFlow::Continue(()))?;
        Ok((rows(&x)?, run.evaluations()))
    };

    let batch = [3, 14, 15, 92, 65];
    let (together, evaluations) = alone(&batch)?;
    let size = SAMPLE_DIMS.iter().product::<usize>();
    if together.len() != batch.len() || together.iter().any(|row| row.len() != size) {
        return broken(
            "shape",
            format!("a batch of {} came back as {}", batch.len(), together.len()),
        );
    }
    if let Some(value) = together.iter().flatten().find(|v| !v.is_finite()) {
        return broken("finite result", format!("the result holds {value}"));
    }
    let expected = sampler.evaluations_on(process, times);
    if evaluations != expected {
        return broken(
            "evaluations",
            format!("{evaluations} calls of the denoiser, {expected} declared"),
        );
    }
    if alone(&batch)?.0 != together {
        return broken(
            "determinism",
            "the same run twice gave different bytes".to_owned(),
        );
    }
    let permuted = [65, 3, 92, 14, 15];
    let shuffled = alone(&permuted)?.0;
    for (row, index) in together.iter().zip(batch) {
        if alone(&[index])?.0[0] != *row {
            return broken(
                "batch invariance",
                format!("sample {index} differs alone and in a batch of five"),
            );
        }
        let place = permuted.iter().position(|&i| i == index).unwrap_or(0);
        if shuffled[place] != *row {
            return broken(
                "batch invariance",
                format!("sample {index} differs at another place in the batch"),
            );
        }
    }

    let (mut first, mut x) = begin(&[1, 2])?;
    let (mut second, mut y) = begin(&[7])?;
    while let Some(next) = first.advance(sampler, &x)? {
        x = next;
        if let Some(next) = second.advance(sampler, &y)? {
            y = next;
        }
    }
    if rows(&x)? != alone(&[1, 2])?.0 || rows(&y)? != alone(&[7])?.0 {
        return broken(
            "independent runs",
            "two runs stepped in turns differ from each alone".to_owned(),
        );
    }
    Ok(())
}

/// [`check_sampler`] over every built-in sampler that fits the process.
///
/// # Errors
/// Those of [`check_sampler`].
pub fn check_built_in(process: &dyn ForwardProcess, times: &[f64]) -> Result<()> {
    built_in_samplers()
        .iter()
        .filter(|sampler| sampler.fits(process.kind()))
        .try_for_each(|sampler| check_sampler(sampler.as_ref(), process, times))
}

fn rows(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(x.flatten_from(1)?.to_vec2()?)
}
