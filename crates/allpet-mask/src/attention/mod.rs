//! Transparent medical attention (TMA): a region of interest, projected to the sinogram, weights features there.
//!
//! The paper's three steps, without a trainable parameter:
//!
//! 1. eq. 10, `M_ROI^I = 1 where X > T`: a coarse image `X` by FBP or OSEM ([`CoarseConfig`]) and a global or adaptive
//!    threshold ([`Threshold`], [`find_lesions`]); or a region that a physician gives or corrects ([`Roi`],
//!    [`RoiShapes`]);
//! 2. eq. 11, `M_ROI^S = R[M_ROI^I]`: the exact projection of pixels and shapes ([`Roi::chords_mm`]), at the geometry of
//!    the features themselves ([`feature_geometry`]), normalised to 0..1 ([`Roi::attention`]);
//! 3. eq. 12, `O = M_ROI^S · F`: the [`Gate`].
//!
//! Where the paper's equations need a reading:
//! - eq. 10 finds hot lesions only, though the text promises hypometabolic ones too; these need `X < T_low` **inside the
//!   body**, or all the air around the patient would be a lesion ([`RoiConfig::cold`], [`Body`]);
//! - eq. 11 gives chords, lengths without a bound; in eq. 12 they have to be normalised, by eq. 4 or 5
//!   ([`Normalisation`](crate::Normalisation));
//! - eq. 12 writes one `F(s, θ)` for features of any layer: their cells are wider than a bin and stand for several views,
//!   so the region is projected at that resolution, averaged over each cell, not a fine map resized;
//! - eq. 12 as printed erases everything off the region ([`Gate::Printed`]), and all features where there is no region:
//!   that is an error here. The residual gate `F·(1 + λM)` ([`Gate::Residual`], not in the paper) leaves them as they
//!   are, bit for bit.
//!
//! ```
//! use allpet_core::{ImageGrid, ParallelGeometry};
//! use allpet_mask::attention::{AttentionConfig, Gate, Roi, RoiShape, feature_geometry};
//!
//! let grid = ImageGrid::square(128, 4.0)?;
//! let lesion = RoiShape::Ellipse { x_mm: 40.0, y_mm: -20.0, a_mm: 12.0, b_mm: 9.0, tilt_deg: 0.0 };
//! let roi = Roi::from_shapes(vec![lesion], grid)?;
//! let latent = feature_geometry(&ParallelGeometry::new(128, 128, 4.0)?, 32, 32)?;
//! let attention = roi.attention(&latent, &AttentionConfig::for_cells(4, 4))?;
//! let features = ndarray::Array3::<f32>::ones((8, 32, 32)).into_dyn();
//! let gated = Gate::default().apply(features.view(), attention.view())?;
//! assert!(gated.iter().all(|v| (1.0..=2.0).contains(v)));
//! # Ok::<(), allpet_mask::Error>(())
//! ```

mod chord;
mod coarse;
mod components;
mod gate;
mod lesions;
mod local;
mod otsu;
mod outline;
mod polygon;
mod resolution;
mod roi;
mod runs;
mod shape;
#[cfg(feature = "candle")]
pub(crate) mod tensor;
mod threshold;

pub use chord::AttentionConfig;
pub use coarse::{CoarseConfig, CoarseMethod};
pub use components::{Components, Connectivity, label_components};
pub use gate::Gate;
pub use lesions::{Lesions, RoiConfig, find_lesions, find_lesions_in};
pub use otsu::otsu_threshold;
pub use outline::Body;
pub use resolution::feature_geometry;
pub use roi::Roi;
pub use shape::{RoiShape, RoiShapes};
pub use threshold::Threshold;
