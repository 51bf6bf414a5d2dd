//! What counts when nodes and records disagree: pure. The reasons are in docs/decisions/0011.

use super::records::{Record, Records};
use super::survivors::{Age, Survivors};
use crate::catalogue::{ForgottenEntry, Key, PackEntry, SnapshotEntry, Tombstone, decode_value};
use crate::env::Timestamp;
use crate::id::{PackId, SnapshotId};
use std::collections::{BTreeMap, BTreeSet};

/// What becomes of everything that is known.
#[derive(Debug, Default)]
pub(super) struct Ruling {
    /// Live packs.
    pub packs: BTreeMap<PackId, PackEntry>,
    /// Those of them that may have been condemned since.
    pub doubtful_packs: BTreeSet<PackId>,
    /// Condemned packs.
    pub tombstones: BTreeMap<PackId, Tombstone>,
    /// Snapshots that are certainly live.
    pub live: BTreeMap<SnapshotId, SnapshotEntry>,
    /// Snapshots that were certainly forgotten and can be taken back.
    pub forgotten: BTreeMap<SnapshotId, ForgottenEntry>,
    /// Snapshots of which this is not known.
    pub doubtful: BTreeMap<SnapshotId, Doubt>,
    /// All other entries, as they are encoded.
    pub others: BTreeMap<Key, Vec<u8>>,
}

/// What may be true of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) enum Doubt {
    /// It was committed, or nearly, and may have been forgotten since: live if it is whole, else among the forgotten.
    Live(SnapshotEntry),
    /// It was forgotten, and may have been taken back or removed since: stays forgotten if it is whole.
    Forgotten(ForgottenEntry),
    /// It is not live; whether it can be taken back nobody knows: among the forgotten if it is whole.
    Unlisted(SnapshotEntry),
}

impl Doubt {
    /// What the catalogue said of the snapshot when it was live.
    pub fn entry(&self) -> &SnapshotEntry {
        match self {
            Self::Live(entry) | Self::Unlisted(entry) => entry,
            Self::Forgotten(forgotten) => &forgotten.entry,
        }
    }
}

/// Decides about everything that nodes and records name.
pub(super) fn decide(survivors: &Survivors, records: &Records) -> Ruling {
    let mut ruling = Ruling::default();
    let mut ids: BTreeSet<SnapshotId> = records.newest.keys().copied().collect();
    let mut packs: BTreeSet<PackId> = survivors.tombstones.keys().copied().collect();
    for (key, (_, value)) in &survivors.entries {
        match key {
            Key::Snapshot(id) | Key::Forgotten(id) => {
                ids.insert(*id);
            }
            Key::Pack(id) | Key::Tombstone(id) => {
                packs.insert(*id);
            }
            Key::Lost(_) | Key::Parity(_) | Key::Verified(_) => {
                ruling.others.insert(*key, value.clone());
            }
        }
    }
    ids.into_iter().for_each(|id| decide_snapshot(id, survivors, records, &mut ruling));
    packs.into_iter().for_each(|id| decide_pack(id, survivors, &mut ruling));
    ruling
}

fn decide_snapshot(id: SnapshotId, survivors: &Survivors, records: &Records, ruling: &mut Ruling) {
    let live = entry::<SnapshotEntry>(survivors, Key::Snapshot(id));
    let live = live.map(|(age, entry)| (age, records.settle(id, entry)));
    let forgotten = entry::<ForgottenEntry>(survivors, Key::Forgotten(id));
    let forgotten = forgotten
        .map(|(age, one)| (age, ForgottenEntry { entry: records.settle(id, one.entry), ..one }));
    let record = records.newest.get(&id);
    match (live, forgotten) {
        // Where one attempt forgot it and another did not, the promise to keep it weighs more.
        (Some((since, _)), Some((age, one))) if age > since => {
            forget(id, age, one, survivors, ruling);
        }
        (Some((age, entry)), other) => {
            let is_certain = survivors.is_certain(age)
                && other.is_none_or(|(forgotten, _)| forgotten < age)
                && was_committed(age, record);
            if is_certain {
                ruling.live.insert(id, entry);
            } else {
                ruling.doubtful.insert(id, Doubt::Live(entry));
            }
        }
        (None, Some((age, one))) => forget(id, age, one, survivors, ruling),
        (None, None) => {
            let doubt = record.and_then(|record| decide_record(id, record, survivors));
            let doubt = doubt.map(|doubt| match doubt {
                Doubt::Live(entry) => Doubt::Live(records.settle(id, entry)),
                other => other,
            });
            ruling.doubtful.extend(doubt.map(|doubt| (id, doubt)));
        }
    }
}

fn forget(
    id: SnapshotId,
    age: Age,
    one: ForgottenEntry,
    survivors: &Survivors,
    ruling: &mut Ruling,
) {
    if survivors.is_certain(age) {
        ruling.forgotten.insert(id, one);
        return;
    }
    // Whoever knew later that it is not live has not seen it taken back.
    let is_gone = survivors.known(Key::Snapshot(id)).is_some_and(|known| known >= age);
    let doubt = if is_gone { Doubt::Forgotten(one) } else { Doubt::Live(one.entry) };
    ruling.doubtful.insert(id, doubt);
}

/// Whether a snapshot that a node of this age lists was committed: the head that the node builds on has it, unless the
/// node was written for that very commit.
fn was_committed(age: Age, record: Option<&Record>) -> bool {
    match age {
        // A repair has decided it before.
        Age::Current | Age::Drafted { .. } => true,
        Age::Written { born, .. } => {
            record.is_some_and(|record| record.is_resealed || record.base_seq < born)
        }
    }
}

/// A snapshot that no node names.
fn decide_record(id: SnapshotId, record: &Record, survivors: &Survivors) -> Option<Doubt> {
    let entry = record.entry(id);
    let known = survivors.known(Key::Snapshot(id));
    if !known.is_some_and(|age| age.decides(record.base_seq)) {
        return Some(Doubt::Live(entry));
    }
    // Not live when that was written; but it may have been taken back since.
    let is_certain = known.is_some_and(|age| survivors.is_certain(age));
    let forgotten = survivors.forgotten.get(&id).map(|one| one.entry);
    if !is_certain && (forgotten.is_some() || survivors.nodes_lost > 1) {
        return Some(Doubt::Live(forgotten.unwrap_or(entry)));
    }
    // Never committed, forgotten, or removed. Only where something is lost that could tell is it worth a doubt.
    let is_torn = survivors.nodes_lost > 0 && survivors.known(Key::Forgotten(id)) < known;
    is_torn.then_some(Doubt::Unlisted(entry))
}

fn decide_pack(id: PackId, survivors: &Survivors, ruling: &mut Ruling) {
    let live = entry::<PackEntry>(survivors, Key::Pack(id));
    let condemned = survivors.tombstones.get(&id);
    match (live, condemned) {
        (Some((age, entry)), dead) if dead.is_none_or(|(dead, _)| age > *dead) => {
            ruling.packs.insert(id, entry);
            if !survivors.is_certain(age) {
                ruling.doubtful_packs.insert(id);
            }
        }
        // A condemned name never lives again. Its name may have been dropped since, together with the pack.
        (_, Some((_, tombstone))) => {
            let is_dropped = survivors.known(Key::Tombstone(id)).is_some_and(|age| {
                survivors.is_certain(age)
                    && survivors.known(Key::Pack(id)) == Some(age)
                    && !survivors.entries.contains_key(&Key::Tombstone(id))
            });
            if !is_dropped {
                ruling.tombstones.insert(id, *tombstone);
            }
        }
        (_, None) => {}
    }
}

fn entry<T: serde::de::DeserializeOwned>(survivors: &Survivors, key: Key) -> Option<(Age, T)> {
    let (age, value) = survivors.entries.get(&key)?;
    Some((*age, decode_value(value).ok()?))
}

/// What a doubtful snapshot comes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// It is live.
    Live(SnapshotEntry),
    /// It stays forgotten, as it was.
    Forgotten(ForgottenEntry),
    /// It is put among the forgotten.
    SetAside(ForgottenEntry),
    /// It is gone.
    Gone,
}

/// Decides about a doubtful snapshot, once it is known whether all that it needs is there.
pub(super) fn settle(doubt: Doubt, is_whole: bool, now: Timestamp, seq: u64) -> Outcome {
    let aside = |entry| Outcome::SetAside(ForgottenEntry { entry, forgotten: now, seq });
    match (doubt, is_whole) {
        (Doubt::Live(entry), true) => Outcome::Live(entry),
        (Doubt::Live(entry), false) | (Doubt::Unlisted(entry), true) => aside(entry),
        (Doubt::Forgotten(one), true) => Outcome::Forgotten(one),
        // What it needs went with it.
        (Doubt::Forgotten(_) | Doubt::Unlisted(_), false) => Outcome::Gone,
    }
}
