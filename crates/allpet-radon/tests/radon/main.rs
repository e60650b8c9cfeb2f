//! The radon crate against closed forms and `f64` references.

mod adjoint;
mod common;
mod projector;
