//! The PAC-Bayes bound of ALL-PET (arXiv 2509.09130, PAC-Bayes bound analysis, eqs. 1-25), with its slips corrected.
//!
//! With probability at least `1 - δ` over the sample, for all posteriors `Q` at once,
//! `kl(R̂(Q) ‖ R(Q)) ≤ ε = [KL(Q‖P) + ln((n+1)/δ)] / n` (eqs. 17-20; eq. 19 lacks the brackets). The bound on the true
//! risk `R(Q)` is the largest `q` that this allows.
//!
//! What the caller must see to, as no code can:
//! - the loss's scale `C`, the prior's mean and its variance are fixed before the sample is seen; a variance chosen on
//!   the data is paid for by [`certify_over_priors`];
//! - `n` counts independent units: patients, not slices or augmentations. [`unit_means`] turns losses of slices into
//!   losses of patients;
//! - `R̂(Q)` is the risk of the *randomised* predictor. The loss of one checkpoint certifies nothing; Monte Carlo draws
//!   from `Q` ([`gibbs_risk`]) cost a second `δ'` (Langford & Caruana 2002), and the confidence is `1 - δ - δ'`.

mod binary_kl;
mod certificate;
mod gaussian;
mod gibbs;
mod loss;
mod priors;

pub use binary_kl::{binary_kl, binary_kl_upper};
pub use certificate::{Certificate, CertificateSettings, Complexity, VACUOUS, certify};
pub use gaussian::{Gaussian, kl_checkpoint, kl_isotropic};
pub use gibbs::{GibbsRisk, gibbs_risk, unit_means};
pub use loss::BoundedLoss;
pub use priors::{PriorCandidate, certify_over_priors};
