//! Exchange formats of ALL-PET: NumPy arrays, safetensors datasets, Interfile list-mode and pictures.
