//! The chunk index on RocksDB.
//!
//! One folder holds one index. Whatever is wrong with the folder (damaged, cut short, foreign, newer), it is dropped and
//! made anew without a state, and [`Index::notice`] says why: an index is a cache. Any number of processes read one
//! database; the first that writes owns it, and the others keep their own additions in memory. Knows nothing of packs
//! but places.

mod database;
mod folder;
mod group;
mod index;
mod sort;

use std::path::Path;
use stillpoint_store::Result;
use stillpoint_store::index::Index;

/// What an I/O error of an index says was done: it concerns the cache, not the repository.
pub const ACTIONS: [&str; 2] = [READING, WRITING];
const READING: &str = "reading the index";
const WRITING: &str = "writing the index";

/// Limits on memory, for tests to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Blocks, filters and table indexes kept in memory, bytes.
    pub cache_bytes: usize,
    /// Entries sorted in memory at a time while the index is rebuilt; 68 bytes each.
    pub sort_entries: usize,
    /// Sorted runs merged at a time; each costs a file descriptor and a read buffer.
    pub sort_runs: usize,
    /// From this many additions on, they go in as a sorted table and not through the write buffer.
    pub bulk_entries: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cache_bytes: 32 << 20,
            sort_entries: 512 << 10,
            sort_runs: 256,
            bulk_entries: 32 << 10,
        }
    }
}

/// Opens the index in this folder, or creates it there.
///
/// # Errors
/// `Io` if the folder cannot be created or written to. A folder whose content is unusable is no error.
pub fn open(dir: &Path) -> Result<Box<dyn Index>> {
    open_with(dir, Settings::default())
}

/// As [`open`], with other limits.
///
/// # Errors
/// As [`open`].
pub fn open_with(dir: &Path, settings: Settings) -> Result<Box<dyn Index>> {
    Ok(Box::new(index::RocksIndex::open(dir, settings)?))
}
