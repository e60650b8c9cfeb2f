//! Downstream PET tasks on sinograms: low dose, attenuation correction, delayed frame, tracer conversion, dual-tracer
//! separation.

mod attention;
pub mod classical;
mod error;
mod heads;
mod metadata;
mod model;
mod network;
mod objective;
mod pairs;
mod restore;
mod statistics;
pub mod study;
mod synthesis;
mod training;
mod unpaired;

pub use attention::{Attention, project};
pub use error::{Error, Result};
pub use heads::{
    Attenuation, Conversion, CountRule, Delayed, Downstream, Head, LowDose, Metadata, Separation,
};
pub use model::{Restorer, TaskDescription, describe_tasks};
pub use network::{Method, TaskNetwork};
pub use objective::{BridgeObjective, RegressionObjective};
pub use pairs::{FirstEnd, Goal, PairAugmentation, PairBatch, PairSettings, PairSource};
pub use restore::{Regions, RestoreRequest, Restored};
pub use statistics::ScaleRatio;
pub use synthesis::{
    End, FIRST_SYNTHETIC_SUBJECT, JointNetwork, JointObjective, KindOfPairs, PairDescription, PairRun,
    PairSynthesizer, SynthesisOfPairs, SynthesisedPairs, describe_pairs, train_pairs,
};
pub use training::{TaskRun, train_tasks};
pub use unpaired::{UnpairedRequest, restore_unpaired};
