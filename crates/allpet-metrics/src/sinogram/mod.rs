//! Metrics of sinograms that need no reference: whether they can be projections of any image at all.

mod helgason_ludwig;

pub use helgason_ludwig::helgason_ludwig;
