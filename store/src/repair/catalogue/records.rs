//! The sealed records of snapshots, whether a catalogue names them or not.

use crate::backend;
use crate::catalogue::SnapshotEntry;
use crate::check::is_finding;
use crate::env::Timestamp;
use crate::error::{Error, Result};
use crate::id::{ObjectName, SnapshotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::record::SnapshotRecord;
use crate::repository::Repository;
use crate::tree::Root;
use std::collections::{BTreeMap, BTreeSet};

/// What a record says of its snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    /// The name under which it lies.
    pub object: SnapshotId,
    /// BLAKE3 of its sealed bytes.
    pub hash: [u8; 32],
    /// The manifest.
    pub root: Root,
    /// The moment that it stands for.
    pub time: Timestamp,
    /// The head on top of which its commit was tried.
    pub base_seq: u64,
    /// It was sealed anew: its snapshot had been committed before.
    pub is_resealed: bool,
}

impl Record {
    /// What the catalogue says of a snapshot with this record, as far as a record tells.
    pub fn entry(&self, id: SnapshotId) -> SnapshotEntry {
        let Self { object, hash, root, time, .. } = *self;
        let record = (object != id).then_some(object);
        SnapshotEntry { hash, root, committed: time, protected: false, record }
    }
}

/// All records that can be read.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// The newest one of each snapshot.
    pub newest: BTreeMap<SnapshotId, Record>,
    /// The hash of each, by the name under which it lies.
    pub hashes: BTreeMap<SnapshotId, [u8; 32]>,
}

impl Records {
    /// Reads those that were listed.
    ///
    /// # Errors
    /// `Cancelled`; a record that cannot be read is passed over.
    pub fn read(repository: &Repository, listed: &[(ObjectName, u64)]) -> Result<Self> {
        let mut records = Self::default();
        for (name, _) in listed {
            repository.cancel().check()?;
            let ObjectName::Snapshot(object) = name else { continue };
            let found = match read(repository, *object) {
                Err(Error::Io { .. }) => read(repository, *object),
                other => other,
            };
            let (id, record) = match found {
                Ok(found) => found,
                Err(error) if is_finding(&error) => continue,
                Err(Error::Unsupported { .. }) => continue,
                Err(error) => return Err(error),
            };
            records.hashes.insert(*object, record.hash);
            let newest = records.newest.entry(id).or_insert(record);
            if record.base_seq > newest.base_seq {
                *newest = record;
            }
        }
        Ok(records)
    }

    /// The numbers of the heads on top of which they were written.
    pub fn heads(&self) -> BTreeSet<u64> {
        self.newest.values().map(|record| record.base_seq).collect()
    }

    /// Points an entry to a record that is there, if its own is not.
    pub fn settle(&self, id: SnapshotId, entry: SnapshotEntry) -> SnapshotEntry {
        if self.hashes.get(&entry.record_name(id)) == Some(&entry.hash) {
            return entry;
        }
        match self.newest.get(&id).filter(|record| record.root == entry.root) {
            Some(record) => {
                let SnapshotEntry { hash, record, .. } = record.entry(id);
                SnapshotEntry { hash, record, ..entry }
            }
            None => entry,
        }
    }
}

fn read(repository: &Repository, object: SnapshotId) -> Result<(SnapshotId, Record)> {
    let name = ObjectName::Snapshot(object);
    let bytes = backend::read_whole(&*repository.backend, &name, RECORD_BYTES_MAX)?;
    let record = SnapshotRecord::open(&bytes, object, repository.id(), &repository.metadata)?;
    let id = record.snapshot.unwrap_or(object);
    let hash = *blake3::hash(&bytes).as_bytes();
    let SnapshotRecord { root, time, base_seq, .. } = record;
    let is_resealed = id != object;
    Ok((id, Record { object, hash, root, time, base_seq, is_resealed }))
}
