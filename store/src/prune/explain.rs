//! Where the bytes of all packs stand: what is needed, what is reclaimable now or later, and why not yet. Pure.

use super::plan::{PackUse, PrunePlan};
use crate::env::Timestamp;
use crate::id::PackId;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is to be said of some bytes of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Live snapshots need them.
    Needed,
    /// Only forgotten snapshots need them; freed when none of these can be taken back any more.
    Held,
    /// Nobody needs them, but they share packs with what is needed, and there are few enough of them.
    Tolerated,
    /// As before, but too many: the next prune goes on where this one ended.
    Postponed,
    /// Nobody needs them; what shares their packs moves out.
    Rewritten,
    /// Nobody needs anything of their packs.
    Unneeded,
    /// In packs that interrupted runs have left behind.
    Orphaned,
    /// In packs that no snapshot names yet and that may belong to a running backup.
    Young,
    /// In packs that were condemned by an earlier prune and wait for their time.
    Waiting,
    /// In packs that were condemned long enough ago to be deleted.
    Deletable,
}

/// The bytes of one class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Share {
    /// Which.
    pub class: Class,
    /// Packs that hold some of them; a pack can hold bytes of several classes.
    pub packs: u64,
    /// Stored bytes; estimated where a pack is shared between classes.
    pub bytes: u64,
    /// When the first of them can be deleted; None if that depends on what is decided later.
    pub first: Option<Timestamp>,
    /// When the last of them can be deleted.
    pub last: Option<Timestamp>,
}

/// What is to be said of one pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PackLine {
    /// The pack.
    pub pack: PackId,
    /// What becomes of it.
    pub class: Class,
    /// Its length, bytes.
    pub size_bytes: u64,
    /// Bytes of it that nobody needs, estimated.
    pub unused_bytes: u64,
    /// Bytes of it that only forgotten snapshots need, estimated.
    pub held_bytes: u64,
    /// When it, or what it holds without need, can be deleted.
    pub when: Option<Timestamp>,
}

/// Where all bytes stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Explanation {
    /// Each class that has any bytes, in order. Their bytes add up to all packs.
    pub shares: Vec<Share>,
    /// Each pack, if that was asked for.
    pub packs: Vec<PackLine>,
}

/// A pack that is not live.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outsider {
    pub id: PackId,
    pub size_bytes: u64,
    pub class: Class,
    /// When it can be deleted.
    pub when: Timestamp,
}

/// All that an explanation is made of.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub now: Timestamp,
    /// How long condemned packs are kept.
    pub grace: Duration,
    pub uses: Vec<PackUse>,
    pub plan: PrunePlan,
    /// Packs of the plan that were to be rewritten and were not.
    pub left: BTreeSet<PackId>,
    pub outsiders: Vec<Outsider>,
    /// When forgotten snapshots can no longer be taken back.
    pub expiries: Vec<Timestamp>,
    /// Whether each pack is wanted.
    pub each_pack: bool,
}

/// The moment this much later.
pub(super) fn later(moment: Timestamp, span: Duration) -> Timestamp {
    let span = i128::try_from(span.as_nanos()).unwrap_or(i128::MAX);
    Timestamp::from_nanos(moment.as_nanos().saturating_add(span))
}

/// Explains.
pub(super) fn explain(facts: &Facts) -> Explanation {
    let mut sums = Sums::default();
    let mut packs = Vec::new();
    let classes = classes(facts);
    let gone = later(facts.now, facts.grace);
    let held_until = facts.expiries.iter().max().map(|last| later(*last, facts.grace));
    for pack in &facts.uses {
        let class = classes.get(&pack.id).copied().unwrap_or(Class::Needed);
        let (unused_bytes, held_bytes) = (pack.unused_stored_bytes(), pack.held_stored_bytes());
        let when = matches!(class, Class::Rewritten | Class::Unneeded).then_some(gone);
        let needed = pack.size_bytes.saturating_sub(unused_bytes).saturating_sub(held_bytes);
        sums.add(Class::Needed, needed, None);
        sums.add(Class::Held, held_bytes, None);
        sums.add(class, unused_bytes, when);
        if facts.each_pack {
            let when = when.or(held_until.filter(|_| held_bytes > 0));
            let (pack, size_bytes) = (pack.id, pack.size_bytes);
            packs.push(PackLine { pack, class, size_bytes, unused_bytes, held_bytes, when });
        }
    }
    for outsider in &facts.outsiders {
        let Outsider { id, size_bytes, class, when } = *outsider;
        sums.add(class, size_bytes, Some(when));
        if facts.each_pack {
            let (pack, when) = (id, Some(when));
            let (unused_bytes, held_bytes) = (size_bytes, 0);
            packs.push(PackLine { pack, class, size_bytes, unused_bytes, held_bytes, when });
        }
    }
    for expiry in &facts.expiries {
        sums.date(Class::Held, later(*expiry, facts.grace));
    }
    packs.sort_unstable_by_key(|line| (line.class, line.pack));
    Explanation { shares: sums.0.into_values().collect(), packs }
}

fn classes(facts: &Facts) -> BTreeMap<PackId, Class> {
    let plan = &facts.plan;
    let lists = [
        (&plan.tolerate, Class::Tolerated),
        (&plan.postpone, Class::Postponed),
        (&plan.rewrite, Class::Rewritten),
        (&plan.drop, Class::Unneeded),
    ];
    let all = lists.into_iter().flat_map(|(list, class)| list.iter().map(move |id| (*id, class)));
    let postponed = facts.left.iter().map(|id| (*id, Class::Postponed));
    all.chain(postponed).collect()
}

#[derive(Default)]
struct Sums(BTreeMap<Class, Share>);

impl Sums {
    fn add(&mut self, class: Class, bytes: u64, when: Option<Timestamp>) {
        if bytes == 0 {
            return;
        }
        let empty = Share { class, packs: 0, bytes: 0, first: None, last: None };
        let share = self.0.entry(class).or_insert(empty);
        share.packs += 1;
        share.bytes += bytes;
        when.into_iter().for_each(|when| self.date(class, when));
    }

    fn date(&mut self, class: Class, when: Timestamp) {
        if let Some(share) = self.0.get_mut(&class) {
            share.first = Some(share.first.map_or(when, |first| first.min(when)));
            share.last = Some(share.last.map_or(when, |last| last.max(when)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Limits, MaxUnused, plan};
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn id(name: u8) -> PackId {
        PackId::from_bytes([name; 16])
    }

    fn facts() -> Facts {
        let pack = |name, used_bytes, held_bytes| PackUse {
            id: id(name),
            size_bytes: 1000,
            used_bytes,
            held_bytes,
            total_bytes: 100,
            is_outdated: false,
        };
        let uses =
            vec![pack(1, 100, 0), pack(2, 100, 30), pack(3, 10, 10), pack(4, 0, 0), pack(5, 95, 0)];
        let limits = Limits { max_unused: MaxUnused::Bytes(60), ..Limits::default() };
        let plan = plan(&uses, &limits);
        let outsider = |name, class, when| Outsider { id: id(name), size_bytes: 7, class, when };
        let outsiders = vec![
            outsider(6, Class::Waiting, at(50)),
            outsider(7, Class::Waiting, at(70)),
            outsider(8, Class::Deletable, at(10)),
        ];
        let (now, grace) = (at(20), Duration::from_secs(100));
        let (left, expiries) = (BTreeSet::new(), vec![at(400), at(300)]);
        Facts { now, grace, uses, plan, left, outsiders, expiries, each_pack: true }
    }

    fn shares(facts: &Facts) -> Vec<(Class, u64, u64, Option<i64>, Option<i64>)> {
        let seconds = |moment: Option<Timestamp>| moment.map(|moment| moment.seconds);
        let shares = explain(facts).shares.into_iter();
        shares.map(|s| (s.class, s.packs, s.bytes, seconds(s.first), seconds(s.last))).collect()
    }

    /// Every byte of every pack stands in one class, with the moments at which it can go.
    #[test]
    fn bytes_are_divided_into_classes() {
        let facts = facts();
        let expected = [
            (Class::Needed, 3, 1000 + 700 + 950, None, None),
            (Class::Held, 2, 300 + 100, Some(400), Some(500)),
            (Class::Tolerated, 1, 50, None, None),
            (Class::Rewritten, 1, 900, Some(120), Some(120)),
            (Class::Unneeded, 1, 1000, Some(120), Some(120)),
            (Class::Waiting, 2, 14, Some(50), Some(70)),
            (Class::Deletable, 1, 7, Some(10), Some(10)),
        ];
        assert_eq!(shares(&facts), expected);
        assert_eq!(expected.iter().map(|(_, _, bytes, _, _)| bytes).sum::<u64>(), 5 * 1000 + 3 * 7);
        let classes: Vec<(Class, u8)> = explain(&facts)
            .packs
            .iter()
            .map(|line| (line.class, line.pack.as_bytes()[0]))
            .collect();
        let expected = [
            (Class::Needed, 1),
            (Class::Needed, 2),
            (Class::Tolerated, 5),
            (Class::Rewritten, 3),
            (Class::Unneeded, 4),
            (Class::Waiting, 6),
            (Class::Waiting, 7),
            (Class::Deletable, 8),
        ];
        assert_eq!(classes, expected);
    }

    /// What was planned and not done is left to the next prune, and has no date.
    #[test]
    fn what_was_not_rewritten_is_postponed() {
        let facts = Facts { left: BTreeSet::from([id(3)]), each_pack: false, ..facts() };
        let postponed: Vec<_> =
            shares(&facts).into_iter().filter(|s| s.0 == Class::Postponed).collect();
        assert_eq!(postponed, [(Class::Postponed, 1, 900, None, None)]);
        assert!(shares(&facts).iter().all(|s| s.0 != Class::Rewritten));
        assert!(explain(&facts).packs.is_empty());
    }
}
