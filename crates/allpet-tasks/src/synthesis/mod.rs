//! Paired synthesis: input and target of a task drawn jointly from noise (ALL-PET, Figs. 3 and 11-14).
//!
//! One diffusion model over the latents of both members side by side, `[z_input | z_target]`, in the foundation's own U-Net,
//! process and preconditioning. The two halves share time and noise level but not the noise, so that what they show is one
//! object because the network makes it so.

mod dataset;
mod model;
mod network;
mod objective;
mod sampling;
mod training;

pub use dataset::FIRST_SYNTHETIC_SUBJECT;
pub use model::{KindOfPairs, PairDescription, PairSynthesizer, describe_pairs};
pub use network::JointNetwork;
pub use objective::JointObjective;
pub use sampling::{SynthesisOfPairs, SynthesisedPairs};
pub use training::{PairRun, train_pairs};
