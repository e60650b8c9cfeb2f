//! The paired tasks: their physics, and the datasets they make.

mod common;
mod datasets;
mod physics;
