//! Sinogram autoencoder on C_all = [C_pos, S_full, C_neg].
