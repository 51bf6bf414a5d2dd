//! The last head that this host saw, kept in the cache folder: shows when storage was rolled back.

use super::{HeadView, Repository};
use crate::crypto::Generation;
use crate::error::{Error, Result};
use std::fs;
use std::path::PathBuf;

impl Repository {
    fn head_memory(&self) -> Option<PathBuf> {
        self.options.cache_dir.as_ref().map(|dir| dir.join("last-head"))
    }

    /// The number and hash of the last head that this host saw.
    pub(crate) fn remembered_head(&self) -> Option<(u64, String)> {
        let seen = fs::read_to_string(self.head_memory()?).ok()?;
        let mut words = seen.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.to_owned()))
    }

    /// Refuses a head of these keys where this host has seen newer ones in use.
    ///
    /// # Errors
    /// `Damaged`: whoever holds older keys could have made it.
    pub(crate) fn refuse_older_keys(&self, generation: Generation) -> Result<()> {
        let Some(path) = self.head_memory() else { return Ok(()) };
        let seen = fs::read_to_string(&path).unwrap_or_default();
        let seen = seen.split_whitespace().nth(2).and_then(|text| text.parse::<u64>().ok());
        let Some(seen) = seen.filter(|seen| *seen > u64::from(generation.0)) else { return Ok(()) };
        let detail = format!(
            "its keys are of generation {generation}, this host has seen generation {seen} in use; somebody who has the \
             older keys may have replaced it (if you restored an old copy of the repository yourself, remove {})",
            path.display()
        );
        Err(Error::damaged("head", detail))
    }

    /// Compares a head with the newest one seen before, notes a roll-back, and remembers it when it is newer.
    /// A cache that cannot be read or written only loses this protection; it never stops the work.
    ///
    /// # Errors
    /// `Damaged` when a head of newer keys was seen before: whoever holds older keys could have made this one.
    pub(super) fn remember_head(&self, view: &HeadView) -> Result<()> {
        let Some(path) = self.head_memory() else { return Ok(()) };
        let hash = stillpoint_chunker::ChunkId::from_bytes(view.hash);
        let generation = view.generation();
        let line = match generation {
            Generation::FIRST => format!("{} {hash}\n", view.seq()),
            later => format!("{} {hash} {later}\n", view.seq()),
        };
        let seen = fs::read_to_string(&path).unwrap_or_default();
        if seen == line {
            return Ok(());
        }
        self.refuse_older_keys(generation)?;
        let seen_seq = self.remembered_head().map_or(0, |(seq, _)| seq);
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
        Ok(())
    }
}
