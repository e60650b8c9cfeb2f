//! Radon mask augmentation (RMAS), dynamic multi-masks (DMM) and the positive/negative decomposition of sinograms.
