//! The projector and filtered back-projection on CUDA devices.
//!
//! `radon.cu` holds the kernels, `tables` what they need to know of a geometry, `run` the order in which they are
//! started on any `Machine`: a device through candle, or, in tests, a C compiler's reading of the same text
//! (allpet-kernel).

#[cfg(feature = "cuda")]
mod device;
#[cfg(test)]
mod host;
mod run;
mod tables;

use allpet_kernel::{Element, Unit};

pub(crate) use tables::{FbpTables, Tables};

#[cfg(feature = "cuda")]
pub(crate) use device::{OnDevice, Work, project, reconstruct};

/// The kernels.
static UNIT: Unit = Unit {
    name: "allpet-radon",
    text: include_str!("radon.cu"),
};

/// How elements lie in memory; each has its own program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Packing {
    element: Element,
    /// Slices that one thread holds: they lie innermost.
    slices: usize,
}

impl Packing {
    /// For a batch: 16 bytes of slices where there are as many.
    fn of(element: Element, batch: usize) -> Self {
        let slices = match batch {
            0 | 1 => 1,
            2..=4 => 4,
            _ if element == Element::F32 => 4,
            _ => 8,
        };
        Self { element, slices }
    }

    fn definitions(self) -> String {
        format!("#define SLICES {}\n", self.slices)
    }
}
