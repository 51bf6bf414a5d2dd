//! Where the stripes of a group lie: pure arithmetic over the lengths of its packs.
//!
//! Stripe `s` of a group is what lies at `s * stripe` in each of its packs, and the parity over that. A pack that ends
//! earlier counts as zeros from there on. Knows nothing of what is stored.

use std::ops::Range;

/// Lengths of stripes are rounded up to this, the unit of the code: 64 bytes.
const CODE_UNIT: u64 = 64;

/// The geometry of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    stripe_bytes: u64,
    sizes: Vec<u64>,
    longest: u64,
}

impl Layout {
    /// The geometry of packs of these lengths, in bytes; none of them is empty.
    pub fn new(stripe_bytes: u32, sizes: Vec<u64>) -> Self {
        let longest = sizes.iter().copied().max().unwrap_or(0);
        Self { stripe_bytes: u64::from(stripe_bytes), sizes, longest }
    }

    /// Number of stripes.
    pub fn stripes(&self) -> u64 {
        self.longest.div_ceil(self.stripe_bytes)
    }

    /// Number of stripes that a pack reaches into.
    pub fn stripes_of(&self, member: usize) -> u64 {
        self.size(member).div_ceil(self.stripe_bytes)
    }

    /// What a pack has of a stripe, as a range of the pack; empty behind its end.
    pub fn data_range(&self, member: usize, stripe: u64) -> Range<u64> {
        let size = self.size(member);
        let start = (stripe * self.stripe_bytes).min(size);
        start..(start + self.stripe_bytes).min(size)
    }

    /// The parity of a stripe, as a range of the parity bytes.
    pub fn parity_range(&self, stripe: u64) -> Range<u64> {
        let start = stripe * self.stripe_bytes;
        start..start + self.code_len(stripe)
    }

    /// Length of each part of a stripe in the code, zeros included, in bytes.
    pub fn code_len(&self, stripe: u64) -> u64 {
        let rest = self.longest.saturating_sub(stripe * self.stripe_bytes);
        rest.min(self.stripe_bytes).next_multiple_of(CODE_UNIT)
    }

    /// Length of the parity bytes of one parity object.
    pub fn parity_bytes(&self) -> u64 {
        self.stripes().checked_sub(1).map_or(0, |last| self.parity_range(last).end)
    }

    fn size(&self, member: usize) -> u64 {
        self.sizes.get(member).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A group of one short pack, one that ends with a stripe, and one that ends within one.
    #[test]
    fn stripes_of_unlike_packs() {
        let layout = Layout::new(4096, vec![100, 8192, 8200]);
        assert_eq!(layout.stripes(), 3);
        assert_eq!([0, 1, 2].map(|member| layout.stripes_of(member)), [1, 2, 3]);
        assert_eq!(layout.data_range(0, 0), 0..100);
        assert_eq!(layout.data_range(0, 1), 100..100);
        assert_eq!(layout.data_range(1, 1), 4096..8192);
        assert_eq!(layout.data_range(2, 2), 8192..8200);
        assert_eq!(layout.code_len(2), 64, "the last stripe is as long as it must be");
        assert_eq!(layout.parity_range(2), 8192..8256);
        assert_eq!(layout.parity_bytes(), 8256);
    }

    proptest! {
        /// Parts cover each pack without gaps, none is longer than its stripe, and the parity covers the longest pack.
        #[test]
        fn parts_cover_packs(
            stripe in 4096u32..70_000,
            sizes in prop::collection::vec(1u64..400_000, 1..6),
        ) {
            let layout = Layout::new(stripe, sizes.clone());
            for (member, size) in sizes.iter().enumerate() {
                let mut at = 0;
                for number in 0..layout.stripes() {
                    let part = layout.data_range(member, number);
                    prop_assert_eq!(part.start, at);
                    prop_assert!(part.end - part.start <= layout.code_len(number));
                    prop_assert_eq!(part.is_empty(), number >= layout.stripes_of(member));
                    at = part.end;
                }
                prop_assert_eq!(at, *size);
            }
            let longest = sizes.iter().max().unwrap();
            prop_assert!((*longest..*longest + 64).contains(&layout.parity_bytes()));
        }
    }
}
