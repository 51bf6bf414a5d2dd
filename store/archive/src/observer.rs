//! What long-running work tells whoever started it: progress, outcomes, problems.
//!
//! Knows nothing of terminals or JSON; the command line and the server turn events into what people see.

use std::path::PathBuf;

/// Receives events. Called from several threads; must be quick, because work waits for it.
pub trait Observer: Sync {
    /// Something happened.
    fn event(&self, event: Event<'_>);

    /// True once the caller wants to stop; asked often. The work then ends with `Error::Cancelled` and commits nothing.
    fn cancelled(&self) -> bool {
        false
    }
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&self, _: Event<'_>) {}
}

/// Amounts of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Entries of any kind, directories included.
    pub entries: u64,
    /// Logical bytes of content.
    pub bytes: u64,
}

/// What became of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Backup: not in the parent snapshot. Restore: created.
    New,
    /// Backup: content was read anew. Restore: content was replaced.
    Changed,
    /// Only metadata differed; no content was read or written.
    MetadataChanged,
    /// The same as before.
    Unmodified,
    /// Backup: new under this path, but a directory was renamed and the content is known from its old place.
    Moved,
    /// Restore: removed from the target because the snapshot does not have it.
    Removed,
    /// Left alone: excluded by a rule of the restore, or by its overwrite policy.
    Skipped,
    /// Restore: compared with the snapshot and found equal.
    Verified,
    /// Could not be saved or restored; a problem names it.
    Failed,
}

/// Something about one path that went wrong while the work went on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path in the source or in the target.
    pub path: PathBuf,
    /// What went wrong: lower case, no full stop.
    pub what: String,
}

/// What happens during a backup or a restore.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// What the whole work is expected to amount to. May come several times; `last` says that it will not change.
    Expected {
        /// The amount.
        totals: Totals,
        /// Whether this is the final word.
        last: bool,
    },
    /// One entry is done. Comes for every entry, in the order of the manifest (backup) or in any order (restore).
    Entry {
        /// The entry's key; see [`crate::path`].
        key: &'a [u8],
        /// What became of it.
        outcome: Outcome,
        /// Its logical size in bytes; 0 for all but files.
        bytes: u64,
    },
    /// So many more bytes of content were read (backup) or written (restore) since the last such event. What was done
    /// so far is their sum and the sizes of unmodified and moved entries, which nobody reads.
    Bytes(u64),
    /// Something went wrong with one path; the work goes on.
    Problem(&'a Problem),
}
