//! The snapshot record: one restorable point in time.

use super::capture::CaptureInfo;
use crate::crypto::{MetadataKey, RecordContext, RecordKind};
use crate::env::{Env, Timestamp};
use crate::error::{Error, Result};
use crate::id::{ObjectName, RepositoryId, SnapshotId};
use crate::limits::RECORD_BYTES_MAX;
use crate::tree::Root;
use serde::{Deserialize, Serialize};

const SNAPSHOT_VERSION: u32 = 1;

/// A small sealed record that names a manifest and says where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// Format version of this record.
    pub version: u32,
    /// The moment that the snapshot stands for.
    pub time: Timestamp,
    /// When the walk began; files that changed later than this are read again next time.
    pub started: Timestamp,
    /// The manifest.
    pub root: Root,
    /// Sequence number of the head on which the commit of this record was tried: once the head has moved on
    /// without naming the record, none ever will.
    #[serde(default)]
    pub base_seq: u64,
    /// The snapshot that served as parent, if any.
    #[serde(default)]
    pub parent: Option<SnapshotId>,
    /// Name of the host that was captured.
    pub host: String,
    /// Name of the user who ran the program.
    #[serde(default)]
    pub user: String,
    /// What was asked for: absolute paths, and names of streams.
    pub paths: Vec<serde_bytes::ByteBuf>,
    /// Labels given by the user.
    #[serde(default)]
    pub tags: Vec<String>,
    /// A sentence given by the user.
    #[serde(default)]
    pub description: String,
    /// Patterns that were left out.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// The program that wrote the record, for people.
    #[serde(default)]
    pub program: String,
    /// Figures of the run.
    #[serde(default)]
    pub summary: Summary,
    /// The snapshot that it belongs to, where the record lies under another name because it was sealed anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotId>,
    /// What it is a copy of, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<Original>,
    /// How it was captured, where an application was asked to hold still or could have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture: Option<CaptureInfo>,
}

/// The snapshot that was first taken, wherever copies of it lie; copies of copies name the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Original {
    /// The repository that it was taken into.
    pub repository: RepositoryId,
    /// Its name there.
    pub snapshot: SnapshotId,
}

/// Figures of one backup run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Files that the parent did not have.
    pub files_new: u64,
    /// Files whose content or metadata differ from the parent's.
    pub files_changed: u64,
    /// Files taken from the parent.
    pub files_unmodified: u64,
    /// Directories that the parent did not have.
    pub dirs_new: u64,
    /// Directories whose metadata differ.
    pub dirs_changed: u64,
    /// Directories taken from the parent.
    pub dirs_unmodified: u64,
    /// Other entries (links, devices, pipes, sockets).
    pub others: u64,
    /// Bytes of all files in the snapshot.
    pub bytes_total: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes in chunks that were new, before compression.
    pub bytes_added: u64,
    /// Bytes that the repository grew by.
    pub bytes_stored: u64,
    /// New chunks.
    pub chunks_new: u64,
    /// Nanoseconds from start to commit.
    pub duration_ns: u64,
    /// Sources that could not be read whole.
    pub problems: u64,
}

impl SnapshotRecord {
    /// A record of this manifest with everything else empty.
    pub fn new(time: Timestamp, root: Root) -> Self {
        Self {
            version: SNAPSHOT_VERSION,
            time,
            started: time,
            root,
            base_seq: 0,
            parent: None,
            host: String::new(),
            user: String::new(),
            paths: Vec::new(),
            tags: Vec::new(),
            description: String::new(),
            excludes: Vec::new(),
            program: String::new(),
            summary: Summary::default(),
            snapshot: None,
            original: None,
            capture: None,
        }
    }

    /// Encodes and seals the record for storage under `id`.
    ///
    /// # Errors
    /// `LimitExceeded` when paths, tags and excludes are too many for a record.
    pub fn seal(
        &self,
        id: SnapshotId,
        repository: RepositoryId,
        key: &MetadataKey,
        env: &dyn Env,
    ) -> Result<Vec<u8>> {
        let sealed = key.seal(&context(repository, &id), &super::to_cbor(self), env);
        if sealed.len() > RECORD_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "the snapshot's paths, tags and excludes take {} bytes, the limit is {RECORD_BYTES_MAX}",
                sealed.len()
            )));
        }
        Ok(sealed)
    }

    /// Opens and decodes a stored record.
    ///
    /// # Errors
    /// `Damaged` when it does not verify, `Unsupported` when it is of a newer format.
    pub fn open(
        bytes: &[u8],
        id: SnapshotId,
        repository: RepositoryId,
        key: &MetadataKey,
    ) -> Result<Self> {
        let plain = key.open(&context(repository, &id), bytes)?;
        super::decode_versioned(&ObjectName::Snapshot(id), &plain, SNAPSHOT_VERSION)
    }
}

fn context(repository: RepositoryId, id: &SnapshotId) -> RecordContext<'_> {
    RecordContext { repository, kind: RecordKind::Snapshot, name: id.as_bytes() }
}
