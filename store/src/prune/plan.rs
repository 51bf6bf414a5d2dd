//! What a prune would do with each live pack: a pure function from their use to a printable plan.

use crate::crypto::Generation;
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
    /// Plaintext bytes of the chunks that are needed from this pack.
    pub used_bytes: u64,
    /// How many of these only forgotten snapshots need.
    pub held_bytes: u64,
    /// Plaintext bytes of all its chunks.
    pub total_bytes: u64,
    /// Keys seal it that are no longer used for writing.
    pub is_outdated: bool,
}

impl PackUse {
    /// What a mark says of a pack.
    pub(super) fn of(pack: &PackMark, current: Generation) -> Self {
        let PackMark { id, used_bytes, held_bytes, total_bytes, .. } = *pack;
        let (size_bytes, is_outdated) = (pack.size_bytes(), pack.generation() < current);
        Self { id, size_bytes, used_bytes, held_bytes, total_bytes, is_outdated }
    }

    /// Stored bytes that nobody needs, estimated by the plaintext's share.
    pub fn unused_stored_bytes(&self) -> u64 {
        if self.total_bytes == 0 {
            return self.size_bytes;
        }
        self.share_bytes(self.total_bytes.saturating_sub(self.used_bytes))
    }

    /// Stored bytes that only forgotten snapshots need, estimated likewise.
    pub fn held_stored_bytes(&self) -> u64 {
        self.share_bytes(self.held_bytes)
    }

    fn share_bytes(&self, plain_bytes: u64) -> u64 {
        if self.total_bytes == 0 {
            return 0;
        }
        let share = u128::from(self.size_bytes) * u128::from(plain_bytes);
        u64::try_from(share / u128::from(self.total_bytes)).unwrap_or(self.size_bytes)
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

/// How far rewriting goes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Unused data that may stay in packs that are partly needed.
    pub max_unused: MaxUnused,
    /// Bytes of packs that may be rewritten; None: as many as it takes.
    pub max_repack_bytes: Option<u64>,
    /// Rewrite what older keys seal, however full it is.
    pub reseal: bool,
}

/// What becomes of the live packs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Packs that are needed whole.
    pub keep: Vec<PackId>,
    /// Packs that are partly needed and stay as they are, within what may stay unused.
    pub tolerate: Vec<PackId>,
    /// Packs that are left to another prune, because this one may not rewrite more.
    pub postpone: Vec<PackId>,
    /// Packs whose needed chunks move to new packs, the emptiest first.
    pub rewrite: Vec<PackId>,
    /// Packs that nobody needs.
    pub drop: Vec<PackId>,
    /// Bytes of the packs that are dropped.
    pub drop_bytes: u64,
    /// Bytes of the packs that are rewritten.
    pub rewrite_bytes: u64,
    /// Bytes in packs that stay which nobody needs, estimated.
    pub unused_bytes: u64,
    /// Bytes that the repository shrinks by once condemned packs are deleted, estimated.
    pub reclaim_bytes: u64,
    /// Bytes that only forgotten snapshots need, estimated.
    pub held_bytes: u64,
}

/// Decides what becomes of each live pack.
pub fn plan(packs: &[PackUse], limits: &Limits) -> PrunePlan {
    let mut plan = PrunePlan::default();
    let (mut partly, mut needed) = (Vec::new(), 0u64);
    for pack in packs {
        plan.held_bytes += pack.held_stored_bytes();
        if pack.used_bytes == 0 {
            plan.drop.push(pack.id);
            plan.drop_bytes += pack.size_bytes;
            continue;
        }
        needed += pack.size_bytes - pack.unused_stored_bytes();
        if pack.used_bytes < pack.total_bytes || must_go(pack, limits) {
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
    let allowed = allowance(limits.max_unused, needed);
    let room = limits.max_repack_bytes.unwrap_or(u64::MAX);
    plan.reclaim_bytes = plan.drop_bytes;
    for pack in partly {
        if plan.unused_bytes <= allowed && !must_go(&pack, limits) {
            plan.tolerate.push(pack.id);
        } else if pack.size_bytes > room - plan.rewrite_bytes {
            plan.postpone.push(pack.id);
        } else {
            let unused = pack.unused_stored_bytes();
            plan.unused_bytes -= unused;
            plan.reclaim_bytes += unused;
            plan.rewrite_bytes += pack.size_bytes;
            plan.rewrite.push(pack.id);
        }
    }
    plan
}

fn must_go(pack: &PackUse, limits: &Limits) -> bool {
    limits.reseal && pack.is_outdated
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
    use proptest::prelude::*;

    fn pack(name: u8, used: u64, total: u64) -> PackUse {
        let id = PackId::from_bytes([name; 16]);
        let (size_bytes, held_bytes, is_outdated) = (total / 2, 0, false);
        PackUse { id, size_bytes, used_bytes: used, held_bytes, total_bytes: total, is_outdated }
    }

    fn names(packs: &[PackId]) -> Vec<u8> {
        packs.iter().map(|id| id.as_bytes()[0]).collect()
    }

    fn limits(max_unused: MaxUnused, max_repack_bytes: Option<u64>) -> Limits {
        Limits { max_unused, max_repack_bytes, reseal: false }
    }

    /// Unused packs go, full ones stay, and the emptiest are rewritten first until what is unused is allowed or
    /// what may be rewritten is used up.
    #[test]
    fn drops_rewrites_and_keeps() {
        let packs = [pack(1, 0, 1000), pack(2, 1000, 1000), pack(3, 100, 1000), pack(4, 900, 1000)];
        let cases: [(MaxUnused, Option<u64>, &[u8], &[u8], &[u8]); 8] = [
            (MaxUnused::Unlimited, None, &[3, 4], &[], &[]),
            (MaxUnused::Bytes(0), None, &[], &[], &[3, 4]),
            (MaxUnused::Percent(0.0), None, &[], &[], &[3, 4]),
            (MaxUnused::Percent(5.0), None, &[4], &[], &[3]),
            (MaxUnused::Bytes(60), None, &[4], &[], &[3]),
            (MaxUnused::Bytes(0), Some(999), &[], &[4], &[3]),
            (MaxUnused::Bytes(0), Some(1000), &[], &[], &[3, 4]),
            (MaxUnused::Bytes(0), Some(0), &[], &[3, 4], &[]),
        ];
        for (max_unused, max_repack, tolerate, postpone, rewrite) in cases {
            let plan = plan(&packs, &limits(max_unused, max_repack));
            assert_eq!(names(&plan.drop), [1], "{max_unused:?}");
            assert_eq!(names(&plan.keep), [2], "{max_unused:?}");
            assert_eq!(names(&plan.tolerate), tolerate, "{max_unused:?}");
            assert_eq!(names(&plan.postpone), postpone, "{max_unused:?}");
            assert_eq!(names(&plan.rewrite), rewrite, "{max_unused:?}");
            assert_eq!(plan.drop_bytes, 500);
        }
    }

    /// Figures are estimated by the plaintext's share and never exceed what is there.
    #[test]
    fn estimates_what_is_reclaimed() {
        let held = PackUse { held_bytes: 100, ..pack(1, 250, 1000) };
        let plan = plan(&[held, pack(2, 0, 400)], &limits(MaxUnused::Bytes(0), None));
        assert_eq!(plan.reclaim_bytes, 200 + 375);
        assert_eq!(plan.rewrite_bytes, 500);
        assert_eq!((plan.unused_bytes, plan.held_bytes), (0, 50));
    }

    /// What older keys seal is rewritten when that is asked for, however full it is, as far as the size allows.
    #[test]
    fn reseals_what_is_outdated() {
        let old = |pack: PackUse| PackUse { is_outdated: true, ..pack };
        let packs = [
            old(pack(1, 1000, 1000)),
            pack(2, 1000, 1000),
            old(pack(3, 990, 1000)),
            old(pack(4, 0, 1000)),
        ];
        for (reseal, room, rewrite, postpone) in [
            (false, None, &[] as &[u8], &[] as &[u8]),
            (true, None, &[3, 1], &[]),
            (true, Some(500), &[3], &[1]),
        ] {
            let limits = Limits { reseal, ..limits(MaxUnused::Unlimited, room) };
            let plan = plan(&packs, &limits);
            assert_eq!(
                (names(&plan.rewrite), names(&plan.postpone)),
                (rewrite.into(), postpone.into())
            );
            assert_eq!(names(&plan.drop), [4]);
        }
    }

    fn any_pack() -> impl Strategy<Value = (u64, u64, u64, u64, bool)> {
        let total = prop_oneof![Just(0u64), 1..100u64, any::<u32>().prop_map(u64::from)];
        let size = any::<u32>().prop_map(u64::from);
        (total, 0..=100u64, 0..=100u64, size, any::<bool>()).prop_map(
            |(total, used, held, size, is_outdated)| {
                let used = total * used / 100;
                (total, used, used * held / 100, size, is_outdated)
            },
        )
    }

    fn any_limits() -> impl Strategy<Value = Limits> {
        let unused = prop_oneof![
            any::<u32>().prop_map(|bytes| MaxUnused::Bytes(bytes.into())),
            (0.0..100.0f64).prop_map(MaxUnused::Percent),
            Just(MaxUnused::Unlimited),
        ];
        let repack = proptest::option::of(any::<u32>().prop_map(u64::from));
        (unused, repack, any::<bool>())
            .prop_map(|(unused, repack, reseal)| Limits { reseal, ..limits(unused, repack) })
    }

    proptest! {
        /// No plan drops what is needed; each pack has one fate; no limit is exceeded; and what stays unused is
        /// allowed, unless the limit on rewriting forbids more.
        #[test]
        fn plans_are_sound(
            packs in proptest::collection::vec(any_pack(), 0..40),
            limits in any_limits(),
        ) {
            let packs: Vec<PackUse> = (0u8..)
                .zip(packs)
                .map(|(name, (total_bytes, used_bytes, held_bytes, size_bytes, is_outdated))| {
                    let id = PackId::from_bytes([name; 16]);
                    PackUse { id, size_bytes, used_bytes, held_bytes, total_bytes, is_outdated }
                })
                .collect();
            let plan = plan(&packs, &limits);
            let find = |id: &PackId| *packs.iter().find(|pack| pack.id == *id).unwrap();
            let lists = [&plan.keep, &plan.tolerate, &plan.postpone, &plan.rewrite, &plan.drop];
            let mut all: Vec<PackId> = lists.into_iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, packs.iter().map(|pack| pack.id).collect::<Vec<_>>());
            prop_assert!(plan.drop.iter().all(|id| find(id).used_bytes == 0));
            let rewritten: u64 = plan.rewrite.iter().map(|id| find(id).size_bytes).sum();
            prop_assert_eq!(plan.rewrite_bytes, rewritten);
            prop_assert!(limits.max_repack_bytes.is_none_or(|most| rewritten <= most));
            prop_assert!(plan.rewrite.iter().all(|id| find(id).used_bytes > 0));
            let stays = [&plan.tolerate, &plan.postpone].into_iter().flatten();
            let unused: u64 = stays.map(|id| find(id).unused_stored_bytes()).sum();
            prop_assert_eq!(plan.unused_bytes, unused);
            let used = packs.iter().filter(|pack| pack.used_bytes > 0);
            let needed = used.map(|pack| pack.size_bytes - pack.unused_stored_bytes()).sum();
            let within = unused <= allowance(limits.max_unused, needed);
            prop_assert!(within || !plan.postpone.is_empty());
            let outdated = |id: &PackId| find(id).is_outdated;
            let stays = [&plan.keep, &plan.tolerate].into_iter().flatten();
            prop_assert!(!limits.reseal || stays.into_iter().all(|id| !outdated(id)));
            let text = serde_json_like(&plan);
            prop_assert!(text.contains("reclaim_bytes"));
        }
    }

    /// The plan can be printed and written down.
    fn serde_json_like(plan: &PrunePlan) -> String {
        let mut bytes = Vec::new();
        ciborium::into_writer(plan, &mut bytes).unwrap();
        let back: PrunePlan = ciborium::from_reader(bytes.as_slice()).unwrap();
        assert_eq!(&back, plan);
        format!("{back:?}")
    }
}
