//! The radon crate against closed forms and `f64` references.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod adjoint;
mod analytic;
mod arc_correction;
mod common;
mod efficiencies;
mod fbp;
mod operators;
mod osem;
mod precorrection;
mod projector;
mod reference;
