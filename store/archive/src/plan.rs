//! What a restore will do with each entry, decided without touching anything.
//!
//! Pure: an entry, what stands in its place and the overwrite policy give an action. `--dry-run`, tests and the
//! restore itself look at the same decision.

use crate::entry::{Entry, EntryKind};
use serde::Serialize;
use stillpoint_store::Timestamp;

/// What happens to things that exist in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Overwrite {
    /// They become what the snapshot has; equal content is found by reading it and not written again.
    #[default]
    Always,
    /// Files with equal size and modification time are believed to be equal and not read.
    IfChanged,
    /// Only what is older than in the snapshot.
    IfNewer,
    /// What exists stays as it is.
    Never,
}

/// What kind of thing exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExistingKind {
    /// A regular file of this size in bytes.
    File {
        /// Its size in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link with this target.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// What stands in an entry's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Existing {
    /// Its kind.
    pub kind: ExistingKind,
    /// Its modification time.
    pub mtime: Timestamp,
    /// Its permission bits.
    pub mode: u32,
    /// It has other names, or belongs to somebody who is neither the restoring user nor the entry's owner. Then it
    /// is never changed in place: the other names may lie outside of the target, and the owner may hold it open.
    pub shared: bool,
}

/// What to do with one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing is there: make it.
    Create,
    /// Something else, or something shared, is there: make it aside and rename it over.
    Replace,
    /// A directory is in the way of something else: it goes first (only if empty or deletion is allowed).
    Clear,
    /// A file is there: compare with it and write only what differs.
    Update,
    /// It is there already: only metadata is set.
    Refresh,
    /// It is there and equal as far as is looked at; nothing is done.
    Unmodified,
    /// It is there and stays, as the policy says.
    Keep,
}

/// Decides about one entry; `existing` is None where nothing stands in its place.
pub fn decide(entry: &Entry, existing: Option<&Existing>, overwrite: Overwrite) -> Action {
    let Some(existing) = existing else { return Action::Create };
    if overwrite == Overwrite::Never {
        return Action::Keep;
    }
    let both_directories =
        matches!((&entry.kind, &existing.kind), (EntryKind::Directory, ExistingKind::Directory));
    if both_directories {
        return Action::Refresh;
    }
    if overwrite == Overwrite::IfNewer && existing.mtime >= entry.mtime {
        return Action::Keep;
    }
    match (&entry.kind, &existing.kind) {
        (EntryKind::Directory, _) => return Action::Replace,
        (_, ExistingKind::Directory) => return Action::Clear,
        _ => {}
    }
    match (&entry.kind, &existing.kind) {
        (EntryKind::File(_), ExistingKind::File { size }) => {
            let believed = overwrite == Overwrite::IfChanged
                && *size == entry.size
                && existing.mtime == entry.mtime;
            match (believed, existing.shared) {
                (true, false) => Action::Refresh,
                (true, true) if existing.mode == entry.mode => Action::Unmodified,
                (false, false) => Action::Update,
                (_, true) => Action::Replace,
            }
        }
        (wanted, found) if !existing.shared && same_node(wanted, found) => Action::Refresh,
        _ => Action::Replace,
    }
}

fn same_node(wanted: &EntryKind, found: &ExistingKind) -> bool {
    match (wanted, found) {
        (EntryKind::Symlink { target }, ExistingKind::Symlink { target: found }) => target == found,
        (EntryKind::Fifo, ExistingKind::Fifo) | (EntryKind::Socket, ExistingKind::Socket) => true,
        (
            EntryKind::CharDevice { major, minor },
            ExistingKind::CharDevice { major: found_major, minor: found_minor },
        )
        | (
            EntryKind::BlockDevice { major, minor },
            ExistingKind::BlockDevice { major: found_major, minor: found_minor },
        ) => (major, minor) == (found_major, found_minor),
        _ => false,
    }
}

/// What a restore would do, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestorePlan {
    /// Directories that will be made.
    pub directories_new: u64,
    /// Directories that are there.
    pub directories_existing: u64,
    /// Files that will be made where nothing is.
    pub files_new: u64,
    /// Files that will replace something else.
    pub files_replaced: u64,
    /// Files that exist and will be compared; only what differs is written.
    pub files_compared: u64,
    /// Files whose content is believed to be equal; metadata is set.
    pub files_unchanged: u64,
    /// Links, pipes, sockets and devices that will be made or replaced.
    pub others_new: u64,
    /// Links, pipes, sockets and devices that are there already.
    pub others_unchanged: u64,
    /// Further names that hard-linked files will get.
    pub hard_links: u64,
    /// Things of any kind that the overwrite policy leaves as they are.
    pub kept: u64,
    /// Entries that the filters leave out (a left-out directory counts once).
    pub excluded: u64,
    /// Names that will be deleted, because the snapshot does not have them (a directory counts once).
    pub deleted: u64,
    /// Bytes that will be written if no compared file matches.
    pub bytes_to_write: u64,
    /// Bytes of files that stay as they are.
    pub bytes_unchanged: u64,
}

impl RestorePlan {
    /// Counts one decision about something that is no directory.
    pub(crate) fn count(&mut self, entry: &Entry, action: Action) {
        match (entry.is_file(), action) {
            (_, Action::Keep) => self.kept += 1,
            (true, Action::Create) => self.files_new += 1,
            (true, Action::Replace | Action::Clear) => self.files_replaced += 1,
            (true, Action::Update) => self.files_compared += 1,
            (true, Action::Refresh | Action::Unmodified) => self.files_unchanged += 1,
            (false, Action::Refresh | Action::Unmodified) => self.others_unchanged += 1,
            (false, _) => self.others_new += 1,
        }
        match action {
            Action::Create | Action::Replace | Action::Clear | Action::Update => {
                self.bytes_to_write += entry.size;
            }
            Action::Refresh | Action::Unmodified | Action::Keep => {
                self.bytes_unchanged += entry.size;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Content;

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }

    fn entry(kind: EntryKind) -> Entry {
        Entry { kind, size: 10, mtime: at(100), mode: 0o644, ..Default::default() }
    }

    fn existing(kind: ExistingKind, seconds: i64, shared: bool) -> Existing {
        Existing { kind, mtime: at(seconds), mode: 0o644, shared }
    }

    #[test]
    fn decisions_follow_the_policy() {
        use Action::*;
        use Overwrite::*;
        let file = || EntryKind::File(Content::Inline(vec![]));
        let found = |size| ExistingKind::File { size };
        let link = |target: &[u8]| ExistingKind::Symlink { target: target.to_vec() };
        let to = |target: &[u8]| EntryKind::Symlink { target: target.to_vec() };
        let null = |minor| ExistingKind::CharDevice { major: 1, minor };
        let device = || EntryKind::CharDevice { major: 1, minor: 3 };
        let dir = || ExistingKind::Directory;
        // Always, if-changed, if-newer, never; what exists was changed at `seconds`, the entry at 100.
        let cases = [
            (file(), found(10), 100, false, [Update, Refresh, Keep, Keep]),
            (file(), found(11), 100, false, [Update, Update, Keep, Keep]),
            (file(), found(10), 99, false, [Update, Update, Update, Keep]),
            (file(), found(10), 101, false, [Update, Update, Keep, Keep]),
            // Never through a name that may be outside.
            (file(), found(10), 100, true, [Replace, Unmodified, Keep, Keep]),
            (file(), found(10), 99, true, [Replace, Replace, Replace, Keep]),
            (file(), link(b"x"), 99, false, [Replace, Replace, Replace, Keep]),
            (file(), dir(), 99, false, [Clear, Clear, Clear, Keep]),
            (file(), dir(), 101, false, [Clear, Clear, Keep, Keep]),
            (file(), ExistingKind::Fifo, 99, false, [Replace, Replace, Replace, Keep]),
            (EntryKind::Directory, dir(), 101, false, [Refresh, Refresh, Refresh, Keep]),
            (EntryKind::Directory, link(b"x"), 99, false, [Replace, Replace, Replace, Keep]),
            (EntryKind::Directory, link(b"x"), 101, false, [Replace, Replace, Keep, Keep]),
            (EntryKind::Directory, found(10), 101, false, [Replace, Replace, Keep, Keep]),
            (to(b"x"), link(b"x"), 99, false, [Refresh, Refresh, Refresh, Keep]),
            (to(b"x"), link(b"x"), 99, true, [Replace, Replace, Replace, Keep]),
            (to(b"x"), link(b"y"), 99, false, [Replace, Replace, Replace, Keep]),
            (device(), null(3), 99, false, [Refresh, Refresh, Refresh, Keep]),
            (device(), null(4), 99, false, [Replace, Replace, Replace, Keep]),
            (
                device(),
                ExistingKind::BlockDevice { major: 1, minor: 3 },
                99,
                false,
                [Replace, Replace, Replace, Keep],
            ),
        ];
        for (kind, found, seconds, shared, expected) in cases {
            let (entry, existing) = (entry(kind), existing(found, seconds, shared));
            let decided = [Always, IfChanged, IfNewer, Never]
                .map(|overwrite| decide(&entry, Some(&existing), overwrite));
            assert_eq!(decided, expected, "{:?} over {existing:?}", entry.kind);
            assert_eq!(decide(&entry, None, Never), Create);
        }
    }
}
