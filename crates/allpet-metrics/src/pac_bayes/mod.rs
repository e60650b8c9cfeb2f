//! The PAC-Bayes bound of ALL-PET, eqs. 1-25.
