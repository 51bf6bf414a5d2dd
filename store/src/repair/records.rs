//! Records of snapshots that are lost: made anew from what the catalogue knows.
//!
//! The new record lies under a name of its own, because names are never used twice; the snapshot keeps its id.

use super::plan::RecordPlan;
use crate::backend;
use crate::catalogue::{ForgottenEntry, Key, SnapshotEntry};
use crate::check::Catalogue;
use crate::error::Result;
use crate::id::{ObjectName, SnapshotId};
use crate::record::SnapshotRecord;
use crate::repository::{Attempt, CatalogueEdit, HeadView, Repository};
use std::sync::Arc;

/// What a record that was made anew says of itself.
const DESCRIPTION: &str = "its record was lost: host, paths and tags are not known any more";
/// Times that a record is tried again because somebody else was faster.
const ATTEMPTS_MAX: usize = 64;

impl Repository {
    /// The snapshots whose records cannot be read.
    pub(super) fn lost_records(
        self: &Arc<Self>,
        state: &Catalogue,
        view: &HeadView,
    ) -> Result<Vec<RecordPlan>> {
        let mut lost = Vec::new();
        for (snapshot, entry, is_forgotten) in state.records() {
            self.cancel().check()?;
            // A device may fail once.
            let is_lost = self.record_damage(view, snapshot, entry)?.is_some()
                && self.record_damage(view, snapshot, entry)?.is_some();
            if is_lost {
                lost.push(RecordPlan { snapshot, is_forgotten });
            }
        }
        Ok(lost)
    }

    /// Makes one record anew; false if the snapshot was removed meanwhile, or somebody else was here.
    ///
    /// # Errors
    /// `Conflict` if others were faster all the time; errors of the storage.
    pub(super) fn renew_record(self: &Arc<Self>, id: SnapshotId) -> Result<bool> {
        for _ in 0..ATTEMPTS_MAX {
            self.cancel().check()?;
            let base = self.head()?;
            let forgotten = base.forgotten()?.remove(&id);
            let Some(entry) = base.retained(id)? else { return Ok(false) };
            if self.record_damage(&base, id, &entry)?.is_none() {
                return Ok(false);
            }
            if self.try_renew(&base, id, &entry, forgotten)? {
                return Ok(true);
            }
        }
        Err(super::mend::crowded_out())
    }

    fn try_renew(
        self: &Arc<Self>,
        base: &HeadView,
        id: SnapshotId,
        entry: &SnapshotEntry,
        forgotten: Option<ForgottenEntry>,
    ) -> Result<bool> {
        // Each attempt has a record of its own: a pruner may remove a record that no head names.
        let object = SnapshotId::random(&*self.env);
        let mut record = SnapshotRecord::new(entry.committed, entry.root);
        record.description = DESCRIPTION.into();
        record.base_seq = base.seq();
        record.snapshot = Some(id);
        let sealed = record.seal(object, self.id(), &self.metadata, &*self.env)?;
        let name = ObjectName::Snapshot(object);
        backend::put(&*self.backend, &name, &sealed)?;
        let hash = *blake3::hash(&sealed).as_bytes();
        let entry = SnapshotEntry { hash, record: Some(object), ..*entry };
        let mut edit = CatalogueEdit::default();
        match forgotten {
            Some(one) => edit.put(Key::Forgotten(id), &ForgottenEntry { entry, ..one }),
            None => edit.put(Key::Snapshot(id), &entry),
        }
        match self.attempt(base, &edit)? {
            Attempt::Committed(_) => Ok(true),
            Attempt::Lost { certain } => {
                if certain {
                    // Nobody can name this record. Best effort: prune removes what stays behind.
                    let _ = self.backend.remove(&name);
                }
                Ok(false)
            }
        }
    }
}
