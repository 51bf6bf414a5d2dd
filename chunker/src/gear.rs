//! The table of random numbers that decides where chunks end.

use crate::Params;
use fastcdc::v2020::{Normalization, cut_gear, get_gear_with_seed, select_masks};
use std::fmt;
use zeroize::Zeroizing;

/// What the table is drawn from, so that the secret can serve other purposes too.
const KEYED_CONTEXT: &[u8] = b"stillpoint gear table v1";
/// How strongly sizes are drawn to the average (NC level 2 of the FastCDC paper).
const NORMALIZATION: Normalization = Normalization::Level2;

/// A gear table and its left-shifted twin, which FastCDC (Xia et al., 2020) needs to roll two bytes at a time.
///
/// With a secret table nobody can tell from the lengths of stored chunks what they hold.
pub struct Gear {
    plain: Zeroizing<[u64; 256]>,
    shifted: Zeroizing<[u64; 256]>,
}

impl Gear {
    /// The table that belongs to a secret.
    pub fn keyed(secret: &[u8; 32]) -> Self {
        let mut bytes = Zeroizing::new([0u8; 256 * 8]);
        let mut hasher = blake3::Hasher::new_keyed(secret);
        hasher.update(KEYED_CONTEXT).finalize_xof().fill(bytes.as_mut_slice());
        let mut plain = Zeroizing::new([0u64; 256]);
        let (words, _) = bytes.as_chunks::<8>();
        plain.iter_mut().zip(words).for_each(|(slot, word)| *slot = u64::from_le_bytes(*word));
        Self::with_table(plain)
    }

    /// The table that the `fastcdc` crate and its relatives publish: no secret, for comparison with them.
    pub fn published() -> Self {
        let (table, _) = get_gear_with_seed(0);
        let mut plain = Zeroizing::new([0u64; 256]);
        plain.copy_from_slice(&table);
        Self::with_table(plain)
    }

    fn with_table(plain: Zeroizing<[u64; 256]>) -> Self {
        let shifted = Zeroizing::new(plain.map(|value| value << 1));
        Self { plain, shifted }
    }
}

impl fmt::Debug for Gear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gear(redacted)")
    }
}

/// Sizes and masks of the cut rule, ready for use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CutRule {
    min: usize,
    avg: usize,
    max: usize,
    mask_small: u64,
    mask_large: u64,
}

impl CutRule {
    pub fn new(params: &Params) -> Self {
        let [min, avg, max] = [params.min_bytes(), params.avg_bytes(), params.max_bytes()]
            .map(|bytes| usize::try_from(bytes).expect("32 bits fit"));
        let (mask_small, mask_large) = select_masks(avg, NORMALIZATION);
        Self { min, avg, max, mask_small, mask_large }
    }

    /// Content up to this length is one chunk.
    pub fn single_chunk_bytes(&self) -> usize {
        self.avg
    }

    /// With this many bytes ahead a cut does not depend on what follows.
    pub fn max_bytes(&self) -> usize {
        self.max
    }

    /// The length of the first chunk of `bytes`: right if they are [`Self::max_bytes`] or the rest of the stream.
    #[inline]
    pub fn cut(&self, gear: &Gear, bytes: &[u8]) -> usize {
        let (_fingerprint, length) = cut_gear(
            bytes,
            self.min,
            self.avg,
            self.max,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            gear.plain.as_slice(),
            gear.shifted.as_slice(),
        );
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The crate's documented vectors for zeroes: chunks of the greatest size with this fingerprint, and a last odd
    /// byte whose fingerprint is the table's first number.
    #[test]
    fn published_vectors() {
        let gear = Gear::published();
        let (small, large) = select_masks(256, Normalization::Level1);
        let cut = |bytes: &[u8]| {
            let (plain, shifted) = (gear.plain.as_slice(), gear.shifted.as_slice());
            let (ls_small, ls_large) = (small << 1, large << 1);
            cut_gear(bytes, 64, 256, 1024, small, large, ls_small, ls_large, plain, shifted)
        };
        assert_eq!(cut(&[0; 10240]), (14_169_102_344_523_991_076, 1024));
        assert_eq!(cut(&[0; 65]), (0x3b5d_3c7d_207e_37dc, 65));
        let (_, published_shifted) = get_gear_with_seed(0);
        assert_eq!(gear.shifted.as_slice(), &*published_shifted);
    }

    /// Tables of different secrets are unrelated; equal secrets give equal tables, on every machine.
    #[test]
    fn keyed_tables_follow_the_secret() {
        let gear = Gear::keyed(&[7; 32]);
        assert_eq!(gear.plain, Gear::keyed(&[7; 32]).plain);
        let other = Gear::keyed(&[8; 32]);
        assert!(gear.plain.iter().zip(other.plain.iter()).all(|(left, right)| left != right));
        let bits: u32 = gear.plain.iter().map(|value| value.count_ones()).sum();
        assert!((7_800..8_600).contains(&bits), "{bits} of 16384 bits are set");
        assert_eq!(gear.plain[0], KEYED_FIRST, "{:#x}", gear.plain[0]);
    }

    /// First number of the table for a secret of 32 sevens; changing it would lose all deduplication.
    const KEYED_FIRST: u64 = 0xe494_d730_ffae_9b29;
}
