//! Change detection: whether a path is the same as in the parent snapshot, decided on stat alone.
//!
//! Pure rules here; [`parent`] walks the parent's manifest beside the scan. Reads no content.

pub(crate) mod parent;

use crate::entry::{EntryHead, KindCode};
use crate::meta::Stat;
use rustix::fs::FileType;
use stillpoint_store::Timestamp;

/// Longest step of the kernel's clock of file times (100 Hz), with as much again for clocks that differ a little.
const FINE_STEP_NANOS: i128 = 20_000_000;
/// Step of file times on file systems that keep whole seconds, or two (FAT).
const COARSE_STEP_NANOS: i128 = 2_000_000_000;

/// Which differences count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChangeRules {
    /// Content is judged by size, mtime and inode; for sources that other tools touch all the time.
    pub ignore_ctime: bool,
    /// Inode numbers say nothing; for file systems that draw them anew at each mount.
    pub ignore_inode: bool,
    /// Everything is read again.
    pub force: bool,
}

/// What stat says in comparison with the parent's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing changed; the parent's entry stands as it is.
    Same,
    /// The content is the parent's, the metadata must be gathered anew.
    MetadataChanged,
    /// The content must be read; for what has none, everything must be gathered anew.
    ContentChanged,
}

/// Compares what is there with what the parent recorded.
pub(crate) fn judge(rules: ChangeRules, stat: &Stat, head: &EntryHead) -> Verdict {
    if rules.force || head.racy || !same_kind(stat.kind, head.kind) {
        return Verdict::ContentChanged;
    }
    let same_inode = stat.inode == head.inode;
    let same_identity = (same_inode && stat.device == head.device)
        // Names of one file are told by its number, so that must be the present one.
        || (rules.ignore_inode && stat.nlink <= 1);
    let same_ctime = stat.ctime == head.ctime;
    let same_content = stat.mtime == head.mtime
        && (!stat.is_file() || stat.size == head.size)
        && (same_ctime || rules.ignore_ctime)
        && (same_inode || rules.ignore_inode);
    match (same_content, same_identity && same_ctime) {
        (true, true) => Verdict::Same,
        (true, false) => Verdict::MetadataChanged,
        (false, _) => Verdict::ContentChanged,
    }
}

/// Whether these are certainly the same inode in the same state, whatever its path: what a renamed directory needs.
pub(crate) fn is_untouched(stat: &Stat, head: &EntryHead) -> bool {
    judge(ChangeRules::default(), stat, head) == Verdict::Same
}

/// Whether a file could still change without its times showing it, when it was read from `read_at` on: its last
/// change lies within one step of its clock, or in the future.
pub(crate) fn is_racy(stat: &Stat, read_at: Timestamp) -> bool {
    let step = if stat.ctime.nanos == 0 { COARSE_STEP_NANOS } else { FINE_STEP_NANOS };
    stat.ctime.as_nanos() + step >= read_at.as_nanos()
}

fn same_kind(now: FileType, then: KindCode) -> bool {
    match now {
        FileType::RegularFile => then.is_file(),
        FileType::Directory => then == KindCode::Directory,
        FileType::Symlink => then == KindCode::Symlink,
        FileType::Fifo => then == KindCode::Fifo,
        FileType::Socket => then == KindCode::Socket,
        FileType::CharacterDevice => then == KindCode::CharDevice,
        FileType::BlockDevice => then == KindCode::BlockDevice,
        FileType::Unknown => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn stat() -> Stat {
        let time = |seconds| Timestamp { seconds, nanos: 5 };
        Stat {
            kind: FileType::RegularFile,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 10,
            blocks: 8,
            inode: 7,
            device: 1,
            represents: (0, 0),
            mtime: time(100),
            ctime: time(200),
            btime: None,
        }
    }

    pub(crate) fn head_of(stat: &Stat) -> EntryHead {
        EntryHead {
            kind: KindCode::FileChunks,
            racy: false,
            size: stat.size,
            mtime: stat.mtime,
            ctime: stat.ctime,
            inode: stat.inode,
            device: stat.device,
        }
    }

    fn check(rules: ChangeRules, change: impl Fn(&mut Stat), expected: Verdict) {
        let before = stat();
        let mut now = before;
        change(&mut now);
        assert_eq!(judge(rules, &now, &head_of(&before)), expected, "{now:?}");
    }

    // Each field that can betray a change does, unless it is to be ignored.
    #[test]
    fn each_difference_counts() {
        use Verdict::{ContentChanged, MetadataChanged, Same};
        let strict = ChangeRules::default();
        let no_ctime = ChangeRules { ignore_ctime: true, ..strict };
        let no_inode = ChangeRules { ignore_inode: true, ..strict };
        check(strict, |_| {}, Same);
        check(strict, |s| s.size += 1, ContentChanged);
        check(strict, |s| s.mtime.nanos += 1, ContentChanged);
        check(strict, |s| s.ctime.nanos += 1, ContentChanged);
        check(strict, |s| s.inode += 1, ContentChanged);
        check(strict, |s| s.device += 1, MetadataChanged);
        check(strict, |s| s.kind = FileType::Fifo, ContentChanged);
        check(no_ctime, |s| s.ctime.nanos += 1, MetadataChanged);
        check(no_ctime, |s| s.mtime.nanos += 1, ContentChanged);
        check(no_inode, |s| s.inode += 1, Same);
        check(no_inode, |s| (s.inode, s.nlink) = (8, 2), MetadataChanged);
        check(no_inode, |s| s.size += 1, ContentChanged);
        check(ChangeRules { force: true, ..strict }, |_| {}, ContentChanged);
        let racy = EntryHead { racy: true, ..head_of(&stat()) };
        assert_eq!(judge(strict, &stat(), &racy), ContentChanged);
    }

    // A file that changed within one step of its clock before it was read may change again unseen.
    #[test]
    fn racy_within_one_step() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        let mut stat = stat();
        assert!(is_racy(&stat, at(200, 5)));
        assert!(is_racy(&stat, at(200, 20_000_005)));
        assert!(!is_racy(&stat, at(200, 20_000_006)));
        assert!(is_racy(&stat, at(100, 0)), "a change in the future");
        stat.ctime = at(200, 0);
        assert!(is_racy(&stat, at(202, 0)));
        assert!(!is_racy(&stat, at(202, 1)));
    }
}
