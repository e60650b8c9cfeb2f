//! Keyed random streams: every draw is a function of the caller's seed, a name and an index, and of nothing else.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The generator behind every draw in the project.
pub type Stream = ChaCha8Rng;

/// The stream of `(seed, name, index)`, for example `stream(7, "rmas", 12)` for mask 12 of seed 7.
///
/// Seed, name and index together are ChaCha's key, so streams are independent and any of them can be had
/// without drawing the others: sample 12 is the same in a batch of 1 or of 1,000.
pub fn stream(seed: u64, name: &str, index: u64) -> Stream {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&index.to_le_bytes());
    key[16..24].copy_from_slice(&fnv1a(name.as_bytes(), 0xcbf2_9ce4_8422_2325).to_le_bytes());
    key[24..].copy_from_slice(&fnv1a(name.as_bytes(), 0x6c62_272e_07bb_0142).to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Fills a slice with standard normal draws.
pub fn fill_normal(stream: &mut Stream, out: &mut [f32]) {
    for value in out {
        *value = StandardNormal.sample(stream);
    }
}

/// FNV-1a over the bytes; the two offsets above give 128 bits of name.
fn fnv1a(bytes: &[u8], offset: u64) -> u64 {
    bytes.iter().fold(offset, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
