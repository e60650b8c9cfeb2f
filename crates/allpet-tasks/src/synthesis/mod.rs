//! Paired synthesis: input and target of a task drawn jointly from noise (ALL-PET, Figs. 3 and 11-14).
//!
//! One diffusion model over the latents of both members side by side, `[z_input | z_target]`, in the foundation's own U-Net,
//! process and preconditioning. It draws by the chain rule, `p(target) · p(input | target)`: first a target from noise under
//! its prompt, then an input from other noise beside it. The noise of a measured input cannot be predicted; walked together
//! with the target, its share of the loss drowned the target's, whose drawings came out in speckles.

mod dataset;
mod model;
mod network;
mod objective;
mod sampling;
mod training;

pub use dataset::FIRST_SYNTHETIC_SUBJECT;
pub use model::{KindOfPairs, PairDescription, PairSynthesizer, describe_pairs};
pub use network::{End, JointNetwork};
pub use objective::JointObjective;
pub use sampling::{SynthesisOfPairs, SynthesisedPairs};
pub use training::{PairRun, train_pairs};
