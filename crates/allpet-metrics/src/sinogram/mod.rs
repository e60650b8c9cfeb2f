//! Consistency of sinograms.
