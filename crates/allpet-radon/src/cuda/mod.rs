//! The projector and filtered back-projection on CUDA devices.
//!
//! `radon.cu` holds the kernels, `tables` what they need to know of a geometry, `run` the order in which they are
//! started on any `Machine`: a device through candle, or, in tests, a C compiler's reading of the same text.

#[cfg(feature = "cuda")]
mod device;
#[cfg(test)]
mod host;
mod run;
mod tables;

pub(crate) use tables::{FbpTables, Tables};

#[cfg(feature = "cuda")]
pub(crate) use device::{OnDevice, Work, project, reconstruct};

/// The kernels.
const TEXT: &str = include_str!("radon.cu");

/// How elements lie in memory; each has its own program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Packing {
    /// 16-bit floats instead of 32-bit ones.
    half: bool,
    /// Slices that one thread holds: they lie innermost.
    slices: usize,
}

impl Packing {
    /// For a batch: 16 bytes of slices where there are as many.
    fn of(half: bool, batch: usize) -> Self {
        let slices = match batch {
            0 | 1 => 1,
            2..=4 => 4,
            _ if half => 8,
            _ => 4,
        };
        Self { half, slices }
    }

    fn element_bytes(self) -> usize {
        if self.half { 2 } else { 4 }
    }

    fn definitions(self) -> String {
        format!(
            "#define HALF {}\n#define SLICES {}\n",
            i32::from(self.half),
            self.slices
        )
    }
}
