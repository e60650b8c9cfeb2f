//! The host's reading of kernels: elements are rounded as `half` rounds them, and a missing barrier shows.
//!
//! Needs a C compiler: `CC`, or else `cc`.
#![allow(clippy::unwrap_used)]

use allpet_kernel::{Element, Machine, Unit, arguments, host::Host};
use half::{bf16, f16};

static TEXT: Unit = Unit {
    name: "allpet-kernel-test",
    text: r"
typedef struct { const STORE *from; float *to; long long count; } LoadArgs;
DEVICE void load_one(const LoadArgs *a, Thread t) {
    const long long i = (long long)t.bx * THREADS + index_of(t);
    if (i < a->count) a->to[i] = load(a->from[i]);
}
KERNEL(load_all, LoadArgs) {
    BLOCK(Nothing, Nothing)
    PHASE(load_one(a, t);)
    END
}

typedef struct { const float *from; STORE *to; long long count; float factor; } StoreArgs;
DEVICE void store_one(const StoreArgs *a, Thread t) {
    const long long i = (long long)t.bx * THREADS + index_of(t);
    if (i < a->count) a->to[i] = store(a->factor * a->from[i]);
}
KERNEL(store_all, StoreArgs) {
    BLOCK(Nothing, Nothing)
    PHASE(store_one(a, t);)
    END
}

typedef struct { float values[THREADS]; } Values;
typedef struct { float mine; } Mine;
typedef struct { float *to; } TurnArgs;
/* Each thread takes what the one before it has written. */
KERNEL(turn_right, TurnArgs) {
    BLOCK(Values, Mine)
    PHASE(shared->values[index_of(t)] = (float)index_of(t);)
    PHASE(me->mine = shared->values[(index_of(t) + THREADS - 1) % THREADS];)
    PHASE(a->to[t.bx * THREADS + index_of(t)] = me->mine;)
    END
}
KERNEL(turn_too_soon, TurnArgs) {
    BLOCK(Values, Mine)
    PHASE(shared->values[index_of(t)] = (float)index_of(t);
          me->mine = shared->values[(index_of(t) + THREADS - 1) % THREADS];)
    PHASE(a->to[t.bx * THREADS + index_of(t)] = me->mine;)
    END
}
",
};

fn host(element: Element, backward: bool) -> Host {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    Host::new(&compiler, element, "", backward)
}

#[test]
fn elements_are_those_of_half() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    // Every pattern's upper half, ties, what lies beside them, and what a half cannot hold.
    let floats: Vec<f32> = (0..=u16::MAX)
        .flat_map(|high| {
            [0u32, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff].map(|low| (high, low))
        })
        .map(|(high, low)| f32::from_bits(u32::from(high) << 16 | low))
        .collect();
    for element in [Element::F16, Element::BF16] {
        let host = host(element, false);
        let mut loaded = vec![0f32; all.len()];
        let words = [all.as_ptr() as u64, loaded.as_mut_ptr() as u64, all.len() as u64];
        host.launch(&TEXT, "load_all", [256, 1, 1], arguments(&words, &[]))
            .unwrap();
        let mut stored = vec![0u16; floats.len()];
        let words = [
            floats.as_ptr() as u64,
            stored.as_mut_ptr() as u64,
            floats.len() as u64,
        ];
        let one = 1f32.to_bits() as usize;
        let blocks = [floats.len().div_ceil(256), 1, 1];
        host.launch(&TEXT, "store_all", blocks, arguments(&words, &[one]))
            .unwrap();
        let load = |bits: u16| match element {
            Element::F16 => f16::from_bits(bits).to_f32(),
            _ => bf16::from_bits(bits).to_f32(),
        };
        for (bits, value) in all.iter().zip(&loaded) {
            let expected = load(*bits);
            assert!(
                *value == expected || value.is_nan() && expected.is_nan(),
                "{bits:#x}"
            );
        }
        for (value, bits) in floats.iter().zip(&stored) {
            let expected = match element {
                Element::F16 => f16::from_f32(*value).to_bits(),
                _ => bf16::from_f32(*value).to_bits(),
            };
            assert!(
                *bits == expected || value.is_nan() && load(*bits).is_nan(),
                "{value:e}"
            );
        }
    }
}

fn turned(kernel: &'static str, backward: bool) -> Vec<f32> {
    let mut to = vec![f32::NAN; 512];
    let host = host(Element::F32, backward);
    let words = [to.as_mut_ptr() as u64];
    host.launch(&TEXT, kernel, [2, 1, 1], arguments(&words, &[]))
        .unwrap();
    to
}

#[test]
fn a_missing_barrier_shows() {
    let right: Vec<f32> = (0..512).map(|i| ((i + 255) % 256) as f32).collect();
    assert_eq!(turned("turn_right", false), right);
    assert_eq!(turned("turn_right", true), right);
    // NaN where nothing was written yet, and where that is depends on the order.
    assert!(turned("turn_too_soon", false)[0].is_nan());
    assert!(turned("turn_too_soon", true)[1].is_nan());
}
