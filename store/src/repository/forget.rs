//! Forgetting snapshots, taking that back, and protecting them from it.
//!
//! A forgotten snapshot leaves the list at once, but stays whole, so that it can be taken back, until a prune
//! removes it for good. No data moves here: each of these is one compare-and-swap of the head.

use super::snapshots::by_prefix;
use super::{Attempt, CatalogueEdit, HeadView, Repository, Snapshot};
use crate::catalogue::{ForgottenEntry, Key, SnapshotEntry};
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::SnapshotId;
use std::sync::Arc;

/// A forgotten snapshot that can still be taken back.
#[derive(Debug, Clone)]
pub struct Forgotten {
    /// What it was.
    pub snapshot: Snapshot,
    /// When it was forgotten, by the forgetter's clock.
    pub forgotten: Timestamp,
}

impl Repository {
    /// Takes snapshots off the list. They stay whole, and [`Self::undelete`] brings them back, until a prune
    /// finds that they were forgotten long enough ago. Ids that are not live are ignored. Gives the ids that this
    /// call forgot.
    ///
    /// # Errors
    /// `Protected` when one of them is protected: then none is forgotten.
    pub fn forget(self: &Arc<Self>, ids: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        self.change_snapshots(|base| {
            let live = base.snapshots()?;
            let (seq, now) = (base.seq() + 1, self.env.now());
            let mut change = Change::default();
            for id in ids {
                let Some(entry) = live.get(id) else { continue };
                if entry.protected {
                    return Err(Error::Protected { snapshot: *id });
                }
                change.edit.remove(Key::Snapshot(*id));
                let forgotten = ForgottenEntry { entry: *entry, forgotten: now, seq };
                change.edit.put(Key::Forgotten(*id), &forgotten);
                change.ids.push(*id);
            }
            Ok(change)
        })
    }

    /// Brings forgotten snapshots back. Ids that are live already are ignored. Gives the ids that this call
    /// brought back.
    ///
    /// # Errors
    /// `NoSuchSnapshot` names the first id that is neither live nor forgotten, or that a prune has removed: then
    /// none is brought back.
    pub fn undelete(self: &Arc<Self>, ids: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        self.change_snapshots(|base| {
            let (live, forgotten) = (base.snapshots()?, base.forgotten()?);
            let mut change = Change::default();
            for id in ids {
                if live.contains_key(id) {
                    continue;
                }
                let entry = forgotten.get(id).ok_or_else(|| Error::NoSuchSnapshot {
                    detail: format!("snapshot {} was removed for good", id.short()),
                })?;
                change.edit.remove(Key::Forgotten(*id));
                change.edit.put(Key::Snapshot(*id), &entry.entry);
                change.ids.push(*id);
            }
            Ok(change)
        })
    }

    /// Protects snapshots from being forgotten, or takes that back. Gives the ids that this call changed.
    ///
    /// # Errors
    /// `NoSuchSnapshot` names the first id that is not live: then nothing is changed.
    pub fn protect(
        self: &Arc<Self>,
        ids: &[SnapshotId],
        protected: bool,
    ) -> Result<Vec<SnapshotId>> {
        self.change_snapshots(|base| {
            let live = base.snapshots()?;
            let mut change = Change::default();
            for id in ids {
                let entry = live.get(id).ok_or_else(|| Error::NoSuchSnapshot {
                    detail: format!("snapshot {} is not there", id.short()),
                })?;
                if entry.protected != protected {
                    let entry = SnapshotEntry { protected, ..*entry };
                    change.edit.put(Key::Snapshot(*id), &entry);
                    change.ids.push(*id);
                }
            }
            Ok(change)
        })
    }

    /// The forgotten snapshots that can still be taken back, the longest forgotten first.
    pub fn forgotten(self: &Arc<Self>) -> Result<Vec<Forgotten>> {
        let view = self.head()?;
        let (mut list, mut damages) = (Vec::new(), Vec::new());
        for (id, entry) in view.forgotten()? {
            let snapshot = self.read_snapshot(id, &entry.entry, &mut damages)?;
            list.push(Forgotten { snapshot, forgotten: entry.forgotten });
        }
        damages.into_iter().for_each(|damage| self.note(damage));
        list.sort_by_key(|one| (one.forgotten, one.snapshot.record.time, one.snapshot.id));
        Ok(list)
    }

    /// The snapshot of this id that a pinned head lists as forgotten, if it does.
    pub fn forgotten_of(&self, view: &HeadView, id: SnapshotId) -> Result<Option<Snapshot>> {
        let Some(one) = view.forgotten()?.remove(&id) else { return Ok(None) };
        let mut damages = Vec::new();
        let snapshot = self.read_snapshot(id, &one.entry, &mut damages)?;
        damages.into_iter().for_each(|damage| self.note(damage));
        Ok(Some(snapshot))
    }

    /// Finds a forgotten snapshot by its id or the beginning of it.
    ///
    /// # Errors
    /// `NoSuchSnapshot` when none or several match, with the candidates.
    pub fn find_forgotten(self: &Arc<Self>, spec: &str) -> Result<Forgotten> {
        by_prefix(self.forgotten()?, spec, |one| one.snapshot.id)
    }

    /// Applies what `plan` decides under the newest head, again and again until nobody was faster.
    fn change_snapshots(
        self: &Arc<Self>,
        mut plan: impl FnMut(&HeadView) -> Result<Change>,
    ) -> Result<Vec<SnapshotId>> {
        // What an attempt without a clear answer may have changed already.
        let mut perhaps = Vec::new();
        loop {
            self.cancel().check()?;
            let base = self.head()?;
            // A refusal speaks of the head as it is now, whatever became of an attempt without an answer.
            let change = plan(&base)?;
            if change.edit.is_empty() {
                return Ok(perhaps);
            }
            match self.attempt_with_reserve(&base, &change.edit)? {
                Attempt::Committed(_) => return Ok(change.ids),
                Attempt::Lost { certain: true } => {}
                Attempt::Lost { certain: false } => perhaps = change.ids,
            }
        }
    }
}

/// An edit, and the snapshots that it changes.
#[derive(Default)]
struct Change {
    edit: CatalogueEdit,
    ids: Vec<SnapshotId>,
}
