//! Snapshots of a head: listing, finding by what a user typed, forgetting.

use super::{Attempt, CatalogueEdit, HeadView, Repository};
use crate::backend;
use crate::catalogue::{Key, SnapshotEntry};
use crate::error::{Error, Result};
use crate::id::{ObjectName, SnapshotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::SnapshotRecord;
use std::sync::Arc;

/// A live snapshot and its record.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it says.
    pub record: SnapshotRecord,
}

impl Repository {
    /// The live snapshots of the current head, oldest first.
    ///
    /// A snapshot whose record is lost or damaged is listed with what the catalogue knows of it (its manifest and
    /// when it was committed), and noted: it can still be restored and forgotten.
    pub fn snapshots(self: &Arc<Self>) -> Result<Vec<Snapshot>> {
        let mut view = self.head()?;
        loop {
            let (snapshots, damages) = self.read_records(&view)?;
            if !damages.is_empty() {
                // Forgotten and pruned while we read? Then the newer head does not name it.
                let now = self.head()?;
                if now.hash != view.hash {
                    view = now;
                    continue;
                }
            }
            damages.into_iter().for_each(|damage| self.note(damage));
            return Ok(snapshots);
        }
    }

    /// The live snapshots of a pinned head, oldest first; lost records as in [`Self::snapshots`].
    pub fn snapshots_of(&self, view: &HeadView) -> Result<Vec<Snapshot>> {
        let (snapshots, damages) = self.read_records(view)?;
        damages.into_iter().for_each(|damage| self.note(damage));
        Ok(snapshots)
    }

    /// The snapshots of a head, oldest first, and a sentence for each record that cannot be read.
    fn read_records(&self, view: &HeadView) -> Result<(Vec<Snapshot>, Vec<String>)> {
        let (mut snapshots, mut damages) = (Vec::new(), Vec::new());
        for (id, entry) in view.snapshots()? {
            let record = match self.snapshot_record(id, &entry) {
                Err(error) if error.is_damage() => {
                    damages.push(format!(
                        "{error}; snapshot {} is listed without host, paths and tags, its files can be restored",
                        id.short()
                    ));
                    let mut record = SnapshotRecord::new(entry.committed, entry.root);
                    record.description = "its record is damaged".into();
                    record
                }
                other => other?,
            };
            snapshots.push(Snapshot { id, record });
        }
        snapshots.sort_by_key(|snapshot| (snapshot.record.time, snapshot.id));
        Ok((snapshots, damages))
    }

    /// Reads and verifies one record.
    pub(crate) fn snapshot_record(
        &self,
        id: SnapshotId,
        entry: &SnapshotEntry,
    ) -> Result<SnapshotRecord> {
        let name = ObjectName::Snapshot(id);
        let bytes = backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX)?;
        if blake3::hash(&bytes).as_bytes() != &entry.hash {
            return Err(Error::damaged(name, "its bytes are not those that were committed"));
        }
        let record = SnapshotRecord::open(&bytes, id, self.id(), &self.metadata)?;
        if record.root != entry.root {
            return Err(Error::damaged(name, "it names another manifest than the catalogue"));
        }
        Ok(record)
    }

    /// Finds a snapshot by what a user typed: an id or the beginning of one, `latest`, or `latest~N`.
    ///
    /// # Errors
    /// `NoSuchSnapshot` when none or several match, with the candidates.
    pub fn find_snapshot(self: &Arc<Self>, spec: &str) -> Result<Snapshot> {
        let snapshots = self.snapshots()?;
        let missing = |detail: String| Error::NoSuchSnapshot { detail };
        if let Some(back) = spec.strip_prefix("latest") {
            let back = match back.strip_prefix('~') {
                None if back.is_empty() => 0,
                Some(number) => number
                    .parse::<usize>()
                    .map_err(|_| missing(format!("{spec:?}: expected a number after latest~")))?,
                None => return Err(missing(format!("no snapshot matches {spec:?}"))),
            };
            let count = snapshots.len();
            return snapshots.into_iter().rev().nth(back).ok_or_else(|| {
                missing(format!("no snapshot {spec:?}: the repository has {count} snapshots"))
            });
        }
        let wanted = spec.to_ascii_lowercase();
        let mut matches: Vec<_> = snapshots
            .into_iter()
            .filter(|snapshot| !wanted.is_empty() && snapshot.id.to_string().starts_with(&wanted))
            .collect();
        match (matches.pop(), matches.len()) {
            (Some(found), 0) => Ok(found),
            (Some(last), _) => {
                matches.push(last);
                let names: Vec<_> =
                    matches.iter().take(8).map(|snapshot| snapshot.id.short()).collect();
                Err(missing(format!("{spec:?} is ambiguous: it matches {}", names.join(", "))))
            }
            (None, _) => Err(missing(format!("no snapshot matches {spec:?}"))),
        }
    }

    /// Removes snapshots from the head. Their data stays until a prune; ids that are not live are ignored.
    /// Gives the ids that this call removed.
    pub fn forget(self: &Arc<Self>, ids: &[SnapshotId]) -> Result<Vec<SnapshotId>> {
        // What an attempt without a clear answer may have removed already.
        let mut perhaps_gone = Vec::new();
        loop {
            self.cancel().check()?;
            let base = self.head()?;
            let live = base.snapshots()?;
            let gone: Vec<_> = ids.iter().copied().filter(|id| live.contains_key(id)).collect();
            if gone.is_empty() {
                return Ok(perhaps_gone);
            }
            let mut edit = CatalogueEdit::default();
            for id in &gone {
                edit.remove(Key::Snapshot(*id));
            }
            match self.attempt(&base, &edit)? {
                // The records stay until prune removes what no head names.
                Attempt::Committed(_) => return Ok(gone),
                Attempt::Lost { certain: true } => {}
                Attempt::Lost { certain: false } => perhaps_gone = gone,
            }
        }
    }
}
