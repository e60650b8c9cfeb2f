//! Diffusion schedules, forward processes and samplers behind one object-safe trait.
