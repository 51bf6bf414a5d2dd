//! Whether the locks that SQLite took still stand, as the kernel says (`/proc/locks`).

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// The files of a database whose locks are looked at: those on which this process holds some.
pub(super) struct Watched {
    inodes: Vec<u64>,
}

impl Watched {
    /// Notes which of these files are locked by this process now.
    pub(super) fn new(files: &[PathBuf]) -> Self {
        let held = held();
        let inodes = files.iter().filter_map(|path| std::fs::metadata(path).ok());
        Self {
            inodes: inodes.map(|found| found.ino()).filter(|inode| held.contains(inode)).collect(),
        }
    }

    /// True if there were locks, on the database and on its shared memory, and there still are.
    pub(super) fn are_held(&self) -> bool {
        let held = held();
        self.inodes.len() > 1 && self.inodes.iter().all(|inode| held.contains(inode))
    }
}

/// Inodes on which this process holds locks.
fn held() -> Vec<u64> {
    let text = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let own = std::process::id().to_string();
    text.lines().filter_map(|line| inode(line, &own)).collect()
}

/// The inode of a lock of the process `own`: `1: POSIX  ADVISORY  READ 812 08:01:1441805 124 124`.
fn inode(line: &str, own: &str) -> Option<u64> {
    let mut words = line.split_whitespace().skip(1);
    let (kind, holder, place) = (words.next()?, words.nth(2)?, words.next()?);
    if kind != "POSIX" || holder != own {
        return None;
    }
    place.rsplit(':').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Locks of this process are seen, those of others and waiting ones are not.
    #[test]
    fn lines_of_the_kernel() {
        let line = "12: POSIX  ADVISORY  READ  812 08:01:1441805 124 124";
        assert_eq!(inode(line, "812"), Some(1_441_805));
        assert_eq!(inode(line, "81"), None);
        assert_eq!(inode("12: -> POSIX  ADVISORY  WRITE 812 08:01:7 0 EOF", "812"), None);
        assert_eq!(inode("12: OFDLCK ADVISORY  WRITE -1 08:01:7 0 EOF", "-1"), None);
        assert_eq!(inode("12: POSIX", "812"), None);
    }
}
