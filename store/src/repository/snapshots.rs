//! Snapshots of a head: listing, and finding by what a user typed.

use super::{HeadView, Repository};
use crate::backend;
use crate::catalogue::SnapshotEntry;
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ObjectName, RepositoryId, SnapshotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::{Original, SnapshotRecord};
use std::sync::Arc;

/// A live snapshot and its record.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its name.
    pub id: SnapshotId,
    /// What it says.
    pub record: SnapshotRecord,
    /// When it was committed, by the committer's clock.
    pub committed: Timestamp,
    /// It cannot be forgotten until somebody takes this back.
    pub protected: bool,
}

impl Snapshot {
    /// The snapshot that was first taken: itself in its own repository, or what it is a copy of.
    pub fn original(&self, repository: RepositoryId) -> Original {
        self.record.original.unwrap_or(Original { repository, snapshot: self.id })
    }

    pub(super) fn new(id: SnapshotId, record: SnapshotRecord, entry: &SnapshotEntry) -> Self {
        Self { id, record, committed: entry.committed, protected: entry.protected }
    }
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
            snapshots.push(self.read_snapshot(id, &entry, &mut damages)?);
        }
        snapshots.sort_by_key(|snapshot| (snapshot.record.time, snapshot.id));
        Ok((snapshots, damages))
    }

    /// Reads one record; where it is lost, gives what the catalogue knows, and a sentence in `damages`.
    pub(super) fn read_snapshot(
        &self,
        id: SnapshotId,
        entry: &SnapshotEntry,
        damages: &mut Vec<String>,
    ) -> Result<Snapshot> {
        let record = match self.snapshot_record(id, entry) {
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
        Ok(Snapshot::new(id, record, entry))
    }

    /// Reads and verifies one record.
    pub(crate) fn snapshot_record(
        &self,
        id: SnapshotId,
        entry: &SnapshotEntry,
    ) -> Result<SnapshotRecord> {
        let object = entry.record_name(id);
        let name = ObjectName::Snapshot(object);
        let bytes = backend::read_whole(&*self.backend, &name, RECORD_BYTES_MAX)?;
        if blake3::hash(&bytes).as_bytes() != &entry.hash {
            return Err(Error::damaged(name, "its bytes are not those that were committed"));
        }
        let record = SnapshotRecord::open(&bytes, object, self.id(), &self.metadata)?;
        if record.snapshot.unwrap_or(object) != id {
            return Err(Error::damaged(name, "it belongs to another snapshot"));
        }
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
        by_prefix(snapshots, spec, |snapshot| snapshot.id)
    }
}

/// The only item whose id begins with `spec`.
///
/// # Errors
/// `NoSuchSnapshot` when none or several match, with the candidates.
pub(super) fn by_prefix<T>(items: Vec<T>, spec: &str, id: impl Fn(&T) -> SnapshotId) -> Result<T> {
    let missing = |detail: String| Error::NoSuchSnapshot { detail };
    let wanted = spec.to_ascii_lowercase();
    let mut matches: Vec<_> = items
        .into_iter()
        .filter(|item| !wanted.is_empty() && id(item).to_string().starts_with(&wanted))
        .collect();
    match (matches.pop(), matches.len()) {
        (Some(found), 0) => Ok(found),
        (Some(last), _) => {
            matches.push(last);
            let names: Vec<_> = matches.iter().take(8).map(|item| id(item).short()).collect();
            Err(missing(format!("{spec:?} is ambiguous: it matches {}", names.join(", "))))
        }
        (None, _) => Err(missing(format!("no snapshot matches {spec:?}"))),
    }
}
