//! Training runs that resume to the same bytes: optimiser, EMA, rate schedules, checkpoints, observers.
//!
//! [`Trainer`] owns the loop: batch → loss → gradient → clip → AdamW → EMA → observers → checkpoint. Data come
//! through [`Source::batch`], a function of the step alone, and a checkpoint holds everything else a step depends
//! on; so a run that was killed and resumed ends in the bytes of one that was not. Nothing here depends on the
//! clock, on the number of threads or on how often a checkpoint is written.

mod adamw;
pub mod checkpoint;
mod checksum;
mod clip;
mod config;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod early_stop;
mod ema;
mod error;
mod host;
mod learner;
mod objective;
mod observe;
mod rate;
mod trainer;
mod weights;

pub use adamw::{AdamW, AdamWConfig, Update};
pub use checkpoint::{Checkpoint, Identity};
pub use checksum::Checksum;
pub use clip::{clip_factor, global_norm};
pub use config::{Precision, TrainConfig};
pub use early_stop::{EarlyStop, Plateau};
pub use ema::ema_decay;
pub use error::{BoxError, Error, Result};
pub use learner::{Learner, Taken};
pub use objective::{Loss, Objective, Source};
pub use observe::{JsonLines, Observer, StepInfo};
pub use rate::RateSchedule;
pub use trainer::{Outcome, Trainer};
pub use weights::{load_model, load_model_bytes, save_model};
