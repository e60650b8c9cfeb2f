//! ALL-PET in Rust: a low-resource foundation model for PET in the projection domain (umbrella crate).
