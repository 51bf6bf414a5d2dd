//! The last head that this host saw, kept in the cache folder: shows when storage was rolled back.

use super::{HeadView, Repository};
use std::fs;
use std::path::PathBuf;

impl Repository {
    fn head_memory(&self) -> Option<PathBuf> {
        self.options.cache_dir.as_ref().map(|dir| dir.join("last-head"))
    }

    /// Compares a head with the newest one seen before, notes a roll-back, and remembers it when it is newer.
    /// A cache that cannot be read or written only loses this protection; it never stops the work.
    pub(super) fn remember_head(&self, view: &HeadView) {
        let Some(path) = self.head_memory() else { return };
        let hash = stillpoint_chunker::ChunkId::from_bytes(view.hash);
        let line = format!("{} {hash}\n", view.seq());
        let seen = fs::read_to_string(&path).unwrap_or_default();
        if seen == line {
            return;
        }
        let seen_seq = seen.split(' ').next().and_then(|seq| seq.parse::<u64>().ok()).unwrap_or(0);
        if seen_seq > view.seq() {
            self.note(format!(
                "the repository is older than this host remembers: its head is number {}, number {seen_seq} was \
                 seen before; somebody restored or rolled back the storage, later snapshots are gone",
                view.seq()
            ));
        } else if seen_seq == view.seq() {
            self.note(format!(
                "the repository's head number {seen_seq} is not the one this host has seen: its history was replaced"
            ));
        }
        if let Some(dir) = path.parent() {
            let _ = fs::create_dir_all(dir);
        }
        let _ = fs::write(&path, line);
    }
}
