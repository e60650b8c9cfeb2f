//! A 64-bit checksum of 8-byte words: `h ← rotate((h ⊕ word)·p, 29)`, FNV-1a's step taken on words.
//!
//! Every step is a bijection of `h`, so any change inside one word is always found, and others with a chance of
//! `1 - 2⁻⁶⁴`. It guards against damage, not against malice.

/// A checksum in the making: of files here, and of data sets for [`crate::Identity::data`].
#[derive(Debug, Clone, Copy)]
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl Checksum {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes in bytes and their number, so that `ab + c` and `a + bc` differ.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            self.word(u64::from_le_bytes(std::array::from_fn(|i| word[i])));
        }
        let rest = words.remainder();
        self.word(u64::from_le_bytes(std::array::from_fn(|i| {
            rest.get(i).copied().unwrap_or(0)
        })));
        self.word(bytes.len() as u64);
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29);
    }

    /// Takes in values, as [`Checksum::add`] does their little-endian bytes.
    pub fn add_f32(&mut self, values: &[f32]) {
        let mut pairs = values.chunks_exact(2);
        for pair in &mut pairs {
            self.word(u64::from(pair[0].to_bits()) | u64::from(pair[1].to_bits()) << 32);
        }
        self.word(pairs.remainder().first().map_or(0, |v| u64::from(v.to_bits())));
        self.word(4 * values.len() as u64);
    }

    /// The checksum as 16 hexadecimal digits.
    pub fn hex(self) -> String {
        format!("{:016x}", self.0)
    }
}
