//! Errors, one variant for each thing that a caller does next.

use crate::id::{ObjectName, SnapshotId};
use std::io;

/// The result of a repository operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no repository here. Next: create one, or correct the location (exit 10).
    #[error("no repository at {location}")]
    NoRepository {
        /// Where it was looked for.
        location: String,
    },
    /// There is a repository here already. Next: use it, or choose another place.
    #[error("a repository already exists at {location}")]
    AlreadyExists {
        /// Where it lies.
        location: String,
    },
    /// No key slot opens with this passphrase or key file (exit 12).
    #[error("wrong passphrase or key file")]
    WrongSecret,
    /// The passphrase or key file opens keys of the repository that are not in use: a rotation replaced them, or the
    /// one that brought them was not completed. Next: use the right one (exit 12).
    #[error("this passphrase or key file is not in use: {detail}")]
    StaleSecret {
        /// Why.
        detail: String,
    },
    /// Another process rotated the repository's keys. Next: run the command again, so that it opens anew (exit 11).
    #[error("the keys of the repository were rotated by another process meanwhile")]
    KeysRotated,
    /// The object is of a newer format than this program knows. Next: upgrade; nothing is damaged.
    #[error("{object} has format version {found}, this program reads up to {supported}")]
    Unsupported {
        /// Which object or record.
        object: String,
        /// The version it names.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// Stored bytes are not what was written. Next: `check`, then `repair`.
    #[error("{object} is damaged: {detail}")]
    Damaged {
        /// Which object or record.
        object: String,
        /// What does not fit.
        detail: String,
    },
    /// An object that the repository names is not there.
    #[error("{object} is missing")]
    Missing {
        /// The object's name.
        object: String,
    },
    /// No snapshot, or several, match what the user named.
    #[error("{detail}")]
    NoSuchSnapshot {
        /// What was asked for and what there is.
        detail: String,
    },
    /// The snapshot is protected from being forgotten. Next: take the protection back, or leave it out.
    #[error("snapshot {} is protected", snapshot.short())]
    Protected {
        /// The first protected one of those named.
        snapshot: SnapshotId,
    },
    /// A length or count exceeds its named limit; refused before anything was allocated.
    #[error("{object}: {what} {found} exceeds the limit of {limit}")]
    LimitExceeded {
        /// Which object or record.
        object: String,
        /// Which quantity.
        what: &'static str,
        /// What was found.
        found: u64,
        /// The named limit.
        limit: u64,
    },
    /// What was relied on was condemned meanwhile and can no longer be read. Next: run the snapshot again.
    #[error("data that this run relied on was removed by another process: {detail}")]
    Conflict {
        /// What is gone.
        detail: String,
    },
    /// An option, parameter or argument is not acceptable.
    #[error("{0}")]
    Invalid(String),
    /// The storage failed (disk full, permission, I/O). The repository keeps its last committed state.
    #[error("{action} {object}: {source}")]
    Io {
        /// The verb: `reading`, `writing`, `listing`, ...
        action: &'static str,
        /// The object or path.
        object: String,
        /// The operating system's error.
        source: io::Error,
    },
    /// The caller asked to stop (Ctrl-C); nothing was committed.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// Stored bytes of `object` are not what was written.
    pub fn damaged(object: impl ToString, detail: impl ToString) -> Self {
        Self::Damaged { object: object.to_string(), detail: detail.to_string() }
    }

    /// The storage failed during `action` on `object`.
    pub fn io(action: &'static str, object: impl ToString, source: io::Error) -> Self {
        Self::Io { action, object: object.to_string(), source }
    }

    /// The named object is not there.
    pub fn missing(object: impl ToString) -> Self {
        Self::Missing { object: object.to_string() }
    }

    /// True where the storage has no room left: it refused the write.
    pub fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, Self::Io { source, .. } if full.contains(&source.kind()))
    }

    /// True where the repository itself is at fault, not the source or the caller.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::LimitExceeded { .. })
    }
}

/// Damage that was found while work went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The damaged or missing object, where one object is at fault.
    pub object: Option<ObjectName>,
    /// The snapshot through which it was reached, where known.
    pub snapshot: Option<SnapshotId>,
    /// What is wrong: one sentence, lower case, no full stop.
    pub detail: String,
}
