//! Seeded pseudo-random numbers for corpora: the same seed gives the same bytes on every machine.

use std::io::{self, Write};

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, good enough to choose files and fill them.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that starts at this seed.
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound` (0 when the bound is 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.bits() % bound }
    }

    /// Fills the buffer with incompressible bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.bits().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }

    /// Writes `len` incompressible bytes.
    pub fn write_noise(&mut self, out: &mut dyn Write, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut left = len;
        while left > 0 {
            let now = usize::try_from(left.min(1 << 16)).expect("at most 64 KiB");
            self.fill(&mut buffer[..now]);
            out.write_all(&buffer[..now])?;
            left -= now as u64;
        }
        Ok(())
    }

    /// A line of words, about 60 bytes, ending in a line feed.
    pub fn line(&mut self) -> String {
        const WORDS: [&str; 16] = [
            "account", "balance", "cell", "delta", "entry", "figure", "ground", "harbour",
            "island", "journal", "kernel", "ledger", "meadow", "number", "orchard", "paper",
        ];
        let mut line = format!("{:012x}", self.bits() >> 16);
        for _ in 0..7 {
            let word = self.below(WORDS.len() as u64);
            line.push(' ');
            line.push_str(WORDS[usize::try_from(word).expect("below 16")]);
        }
        line.push('\n');
        line
    }
}
