//! Procedural PET phantoms, tracers and acquisition physics: simulated sinograms split by subject.
