//! Parallel-beam Radon projector with its exact adjoint, closed-form projections and filtered back-projection.
