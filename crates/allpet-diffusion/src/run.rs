//! A run: everything a walk from noise to data has to remember, so that samplers remember nothing.

use crate::{Conditioning, Denoiser, Error, ForwardProcess, Result, SampleNoise, Sampler};
use candle_core::{DType, Device, Tensor};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// Past evaluations a run keeps, enough for multistep samplers of order four.
const HISTORY: usize = 4;

/// An `x_0` predicted earlier in the run.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Process time it was predicted at.
    pub time: f64,
    /// The prediction `[B, ..]`.
    pub x0: Tensor,
    /// The state `[B, ..]` that the step out of `time` left from, where the sampler kept it.
    pub state: Option<Tensor>,
}

/// The state of one walk: process, denoiser, conditioning, noise, grid, position and past evaluations.
pub struct Run<'a> {
    process: &'a dyn ForwardProcess,
    denoiser: &'a dyn Denoiser,
    conditioning: Conditioning,
    noise: SampleNoise,
    times: Vec<f64>,
    step: usize,
    evaluations: usize,
    history: VecDeque<Evaluation>,
}

impl std::fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run")
            .field("noise", &self.noise)
            .field("times", &self.times)
            .field("step", &self.step)
            .field("evaluations", &self.evaluations)
            .finish_non_exhaustive()
    }
}

impl<'a> Run<'a> {
    /// A run that has not begun.
    pub fn new(
        process: &'a dyn ForwardProcess,
        denoiser: &'a dyn Denoiser,
        conditioning: Conditioning,
        noise: SampleNoise,
    ) -> Self {
        Self {
            process,
            denoiser,
            conditioning,
            noise,
            times: Vec::new(),
            step: 0,
            evaluations: 0,
            history: VecDeque::new(),
        }
    }

    /// The process that is being reversed.
    pub fn process(&self) -> &'a dyn ForwardProcess {
        self.process
    }

    /// What the denoiser is told.
    pub fn conditioning(&self) -> &Conditioning {
        &self.conditioning
    }

    /// The grid, descending, as [`Run::begin`] took it.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// Index of the step being taken (or taken next): it leads from `times[step]` to `times[step + 1]`.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Whether the step being taken is the last of the grid.
    pub fn is_last_step(&self) -> bool {
        self.step + 2 >= self.times.len()
    }

    /// Calls of the denoiser since the run began.
    pub fn evaluations(&self) -> usize {
        self.evaluations
    }

    /// Evaluations that the sampler chose to keep, newest first.
    pub fn history(&self) -> impl ExactSizeIterator<Item = &Evaluation> {
        self.history.iter()
    }

    /// Keeps an evaluation for later steps; the oldest beyond four are dropped.
    pub fn remember(&mut self, time: f64, x0: &Tensor) {
        self.keep(time, x0, None);
    }

    /// [`Run::remember`] with the state that the step out of `time` leaves from, for predictor-corrector samplers.
    pub fn remember_state(&mut self, time: f64, x0: &Tensor, state: &Tensor) {
        self.keep(time, x0, Some(state.detach()));
    }

    fn keep(&mut self, time: f64, x0: &Tensor, state: Option<Tensor>) {
        let x0 = x0.detach();
        self.history.push_front(Evaluation { time, x0, state });
        self.history.truncate(HISTORY);
    }

    /// The state to start from at time `t`: noise of the process's scale, or `x_T` itself for a bridge.
    /// Shape `[B, sample_dims..]`.
    ///
    /// # Errors
    /// [`Error::NoTerminal`] for a bridge without its terminal state; candle's own.
    pub fn start(&self, t: f64, sample_dims: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
        if self.process.marginal(t).a != 0.0 {
            let terminal = self.conditioning.terminal.as_ref().ok_or(Error::NoTerminal)?;
            return Ok(terminal.detach());
        }
        let noise = self
            .noise
            .normal("diffusion start", 0, sample_dims, dtype, device)?;
        Ok(noise.affine(self.process.start_scale(t), 0.0)?)
    }

    /// Standard normal of the shape of `x` for the step being taken. `purpose` tells several draws of one step
    /// apart; samplers that draw once a step use `"diffusion noise"`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the batch is not the one of the run.
    pub fn noise_like(&self, purpose: &str, x: &Tensor) -> Result<Tensor> {
        self.noise.normal_like(purpose, self.step as u64, x)
    }

    /// Asks the denoiser for `x_0` of `x [B, ..]` at time `t`, detached, and counts the call.
    ///
    /// # Errors
    /// The denoiser's own, or [`Error::Shape`] when its answer has another shape than `x`.
    pub fn denoise(&mut self, x: &Tensor, t: f64) -> Result<Tensor> {
        let times = Tensor::full(t as f32, x.dim(0)?, x.device())?;
        let x0 = self
            .denoiser
            .predict_x0(&x.detach(), &times, &self.conditioning)?
            .detach();
        if x0.dims() != x.dims() {
            return Err(Error::Shape {
                what: "denoiser output",
                expected: format!("{:?}, the shape of its input", x.dims()),
                got: x0.dims().to_vec(),
            });
        }
        self.evaluations += 1;
        Ok(x0)
    }

    /// Takes a grid and forgets any earlier walk. Times are rounded to f32, the type the denoiser sees, so that it
    /// and the sampler mean the same time.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless the times strictly descend within `[0, T]` and are at least two.
    pub fn begin(&mut self, times: &[f64]) -> Result<()> {
        let terminal = self.process.terminal();
        let rounded: Vec<f64> = times.iter().map(|&t| f64::from(t as f32)).collect();
        let mut faults = Vec::new();
        if times.len() < 2 {
            faults.push(format!("{} times given, expected at least 2", times.len()));
        }
        if let Some(t) = times.iter().find(|t| !(0.0..=terminal).contains(*t)) {
            faults.push(format!(
                "time {t} lies outside the process, expected 0 to {terminal}"
            ));
        }
        let descends = |w: &[f64]| matches!(w[0].partial_cmp(&w[1]), Some(std::cmp::Ordering::Greater));
        if let Some(pair) = rounded.windows(2).find(|w| !descends(w)) {
            faults.push(format!(
                "time {} follows {}, expected descending times",
                pair[1], pair[0]
            ));
        }
        if !faults.is_empty() {
            return Err(Error::Invalid {
                what: "time grid",
                faults,
            });
        }
        self.times = rounded;
        self.step = 0;
        self.evaluations = 0;
        self.history.clear();
        Ok(())
    }

    /// Takes the next step of the grid: `x [B, ..]` at `times[step]` becomes the result at `times[step + 1]`, or none
    /// when the grid is walked to its end.
    ///
    /// # Errors
    /// The sampler's and the denoiser's.
    pub fn advance(&mut self, sampler: &dyn Sampler, x: &Tensor) -> Result<Option<Tensor>> {
        let (Some(&from), Some(&to)) = (self.times.get(self.step), self.times.get(self.step + 1)) else {
            return Ok(None);
        };
        let next = sampler.step(self, from, to, &x.detach())?.detach();
        self.step += 1;
        Ok(Some(next))
    }
}

/// Walks `x [B, ..]`, the state at `times[0]`, down the grid and returns the state at its last time.
///
/// `observe(done, total)` is called after every step; `ControlFlow::Break` stops the walk.
///
/// # Errors
/// [`Error::Invalid`] for a bad grid, [`Error::Stopped`] when told to stop, or what sampler and denoiser raise.
pub fn sample(
    sampler: &dyn Sampler,
    run: &mut Run<'_>,
    times: &[f64],
    x: Tensor,
    observe: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Tensor> {
    run.begin(times)?;
    let total = times.len() - 1;
    let mut x = x;
    while let Some(next) = run.advance(sampler, &x)? {
        x = next;
        if observe(run.step(), total).is_break() && run.step() < total {
            return Err(Error::Stopped {
                done: run.step(),
                total,
            });
        }
    }
    Ok(x)
}
