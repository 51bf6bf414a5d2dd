//! Open packs: a bounded number of files, mapped when large ranges are read.
//!
//! Packs never change, so they may be mapped; nothing else is. What could still go wrong under a map is a pack that
//! somebody truncates, or a sector that cannot be read: touching such a page kills the process (SIGBUS). Therefore
//! the length is compared before every read, and the pages of a window are populated by `MADV_POPULATE_READ`, which
//! gives an error instead; the plain read that follows says which. What remains is a truncation, or the loss of a page
//! already read and evicted again on a failing disk, while a window is in use.

use super::super::ObjectBytes;
use crate::error::{Error, Result};
use crate::id::{ObjectName, PackId};
use memmap2::{Advice, Mmap, UncheckedAdvice};
use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

/// Most packs kept open.
pub(super) const OPEN_PACKS_MAX: usize = 64;
/// Shorter ranges are read, longer ones mapped.
pub(super) const MAP_BYTES_MIN: usize = 64 << 10;

/// The packs that were read last.
#[derive(Default)]
pub(super) struct OpenPacks {
    /// Most recently used first.
    packs: Mutex<VecDeque<(PackId, Arc<PackFile>)>>,
}

struct PackFile {
    file: File,
    len: u64,
    map: OnceLock<Option<Mmap>>,
}

/// Some pages of a map. Dropped, it gives them back, so that resident memory is bounded by the windows in use and not
/// by the packs that were ever read.
struct Window {
    pack: Arc<PackFile>,
    range: Range<usize>,
}

impl OpenPacks {
    /// Reads a range of the pack `id`, which lies at `path`.
    pub(super) fn read(&self, id: PackId, path: &Path, range: &Range<u64>) -> Result<ObjectBytes> {
        let name = ObjectName::Pack(id);
        let pack = self.get(id, path)?;
        let window = match (usize::try_from(range.start), usize::try_from(range.end)) {
            (Ok(start), Ok(end)) if start <= end && range.end <= pack.len => start..end,
            _ => return Err(super::super::too_short(&name, pack.len, range)),
        };
        if window.len() >= MAP_BYTES_MIN
            && let Some(bytes) = pack.window(window.clone())
        {
            return Ok(bytes);
        }
        let mut bytes = vec![0; window.len()];
        super::read_exact_at(&pack.file, &mut bytes, range.start, path, &name)?;
        Ok(bytes.into())
    }

    /// Forgets a pack that was removed.
    pub(super) fn forget(&self, id: PackId) {
        self.lock().retain(|(open, _)| *open != id);
    }

    /// The open pack, checked to be as long as when it was opened.
    fn get(&self, id: PackId, path: &Path) -> Result<Arc<PackFile>> {
        let found = {
            let mut packs = self.lock();
            match packs.iter().position(|(open, _)| *open == id) {
                Some(0) => packs.front().map(|(_, pack)| pack.clone()),
                Some(at) => packs.remove(at).map(|entry| {
                    let pack = entry.1.clone();
                    packs.push_front(entry);
                    pack
                }),
                None => None,
            }
        };
        if let Some(pack) = found {
            let failed = |error| Error::io("reading", path.display(), error);
            let now = pack.file.metadata().map_err(failed)?;
            if now.nlink() > 0 && now.size() == pack.len {
                return Ok(pack);
            }
            self.forget(id);
            if now.nlink() > 0 {
                let detail = format!("its length changed from {} to {}", pack.len, now.size());
                return Err(Error::damaged(ObjectName::Pack(id), detail));
            }
        }
        let (file, len) = super::open_object(path, &ObjectName::Pack(id))?;
        let pack = Arc::new(PackFile { file, len, map: OnceLock::new() });
        let mut packs = self.lock();
        packs.truncate(OPEN_PACKS_MAX - 1);
        packs.push_front((id, pack.clone()));
        Ok(pack)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<(PackId, Arc<PackFile>)>> {
        self.packs.lock().expect("no panic while the list is locked")
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }
}

impl PackFile {
    /// A populated window; None where the file cannot be mapped or a page cannot be read.
    fn window(self: &Arc<Self>, range: Range<usize>) -> Option<ObjectBytes> {
        let map = self.map.get_or_init(|| {
            // SAFETY: packs are written once, before they get their name, and never changed; see the module's
            // documentation for what a foreign truncation does.
            unsafe { Mmap::map(&self.file) }.ok()
        });
        let map = map.as_ref().filter(|map| range.end <= map.len())?;
        map.advise_range(Advice::PopulateRead, range.start, range.len()).ok()?;
        let len = range.len();
        let window = Window { pack: self.clone(), range };
        ObjectBytes::window(Arc::new(window), 0..len)
    }
}

impl AsRef<[u8]> for Window {
    fn as_ref(&self) -> &[u8] {
        let map = self.pack.map.get().and_then(Option::as_ref);
        map.and_then(|map| map.get(self.range.clone())).expect("checked when the window was made")
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        if let Some(Some(map)) = self.pack.map.get() {
            // SAFETY: the map is shared, read-only and backed by a file, so giving pages back loses nothing: who still
            // reads them gets the same bytes from the page cache.
            let _ = unsafe {
                map.unchecked_advise_range(
                    UncheckedAdvice::DontNeed,
                    self.range.start,
                    self.range.len(),
                )
            };
        }
    }
}
