//! CUDA kernels whose one text is compiled twice: at run time for a device, and by a C compiler so that tests need none.
//!
//! The text is C that is also CUDA C++. A kernel is a row of phases; on a device a barrier stands after each (`PHASE`),
//! on the host a loop over the threads of a block runs each phase to its end, in rising or falling order, over memory
//! that starts as NaN. Blocks have 32 × 8 threads.
//!
//! ```c
//! typedef struct { const STORE *x; STORE *y; long long count; float factor; } ScaleArgs;
//! DEVICE void scale_one(const ScaleArgs *a, Thread t) {
//!     const long long i = (long long)t.bx * THREADS + index_of(t);
//!     if (i < a->count) a->y[i] = store(a->factor * load(a->x[i]));
//! }
//! ONE_PHASE(scale, ScaleArgs, scale_one)
//! ```
//!
//! What comes before the text (`device.h` or `host.h`) defines DEVICE, UNROLL, ALIGNED, KERNEL, BLOCK, PHASE, END,
//! THREADS, `Thread` (`bx, by, bz, x, y`), `index_of`, `Nothing`, and of an element in memory `STORE`, `load` and `store`
//! (to and from `float`; 16-bit types round to nearest, ties to even); `common.h` adds ONE_PHASE, a kernel of one phase:
//!
//! ```c
//! KERNEL(scale, ScaleArgs) {
//!     BLOCK(Nothing, Nothing)
//!     PHASE(scale_one(a, t);)
//!     END
//! }
//! ```
//!
//! What starts kernels is written once for any [`Machine`]: a `device::Program` (feature `cuda`), in tests a
//! `host::Host` (feature `host`). Without features there is only the trait.

#[cfg(feature = "cuda")]
pub mod device;
#[cfg(feature = "host")]
pub mod host;

/// What stands between `device.h` or `host.h` and the kernels.
#[cfg(any(feature = "cuda", feature = "host"))]
const COMMON: &str = include_str!("common.h");

/// Words of 64 bits of a kernel's arguments, at most.
pub const ARGUMENTS: usize = 16;

/// Threads of a block along x and y.
pub const BLOCK: [usize; 2] = [32, 8];

/// Kernels that are compiled together.
#[derive(Debug)]
pub struct Unit {
    /// Names the compiled module; different texts have different names.
    pub name: &'static str,
    /// The kernels.
    pub text: &'static str,
}

/// How an element lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32 bits.
    F32,
    /// IEEE, 16 bits.
    F16,
    /// The upper half of 32 bits.
    BF16,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// `ELEMENT` as the headers want it.
    #[cfg(any(feature = "cuda", feature = "host"))]
    fn definition(self) -> &'static str {
        match self {
            Self::F32 => "#define ELEMENT 0\n",
            Self::F16 => "#define ELEMENT 1\n",
            Self::BF16 => "#define ELEMENT 2\n",
        }
    }
}

/// Something that has memory and runs kernels in the order in which they are launched.
pub trait Machine {
    /// Memory that is given back when dropped, after the kernels that were launched before.
    type Memory;
    /// What can go wrong.
    type Error;

    /// How elements lie in memory.
    fn element(&self) -> Element;

    /// Memory with anything in it, aligned to 16 bytes.
    fn scratch(&self, bytes: usize) -> Result<Self::Memory, Self::Error>;

    /// Where it begins.
    fn address(&self, memory: &Self::Memory) -> u64;

    /// Starts `blocks` blocks of a kernel; `arguments` are its structure (see [`arguments`]).
    fn launch(
        &self,
        unit: &'static Unit,
        kernel: &'static str,
        blocks: [usize; 3],
        arguments: [u64; ARGUMENTS],
    ) -> Result<(), Self::Error>;
}

/// A kernel's argument structure: words (addresses, `long long`), then 32-bit numbers two to a word.
///
/// A `float` among the numbers is passed by its bits. What goes beyond [`ARGUMENTS`] words is left out.
pub fn arguments(words: &[u64], numbers: &[usize]) -> [u64; ARGUMENTS] {
    let mut out = [0; ARGUMENTS];
    let half = |n: usize| n as u64 & u64::from(u32::MAX);
    let pairs = numbers
        .chunks(2)
        .map(|two| half(two[0]) | half(two.get(1).copied().unwrap_or(0)) << 32);
    for (to, from) in out.iter_mut().zip(words.iter().copied().chain(pairs)) {
        *to = from;
    }
    out
}
