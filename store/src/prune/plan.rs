//! What a prune would do: a pure function from the use of each pack to a printable plan.

use crate::id::PackId;
use crate::mark::PackMark;
use serde::{Deserialize, Serialize};

/// How much of a live pack is still needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub id: PackId,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// Plaintext bytes of the chunks that a live snapshot needs from this pack.
    pub used_bytes: u64,
    /// Plaintext bytes of all its chunks.
    pub total_bytes: u64,
}

impl PackUse {
    /// What a mark says of a pack.
    pub(super) fn of(pack: &PackMark) -> Self {
        let PackMark { id, used_bytes, total_bytes, .. } = *pack;
        Self { id, size_bytes: pack.size_bytes(), used_bytes, total_bytes }
    }

    /// Stored bytes that nobody needs, estimated by the plaintext's share.
    pub fn unused_stored_bytes(&self) -> u64 {
        if self.total_bytes == 0 {
            return self.size_bytes;
        }
        let unused = u128::from(self.total_bytes.saturating_sub(self.used_bytes));
        let share = u128::from(self.size_bytes) * unused / u128::from(self.total_bytes);
        u64::try_from(share).unwrap_or(self.size_bytes)
    }
}

/// How much unused data may stay in packs that are partly needed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum MaxUnused {
    /// At most this many bytes.
    Bytes(u64),
    /// At most this share of what is needed, in percent.
    Percent(f64),
    /// Packs that are partly needed are left alone.
    Unlimited,
}

impl Default for MaxUnused {
    fn default() -> Self {
        Self::Percent(5.0)
    }
}

/// What becomes of the live packs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Packs that stay as they are.
    pub keep: Vec<PackId>,
    /// Packs that nobody needs.
    pub drop: Vec<PackId>,
    /// Packs whose needed chunks move to new packs, the emptiest first.
    pub rewrite: Vec<PackId>,
    /// Bytes of the packs that are dropped.
    pub drop_bytes: u64,
    /// Bytes of the packs that are rewritten.
    pub rewrite_bytes: u64,
    /// Bytes in kept packs that nobody needs, estimated.
    pub unused_bytes: u64,
    /// Bytes that the repository shrinks by once condemned packs are deleted, estimated.
    pub reclaim_bytes: u64,
}

/// Decides what becomes of each live pack.
pub fn plan(packs: &[PackUse], max_unused: MaxUnused) -> PrunePlan {
    let mut plan = PrunePlan::default();
    let mut partly = Vec::new();
    let mut needed = 0u64;
    for pack in packs {
        if pack.used_bytes == 0 {
            plan.drop.push(pack.id);
            plan.drop_bytes += pack.size_bytes;
            continue;
        }
        needed += pack.size_bytes - pack.unused_stored_bytes();
        if pack.used_bytes < pack.total_bytes {
            plan.unused_bytes += pack.unused_stored_bytes();
            partly.push(*pack);
        } else {
            plan.keep.push(pack.id);
        }
    }
    partly.sort_by(|a, b| {
        let share = |pack: &PackUse| u128::from(pack.used_bytes) << 32;
        let by_use =
            (share(a) / u128::from(a.total_bytes)).cmp(&(share(b) / u128::from(b.total_bytes)));
        by_use.then(a.id.cmp(&b.id))
    });
    let allowed = allowance(max_unused, needed);
    plan.reclaim_bytes = plan.drop_bytes;
    for pack in partly {
        if plan.unused_bytes <= allowed {
            plan.keep.push(pack.id);
            continue;
        }
        let unused = pack.unused_stored_bytes();
        plan.unused_bytes -= unused;
        plan.reclaim_bytes += unused;
        plan.rewrite_bytes += pack.size_bytes;
        plan.rewrite.push(pack.id);
    }
    plan
}

fn allowance(max_unused: MaxUnused, needed: u64) -> u64 {
    match max_unused {
        MaxUnused::Bytes(bytes) => bytes,
        MaxUnused::Unlimited => u64::MAX,
        MaxUnused::Percent(percent) => {
            // Hundredths of a percent are fine enough, and integers give the same plan everywhere.
            let hundredths = (percent.clamp(0.0, 100.0) * 100.0).round();
            let hundredths = (0..=10_000u32).rev().find(|step| f64::from(*step) <= hundredths);
            let share = u128::from(needed) * u128::from(hundredths.unwrap_or(0)) / 10_000;
            u64::try_from(share).unwrap_or(u64::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(name: u8, used: u64, total: u64) -> PackUse {
        let id = PackId::from_bytes([name; 16]);
        PackUse { id, size_bytes: total / 2, used_bytes: used, total_bytes: total }
    }

    fn names(packs: &[PackId]) -> Vec<u8> {
        packs.iter().map(|id| id.as_bytes()[0]).collect()
    }

    /// Unused packs go, full ones stay, and the emptiest are rewritten first until what is unused is allowed.
    #[test]
    fn drops_rewrites_and_keeps() {
        let packs = [pack(1, 0, 1000), pack(2, 1000, 1000), pack(3, 100, 1000), pack(4, 900, 1000)];
        let cases: [(MaxUnused, &[u8], &[u8]); 5] = [
            (MaxUnused::Unlimited, &[2, 3, 4], &[]),
            (MaxUnused::Bytes(0), &[2], &[3, 4]),
            (MaxUnused::Percent(0.0), &[2], &[3, 4]),
            (MaxUnused::Percent(5.0), &[2, 4], &[3]),
            (MaxUnused::Bytes(60), &[2, 4], &[3]),
        ];
        for (max_unused, keep, rewrite) in cases {
            let plan = plan(&packs, max_unused);
            assert_eq!(names(&plan.drop), [1], "{max_unused:?}");
            assert_eq!(names(&plan.keep), keep, "{max_unused:?}");
            assert_eq!(names(&plan.rewrite), rewrite, "{max_unused:?}");
            assert_eq!(plan.drop_bytes, 500);
        }
    }

    /// Figures are estimated by the plaintext's share and never exceed what is there.
    #[test]
    fn estimates_what_is_reclaimed() {
        let plan = plan(&[pack(1, 250, 1000), pack(2, 0, 400)], MaxUnused::Bytes(0));
        assert_eq!(plan.reclaim_bytes, 200 + 375);
        assert_eq!(plan.rewrite_bytes, 500);
        assert_eq!(plan.unused_bytes, 0);
    }
}
