//! What changed between two snapshots, without looking at what they share.

use crate::entry::{Entry, EntryKind, ManifestSchema};
use crate::path;
use serde::Serialize;
use std::iter::FusedIterator;
use stillpoint_store::tree::{self, Change, DiffIter, NodeSource, Root};
use stillpoint_store::{Error, Result};

/// How one path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// Only the second snapshot has it.
    Added,
    /// Only the first snapshot has it.
    Removed,
    /// It was one kind of thing and became another.
    TypeChanged,
    /// The same kind of thing with other content or metadata; at least one of the two.
    Modified {
        /// Bytes of a file, target of a link, numbers of a device.
        content: bool,
        /// Mode, owner, modification time, attributes or flags.
        metadata: bool,
    },
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffEntry {
    /// Its key; see [`crate::path`].
    pub key: Vec<u8>,
    /// How it differs.
    pub difference: Difference,
    /// What the first snapshot says.
    pub old: Option<Entry>,
    /// What the second snapshot says.
    pub new: Option<Entry>,
}

/// Numbers of one kind of thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffCount {
    /// Files.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, pipes, sockets, devices.
    pub others: u64,
    /// Logical size of the files in bytes.
    pub bytes: u64,
}

/// A difference in numbers; a changed type counts as removed and added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffStats {
    /// What only the second snapshot has.
    pub added: DiffCount,
    /// What only the first snapshot has.
    pub removed: DiffCount,
    /// What has other content; `bytes` is its size in the second snapshot.
    pub content_changed: DiffCount,
    /// What has the same content and other metadata.
    pub metadata_changed: DiffCount,
}

impl DiffCount {
    fn count(&mut self, entry: &Entry) {
        match &entry.kind {
            EntryKind::File(_) => self.files += 1,
            EntryKind::Directory => self.directories += 1,
            _ => self.others += 1,
        }
        self.bytes += entry.size;
    }
}

impl DiffStats {
    /// Counts one difference.
    pub fn count(&mut self, entry: &DiffEntry) {
        match entry.difference {
            Difference::Modified { content: true, .. } => {
                entry.new.iter().for_each(|new| self.content_changed.count(new));
            }
            Difference::Modified { content: false, .. } => {
                entry.new.iter().for_each(|new| self.metadata_changed.count(new));
            }
            Difference::Added | Difference::Removed | Difference::TypeChanged => {
                entry.old.iter().for_each(|old| self.removed.count(old));
                entry.new.iter().for_each(|new| self.added.count(new));
            }
        }
    }
}

/// The differences from one snapshot to another in path order; ends after the first error.
pub struct Differences<'a> {
    changes: DiffIter<'a, ManifestSchema>,
    /// The directory or file that is asked for; comes before what lies below it.
    top: Option<Result<Change>>,
}

/// Compares the manifests `old` and `new`, or the part of them at and below the path with key `prefix`.
///
/// What no person set and no restore can set (inode numbers, change and birth times, number of links) is not
/// compared. Costs O(differences).
///
/// # Errors
/// `Damaged`, `Missing`, or the storage's error.
pub fn diff<'a>(
    source: &'a dyn NodeSource,
    old: Root,
    new: Root,
    prefix: &[u8],
) -> Result<Differences<'a>> {
    let (from, until) = path::below(prefix);
    let changes = tree::diff::<ManifestSchema>(old, new, source, source);
    if prefix.is_empty() {
        return Ok(Differences { changes, top: None });
    }
    let top = Change {
        key: prefix.to_vec(),
        old: tree::Tree::<ManifestSchema>::open(old, source).get(prefix)?,
        new: tree::Tree::<ManifestSchema>::open(new, source).get(prefix)?,
    };
    let changes = changes.within(&from, until.as_deref())?;
    Ok(Differences { changes, top: Some(Ok(top)) })
}

impl Iterator for Differences<'_> {
    type Item = Result<DiffEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let change = match self.top.take() {
                Some(top) => top,
                None => self.changes.next()?,
            };
            match change.and_then(judge) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl FusedIterator for Differences<'_> {}

fn judge(change: Change) -> Result<Option<DiffEntry>> {
    let decode = |value: Option<Vec<u8>>| value.map(|value| Entry::decode(&value)).transpose();
    let (old, new) = (decode(change.old)?, decode(change.new)?);
    let difference = match (&old, &new) {
        (None, None) => return Ok(None),
        (None, Some(_)) => Difference::Added,
        (Some(_), None) => Difference::Removed,
        (Some(old), Some(new)) => {
            if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) {
                Difference::TypeChanged
            } else {
                let (content, metadata) = (old.kind != new.kind, metadata_differs(old, new));
                if !content && !metadata {
                    return Ok(None);
                }
                Difference::Modified { content, metadata }
            }
        }
    };
    path::check_key(&change.key).map_err(|_| Error::damaged("manifest", "impossible path"))?;
    Ok(Some(DiffEntry { key: change.key, difference, old, new }))
}

fn metadata_differs(old: &Entry, new: &Entry) -> bool {
    (old.mode, old.uid, old.gid, old.mtime, old.flags)
        != (new.mode, new.uid, new.gid, new.mtime, new.flags)
        || (&old.user, &old.group, &old.xattrs) != (&new.user, &new.group, &new.xattrs)
}
