//! Figures of merit of PET images.
