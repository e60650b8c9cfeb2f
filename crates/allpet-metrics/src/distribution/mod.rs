//! Distances between sets of samples: Fréchet distance (FID), kernel distance (KID), inception score, improved
//! precision and recall, nearest training neighbours.
//!
//! Every function works on feature matrices `[samples, features]`, f32 or f64 in and f64 inside, and knows nothing of
//! where the features come from. The published FID, KID and precision stand on Inception v3 features, which
//! `Inception` (feature `candle`) computes with weights from a user's file; [`RandomFeatures`] needs no weights and its
//! figures must carry its label.
//!
//! Results are the same bytes for any number of threads. Values that are not finite, widths that differ and too few
//! samples are errors; degenerate sets (constant, identical, fewer samples than features) have defined values.

mod distances;
mod features;
mod frechet;
#[cfg(feature = "candle")]
mod inception;
mod inception_score;
mod kernel;
mod neighbours;
mod precision_recall;
mod random_features;

pub use frechet::{Frechet, GaussianStatistics, frechet_distance, frechet_distance_of};
#[cfg(feature = "candle")]
pub use inception::{Inception, InceptionFeatures, Resize};
pub use inception_score::{InceptionScore, InceptionScoreSettings, inception_score};
pub use kernel::{KernelDistance, KernelSettings, kernel_distance, polynomial_mmd};
pub use neighbours::{Neighbour, nearest_neighbours};
pub use precision_recall::{PrecisionRecall, precision_recall};
pub use random_features::RandomFeatures;
