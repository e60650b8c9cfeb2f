//! Image metrics of pairs.
